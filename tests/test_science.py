"""The findings of digits_science.py hold for each of five seeds, and the guide shows what they read."""

import re
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
GUIDE = ROOT / "docs/reading_the_numbers.md"
SEEDS = range(5)
EPOCHS = 40


@pytest.fixture(scope="module")
def science():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        import digits_science

        yield digits_science
        for name in ("digits_science", "digits"):
            sys.modules.pop(name)


@pytest.fixture(scope="module")
def one_thread():
    # The net is so small that threads wait for each other, for minutes on a busy machine.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def study_each_way(science, seed, epochs):
    return {way: science.study(seed, train_augmentation=way, epochs=epochs) for way in science.TRAININGS}


# Of the module, so that all tests of a seed follow one another and its nets are trained once.
@pytest.fixture(scope="module", params=SEEDS, ids="seed {}".format)
def ways(request, science, one_thread):
    return study_each_way(science, request.param, EPOCHS)


def deltas(values, others):
    return [a - b for a, b in zip(values, others, strict=True)]


def ratios(values, others):
    return [a / b for a, b in zip(values, others, strict=True)]


@pytest.mark.slow
def test_training_steadies_every_layer_and_the_late_ones_most(ways, science):
    for view, low, high in ((science.SMALL_ROTATION, 0.3, 0.75), (science.LARGE_ROTATION, 0.43, 0.92)):
        before = ways["none"].sensitivity(view, trained=False)
        after = ways["none"].sensitivity(view)
        left = ratios(after, before)
        assert min(left) > low
        assert max(left) < high
        if view == science.SMALL_ROTATION:
            assert max(left[3:]) < 0.98 * min(left[:3])


@pytest.mark.slow
def test_sensitivity_falls_from_conv2_to_the_features_before_training_as_after_it(ways, science):
    before = ways["none"].sensitivity(science.SMALL_ROTATION, trained=False)
    after = ways["none"].sensitivity(science.SMALL_ROTATION)
    # The logits of an untrained net are a random readout, above or below the features by the seed.
    for profile, falling in ((before, before[1:4]), (after, after[1:])):
        assert profile[0] < 0.85 * profile[1]
        assert max(ratios(falling[1:], falling[:-1])) < 0.97


@pytest.mark.slow
def test_whole_activations_move_more_in_deep_layers_before_training_and_less_after_it(ways, science):
    before = ways["none"].sensitivity(science.SMALL_ROTATION, metric=science.FLAT, trained=False)
    after = ways["none"].sensitivity(science.SMALL_ROTATION, metric=science.FLAT)
    # A random readout of 10 logits scatters from seed to seed, so that only the convolutions are in strict order.
    assert before[0] < before[1] < before[2]
    assert min(before[3:]) > before[0]
    assert before == pytest.approx([0.54, 0.60, 0.67, 0.68, 0.70], abs=0.12)
    assert after == sorted(after, reverse=True)
    assert after == pytest.approx([0.51, 0.48, 0.41, 0.31, 0.26], abs=0.05)


@pytest.mark.slow
def test_training_with_rotation_acts_on_the_late_layers(ways, science):
    plain, rotation = (ways[way].sensitivity(science.LARGE_ROTATION) for way in ("none", "rotation"))
    assert plain[3:] == pytest.approx([0.71, 0.68], abs=0.1)
    assert rotation[3:] == pytest.approx([0.34, 0.25], abs=0.1)
    assert max(ratios(rotation[3:], plain[3:])) < 0.55
    # The convolutions are not steadied: the first two even move further.
    assert min(ratios(rotation[:2], plain[:2])) > 1
    assert max(ratios(rotation[:2], plain[:2])) < 1.5
    assert rotation[2] == pytest.approx(plain[2], rel=0.1)


@pytest.mark.slow
def test_the_whole_activations_of_convolutions_hardly_change_by_training_with_rotation(ways, science):
    plain, rotation = (
        ways[way].sensitivity(science.LARGE_ROTATION, metric=science.FLAT) for way in ("none", "rotation")
    )
    assert plain[3:] == ways["none"].sensitivity(science.LARGE_ROTATION)[3:]
    # The convolutions change by less than a fifth of what the late layers do.
    changes = [abs(change) for change in deltas(rotation, plain)]
    assert max(changes[:3]) < min(changes[3:]) / 5


@pytest.mark.slow
def test_training_with_rotation_buys_accuracy_on_turned_images_with_a_little_on_upright_ones(ways, science):
    (turned, upright), (turned_after, upright_after) = (
        ways[way].accuracy(science.LARGE_ROTATION) for way in ("none", "rotation")
    )
    assert turned == pytest.approx(0.32, abs=0.12)
    assert turned_after == pytest.approx(0.96, abs=0.05)
    assert upright == pytest.approx(0.985, abs=0.02)
    assert upright_after == pytest.approx(0.96, abs=0.04)
    assert upright_after < upright


