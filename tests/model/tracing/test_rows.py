"""Where the images are in activations: sequence-first tokens, windows, two images in one batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from kornia_lightning_probe.model.tracing import Rows, Trace, trace

IMAGES = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Watched(nn.Module):
    """Runs a function in which `self.seen` marks what is looked at."""

    def __init__(self, function, **layers: nn.Module) -> None:
        super().__init__()
        self.seen = nn.Identity()
        self.function = function
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, *images: Tensor) -> Tensor:
        return self.function(self, *images)


def traced(net: nn.Module, *images: Tensor) -> Trace:
    with torch.no_grad(), trace(dict(net.named_children()), images, model=net.eval()) as tracing:
        output = net(*images)
    return tracing.result(output)


def rows(function, *images: Tensor, name: str = "seen", **layers: nn.Module) -> Rows | str:
    return traced(Watched(function, **layers), *(images or (IMAGES,))).activations[name].rows


def test_images_come_first_in_a_plain_batch():
    found = rows(lambda net, x: net.seen(x.flatten(1)))
    assert (found.axis, found.images, found.entries) == (0, 4, (0,))
    activation = torch.rand(4, 192)
    assert found.unfold(activation)[0] is activation


def test_sequence_first_tokens_are_seen_and_turned():
    attention = nn.MultiheadAttention(3, 1)

    def tokens_first(net, x):
        tokens = x.flatten(2).permute(2, 0, 1)
        return net.seen(net.attention(tokens, tokens, tokens, need_weights=False)[0])

    found = rows(tokens_first, attention=attention)
    assert found.axis == 1
    tokens = torch.rand(64, 6, 3)
    (turned,) = found.unfold(tokens)
    # Any number of images, not only those that were traced.
    assert torch.equal(turned, tokens.transpose(0, 1))


def windows(x: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    x = x.view(batch, channels, height // 4, 4, width // 4, 4)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(-1, 16, channels)


def test_windows_are_unfolded():
    found = rows(lambda net, x: net.seen(windows(x)))
    assert (found.axis, found.images) == (None, 4)
    (unfolded,) = found.unfold(windows(IMAGES))
    assert torch.equal(unfolded, windows(IMAGES).view(4, 4, 16, 3))


def test_images_that_follow_one_another_within_each_window_are_unfolded():
    def windows_outermost(net, x):
        x = windows(x).view(4, 4, 16, 3).transpose(0, 1)
        return net.seen(x.reshape(16, 16, 3))

    found = rows(windows_outermost)
    # Row 4 w + i is window w of image i.
    (unfolded,) = found.unfold(torch.arange(24.0).view(24, 1, 1).expand(24, 16, 3))
    assert unfolded.shape == (6, 4, 16, 3)
    assert unfolded[:, :, 0, 0].tolist() == [[image + 6 * window for window in range(4)] for image in range(6)]


def test_two_images_in_one_batch_are_told_apart():
    found = rows(lambda net, left, right: net.seen(torch.cat([left, right])), IMAGES, IMAGES.flip(0))
    assert (found.axis, found.entries) == (None, (0, 1))
    left, right = found.unfold(torch.cat([IMAGES, -IMAGES]))
    assert torch.equal(left, IMAGES)
    assert torch.equal(right, -IMAGES)


def test_two_images_one_after_the_other_are_told_apart():
    def each(net, left, right):
        return net.seen(left) + net.seen(right)

    found = traced(Watched(each), IMAGES, IMAGES.flip(0)).activations
    assert (found["seen"].rows.entries, found["seen.call2"].rows.entries) == ((0,), (1,))


def test_two_images_taken_together_are_of_no_single_entry():
    found = rows(lambda net, left, right: net.seen(left - right), IMAGES, IMAGES.flip(0))
    assert (found.axis, found.entries) == (0, ())
    assert len(found.unfold(IMAGES)) == 1


def test_windows_of_two_images_in_one_batch_are_unfolded_and_told_apart():
    found = rows(lambda net, left, right: net.seen(windows(torch.cat([left, right]))), IMAGES, IMAGES.flip(0))
    left, right = found.unfold(windows(torch.cat([IMAGES, -IMAGES])))
    assert torch.equal(left, windows(IMAGES).view(4, 4, 16, 3))
    assert torch.equal(right, -left)


def test_maps_of_two_images_in_one_batch_are_told_apart():
    found = traced(Watched(lambda net, left, right: net.seen(torch.cat([left, right]))), IMAGES, IMAGES.flip(0))
    grid = found.activations["seen"].grid
    left, right = grid.maps(torch.cat([IMAGES, -IMAGES]))
    assert torch.equal(left, IMAGES)
    assert torch.equal(right, -IMAGES)


def test_images_that_are_computed_one_by_one_and_stacked_are_in_order():
    found = rows(lambda net, x: net.seen(torch.stack([image.mean((1, 2)) for image in x])))
    assert (found.axis, found.images) == (0, 4)


def test_mixed_rolled_and_missing_images_are_no_rows():
    assert rows(lambda net, x: net.seen(x.roll(1, 0))) == "images are mixed with one another"
    assert rows(lambda net, x: net.seen(x[:3] + x[1:])) == "no axis holds all images"
    assert rows(lambda net, x: net.seen(x[:2])) == "no axis holds all images"
    assert rows(lambda net, x: net.seen(x.mean(0))) == "no axis holds all images"
    assert rows(lambda net, x: net.seen(x[torch.tensor([2, 0, 1, 3])])) == "index: cells picked unevenly"


def test_a_mean_over_the_batch_mixes_no_order():
    found = rows(lambda net, x: net.seen(x - x.mean(0, keepdim=True)))
    assert (found.axis, found.images) == (0, 4)


def test_an_operator_without_a_rule_leaves_images_where_they_were():
    found = rows(lambda net, x: net.seen(torch.fft.fft2(x).real))
    assert found.axis == 0
    grid = traced(Watched(lambda net, x: net.seen(torch.fft.fft2(x).real)), IMAGES).activations["seen"].grid
    assert grid == "_fft_c2c: no rule for this operator"


def test_a_recurrent_layer_keeps_its_images():
    layer = nn.LSTM(3, 5, batch_first=True)
    found = rows(lambda net, x: net.seen(net.lstm(x.flatten(2).transpose(1, 2))[0]), lstm=layer)
    assert found.axis == 0


def test_a_picked_token_keeps_its_image():
    def last_token(net, x):
        tokens = x.flatten(2).transpose(1, 2)
        return net.seen(tokens[torch.arange(len(x)), torch.tensor([3, 1, 2, 0])])

    assert rows(last_token).axis == 0


def test_a_single_image_is_the_first_axis():
    found = rows(lambda net, x: net.seen(x), IMAGES[:1])
    assert (found.axis, found.images) == (0, 1)
    assert found.unfold(IMAGES)[0].shape == IMAGES.shape


def both_in_one(net, left, right):
    """Tokens of two images in one batch, those of the left image first, without an axis that is theirs alone."""
    tokens = torch.cat([left, right]).flatten(2).transpose(1, 2)
    return net.seen(tokens)


def sequence_first(net, x):
    return net.seen(x.flatten(2).permute(2, 0, 1))


def windowed(net, x):
    """Windows of 2 x 2 cells as rows of the batch."""
    x = x.permute(0, 2, 3, 1).unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).transpose(2, 3)
    return net.seen(x.flatten(3, 4).flatten(0, 2).flatten(1, 2).unflatten(1, (4, -1)))


def with_class_token(net, x):
    tokens = x.flatten(2).transpose(1, 2)
    return net.seen(torch.cat([torch.zeros(len(x), 1, tokens.shape[2]), tokens], 1))


@pytest.mark.parametrize(
    ("function", "images"),
    [(both_in_one, 2), (sequence_first, 1), (windowed, 1), (with_class_token, 1)],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_cells_come_into_order_whether_the_images_were_before_or_not(function, images):
    # All of these only move cells about, so that the map is the image again; of more images than were traced too.
    few = [torch.rand(2, 3, 4, 6) for _ in range(images)]
    net = Watched(function)
    found = traced(net, *few).activations["seen"]
    many = [torch.rand(5, 3, 4, 6) for _ in range(images)]
    activation = net(*many)
    assert [torch.equal(*pair) for pair in zip(found.grid.maps(activation), many, strict=True)] == [True] * images
    for part, image in zip(found.rows.unfold(activation), many, strict=True):
        assert torch.equal(found.grid.map_of_rows(part), image)
