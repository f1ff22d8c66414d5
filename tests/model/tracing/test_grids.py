"""Where cells are said to lie, against where they do: the pixels that they answer to, seen by lighting up one row."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the name that torch's own documentation uses
from torch import Tensor, nn

from kornia_lightning_probe.model.recorder import ActivationRecorder
from kornia_lightning_probe.model.tracing import Grid, Trace, trace


def ones(net: nn.Module) -> nn.Module:
    """A net of weights 1 and biases 0: what a cell answers to a pixel is how often it sees it."""
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(False).fill_(0.0 if name.endswith("bias") else 1.0)
    return net.double().eval()


def traced(net: nn.Module, images: Tensor) -> Trace:
    with torch.no_grad(), trace(dict(net.named_children()), [images]) as tracing:
        output = net(images)
    return tracing.result(output)


def centres(net: nn.Module, name: str, grid: Grid, size: tuple[int, int], axis: int) -> Tensor:
    """For each cell along an axis of the image the mean pixel it answers to; NaN where it sees the border."""
    side = size[axis]
    lit = torch.zeros(side, 3, *size, dtype=torch.float64)
    for place in range(side):
        lit[place].select(1 + axis, place).fill_(1.0)
    with torch.no_grad(), ActivationRecorder({name: getattr(net, name)}) as recorder:
        net(torch.cat([lit, torch.zeros_like(lit[:1])]))
    (maps,) = grid.maps(recorder.activations[name])
    answers = (maps[:-1] - maps[-1:]).sum(1)
    # The middle of the other axis sees no border there.
    answers = answers.select(2 - axis, answers.shape[2 - axis] // 2)
    total = answers.sum(0)
    at_border = (answers[0] > 0) | (answers[-1] > 0) | (total < total.max() * (1 - 1e-9))
    centre = (answers * torch.arange(side).unsqueeze(1)).sum(0) / total
    return centre.masked_fill(at_border, torch.nan)


class Chain(nn.Module):
    """Layers one after the other, as children a, b, c, ..."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        for name, layer in zip("abcdefgh", layers, strict=False):
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.children():
            x = layer(x)
        return x