@pytest.mark.slow
def test_noise_moves_no_pixel_so_that_both_metrics_read_the_same_under_it(ways, science):
    for seen in ways.values():
        assert seen.sensitivity(science.NOISE) == seen.sensitivity(science.NOISE, metric=science.FLAT)


@pytest.mark.slow
def test_training_with_noise_steadies_the_late_layers_under_noise(ways, science):
    plain, noise = (ways[way].sensitivity(science.NOISE) for way in ("none", "noise"))
    assert noise[3] < plain[3]
    assert noise[4] < 0.9 * plain[4]


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["sensitivity", "sensitivity_flat"])
def test_training_with_noise_steadies_no_layer_under_a_small_rotation(ways, science, metric):
    plain, noise = (ways[way].sensitivity(science.SMALL_ROTATION, metric=metric) for way in ("none", "noise"))
    assert min(ratios(noise, plain)) > 0.95
    # The convolutions are even less steady than after plain training.
    assert min(ratios(noise[:3], plain[:3])) > 1


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["sensitivity", "sensitivity_flat"])
def test_training_with_noise_takes_little_off_the_late_layers_under_a_large_rotation(ways, science, metric):
    # Few predictions hold at 45 degrees. There is a fall, by less than a third of that with rotation.
    plain, noise, rotation = (
        ways[way].sensitivity(science.LARGE_ROTATION, metric=metric) for way in ("none", "noise", "rotation")
    )
    falls = zip(deltas(plain[3:], noise[3:]), deltas(plain[3:], rotation[3:]), strict=True)
    assert all(fall < with_rotation / 3 for fall, with_rotation in falls)


@pytest.mark.slow
def test_training_with_rotation_does_not_steady_any_layer_under_noise(ways, science):
    plain, rotation = (ways[way].sensitivity(science.NOISE) for way in ("none", "rotation"))
    assert min(ratios(rotation, plain)) > 0.95


@pytest.mark.slow
def test_early_layers_settle_first(ways):
    similarity = ways["none"].similarity()
    # The logits are a linear readout of the features, and end up above or below them by the seed.
    assert similarity[:4] == sorted(similarity[:4], reverse=True)
    assert similarity[4] < similarity[2]
    assert similarity == pytest.approx([0.99, 0.94, 0.77, 0.67, 0.65], abs=0.16)


@pytest.mark.slow
def test_every_seed_lies_in_the_ranges_that_the_guide_shows(ways, science):
    shown = ranges_of_the_guide()
    plain, rotation = ways["none"], ways["rotation"]
    seen = {
        "15°, before training": plain.sensitivity(science.SMALL_ROTATION, trained=False),
        "15°, trained": plain.sensitivity(science.SMALL_ROTATION),
        "45°, before training": plain.sensitivity(science.LARGE_ROTATION, trained=False),
        "45°, trained": plain.sensitivity(science.LARGE_ROTATION),
        "45°, trained with rotation": rotation.sensitivity(science.LARGE_ROTATION),
        "15°, before training, `sensitivity_flat`": plain.sensitivity(
            science.SMALL_ROTATION, metric=science.FLAT, trained=False
        ),
        "15°, trained, `sensitivity_flat`": plain.sensitivity(science.SMALL_ROTATION, metric=science.FLAT),
    }
    assert list(shown) == list(seen)
    # Another processor rounds otherwise, and forty epochs make something of it.
    margin = 0.05
    for name, values in seen.items():
        for value, (low, high) in zip(values, shown[name], strict=True):
            assert low - margin < value < high + margin, name


def ranges_of_the_guide():
    """The lines of the guide's table: (lowest, highest) of each layer."""
    lines = re.findall(r"^\| (\d+°.*?) \| (.+) \|$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)
    cells = {name: re.findall(r"(\.\d+|\d\.\d+) to (\.\d+|\d\.\d+)", line) for name, line in lines}
    return {name: [(float(low), float(high)) for low, high in pairs] for name, pairs in cells.items()}


def test_the_table_has_every_seed_and_their_mean_and_the_picture_four_panels(science, one_thread):
    rows = science.findings([study_each_way(science, seed, epochs=2) for seed in (0, 1)])
    text = science.table(rows)
    assert text.count("seed 1") == text.count("mean") == len(rows)
    assert [axes.get_title(loc="left")[:2] for axes in science.draw(rows).axes] == ["1.", "2.", "3.", "4."]


def test_the_demo_probes_its_first_and_its_last_epoch(science):
    from digits import probe_interval

    # Probed are the epochs divisible by the interval; the last of n epochs is n - 1.
    intervals = {epochs: probe_interval(epochs) for epochs in range(1, 61)}
    assert all((epochs - 1) % interval == 0 for epochs, interval in intervals.items())
    assert intervals[15] == 2
