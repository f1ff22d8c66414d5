"""Where places are lost, and how they survive writes through views."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the name that torch's own documentation uses
from support.traced import lines, seen

from kornia_lightning_probe.model.tracing import Rows

IMAGES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def written_by_channel(net, x):
    out = torch.zeros(2, 6, 8, 8)
    out[:, 0::2] = x
    out[:, 1::2] = -x
    return net.seen(out)


def written_into_the_middle(net, x):
    out = torch.zeros(2, 3, 12, 12)
    out[:, :, 2:10, 2:10] = x
    return net.seen(out)


def written_into_another_place(net, x):
    x = x.clone()
    x[..., :-1] = x[..., 1:].clone()
    return net.seen(x)


def images_one_by_one(net, x):
    """As detectors put images of different sizes into one batch."""
    batch = torch.zeros(2, 3, 12, 10)
    for image, place in zip(x, batch, strict=True):
        place[:, :8, :8].copy_(image)
    return net.seen(batch)


def halves_written(net, x):
    out = torch.empty(2, 3, 8, 8)
    out[..., :4, :] = x[..., :4, :]
    out[..., 4:, :] = x[..., 4:, :]
    return net.seen(out)


def every_second_cell(net, x):
    out = torch.zeros(2, 3, 16, 16)
    out[..., ::2, ::2] = x
    return net.seen(out)


def rectified_through_a_view(net, x):
    x = x.clone()
    x.view(2, -1).relu_()
    return net.seen(x)


def emptied_in_part(net, x):
    x = x.clone()
    x[:, :, 0] = 0
    return net.seen(x)


def filled(net, x):
    x = x.clone()
    x.fill_(1.0)
    return net.seen(x)


def chunked(net, x):
    first, second = torch.cat([x, x], 1).chunk(2, dim=1)
    return net.seen(torch.cat([first.relu(), second], 1))


def halves_put_together(net, x):
    top, bottom = x.split([3, 5], dim=2)
    return net.seen(torch.cat([top, bottom], 2))


WRITES = {
    "channels": (written_by_channel, [1, 0]),
    # The first of twelve rows is two rows above the image.
    "middle": (written_into_the_middle, [1, -2]),
    "elsewhere": (written_into_another_place, "written into a part of it: it held other cells"),
    "one by one": (images_one_by_one, [1, 0]),
    "halves": (halves_written, [1, 0]),
    "every second": (every_second_cell, "written into a part of it: every few of its cells"),
    "view": (rectified_through_a_view, [1, 0]),
    "constant": (emptied_in_part, [1, 0]),
    "chunks": (chunked, [1, 0]),
    "halves together": (halves_put_together, [1, 0]),
}


@pytest.mark.parametrize("name", WRITES)
def test_writes_through_views_reach_the_tensor_they_look_at(name):
    function, expected = WRITES[name]
    found = seen(function, IMAGES)
    assert lines(found.grid) == expected
    assert isinstance(found.rows, Rows)
    assert found.depends is True


def test_a_tensor_that_is_filled_depends_on_nothing():
    assert seen(filled, IMAGES).depends is False


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda net, x: net.seen(x.sort(2).values), "sort: cells chosen by their values"),
        (lambda net, x: net.seen(torch.fft.fft(x).real), "_fft_r2c: no rule for this operator"),
        (lambda net, x: net.seen(x.roll(2, 3)), "its cells are rolled"),
        (lambda net, x: net.seen(x.mean((2, 3))), "no cells: a vector"),
        (lambda net, x: net.seen(x.mean(2)), "its cells lie along one coordinate only"),
        (lambda net, x: net.seen(x + x.transpose(2, 3)), "add: operands of other layouts"),
        (lambda net, x: net.seen(x.reshape(2, 3, 4, 16)[..., :12]), "slice: a part of folded cells"),
    ],
)
def test_where_a_grid_is_lost_the_operator_is_named(function, reason):
    assert seen(function, IMAGES).grid == reason


def test_circular_padding_is_known_where_its_border_is_one_cell_wide():
    # The first of ten rows is one row above the image; the border itself is the only thing that lies elsewhere.
    assert lines(seen(lambda net, x: net.seen(F.pad(x, (1, 1, 1, 1), mode="circular")), IMAGES).grid) == [1, -1]
    wide = seen(lambda net, x: net.seen(F.pad(x, (2, 2, 2, 2), mode="circular")), IMAGES).grid
    assert wide.startswith("branches disagree by up to")


def test_a_loop_over_pixels_is_given_up_after_some_hundreds_of_writes():
    def pixel_by_pixel(net, x):
        out = torch.zeros(2, 3, 20, 20)
        for place in range(400):
            out[:, :, place // 20, place % 20] = x[:, :, 0, 0]
        return net.seen(out)

    found = seen(pixel_by_pixel, IMAGES)
    assert found.depends is True
    assert found.rows == found.grid == "written into more than 256 times"
