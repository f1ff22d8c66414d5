"""Eight nets of local operators, and where their cells lie, seen from the pixels that they answer to."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from kornia_lightning_probe.model.recorder import ActivationRecorder

Images = tuple[int, int]


class Local(NamedTuple):
    """A net, the size of its images, and the layers that are looked at."""

    net: Callable[[], nn.Module]
    size: Images
    layers: tuple[str, ...]


class Fire(nn.Module):
    """Squeezenet's: 1 x 1 and 3 x 3 branches side by side."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(width, 2, 1)
        self.small, self.large = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze(x).relu()
        return torch.cat([self.small(x), self.large(x)], 1).relu()


class Residual(nn.Module):
    """ResNet's basic block: two 3 x 3 convolutions beside a strided 1 x 1."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(before, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.beside = nn.Sequential(nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        return (self.main(x) + self.beside(x)).relu()


class SamePadded(nn.Module):
    """TensorFlow's padding, as tf_efficientnet has it: more of it to the right and below."""

    def __init__(self, before: int, width: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, width, kernel, stride)
        self.reach, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        pads: list[int] = []
        for side in (x.shape[-1], x.shape[-2]):
            missing = max((-(-side // self.stride) - 1) * self.stride + self.reach - side, 0)
            pads += [missing // 2, missing - missing // 2]
        return nn.functional.gelu(self.conv(nn.functional.pad(x, pads)))


class Patches(nn.Module):
    """Patches as tokens behind a class token, each worked on alone; as MobileViT has it, not in the order of a map."""

    def __init__(self, *, in_order: bool) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 4, 4, 4)
        self.token = nn.Parameter(torch.zeros(1, 1, 4))
        self.tokens, self.mlp = nn.Identity(), nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))
        self.in_order = in_order

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x)
        if not self.in_order:
            # Those at one place of their pair of rows and columns together.
            x = x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).permute(0, 1, 3, 5, 2, 4)
        tokens = x.flatten(2).transpose(1, 2)
        tokens = self.tokens(torch.cat([self.token.expand(len(x), -1, -1), tokens], 1))
        return self.mlp(tokens)[:, 1:].mean(1)


def _valid() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, (4, 3)), nn.ReLU(), nn.AvgPool2d(3, 2)
    )


def _dilated() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, dilation=3, padding=3),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, 2, dilation=2),
        nn.Conv2d(4, 4, 3, 2, 1),
    )


def _vgg() -> nn.Module:
    widths = ((3, 4), (4, 4), (4, 4))
    stages = [
        nn.Sequential(nn.Conv2d(before, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)) for before, width in widths
    ]
    return nn.Sequential(*stages)


def _max_pooled() -> nn.Module:
    """Strided in three ways: by pools that tile, by pools that overlap, and by a rounded-up last one."""
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2, 1)),
        nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True)),
    )


def _resnet() -> nn.Module:
    stem = nn.Sequential(nn.Conv2d(3, 4, 7, 2, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    return nn.Sequential(stem, Residual(4, 4, 1), Residual(4, 6, 2))


def _squeezenet() -> nn.Module:
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU()),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        Fire(4),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        Fire(4),
    )


def _efficientnet() -> nn.Module:
    return nn.Sequential(SamePadded(3, 4, 3, 2), SamePadded(4, 4, 5, 2), SamePadded(4, 4, 3, 2), SamePadded(4, 4, 5, 1))


def _tokens() -> nn.Module:
    return Patches(in_order=False)


EIGHT = {
    "valid": Local(_valid, (45, 38), ("0", "2", "3", "5")),
    "dilated": Local(_dilated, (51, 46), ("0", "2", "3")),
    "vgg": Local(_vgg, (72, 64), ("0", "1", "2")),
    "max-pool": Local(_max_pooled, (61, 64), ("0", "1", "2")),
    "resnet": Local(_resnet, (112, 97), ("0", "1", "2")),
    "squeezenet": Local(_squeezenet, (95, 98), ("0", "1", "2", "3", "4")),
    "efficientnet": Local(_efficientnet, (96, 91), ("0", "1", "2", "3")),
    "tokens": Local(_tokens, (32, 48), ("patch", "tokens", "mlp")),
}


class Line(NamedTuple):
    """Cells along an axis of the image: how many have all of their pixels in it, and where these lie."""

    cells: int
    stride: float
    offset: float


def true_lines(local: Local, layer: str, size: tuple[int, int]) -> tuple[Line, Line]:
    """Where the cells of a layer lie along the rows and the columns of the image: exact, whatever the padding.

    Args:
        local: the net.
        layer: its layer.
        size: how many cells there are along each axis, row by row but for those of tokens.
    """
    net = _positive(local.net())
    down, across = (_middles(net, layer, local.size, axis) for axis in (0, 1))
    if down.ndim == 2:
        return _line(down[:, size[1] // 2]), _line(across[size[0] // 2])
    # Tokens may come in any order: those of one row share a place down, and so do those of a column.
    return _line(_apart(down)), _line(_apart(across))


def _positive(net: nn.Module) -> nn.Module:
    """Weights 1 and biases 0, in float64: a cell answers to every pixel that it can see."""
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(False).fill_(0.0 if name.endswith("bias") else 1.0)
    return net.double().eval()


def _middles(net: nn.Module, layer: str, size: Images, axis: int) -> Tensor:
    """For each cell the middle of the rows (0) or columns (1) that it sees; NaN where some are padding."""
    side = size[axis]
    lit = torch.zeros(side, 3, *size, dtype=torch.float64)
    for place in range(side):
        lit[place].select(1 + axis, place).fill_(1.0)
    with torch.no_grad(), ActivationRecorder({layer: net.get_submodule(layer)}) as recorder:
        net(lit)
    seen = recorder.activations[layer] > 0
    # Channels come last in tokens, and the class token sees nothing.
    seen = seen[:, 1:].any(2) if seen.ndim == 3 else seen.any(1)
    places = torch.arange(side, dtype=torch.float64).view(-1, *[1] * (seen.ndim - 1))
    last = torch.where(seen, places, -1).amax(0)
    first = torch.where(seen, places, side).amin(0)
    # Those at the border see fewer, since the rest of them is padding.
    width = (last - first).clamp(min=-1)
    return ((first + last) / 2).masked_fill(width < width.max(), torch.nan)


def _apart(places: Tensor) -> Tensor:
    return places[~places.isnan()].unique()


def _line(places: Tensor) -> Line:
    known = (~places.isnan()).nonzero().flatten()
    steps = places[known].diff() / known.diff()
    if len(known) < 2 or float((steps - steps[0]).abs().max()) > 0:
        raise ValueError(f"these cells lie on no line: {places.tolist()}")
    stride = float(steps[0])
    return Line(len(known), stride, float(places[known[0]]) - stride * int(known[0]))