class Lambda(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Vit(nn.Module):
    """Patches as tokens with a class token in front."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 4, 4, 4, bias=False)
        self.token = nn.Parameter(torch.zeros(1, 1, 4))
        self.with_class = nn.Identity()
        self.mlp = nn.Linear(4, 4)
        self.norm = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = self.with_class(torch.cat([self.token.expand(len(x), -1, -1), tokens], 1))
        return self.norm(tokens + self.mlp(tokens))[:, 0]


class Windows(nn.Module):
    """Swin's windows, rolled and rolled back, and its merging of patches."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 2, 2, bias=False)
        self.within = nn.Linear(4, 4, bias=False)
        self.rolled = nn.Linear(4, 4, bias=False)
        self.back = nn.Linear(4, 4, bias=False)
        self.merge = nn.Linear(16, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).permute(0, 2, 3, 1)
        x = self.windowed(x, self.within)
        x = self.windowed(x.roll((-2, -2), (1, 2)), self.rolled).roll((2, 2), (1, 2))
        x = self.back(x)
        corners = [x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]]
        return self.merge(torch.cat(corners, -1))

    def windowed(self, x: Tensor, layer: nn.Module) -> Tensor:
        batch, height, width, channels = x.shape
        x = x.view(batch, height // 4, 4, width // 4, 4, channels)
        x = layer(x.permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, channels))
        x = x.view(batch, height // 4, width // 4, 4, 4, channels)
        return x.permute(0, 1, 3, 2, 4, 5).reshape(batch, height, width, channels)


class Pyramid(nn.Module):
    """Branches of stride 2 and 4 added up: the finer grid begins at pixel 0, the coarser one, enlarged, elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Conv2d(3, 2, 3, 2, 1, bias=False)
        self.coarse = nn.Conv2d(2, 2, 3, 2, 1, bias=False)
        self.sum = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        fine = self.fine(x)
        coarse = self.coarse(fine)
        return self.sum(fine + F.interpolate(coarse, scale_factor=2.0, mode="bilinear"))


def focus(x: Tensor) -> Tensor:
    return torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]], 1)


def mobile_unfold(x: Tensor) -> Tensor:
    """MobileViT's order of tokens: those at one place in their patch together."""
    batch, channels, height, width = x.shape
    x = x.reshape(batch * channels * height // 2, 2, width // 2, 2).transpose(1, 2)
    x = x.reshape(batch, channels, height * width // 4, 4).transpose(1, 3)
    return x.reshape(batch * 4, height * width // 4, channels)


def conv(*settings: int, **named: object) -> nn.Conv2d:
    return nn.Conv2d(settings[0], settings[1], *settings[2:], bias=False, **named)  # type: ignore[arg-type]  # of tests


# Name, net, size of the images, and for each layer (stride, offset) along both axes, from convolution arithmetic.
NETS = {
    "valid": (Chain(conv(3, 2, 5), nn.ReLU(), conv(2, 2, (4, 3))), (21, 18), {"a": (1, 2, 1, 2), "c": (1, 3.5, 1, 3)}),
    "dilated": (
        Chain(conv(3, 2, 3, dilation=3, padding=3), conv(2, 2, 3, 2, dilation=2)),
        (31, 34),
        {"a": (1, 0, 1, 0), "b": (2, 2, 2, 2)},
    ),
    "strided": (
        Chain(conv(3, 2, 7, 2, 3), nn.MaxPool2d(3, 2, 1), conv(2, 2, 3, 2, 1)),
        (64, 53),
        {"a": (2, 0, 2, 0), "b": (4, 0, 4, 0), "c": (8, 0, 8, 0)},
    ),
    "ceil": (
        Chain(conv(3, 2, 3), nn.MaxPool2d(3, 2, ceil_mode=True), nn.AvgPool2d(2, 2, ceil_mode=True)),
        (32, 35),
        {"b": (2, 2, 2, 2), "c": (4, 3, 4, 3)},
    ),
    "asymmetric": (
        Chain(nn.ZeroPad2d((2, 1, 0, 3)), conv(3, 2, 4, 3), conv(2, 2, 2)),
        (40, 41),
        {"a": (1, 0, 1, -2), "b": (3, 1.5, 3, -0.5), "c": (3, 3, 3, 1)},
    ),
    "to depth": (
        Chain(Lambda(focus), conv(12, 4, 1), nn.PixelUnshuffle(2), conv(16, 4, 1), nn.PixelShuffle(2)),
        (16, 24),
        {"a": (2, 0.5, 2, 0.5), "b": (2, 0.5, 2, 0.5), "d": (4, 1.5, 4, 1.5)},
    ),
    "vit": (Vit(), (16, 24), {"patches": (4, 1.5, 4, 1.5), "with_class": (4, 1.5, 4, 1.5), "norm": (4, 1.5, 4, 1.5)}),
    "windows": (
        Windows(),
        (32, 48),
        {"stem": (2, 0.5, 2, 0.5), "within": (2, 0.5, 2, 0.5), "back": (2, 0.5, 2, 0.5), "merge": (4, 1.5, 4, 1.5)},
    ),
    "pooled to size": (
        Chain(conv(3, 2, 3, padding=1), nn.AdaptiveAvgPool2d((8, 6)), nn.AdaptiveMaxPool2d((4, 3))),
        (32, 30),
        {"b": (4, 1.5, 5, 2), "c": (8, 3.5, 10, 4.5)},
    ),
    "enlarged": (
        Chain(conv(3, 2, 2, 2), nn.Upsample(scale_factor=2, mode="bilinear"), nn.Upsample((47, 33), mode="bilinear")),
        (32, 24),
        {"a": (2, 0.5, 2, 0.5), "b": (1, 0, 1, 0), "c": (32 / 47, (32 / 47 - 1) / 2, 24 / 33, (24 / 33 - 1) / 2)},
    ),
    "corners": (
        Chain(conv(3, 2, 2, 2), nn.Upsample((31, 23), mode="bilinear", align_corners=True)),
        (32, 24),
        {"b": (1, 0.5, 1, 0.5)},
    ),
    "tokens out of order": (
        Chain(conv(3, 4, 2, 2), Lambda(mobile_unfold), nn.Linear(4, 4, bias=False)),
        (16, 24),
        {"b": (2, 0.5, 2, 0.5), "c": (2, 0.5, 2, 0.5)},
    ),
}


@pytest.mark.parametrize("name", NETS)
def test_cells_lie_in_the_middle_of_the_pixels_that_they_answer_to(name):
    net, size, expected = NETS[name]
    ones(net)
    found = traced(net, torch.rand(2, 3, *size, dtype=torch.float64))
    for layer, (*lines,) in expected.items():
        grid = found.activations[layer].grid
        assert isinstance(grid, Grid), f"{layer}: {grid}"
        for axis in (0, 1):
            stride, offset = lines[2 * axis : 2 * axis + 2]
            assert float(grid.stride[axis]) == pytest.approx(stride, rel=1e-12)
            assert float(grid.offset[axis]) == pytest.approx(offset, rel=1e-12)
            assert grid.spread[axis] == 0
            truth = centres(net, layer, grid, size, axis)
            said = offset + stride * torch.arange(grid.size[axis], dtype=torch.float64)
            seen = ~truth.isnan()
            assert seen.sum() >= grid.size[axis] // 3 or seen.sum() >= 2
            torch.testing.assert_close(truth[seen], said[seen], rtol=0, atol=1e-9)


INTERVALS = {
    # 10 pixels to 4 cells: shares of 2.5 pixels, of which cells take whole ones.
    "uneven shares": (Chain(conv(3, 2, 1), nn.AdaptiveAvgPool2d(4)), (10, 10), "b", 0.5),
    # Cell i of twice as many is cell i // 2: off by a quarter of the coarse cells' distance of 2 to either side.
    "nearest": (Chain(conv(3, 2, 2, 2), nn.Upsample(scale_factor=2)), (16, 20), "b", 0.5),
    # Cell i of 4 / 3 as many is cell floor(3 i / 4): 0 to 3 / 4 of a coarse cell to the left of where it should lie.
    "nearest to size": (Chain(conv(3, 2, 2, 2), nn.Upsample((16, 16))), (24, 24), "b", 0.75),
    "nearest exact": (Chain(conv(3, 2, 2, 2), nn.Upsample(scale_factor=2, mode="nearest-exact")), (16, 20), "b", 0.5),
}


@pytest.mark.parametrize("name", INTERVALS)
def test_cells_without_a_single_offset_lie_within_the_interval(name):
    net, size, layer, spread = INTERVALS[name]
    ones(net)
    grid = traced(net, torch.rand(2, 3, *size, dtype=torch.float64)).activations[layer].grid
    if isinstance(grid, str):
        assert grid == f"branches disagree by up to {2 * spread:.4g} px"
        return
    assert [float(width) for width in grid.spread] == pytest.approx([spread] * 2)
    for axis in (0, 1):
        truth = centres(net, layer, grid, size, axis)
        said = float(grid.offset[axis]) + float(grid.stride[axis]) * torch.arange(grid.size[axis])
        gap = (truth - said).abs()
        assert gap[~gap.isnan()].max() <= spread + 1e-9


def test_branches_that_disagree_have_an_interval_or_no_grid():
    net = ones(Pyramid())
    found = traced(net, torch.rand(2, 3, 32, 32, dtype=torch.float64)).activations
    # Fine cells lie at 2 i, coarse ones at 4 i, enlarged ones at 2 i - 1: in the middle 2 i - 1/2, off by 1/2.
    assert found["coarse"].grid.offset == (0, 0)
    grid = found["sum"].grid
    assert [float(value) for value in (*grid.offset, *grid.spread)] == [-0.5, -0.5, 0.5, 0.5]

    class Far(Pyramid):
        def forward(self, x: Tensor) -> Tensor:
            fine = self.fine(x)
            return self.sum(fine[..., 2:, 2:] + fine[..., :-2, :-2])

    lost = traced(ones(Far()), torch.rand(2, 3, 32, 32, dtype=torch.float64)).activations["sum"].grid
    # Cells two further on lie 4 pixels further on.
    assert lost == "branches disagree by up to 4 px"


def test_a_transposed_convolution_lies_in_the_middle_of_its_phases():
    net = ones(Chain(conv(3, 2, 2, 2), nn.ConvTranspose2d(2, 2, 4, 2, 1, bias=False)))
    grid = traced(net, torch.rand(2, 3, 24, 24, dtype=torch.float64)).activations["b"].grid
    truth = centres(net, "b", grid, (24, 24), 0)
    said = float(grid.offset[0]) + float(grid.stride[0]) * torch.arange(grid.size[0])
    gap = (truth - said)[4:-4]
    # Even and odd cells see two coarse ones each, whose middle lies to the left and to the right of the cell.
    assert gap.mean().item() == pytest.approx(0, abs=1e-12)
    assert (grid.stride[0], grid.offset[0]) == (1, 0)


def test_the_matrix_of_a_grid_takes_cells_to_pixels():
    net = ones(Chain(conv(3, 2, (4, 3), (2, 1))))
    grid = traced(net, torch.rand(2, 3, 12, 12, dtype=torch.float64)).activations["a"].grid
    # Rows begin at pixel 1.5 and are 2 apart, columns at 1 and 1 apart; points are (x, y).
    cell = torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64)
    assert (grid.matrix() @ cell).tolist() == [4.0, 5.5, 1.0]


def test_a_volume_has_three_coordinates():
    net = nn.Sequential(
        nn.Conv3d(1, 2, 3, (1, 2, 2), 1), nn.AvgPool3d(2), nn.Upsample(scale_factor=2, mode="trilinear")
    )
    images = torch.rand(2, 1, 8, 16, 24)
    with torch.no_grad(), trace(dict(net.named_children()), [images]) as tracing:
        output = net(images)
    grid = tracing.result(output).activations["1"].grid
    # Strides 1, 2, 2 from pixel 0; pairs of cells have their middle half a cell further on.
    assert [float(value) for value in (*grid.stride, *grid.offset)] == [2, 4, 4, 0.5, 1, 1]
    assert grid.axes == (2, 3, 4)
    (maps,) = grid.maps(torch.zeros(2, 2, 4, 4, 6))
    assert maps.shape == (2, 2, 4, 4, 6)
