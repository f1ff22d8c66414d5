import math

import pytest
import torch
from support.made_results import COSINE, SENSITIVITY, table_of, views_of
from torch import nn

from kornia_lightning_probe import AugmentationBank, probe_model
from kornia_lightning_probe.functional.influence import sensitivity_influence
from kornia_lightning_probe.result import MetricTable, ProbeResult, ViewInfo

NAN = float("nan")
FLAT = "sensitivity_flat"


def result_of(value, *, layers=("a", "b"), ladders=None, floor=None, metric=FLAT, **options):
    columns = ("input", *layers)
    table = table_of(columns, value, quantity=SENSITIVITY, **options)
    views = views_of(ladders or {"blur": range(1, 1 + len(value))})
    return ProbeResult(layers=layers, views=views, tables={metric: table}, metadata={"noise_floor": floor})


def test_a_gain_is_a_layers_value_over_that_of_the_layer_before_it():
    rows = result_of([[0.1, 0.2, 0.3]]).gain("blur")
    assert [(row.layer, row.before) for row in rows] == [("a", "input"), ("b", "a")]
    assert [row.gain for row in rows] == pytest.approx([2.0, 1.5])


def test_the_logarithms_add_up_to_that_of_the_last_layer_over_the_pixels():
    value = torch.rand(1, 7, generator=torch.Generator().manual_seed(0)) + 0.1
    rows = result_of(value, layers=tuple("abcdef")).gain()
    assert sum(math.log(row.gain) for row in rows) == pytest.approx(math.log(value[0, 6] / value[0, 0]))


def test_of_several_augmentations_it_is_the_geometric_mean():
    # 2 and 8: the root of 16.
    result = result_of([[0.1, 0.2, 0.2], [0.1, 0.8, 0.8]], ladders={"blur": (1.0,), "noise": (1.0,)})
    assert [row.gain for row in result.gain()] == pytest.approx([4.0, 1.0])


def test_all_layers_are_taken_at_the_first_level_that_is_above_the_noise_of_the_forward():
    # At the first level layer b is below the floor of .01, at the third all saturate.
    value = [[0.1, 0.05, 0.005], [0.2, 0.1, 0.05], [1.0, 1.0, 1.0]]
    assert [row.gain for row in result_of(value, floor=0.01).gain("blur")] == pytest.approx([0.5, 0.5])
    assert [row.gain for row in result_of(value).gain("blur")] == pytest.approx([0.5, 0.1])
    assert all(math.isnan(row.gain) for row in result_of(value, floor=2.0).gain("blur"))


def test_of_both_ends_of_a_range_the_mildest_is_taken():
    views = [ViewInfo("turn", level, angle, on_curve=False) for level, angle in enumerate((-30.0, -1.0, 1.0, 30.0), 1)]
    table = table_of(("input", "a"), [[0.5, 0.5], [0.1, 0.2], [0.1, 0.3], [0.5, 0.5]], quantity=SENSITIVITY)
    result = ProbeResult(layers=("a",), views=views, tables={FLAT: table})
    # Of -1 and 1, which are as mild, the first.
    assert [row.gain for row in result.gain()] == pytest.approx([2.0])


def test_one_image_is_told_what_a_gain_needs():
    table = table_of(("a",), [[0.5]], quantity=SENSITIVITY)
    result = ProbeResult(layers=("a",), views=views_of({"blur": (1.0,)}), tables={"relative_change": table})
    with pytest.raises(ValueError, match="needs the distance between images, which one image doesn't have"):
        result.gain()


def test_an_augmentation_that_moves_nothing_is_left_out_of_the_mean():
    result = result_of([[0.1, 0.2, 0.2], [0.0, 0.0, 0.0]], ladders={"blur": (1.0,), "none": (1.0,)})
    assert [row.gain for row in result.gain()] == pytest.approx([2.0, 1.0])
    assert all(math.isnan(row.gain) for row in result.gain("none"))


def test_a_dead_layer_is_passed_over():
    rows = result_of([[0.1, NAN, 0.3]]).gain()
    assert [(row.layer, row.before, row.gain) for row in rows] == [("b", "input", pytest.approx(3.0))]


def test_pooled_values_begin_with_the_first_layer_and_sequences_are_their_patches():
    layers = ("a", "b")
    columns = ("input", "a:cls", "a:patch", "b:cls", "b:patch")
    value = [[0.0, 0.3, 0.1, 0.3, 0.2]]
    table = table_of(columns, value, quantity=SENSITIVITY)
    result = ProbeResult(layers=layers, views=views_of({"flip": (1.0,)}), tables={"sensitivity_pooled": table})
    (row,) = result.gain(metric="sensitivity_pooled")
    assert (row.layer, row.before, row.gain) == ("b:patch", "a:patch", pytest.approx(2.0))


