"""What the guide says of learned invariance holds for each of three seeds."""

import re
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
GUIDE = ROOT / "docs/reading_the_numbers.md"


@pytest.fixture(scope="module")
def example():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "examples")
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        import learned_invariance

        yield learned_invariance
        torch.set_num_threads(threads)
        for name in ("learned_invariance", "digits_science", "digits"):
            sys.modules.pop(name)


@pytest.fixture(scope="module", params=range(3), ids="seed {}".format)
def profiles(request, example):
    results = {
        way: example.probe_trained(request.param, train_augmentation=way, epochs=40) for way in example.TRAININGS
    }
    return {
        (way, metric): example.profile(result, metric) for way, result in results.items() for metric in example.MEASURES
    }


@pytest.mark.slow
def test_rotation_is_noticed_more_than_noise_until_its_invariance_is_learned(profiles):
    plain, rotation = profiles["none", "noise_ratio"], profiles["rotation", "noise_ratio"]
    assert min(plain) > 1.05
    assert max(plain) < 1.35
    # The first convolutions stay as they were, features and logits learn it.
    assert min(rotation[:2]) > 1.05
    assert rotation[:2] == pytest.approx(plain[:2], abs=0.1)
    assert max(rotation[3:]) < 0.85
    assert rotation[4] < rotation[3]


@pytest.mark.slow
def test_sensitivity_falls_with_depth_after_either_training(profiles):
    for way in ("none", "rotation"):
        values = profiles[way, "sensitivity_flat"]
        assert values[4] < values[3] < 0.8 * values[0]


@pytest.mark.slow
def test_every_seed_lies_in_the_ranges_of_the_guide(profiles):
    lines = re.findall(r"^\| `noise_ratio`, (.+?) \| (.+) \|$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)
    shown = {name: re.findall(r"(\.\d+|\d\.\d+) to (\.\d+|\d\.\d+)", cells) for name, cells in lines}
    assert list(shown) == ["trained", "trained with rotation"]
    # Another processor rounds otherwise, and forty epochs make something of it.
    for way, name in (("none", "trained"), ("rotation", "trained with rotation")):
        for value, (low, high) in zip(profiles[way, "noise_ratio"], shown[name], strict=True):
            assert float(low) - 0.06 < value < float(high) + 0.06
