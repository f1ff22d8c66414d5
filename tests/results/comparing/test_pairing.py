import math
from dataclasses import replace

import pytest
import torch
from support.activations import MeanShift
from support.compared import measured
from support.made_results import made_result, table_of, views_of
from support.nets import SmallCNN
from support.probing import images_of, plain_bank

from kornia_lightning_probe import probe_model
from kornia_lightning_probe.functional.estimates import Estimate, mean_with_error
from kornia_lightning_probe.functional.influence import mean_influence
from kornia_lightning_probe.result import ProbeResult
from kornia_lightning_probe.results.image_files import ImagesInFile
from kornia_lightning_probe.results.tables import ImageScores

NAN = float("nan")
# It reads nothing of other images, so an image's value is the same in any block.
ALONE = ("relative_change",)


class PairedMeanShift(MeanShift):
    """The same, as the note on the other advises."""

    def reduce(self, table):
        estimate = mean_with_error(table["shift"])
        return Estimate(estimate.value, estimate.num_images, mean_influence(table["shift"]))


def probed(inputs, *, seed=0, weights=0, metrics=ALONE):
    torch.manual_seed(weights)
    return probe_model(SmallCNN(), inputs, plain_bank(), metrics=metrics, seed=seed)


def without(result, *keys):
    """The result with less metadata, as older versions have written it."""
    result.metadata = replace(result.metadata, **dict.fromkeys(keys))
    return result


def test_the_same_images_in_another_order_are_paired_by_their_numbers():
    first, second = (probed(images_of(40), seed=seed) for seed in (0, 1))
    assert first.metadata["image_ids"] != second.metadata["image_ids"]
    comparison = first.compare(second)
    (note,) = comparison.notes
    assert note == (
        "paired image by image: both results hold the same images in another order, so what is drawn for an image can "
        "differ"
    )
    # Each image has the same value in both, so that every difference image by image is 0, and so is its error.
    known = [row for row in comparison.rows if not math.isnan(row.change)]
    assert known
    assert all(row.paired and row.std_error <= 1e-5 for row in known)
    assert max(first.std_error("relative_change", row.layer) for row in known) > 1e-3


def test_the_order_of_the_images_does_not_change_a_paired_error():
    inputs = images_of(40)
    before, after = probed(inputs), [probed(inputs, seed=seed, weights=1) for seed in (0, 1)]
    aligned, reordered = (before.compare(result).rows for result in after)
    for one, other in zip(aligned, reordered, strict=True):
        assert other.paired
        assert other.std_error == pytest.approx(one.std_error, rel=1e-3, abs=1e-7, nan_ok=True)


def test_equal_numbers_of_another_source_do_not_pair_images():
    inputs = images_of(40)
    # The same images from the last to the first: each number means another image.
    first, second = probed(inputs), probed(inputs.flip(0), seed=1)
    assert sorted(first.metadata["image_ids"]) == sorted(second.metadata["image_ids"])
    comparison = first.compare(second)
    assert comparison.notes[0].startswith("not paired (other images, or the same ones under other numbers): errors are")
    assert not any(row.paired for row in comparison.rows)


def test_results_of_older_versions_are_paired_by_their_order_only():
    inputs = images_of(40)
    old = without(probed(inputs), "content_hash_by_number")
    assert all(row.paired for row in old.compare(probed(inputs, weights=1)).rows)
    comparison = old.compare(probed(inputs, seed=1))
    assert comparison.notes[0].startswith("not paired (other images, or the same ones in another order): errors are")
    assert not any(row.paired for row in comparison.rows)


def test_a_metric_without_influence_is_named_with_what_it_lacks():
    first, second = (probed(images_of(8), weights=weights, metrics=["cosine", MeanShift()]) for weights in (0, 1))
    assert first.metadata["metrics_without_influence"] == ["mean_shift"]
    comparison = first.compare(second)
    paired, lacking = comparison.notes
    assert paired == "paired image by image, but for mean_shift: both results hold the same images"
    assert lacking == (
        "not paired, though the images are the same: mean_shift; its reduce() doesn't say what each image adds to the "
        "value, so these errors are too large as a rule; let it return an Estimate with the influence, which for a "
        "mean over images is mean_influence (in kornia_lightning_probe.influence) of the statistic"
    )
    assert {row.metric for row in comparison.rows if not row.paired} == {"mean_shift"}


def test_a_metric_with_the_influence_that_the_note_advises_is_paired():
    first, second = (probed(images_of(40), weights=weights, metrics=[PairedMeanShift()]) for weights in (0, 1))
    comparison = first.compare(second)
    assert comparison.notes == ("paired image by image: both results hold the same images",)
    # Two models see the same pixels: each image's shift is the same there, and the error of the difference is 0.
    halved = next(row for row in comparison.rows if row.layer == "input")
    assert (halved.paired, halved.std_error) == (True, 0.0)
    assert first.std_error("mean_shift", "input", halved.augmentation) > 1e-4


def test_what_a_file_has_lost_and_what_a_metric_lacks_are_told_apart():
    results = [probed(images_of(8), weights=weights, metrics=["cosine", MeanShift()]) for weights in (0, 1)]
    first, second = (ProbeResult.from_json(result.to_json()) for result in results)
    lacking, lost = first.compare(second).notes
    assert lacking.startswith("not paired, though the images are the same: mean_shift; its reduce() doesn't say")
    assert lost.startswith("not paired, though the images are the same: cosine; what each image adds to the values is")