def test_sensitivity_begins_with_the_pixels_only_where_it_compares_layers_as_it_does_them():
    views = [ViewInfo("blur", 1, 1.0), ViewInfo("turn", 1, 1.0, moves_pixels=True)]
    table = table_of(("input", "a", "b"), [[0.1, 0.2, 0.3], [0.4, 0.1, 0.1]], quantity=SENSITIVITY)
    result = ProbeResult(layers=("a", "b"), views=views, tables={"sensitivity": table})
    assert [row.before for row in result.gain("blur", metric="sensitivity")] == ["input", "a"]
    assert [row.before for row in result.gain("turn", metric="sensitivity")] == ["a"]


def test_the_paired_error_is_the_spread_over_draws_of_images():
    # Layer b moves nearly as layer a does, image by image, so that their ratio is known far better than either.
    generator = torch.Generator().manual_seed(0)
    gains, errors = [], []
    for _ in range(400):
        draws = torch.randn(3, 64, 8, generator=generator, dtype=torch.float64).square().sum(2)
        distance = torch.stack([draws[0], draws[0] + 0.3 * draws[2]]).unsqueeze(0)
        deviation = draws[1].expand(1, 2, 64)
        influence = sensitivity_influence(distance, deviation)
        value = (distance.mean(2) / (2 * deviation.mean(2))).sqrt()
        error = (influence.square().sum(2) / (64 * 63)).sqrt()
        table = MetricTable(("a", "b"), value, error, torch.full((1, 2), 64), influence=influence, quantity=SENSITIVITY)
        result = ProbeResult(layers=("a", "b"), views=views_of({"blur": (1.0,)}), tables={FLAT: table})
        (row,) = result.gain()
        gains.append(row.gain)
        errors.append(row.std_error)
        (above,) = result.without_influence().gain()
        assert above.std_error > 3 * row.std_error
    # 400 draws know a spread to 1/sqrt(800), 3.5 %; three of those.
    spread = torch.tensor(gains).std().item()
    assert sum(errors) / 400 == pytest.approx(spread, rel=0.11)


def test_it_is_a_ratio_of_measures_that_are_nothing_where_nothing_moves():
    table = table_of(("a", "b"), [[0.5, 0.5]], quantity=COSINE)
    result = ProbeResult(layers=("a", "b"), views=views_of({"blur": (1.0,)}), tables={"cosine": table})
    with pytest.raises(ValueError, match="which 'cosine' is not; here are"):
        result.gain(metric="cosine")
    with pytest.raises(ValueError, match="'sensitivity_flat'"):
        result.gain()
    with pytest.raises(ValueError, match="'blurr'"):
        result_of([[0.1, 0.2, 0.3]]).gain("blurr")


class Fragile(nn.Module):
    """Stretches one direction and leaves the others."""

    def __init__(self, direction, factor):
        super().__init__()
        self.direction, self.factor = direction, factor

    def forward(self, x):
        return x + (self.factor - 1) * (x @ self.direction).unsqueeze(1) * self.direction


def test_a_planted_block_that_stretches_the_views_direction_stands_out():
    # Orthogonal maps keep every distance, so their gain is 1; a view that adds one direction v, stretched tenfold by
    # the third block, grows tenfold there, while images, apart in 48 directions, grow by sqrt((47 + 100)/48) = 1.75.
    generator = torch.Generator().manual_seed(0)
    maps = [torch.linalg.qr(torch.randn(48, 48, generator=generator)).Q for _ in range(5)]
    images = torch.randn(256, 3, 4, 4, generator=generator)
    step = torch.randn(48, generator=generator)
    step = step / step.norm()
    layers = nn.ModuleDict()
    layers["flat"] = nn.Flatten()
    for number, matrix in enumerate(maps):
        linear = nn.Linear(48, 48, bias=False)
        linear.weight = nn.Parameter(matrix)
        layers[f"block{number}"] = linear
    # Where the step has arrived in front of block 2.
    there = maps[1] @ maps[0] @ step
    layers["block2"] = nn.Sequential(Fragile(there, 10.0), layers["block2"])

    def forward(model, batch):
        for module in model.values():
            batch = module(batch)
        return batch

    def push(batch):
        return batch + 0.1 * step.view(3, 4, 4)

    bank = AugmentationBank({"push": push}, value_range=(-8.0, 8.0))
    names = [f"block{number}" for number in range(5)]
    result = probe_model(layers, images, bank, layers=names, metrics=[FLAT], forward=forward)
    rows = {row.layer: row for row in result.gain("push")}
    assert rows["block2"].gain == pytest.approx(10 / 1.75, rel=0.1)
    for name in set(names) - {"block2"}:
        assert rows[name].gain == pytest.approx(1.0, abs=1e-4)
