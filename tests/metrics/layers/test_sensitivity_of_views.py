"""The sensitivity that everything shows: flattened, and of the mean over cells under views that move pixels."""

from contextlib import contextmanager
from unittest.mock import patch

import kornia.augmentation as K  # noqa: N812 - the name that Kornia's own documentation uses
import pytest
import torch
from support.activations import normal
from support.probing import images_of, mirrored, run
from torch import nn

from kornia_lightning_probe import AugmentationBank, probe_model
from kornia_lightning_probe.activations.readouts import Readout
from kornia_lightning_probe.functional.estimates import between_image_deviation, sensitivity
from kornia_lightning_probe.functional.memory import Room

LAYER = "layer"


def rolled(x):
    return x.roll(1, -1)


def bank_of(*, moves):
    """A roll by one cell, which is said to move pixels or is not."""
    return AugmentationBank({"roll": rolled}, moves_pixels=("roll",) if moves else ())


class Layer(nn.Module):
    """Images as a layer puts them out; a head behind it, so that it is not the output."""

    def __init__(self, change):
        super().__init__()
        self.layer = nn.Identity()
        self.head = nn.Flatten()
        self.change = change

    def forward(self, x):
        return self.head(self.layer(self.change(x)).flatten(1)[:, :2])


def tokens_of(x):
    return x.flatten(2).transpose(1, 2)


def with_class_token(x):
    """The cells as tokens behind one that is a fixed combination of the first row's."""
    tokens = tokens_of(x)
    return torch.cat([2 * tokens[:, :3].sum(1, keepdim=True), tokens], 1)


# What a layer makes of (N, 3, 8, 8), and the mean over all of its cells.
LAYERS = {
    "map": (lambda x: 2 * x - 1, lambda x: (2 * x - 1).mean((2, 3))),
    "channels last": (lambda x: x.permute(0, 2, 3, 1), lambda x: x.mean((2, 3))),
    "tokens": (tokens_of, lambda x: x.mean((2, 3))),
    "class and tokens": (with_class_token, lambda x: with_class_token(x).mean(1)),
    "volume": (lambda x: x.unflatten(2, (2, 4)), lambda x: x.mean((2, 3))),
}
every_layer = pytest.mark.parametrize(("change", "pooled"), LAYERS.values(), ids=LAYERS)
LAYER_IMAGES = images_of(40, size=8)


def probed(change, bank, images=LAYER_IMAGES, metrics=("sensitivity",), **options):
    return run(Layer(change), images, bank, layers=[LAYER], metrics=metrics, **options)


def plain(clean, augmented, image_ids):
    """S from its definition in float64, over the blocks that the probe has dealt."""
    clean, augmented = (x[image_ids].double().flatten(1) for x in (clean, augmented))
    blocks = [clean[start : start + 20] for start in (0, 20)]
    deviation = torch.cat([between_image_deviation(block) for block in blocks])
    return float(sensitivity((augmented - clean).square().sum(1), deviation).value)


# The closed forms of independent cells.


@pytest.mark.parametrize("side", [8, 16])
def test_a_rolled_map_of_independent_cells_reads_zero_where_the_view_is_said_to_move_pixels_and_one_where_not(side):
    # Every cell is replaced by an unrelated one, d = 2 e in expectation; the mean over all cells is the same sum.
    cells = normal(64, 4, side, side, dtype=torch.float32)
    images = (0.5 + cells / 16).clamp(0, 1)
    net = Layer(lambda x: 16 * (x - 0.5))
    found = {moves: probe_model(net, images, bank_of(moves=moves), layers=[LAYER]) for moves in (True, False)}
    assert found[True].value("sensitivity", LAYER) == pytest.approx(0.0, abs=1e-5)
    # Of 64 images with 4 side^2 cells: each d is within sqrt(2 / (4 side^2)) of its mean, S half of that, over 8; and
    # 1/64 for cells at the border, which roll to the other side.
    error = (2 / (4 * side**2)) ** 0.5 / 2 / 8
    assert found[False].value("sensitivity", LAYER) == pytest.approx(1.0, abs=4 * error + 0.01)
    for result in found.values():
        assert result.value("sensitivity_flat", LAYER) == found[False].value("sensitivity", LAYER)
        assert result.value("sensitivity_pooled", LAYER) == pytest.approx(0.0, abs=1e-5)
        # The pixels are compared as pixels.
        assert result.value("sensitivity", "input") == pytest.approx(1.0, abs=4 * error + 0.02)


# Layouts.


@every_layer
def test_under_a_still_view_it_is_that_of_all_cells_one_by_one(change, pooled):
    result = probed(change, bank_of(moves=False))
    expected = plain(change(LAYER_IMAGES), change(rolled(LAYER_IMAGES)), result.metadata["image_ids"])
    assert result.value("sensitivity", LAYER) == pytest.approx(expected, rel=1e-5)


@every_layer
def test_under_a_view_that_moves_pixels_it_is_that_of_the_mean_over_all_cells_in_one_row(change, pooled):
    # A gradient of brightness on top, so that the mean moves too.
    def slid(x):
        return (rolled(x) * torch.linspace(0.5, 1, 8)).clamp(0, 1)

    bank = AugmentationBank({"slide": slid}, moves_pixels=("slide",))
    result = probed(change, bank)
    assert result.table("sensitivity").layers == ("input", LAYER)
    expected = plain(pooled(LAYER_IMAGES), pooled(slid(LAYER_IMAGES)), result.metadata["image_ids"])
    assert result.value("sensitivity", LAYER) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("batch_size", [7, 32, 64])