def scored(factor, *, missing=None, moves_pixels=False):
    """A result that keeps no influence, and the images that its sensitivity is made of: those of d_i = factor^2 i."""
    distance = factor**2 * torch.arange(1.0, 9.0, dtype=torch.float64).expand(1, 1, -1).clone()
    deviation = torch.linspace(1.0, 3.0, 8, dtype=torch.float64).expand(1, 1, -1)
    if missing is not None:
        distance[..., missing] = NAN
    known = torch.where(distance.isfinite(), deviation, NAN)
    mean = known.nanmean(-1, keepdim=True)
    result = measured(distance, deviation, ladders={"blur": (1.0,)}, influence=False)
    result.views = tuple(replace(view, moves_pixels=moves_pixels) for view in result.views)
    apart = torch.full((2, 1, 8), NAN)
    apart[int(moves_pixels)] = (deviation / deviation.mean(-1, keepdim=True)).float()
    result.images = ImageScores(result.layers, (distance / (2 * mean)).float(), apart)
    return result, measured(distance, deviation, ladders={"blur": (1.0,)})


@pytest.mark.parametrize("moves_pixels", [False, True])
@pytest.mark.parametrize("missing", [None, 3])
def test_sensitivity_is_paired_by_the_images_own_rows(missing, moves_pixels):
    first, full = scored(1.0, missing=missing, moves_pixels=moves_pixels)
    second, _ = scored(3.0, missing=missing, moves_pixels=moves_pixels)
    comparison = first.compare(second)
    assert comparison.notes == ("paired image by image: both results hold the same images",)
    # d_i nine times as large makes S three times as large, and each image's influence too: 2 IF_i are left of it.
    expected = 2 * full.std_error("sensitivity", "layer0")
    assert comparison.rows[0].std_error == pytest.approx(expected, rel=1e-6)
    # So it is where one of them keeps the influence itself.
    full.views = first.views
    assert full.compare(second).rows[0].std_error == pytest.approx(expected, rel=1e-6)


def test_images_of_other_layers_pair_nothing():
    first, _ = scored(1.0)
    second, _ = scored(3.0)
    second.images = replace(second.images, layers=("other",))
    assert not first.compare(second).rows[0].paired


def test_images_that_are_not_found_are_named_with_their_file(tmp_path):
    first, _ = scored(1.0)
    second, _ = scored(3.0)
    second.images = None
    second.images_elsewhere = ImagesInFile(tmp_path / "gone.json", "a" * 64, 1)
    comparison = first.compare(second)
    assert not comparison.rows[0].paired
    assert comparison.notes[0].startswith("not paired, though the images are the same: sensitivity; what each image ad")
    assert comparison.notes[1] == (
        f"each image's own rows are not where they were written, or are of another result: {tmp_path}/gone.images.npz"
    )


def test_results_from_files_are_paired_in_sensitivity_by_the_files_beside_them(tmp_path):
    live = [probed(images_of(40), weights=weights, metrics=["sensitivity", "cosine"]) for weights in (0, 1)]
    for number, result in enumerate(live):
        result.to_json(tmp_path / f"{number}.json")
    read = [ProbeResult.from_json(tmp_path / f"{number}.json") for number in (0, 1)]
    comparison = read[0].compare(read[1])
    paired, lost = comparison.notes
    assert paired == "paired image by image, but for cosine: both results hold the same images"
    assert lost.startswith("not paired, though the images are the same: cosine; what each image adds to the values is")
    expected = live[0].compare(live[1])
    for one, other in zip(comparison.rows_of("sensitivity"), expected.rows_of("sensitivity"), strict=True):
        # The files hold float32.
        assert one.std_error == pytest.approx(other.std_error, rel=1e-4, abs=1e-7, nan_ok=True)


def test_metrics_that_all_have_influence_are_not_listed_as_without():
    assert "metrics_without_influence" not in probed(images_of(8)).metadata


def with_geometric_metric(ladders, value, attempted):
    """A result of sensitivity, and of a metric with errors that is measured under some of the views."""
    value = torch.tensor(value)[:, None]
    table = table_of(("fc",), value, error=0.01, attempted=torch.tensor(attempted)[:, None])
    return made_result(ladders=ladders, tables={"equivariance_error": table})


def test_a_metric_without_value_under_the_common_views_is_not_called_one_without_errors():
    first = with_geometric_metric({"noise": (0.1,), "rotation": (15.0,)}, [NAN, 0.5], [False, True])
    second = with_geometric_metric({"noise": (0.1,)}, [NAN], [False])
    comparison = first.compare(second)
    assert comparison.metrics == ("sensitivity",)
    assert comparison.notes[1:] == (
        "no value in both results under any view that both have, so not compared: equivariance_error",
    )


def test_a_comparison_without_any_value_says_why_in_its_summary():
    views = views_of({"noise": (0.1,)})
    table = table_of(("fc",), [[NAN]], attempted=torch.tensor(False))
    result = ProbeResult(layers=("fc",), views=views, tables={"equivariance_error": table})
    lines = result.compare(result).summary().splitlines()
    assert lines[0] == "nothing to compare: the second result minus the first"
    assert " ".join(line.strip() for line in lines).endswith("so not compared: equivariance_error")
