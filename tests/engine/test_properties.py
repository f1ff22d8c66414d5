"""What must hold for any net, bank, number of images, batch size and number of processes."""

import kornia.augmentation as K  # noqa: N812 - the name that Kornia's own documentation uses
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.probing import images_of, run, run_on_all, same
from torch import nn

from kornia_lightning_probe import AugmentationBank
from kornia_lightning_probe.randomness import isolated_rng

# A probe takes some tens of milliseconds; what is found once is found again.
few = settings(
    max_examples=15, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
# Of sums in another order, and of forward passes of other batch sizes.
ROUNDING = {"rtol": 1e-4, "atol": 1e-5}


class Tokens(nn.Module):
    """A map's cells as tokens, behind a class token where asked."""

    def __init__(self, *, with_class):
        super().__init__()
        self.with_class = with_class

    def forward(self, x):
        tokens = x.flatten(2).transpose(1, 2)
        return torch.cat([tokens.mean(1, keepdim=True), tokens], 1) if self.with_class else tokens


class ChannelsLast(nn.Module):
    def forward(self, x):
        return x.permute(0, 2, 3, 1)


class Volume(nn.Module):
    def forward(self, x):
        return x.unsqueeze(2)


class Mean(nn.Module):
    """Features of anything that has its images in front."""

    def forward(self, x):
        return x.flatten(1)


ENDS = {
    "map": lambda: nn.Identity(),
    "tokens": lambda: Tokens(with_class=False),
    "class": lambda: Tokens(with_class=True),
    "last": ChannelsLast,
    "volume": Volume,
    "vector": Mean,
}


@st.composite
def nets(draw):
    """One or two convolutions, what is made of their map, and a head; and the layers to be watched."""
    width = draw(st.integers(1, 5))
    stride = draw(st.sampled_from([1, 2]))
    depth = draw(st.integers(1, 2))
    inplace = draw(st.booleans())
    with isolated_rng(draw(st.integers(0, 9))):
        layers = [nn.Conv2d(3, width, 3, stride, 1), nn.ReLU(inplace=inplace)]
        if depth == 2:
            layers += [nn.Conv2d(width, width, 3, 1, 1), nn.BatchNorm2d(width)]
        end = ENDS[draw(st.sampled_from(sorted(ENDS)))]()
        return nn.Sequential(*layers, end, nn.Flatten(), nn.LazyLinear(3)).eval()


LADDERS = {
    "halve": lambda: lambda x: x / 2,
    "mirror": lambda: lambda x: x.flip(3),
    "hflip": lambda: K.RandomHorizontalFlip(p=0.5),
    "rotation": lambda: {angle: K.RandomRotation((-angle, angle), p=1.0) for angle in (5.0, 20.0)},
    "noise": lambda: K.RandomGaussianNoise(std=0.05, p=1.0),
    "blur": lambda: [K.RandomGaussianBlur((3, 3), (sigma, sigma), p=1.0) for sigma in (0.5, 1.0)],
}


@st.composite
def banks(draw):
    """One to three ladders; a mirror of one's own is said to move pixels, or not."""
    names = draw(st.lists(st.sampled_from(sorted(LADDERS)), min_size=1, max_size=3, unique=True))
    moves = ("mirror",) if "mirror" in names and draw(st.booleans()) else ()
    return AugmentationBank({name: LADDERS[name]() for name in names}, seed=draw(st.integers(0, 5)), moves_pixels=moves)


def watched(net):
    """All modules but the in-place ones, whose input a hook behind them sees."""
    net(images_of(1, size=8))
    return [name for name, module in net.named_children() if not isinstance(module, nn.Flatten)]


@few
@given(net=nets(), bank=banks(), count=st.integers(2, 70), batch_size=st.integers(1, 200))
def test_the_batch_size_changes_no_number(net, bank, count, batch_size):
    images, options = images_of(count, size=8), {"layers": watched(net), "metrics": None}
    expected = run(net, images, bank, **options)
    same(run(net, images, bank, batch_size=batch_size, **options), expected, **ROUNDING)


@few
@given(net=nets(), bank=banks(), count=st.integers(2, 130), size=st.integers(2, 6))
def test_the_number_of_processes_changes_no_bit(net, bank, count, size):
    images, options = images_of(count, size=8), {"layers": watched(net), "metrics": None}
    expected = run(net, images, bank, **options)
    for result in run_on_all(size, net, images, bank, **options):
        same(result, expected)


@few
@given(net=nets(), bank=banks(), count=st.integers(2, 40))
def test_sensitivity_is_the_flattened_one_and_of_cells_that_move_along_that_of_their_mean(net, bank, count):
    images, layers = images_of(count, size=8), watched(net)
    result = run(net, images, bank, layers=layers, metrics=["sensitivity", "sensitivity_flat", "sensitivity_pooled"])
    shown, flat, pooled = (result.table(name) for name in ("sensitivity", "sensitivity_flat", "sensitivity_pooled"))
    assert shown.layers == flat.layers == ("input", *result.layers)
    moves = torch.tensor([view.moves_pixels for view in bank])
    for column, layer in enumerate(shown.layers):
        has_cells = layer != "input" and len(result.metadata["shapes"][layer]) > 1
        still = ~moves if has_cells else torch.ones_like(moves)
        assert torch.equal(shown.value[still, column], flat.value[still, column])
        if has_cells and layer in pooled.layers:
            other = pooled.value[moves, pooled.layers.index(layer)]
            torch.testing.assert_close(shown.value[moves, column], other, rtol=1e-5, atol=1e-6, equal_nan=True)