def test_of_a_class_token_and_patches_both_are_in_the_mean_and_apart_in_the_pooled_one(batch_size):
    flip = AugmentationBank({"flip": K.RandomHorizontalFlip(p=1.0)})
    result = probed(with_class_token, flip, metrics=["sensitivity", "sensitivity_pooled"], batch_size=batch_size)
    assert result.table("sensitivity").layers == ("input", LAYER)
    assert result.table("sensitivity_pooled").layers == ("input", f"{LAYER}:cls", f"{LAYER}:patch")
    assert result.value("sensitivity_pooled", f"{LAYER}:patch") == pytest.approx(0.0, abs=1e-4)
    # The class token looks at one corner, which a flip moves away.
    assert result.value("sensitivity", LAYER) > 0.1
    assert result.value("sensitivity_pooled", f"{LAYER}:cls") > 0.1


def test_vectors_are_compared_as_they_are_under_any_view():
    def features(x):
        return x.flatten(1)

    moving, still = (probed(features, bank_of(moves=moves)) for moves in (True, False))
    assert torch.equal(moving.tensor("sensitivity"), still.tensor("sensitivity"))
    assert moving.value("sensitivity", LAYER) > 0.5


def test_the_pixels_are_always_compared_as_pixels():
    flip = AugmentationBank({"flip": K.RandomHorizontalFlip(p=1.0)})
    result = probed(LAYERS["map"][0], flip, metrics=["sensitivity", "sensitivity_flat"])
    assert flip[0].moves_pixels
    assert result.value("sensitivity", "input") == result.value("sensitivity_flat", "input") > 0.5


def test_cell_by_cell_it_is_the_flattened_or_the_pooled_one():
    ladder = {"flip": K.RandomHorizontalFlip(p=1.0), "darker": lambda x: 0.7 * x, "mirror": mirrored}
    bank = AugmentationBank(ladder, moves_pixels=("mirror",))
    result = probed(LAYERS["map"][0], bank, metrics=["sensitivity", "sensitivity_flat", "sensitivity_pooled"])
    table, flat, pooled = (result.table(name) for name in ("sensitivity", "sensitivity_flat", "sensitivity_pooled"))
    column = table.layers.index(LAYER)
    for field in ("value", "std_error", "num_images"):
        shown, whole, mean = (getattr(one, field)[:, column] for one in (table, flat, pooled))
        moves = torch.tensor([True, False, True])
        torch.testing.assert_close(shown, torch.where(moves, mean, whole), rtol=1e-6, atol=0)


# It measures what it needs and no more.


@contextmanager
def counted():
    """How often activations were pooled, and how many rows' norms were taken of what shapes."""
    puts, shapes = [], []
    put, write = Readout.put, Room.write_norms

    def counting_put(self, activation, out):
        puts.append(self.site.name)
        put(self, activation, out)

    def counting_write(self, y, x, out):
        shapes.append(tuple(x.shape[1:]))
        write(self, y, x, out)

    with patch.object(Readout, "put", counting_put), patch.object(Room, "write_norms", counting_write):
        yield puts, shapes


def test_under_still_views_nothing_is_pooled():
    with counted() as (puts, _):
        probed(LAYERS["map"][0], bank_of(moves=False))
    assert puts == []


def test_under_moving_views_no_map_is_compared_cell_by_cell():
    def narrow(x):
        return x[..., ::2, ::2]

    with counted() as (puts, shapes):
        probed(narrow, bank_of(moves=True), batch_size=64)
    # Two blocks under one view.
    assert puts == [LAYER] * 2
    assert (3, 8, 8) in shapes
    # Nobody compares the map itself but the scout, who does it whatever the views, and beside it each of two blocks has
    # deviations from its mean and a distance under its view.
    with counted() as (_, still):
        probed(narrow, bank_of(moves=False), batch_size=64)
    assert still.count((3, 4, 4)) == shapes.count((3, 4, 4)) + 4


# Behind a normalisation over space.


@pytest.mark.parametrize("moves", [True, False])
def test_behind_an_instance_norm_what_is_pooled_has_no_value_and_what_is_flat_has(moves):
    torch.manual_seed(0)

    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.head = nn.Conv2d(3, 8, 3), nn.InstanceNorm2d(8), nn.Linear(8, 2)

        def forward(self, x):
            return self.head(self.norm(self.conv(x)).relu().mean((2, 3)))

    bank = AugmentationBank({"mirror": mirrored}, moves_pixels=("mirror",) if moves else ())
    with pytest.warns(
        UserWarning, match="mean over all cells is the same for every image, up to rounding, at norm"
    ) as said:
        result = probe_model(Normed(), images_of(40), bank, layers=["conv", "norm", "head"])
    sentences = [str(one.message) for one in said]
    assert len([text for text in sentences if "norm" in text]) == 1
    assert not any("same activation" in text for text in sentences)
    assert result.metadata.get("dead_layers") is None
    assert result.value("sensitivity_flat", "norm") > 0.3
    for name in ("sensitivity_pooled", "spread_ratio", "shared_shift"):
        assert result.value(name, "norm") != result.value(name, "norm"), name
    assert result.value("spread", "norm") == 0.0
    shown = result.value("sensitivity", "norm")
    assert shown != shown if moves else shown == result.value("sensitivity_flat", "norm")
    # What stands before and behind it has values.
    for layer in ("conv", "head"):
        assert result.value("sensitivity", layer) > 0.0
