"""What every probe is given: a probe of one's own says what it measures and logs, and has all the rest."""

import math

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from support.trainings import QUIET, LoggedCalls, fit, loader, probe_of, validate

from kornia_lightning_probe import ProbeResult
from kornia_lightning_probe.callbacks.base import EpochProbe
from kornia_lightning_probe.callbacks.logbook import Entry
from kornia_lightning_probe.result import MetricTable
from kornia_lightning_probe.results.tables import CLEAN

pytestmark = [pytest.mark.filterwarnings(line) for line in QUIET]


class WeightProbe(EpochProbe):
    """A probe as somebody else would write it: the largest weight of each chosen layer."""

    def measure(self, subject, images, occasion):
        weights = [torch.nn.utils.parameters_to_vector(layer.parameters()) for layer in subject.layers.values()]
        row = torch.stack([vector.detach().abs().max() for vector in weights])[None]
        table = MetricTable(tuple(subject.layers), row, torch.full_like(row, math.nan), torch.ones_like(row))
        return ProbeResult(
            layers=subject.layers,
            views=[CLEAN],
            tables={"largest": table},
            epoch=occasion.epoch,
            step=occasion.step,
            metadata={"num_images": images.num_images, "warnings": []},
        )

    def entry(self, results, images, *, name, stage):
        value = results[-1].value("largest")
        return Entry(name, results[-1], {f"{name}_largest/stem": value}, {f"{name}/largest": value})


def test_a_probe_of_ones_own_has_history_files_logs_state_and_names_by_its_two_methods(tmp_path):
    probe, logger = WeightProbe(name="weights", layers=["stem", "head"], num_images=8), LoggedCalls()
    trainer = fit(tmp_path, probe, logger=logger)
    assert [result.epoch for result in probe.history] == [-1, 0, 1]
    assert float(trainer.callback_metrics["weights/largest"]) == pytest.approx(probe.result.value("largest"))
    assert [step for values, step in logger.of("weights") if "weights_largest/stem" in values] == [0, 3, 7]
    assert len(list((tmp_path / "weights").glob("fit-*.json"))) == 3
    again = WeightProbe(name="weights", layers=["stem", "head"], num_images=8)
    again.load_state_dict(probe.state_dict())
    assert [result.value("largest") for result in again.history] == [
        result.value("largest") for result in probe.history
    ]
    trainer.validate(trainer.lightning_module, loader(seed=1), verbose=False)
    assert len(probe.validations) == 1
    assert "weights_validate/largest" in trainer.callback_metrics


def test_results_of_validate_and_test_are_logged_as_of_a_probe_of_another_name(tmp_path):
    probe, logger = probe_of(monitor=["probe_sensitivity/head"]), LoggedCalls()
    trainer = fit(tmp_path, probe, logger=logger, max_epochs=1)
    logger.calls.clear()
    trainer.validate(trainer.lightning_module, loader(seed=1), verbose=False)
    trainer.test(trainer.lightning_module, loader(seed=2), verbose=False)
    tags = {tag for values, _ in logger.of("probe") for tag in values}
    assert {tag.split("/")[0] for tag in tags} == {
        f"probe_{stage}{metric}"
        for stage in ("validate", "test")
        for metric in ("", "_sensitivity", "_sensitivity_rotation", "_sensitivity_flip")
    }
    assert {"probe_validate/spread", "probe_test_sensitivity/head"} <= tags
    assert [result.epoch for result in probe.history] == [-1, 0]
    assert len(probe.validations) == len(probe.tests) == 1
    assert probe.result is probe.tests[0]


def test_validate_after_a_training_takes_the_images_that_it_was_given(tmp_path):
    trained, alone = probe_of(), probe_of()
    trainer = fit(tmp_path, trained, max_epochs=1)
    trainer.validate(trainer.lightning_module, loader(seed=9), verbose=False)
    validate(tmp_path, alone, val=loader(seed=9))
    hashes = [probe.validations[0].metadata["content_hash"] for probe in (trained, alone)]
    assert hashes[0] == hashes[1] != trained.history[0].metadata["content_hash"]


def test_a_training_after_validate_takes_its_own_images(tmp_path):
    probe = probe_of()
    trainer = validate(tmp_path, probe, val=loader(seed=9), max_epochs=1)
    trainer.fit(trainer.lightning_module, loader(), loader(seed=1))
    assert [result.epoch for result in probe.history] == [-1, 0]
    assert probe.validations[0].metadata["content_hash"] not in [
        result.metadata["content_hash"] for result in probe.history
    ]


def test_a_new_training_forgets_what_belongs_to_the_last_one(tmp_path):
    probe = probe_of()
    trainer = fit(tmp_path, probe, max_epochs=1)
    trainer.test(trainer.lightning_module, loader(seed=2), verbose=False)
    fit(tmp_path, probe, max_epochs=1)
    assert len(probe.history) == 2
    assert probe.tests == []


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ({"last_epoch": "two"}, r"'last_epoch' must be an integer, got 'two'"),
        ({"history": 3}, r"'history' must be a list of results, got a int"),
        ({"history": [{"format": 1}]}, r"'history'\[0\] is no result"),
        ({"run": 5}, r"'run' must be a text or None, got 5"),
        ({"origin": {"epoch": 3}}, r"'layers'"),
        ([], "has no attribute 'get'"),
    ],
)
def test_a_malformed_state_is_refused_with_its_place(state, text):
    with pytest.raises(ValueError, match=rf"the state of SensitivityProbe\[probe\] in this checkpoint.*{text}"):
        probe_of().load_state_dict(state)


@pytest.mark.parametrize("missing", ["last_epoch", "run", "history", "origin"])
def test_a_checkpoint_of_an_earlier_version_without_a_key_still_loads(tmp_path, missing):
    probe = probe_of()
    fit(tmp_path, probe, max_epochs=1)
    state = probe.state_dict()
    del state[missing]
    again = probe_of()
    again.load_state_dict(state)
    assert len(again.history) == (0 if missing == "history" else 2)


def test_a_drift_state_without_its_references_still_loads(tmp_path):
    from support import drifting

    found = drifting.probe()
    found.load_state_dict({"last_epoch": 1})
    assert found.history == []
    assert found.snapshot is None
    with pytest.raises(ValueError, match=r"the state of DriftProbe\[drift\] in this checkpoint can't be read"):
        found.load_state_dict({"references": {"first": {"epoch": 1}}})


def test_a_bar_is_shown_where_lightning_shows_its_own(tmp_path, monkeypatch):
    shown = []

    def look(self, subject, images, occasion):
        shown.append(occasion.progress)
        return measure(self, subject, images, occasion)

    measure = WeightProbe.measure
    monkeypatch.setattr(WeightProbe, "measure", look)
    for bar in (True, False):
        for progress in (None, True, False):
            probe = WeightProbe(name="weights", layers="stem", at_start=False, progress=progress)
            fit(tmp_path, probe, max_epochs=1, enable_progress_bar=bar, logger=CSVLogger(tmp_path))
    assert shown == [True, True, False, False, True, False]
