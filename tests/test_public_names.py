import subprocess
import sys

import pytest

import kornia_lightning_probe

NAMES = [
    "ActivationRecorder",
    "AugmentationBank",
    "DriftProbe",
    "ProbeImages",
    "ProbeReport",
    "ProbeResult",
    "SensitivityProbe",
    "View",
    "__version__",
    "probe_model",
    "select_layers",
]
METRIC_NAMES = {"About", "FunctionMetric", "LayerSensitivity", "ProbeMetric", "RelativeChange", "resolve_metrics"}


def test_these_are_the_public_names():
    assert sorted(kornia_lightning_probe.__all__) == NAMES
    assert all(getattr(kornia_lightning_probe, name) is not None for name in NAMES)


def test_what_a_metric_of_ones_own_needs_is_public():
    from kornia_lightning_probe import metrics

    assert set(metrics.__all__) >= METRIC_NAMES
    assert all(getattr(metrics, name) is not None for name in metrics.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'kornia_lightning_probe' has no attribute 'sensitivity_probe'"):
        kornia_lightning_probe.sensitivity_probe  # noqa: B018 - the look-up is what is tested


def test_lightning_and_what_is_optional_are_imported_on_first_use_only():
    code = """
import sys
import kornia_lightning_probe
# torchmetrics imports matplotlib where there is one; of what draws with it only our own figures can wait.
figures = "kornia_lightning_probe.reporting.figures"
heavy = ("lightning.pytorch", "pytorch_lightning", "pandas", "tensorboard", "altair", "vl_convert", figures)
print([name for name in heavy if name in sys.modules])
kornia_lightning_probe.SensitivityProbe
print("lightning.pytorch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)  # noqa: S603
    assert done.stdout.split("\n")[:2] == ["[]", "True"]
