"""What a probe's arguments may be: said where the probe is made."""

import numpy as np
import pytest
from lightning.fabric.utilities.exceptions import MisconfigurationException
from support.trainings import fit, probe_of

from kornia_lightning_probe import DriftProbe, SensitivityProbe


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a/b",
        "a\\b",
        "..",
        ".",
        "...",
        "a..b",
        "../up",
        " a",
        "a ",
        "a\nb",
        "a\tb",
        "a\0b",
        "a:b",
        "x" * 101,
        5,
        None,
    ],
)
@pytest.mark.parametrize("kind", [SensitivityProbe, DriftProbe])
def test_a_name_that_is_no_folder_or_tag_is_refused_with_the_rule(name, kind):
    with pytest.raises(MisconfigurationException) as refused:
        kind(name=name)
    assert "'.' and spaces inside, at most 100 characters and no '..'" in str(refused.value)
    assert str(refused.value).endswith(f"got {name!r}")


@pytest.mark.parametrize("name", ["probe", "my probe", "v1.2-b_c", "x" * 100, "Größe", ".hidden"])
def test_names_of_letters_digits_and_a_few_signs_are_taken(name):
    assert DriftProbe(name=name).name == name


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"num_images": "256"}, "num_images must be an integer, got '256'"),
        ({"num_images": 2.5}, "num_images must be an integer, got 2.5"),
        ({"batch_size": "all"}, "batch_size must be a number of images or 'auto', got 'all'"),
        ({"batch_size": True}, "batch_size must be an integer, got True"),
        ({"batch_size": None}, "batch_size must be an integer, got None"),
        ({"seed": "0"}, "seed must be an integer, got '0'"),
        ({"every_n_epochs": 1.0}, "every_n_epochs must be an integer, got 1.0"),
        ({"at_start": "no"}, "at_start must be True or False, got 'no'"),
        ({"figures": 1}, "figures must be True or False, got 1"),
        ({"progress": "yes"}, "progress must be True or False, got 'yes'"),
        ({"on_error": "warning"}, "on_error must be one of 'raise', 'warn', got 'warning'; did you mean 'warn'"),
        (
            {"when": "validation_end"},
            "when must be one of .*, got 'validation_end'; did you mean 'validation'",
        ),
        ({"layers": 3}, "layers must be a name, a glob, a regex.*got 3"),
        ({"layers": []}, r"layers must be a name, a glob, a regex.*got \[\]"),
        ({"images": "validation"}, "images must be a tensor, a dict.*got 'validation'"),
        ({"images": 64}, "images must be a tensor, a dict.*got 64"),
        ({"forward": 3}, "forward must be a callable .*got 3"),
        ({"to_inputs": 1.5}, "to_inputs must be a callable, a key or an index, got 1.5"),
        ({"embedding": 3}, "embedding must be a layer's name, got 3"),
    ],
)
def test_a_value_of_another_type_is_refused(options, text):
    for probe in (probe_of, DriftProbe):
        with pytest.raises(MisconfigurationException, match=text):
            probe(**options)


@pytest.mark.parametrize("monitor", [3, ["probe/spread", 3], None])
def test_a_monitor_that_is_no_text_is_refused(monitor):
    with pytest.raises(MisconfigurationException, match="monitor must be a text or a list of texts"):
        probe_of(monitor=monitor)


def test_a_flag_of_drift_is_checked_too():
    with pytest.raises(MisconfigurationException, match="flatten must be True or False, got 'all'"):
        DriftProbe(flatten="all")


def test_integers_of_numpy_are_integers():
    assert probe_of(num_images=np.int64(8), batch_size=np.int32(4)).batch_size == 4


def test_without_a_bank_it_is_the_default_preset_and_a_name_is_a_presets():
    assert len(SensitivityProbe().bank) == 19
    assert "fog" not in {view.augmentation for view in SensitivityProbe("geometric").bank}
    with pytest.raises(ValueError, match="corruptions"):
        SensitivityProbe("corruption")


@pytest.mark.filterwarnings("ignore")
def test_none_takes_all_images(tmp_path):
    probe = probe_of(num_images=None)
    fit(tmp_path, probe, max_epochs=1)
    assert probe.result.metadata["num_images"] == 64
