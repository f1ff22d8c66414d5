"""Where a probe says that the cells of layers lie, against where they do, and what equivariance makes of that."""

import kornia.augmentation as K  # noqa: N812
import pytest
import torch
from support.local_nets import EIGHT, Patches, Residual, true_lines
from support.probing import images_of
from torch import nn

from kornia_lightning_probe import AugmentationBank, presets, probe_model
from kornia_lightning_probe.result import ProbeResult

FLIP = {"hflip": presets.hflip()}
MAPS = ("equivariance_error", "interpolation_floor")


def seeded(net, seed):
    torch.manual_seed(seed)
    return net()


def probed(net, size, views=FLIP, **options):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(8, 3, *size, generator=generator)
    options = {"layers": "auto", "metrics": list(MAPS), **options}
    return probe_model(net, images, AugmentationBank(views), **options)


# The table.


def rows_of(name):
    """For each layer what the probe says and what is true: (stride, offset) down and across."""
    local = EIGHT[name]
    grids = probed(local.net(), local.size, layers=list(local.layers), metrics="sensitivity").metadata["grids"]
    for layer in local.layers:
        grid = grids[layer]
        said = list(zip(grid["stride"], grid["offset"], strict=True))
        true = true_lines(local, layer, tuple(grid["size"]))
        yield layer, grid, said, true


@pytest.mark.parametrize("name", EIGHT)
def test_cells_lie_in_the_middle_of_the_pixels_that_they_see(name):
    # `pytest -s -k middle_of_the_pixels` prints the table.
    print(f"\n{name}, images of {EIGHT[name].size[0]} x {EIGHT[name].size[1]}")  # noqa: T201
    for layer, grid, said, true in rows_of(name):
        told = "  ".join(f"{stride:g}, {offset:g}" for stride, offset in said)
        truth = "  ".join(f"{line.stride:g}, {line.offset:g}" for line in true)
        print(f"  {layer:8} {grid['size']!s:10} traced {told:22} true {truth:22} of {true[0].cells} x {true[1].cells}")  # noqa: T201
        for line, (stride, offset), cells in zip(true, said, grid["size"], strict=True):
            assert (stride, offset) == (line.stride, line.offset)
            assert line.cells <= cells
        assert grid["spread"] == [0.0, 0.0]


# The floor under a flip.

TILING = {
    "vgg": (EIGHT["vgg"].net, (64, 48)),
    "patches": (lambda: nn.Sequential(nn.Conv2d(3, 6, 4, 4), nn.GELU(), nn.Conv2d(6, 6, 3, padding=1)), (32, 48)),
    "average": (lambda: nn.Sequential(nn.Conv2d(3, 6, 5, padding=2), nn.ReLU(), nn.AvgPool2d(3)), (36, 27)),
}


@pytest.mark.parametrize("name", TILING)
def test_under_a_flip_a_grid_that_tiles_the_image_has_no_floor_for_any_weights(name):
    # The mirror image of cell i is cell n - 1 - i: nothing is interpolated, not even rounded.
    net, size = TILING[name]
    for seed in range(6):
        result = probed(seeded(net, seed), size)
        floors = result.tensor("interpolation_floor")
        assert torch.equal(floors, torch.zeros_like(floors))


def floor_by_hand(maps, matrix, grid):
    """sqrt(mean d / (2 mean e)) of there and back, in float64, by weights of four neighbours written out here."""
    rows, columns = grid["size"]
    to_image = torch.tensor(
        [[grid["stride"][1], 0, grid["offset"][1]], [0, grid["stride"][0], grid["offset"][0]], [0, 0, 1]]
    ).double()
    there = torch.linalg.inv(to_image) @ matrix.double() @ to_image
    back = torch.linalg.inv(there)
    y, x = torch.meshgrid(torch.arange(rows).double(), torch.arange(columns).double(), indexing="ij")
    cells = torch.stack([x, y, torch.ones_like(x)]).flatten(1)

    def places(way):
        found = way @ cells
        return (found[:2] / found[2]).view(2, rows, columns)

    def is_inside(found):
        in_columns = (found[0] > -1e-3) & (found[0] < columns - 1 + 1e-3)
        return in_columns & (found[1] > -1e-3) & (found[1] < rows - 1 + 1e-3)

    def read(what, found):
        left, top = (found[0].clamp(0, columns - 1), found[1].clamp(0, rows - 1))
        x0, y0 = left.floor().clamp(max=columns - 2).long(), top.floor().clamp(max=rows - 2).long()
        right, down = left - x0, top - y0
        upper = what[..., y0, x0] * (1 - right) + what[..., y0, x0 + 1] * right
        lower = what[..., y0 + 1, x0] * (1 - right) + what[..., y0 + 1, x0 + 1] * right
        return upper * (1 - down) + lower * down

    sources, targets = places(back), places(there)
    known = is_inside(sources)
    held = is_inside(targets) & (read(known.double(), targets) > 1 - 2e-3)
    mask = torch.zeros_like(held)
    for row in range(1, rows - 1):
        for column in range(1, columns - 1):
            mask[row, column] = held[row - 1 : row + 2, column - 1 : column + 2].all()
    maps = maps.double()
    returned = read(read(maps, sources), targets)
    number = len(maps)
    distance = ((returned - maps) * mask).square().sum((1, 2, 3))
    deviation = ((maps - maps.mean(0)) * mask).square().sum((1, 2, 3)) * number / (number - 1)
    return float((distance.mean() / (2 * deviation.mean())).sqrt())


def stem():
    return nn.Sequential(nn.Conv2d(3, 5, 3, 2, 1), nn.ReLU(), nn.Conv2d(5, 5, 3, 2, 1))


MIRROR = [[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("net", "size"),
    [
        (stem, (40, 48)),
        (EIGHT["max-pool"].net, (61, 64)),
        (EIGHT["dilated"].net, (51, 46)),
        (EIGHT["efficientnet"].net, (64, 60)),
    ],
    ids=["stem", "max-pool", "dilated", "efficientnet"],
)
def test_on_any_grid_the_floor_under_a_flip_is_that_of_a_warp_written_out(net, size, seed):
    model, last = seeded(net, seed), str(len(net()) - 1)
    result = probed(model, size, layers=last)
    images = torch.rand(8, 3, *size, generator=torch.Generator().manual_seed(0))
    matrix = torch.tensor(MIRROR)
    matrix[0, 2] = size[1] - 1
    with torch.no_grad():
        expected = floor_by_hand(model(images), matrix, result.metadata["grids"][last])
    assert result.value("interpolation_floor", last) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_on_a_grid_that_no_flip_fits_the_floor_under_a_turn_is_that_of_a_warp_written_out():
    model, images = seeded(stem, 0), torch.rand(8, 3, 40, 48, generator=torch.Generator().manual_seed(0))
    turn = K.RandomRotation((15.0, 15.0), p=1.0)
    result = probed(model, (40, 48), {"turn": turn}, layers="2")
    turn(images)
    with torch.no_grad():
        expected = floor_by_hand(model(images), turn.transform_matrix[0], result.metadata["grids"]["2"])
    assert result.value("interpolation_floor", "2") == pytest.approx(expected, rel=1e-4)
    assert expected > 0.1


# Those that were guessed wrong in some epochs.


def resnet18():
    stem = nn.Sequential(nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    widths = ((8, 8, 1), (8, 16, 2), (16, 24, 2))
    stages = [nn.Sequential(Residual(*first), Residual(first[1], first[1], 1)) for first in widths]
    return nn.Sequential(stem, *stages)


WRONG_ONCE = {
    # Strides and offsets along both axes: pools of 2 tile, and what is strided with padding starts at 0.
    "vgg": (EIGHT["vgg"].net, (64, 64), [(2, 0.5), (4, 1.5), (8, 3.5)]),
    "max-pool": (EIGHT["max-pool"].net, (64, 64), [(2, 0.5), (4, 0.5), (8, 4.5)]),
    "resnet18": (resnet18, (128, 128), [(4, 0), (4, 0), (8, 0), (16, 0)]),
}


@pytest.mark.parametrize("name", WRONG_ONCE)
def test_grids_stay_the_same_from_epoch_to_epoch(name):
    net, size, lines = WRONG_ONCE[name]
    model = seeded(net, 0)
    images = torch.rand(8, 3, *size, generator=torch.Generator().manual_seed(1))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(4):
        result = probed(model, size, layers=[str(index) for index in range(len(lines))])
        grids = result.metadata["grids"]
        if name == "vgg":
            assert float(result.tensor("interpolation_floor").max()) == 0
        for index, (stride, offset) in enumerate(lines):
            assert grids[str(index)]["stride"] == [stride] * 2
            assert grids[str(index)]["offset"] == [offset] * 2
        optimiser.zero_grad()
        model.train()(images).square().mean().neg().backward()
        optimiser.step()


# Tokens, unknown operators.


@pytest.mark.parametrize("in_order", [True, False])
def test_patches_that_are_seen_alone_move_along_whatever_the_order_of_their_tokens(in_order):
    # Each token is a function of its patch; of pixels that are alike within a patch, its mirror image is the patch.
    images = images_of(8, size=8).repeat_interleave(4, 2).repeat_interleave(4, 3)
    model = seeded(lambda: Patches(in_order=in_order), 0)
    views = {**FLIP, "quarter": K.RandomRotation((90.0, 90.0), p=1.0)}
    result = probe_model(model, images, AugmentationBank(views), layers=["tokens", "mlp"], metrics=list(MAPS))
    for layer in ("tokens", "mlp"):
        assert result.metadata["grids"][layer]["size"] == [8, 8]
        assert result.value("equivariance_error", layer) == pytest.approx(0, abs=1e-5)


class Spectral(nn.Module):
    """A convolution, a Fourier transform that keeps its shape, and a convolution of that."""

    def __init__(self):
        super().__init__()
        self.stem, self.spectrum, self.after = nn.Conv2d(3, 4, 3, padding=1), nn.Identity(), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        return self.after(self.spectrum(torch.fft.fft2(self.stem(x)).real))


def test_a_layer_behind_an_unknown_operator_is_left_out_of_equivariance_by_name_and_operator():
    result = probe_model(Spectral(), images_of(8), AugmentationBank(FLIP), layers=["stem", "spectrum", "after"])
    assert set(result.metadata["grids"]) == {"input", "stem"}
    assert result.table("equivariance_error").layers == ("input", "stem")
    # What needs no grid is measured there all the same.
    assert result.table("sensitivity_flat").layers[:4] == ("input", "stem", "spectrum", "after")
    for layer in ("spectrum", "after"):
        why = result.metadata["left_out"][f"equivariance at {layer}"]
        assert why == "it is not known where its cells lie in the image: _fft_c2c: no rule for this operator"
    assert result.metadata["warnings"] == []


def test_whoever_asks_for_equivariance_is_told_what_is_left_out_of_it():
    told = r"left out of equivariance, as it is not known where their cells lie in the image: 'spectrum' \(_fft_c2c: no"
    with pytest.warns(UserWarning, match=told):
        probe_model(
            Spectral(), images_of(8), AugmentationBank(FLIP), layers=["stem", "spectrum"], metrics="equivariance_error"
        )


def test_grids_survive_json_and_the_state_of_a_checkpoint(tmp_path):
    result = probed(stem(), (40, 48), layers=["0", "2"])
    grids = {name: dict(facts) for name, facts in result.metadata["grids"].items()}
    assert grids["2"] == {"size": [10, 12], "stride": [4.0, 4.0], "offset": [0.0, 0.0], "spread": [0.0, 0.0]}
    torch.save(result.state(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    for again in (ProbeResult.from_json(result.to_json()), ProbeResult.from_state(state)):
        assert again.metadata["grids"] == grids
        assert again.to_json() == ProbeResult.from_json(again.to_json()).to_json()


# Frames on the way through a chain.

PAD, PAD_EDGE = K.PadTo((32, 32)), K.PadTo((32, 32), pad_mode="replicate")
HALF = K.RandomAffine(0.0, scale=(0.5, 0.5), p=1.0)
CHAINS = {
    "crop and pad": [K.CenterCrop(24), PAD],
    "crop and kept edge": [K.CenterCrop(24), PAD_EDGE],
    "flip within": [K.CenterCrop(24), K.RandomHorizontalFlip(p=1.0), PAD],
    "flip before": [K.RandomVerticalFlip(p=1.0), K.CenterCrop((20, 24)), PAD],
    "flip behind": [K.CenterCrop((20, 24)), PAD, K.RandomHorizontalFlip(p=1.0)],
    "pad and crop": [K.PadTo((40, 40)), K.CenterCrop(32)],
    "pad, crop, pad": [K.PadTo((40, 36)), K.CenterCrop((20, 28)), PAD_EDGE],
    "drawn crop": [K.RandomCrop((24, 24)), PAD],
    "there and back": [K.CenterCrop(24), K.RandomHorizontalFlip(p=1.0), K.RandomCrop((32, 32), padding=4)],
}


@pytest.mark.parametrize("kind", [nn.Sequential, K.AugmentationSequential, K.ImageSequential])
@pytest.mark.parametrize("name", CHAINS)
def test_what_a_chain_cuts_off_is_not_counted_against_an_equivariant_convolution(name, kind):
    # A kernel that is its own mirror image moves along exactly; it sees one pixel beyond the frame, which is eroded.
    options = {"data_keys": ["input"]} if kind is K.AugmentationSequential else {}
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1))
    kernel = net[0].weight.data
    kernel.copy_(kernel + kernel.flip(2) + kernel.flip(3) + kernel.flip(2, 3))
    result = probed(net, (32, 32), {"chain": kind(*CHAINS[name], **options)}, layers="0")
    for layer in ("input", "0"):
        assert result.value("equivariance_error", layer) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("side", [24, 28, 36])
def test_images_that_are_resized_between_crop_and_pad_are_known_where_the_crop_was(side):
    # A 1 x 1 convolution commutes with interpolation, which T' does on the map as the resize does on the image.
    net = nn.Sequential(nn.Conv2d(3, 4, 1))
    chain = [K.CenterCrop(20), K.Resize((side, side)), *([PAD] if side < 32 else [K.CenterCrop(32)])]
    coarse = images_of(8, size=6)
    images = nn.functional.interpolate(coarse, size=(32, 32), mode="bicubic", align_corners=True).clamp(0, 1)
    bank = AugmentationBank({"chain": nn.Sequential(*chain)})
    result = probe_model(net, images, bank, layers="0", metrics="equivariance_error")
    for layer in ("input", "0"):
        assert result.value("equivariance_error", layer) == pytest.approx(0, abs=1e-4)
