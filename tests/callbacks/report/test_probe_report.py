import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from support.processes import ddp
from support.reports import Page
from support.trainings import QUIET, LoggedCalls, Net, assert_same_numbers, fit, loader, probe_of, trainer_of, validate

from kornia_lightning_probe import DriftProbe, ProbeReport
from kornia_lightning_probe.callbacks.report import probe_report
from kornia_lightning_probe.reporting.html import read_probes, report

pytestmark = [pytest.mark.filterwarnings(line) for line in QUIET]


def drift_of():
    return DriftProbe(layers=["stem", "body"], num_images=16, figures=False)


def files_in(folder):
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def test_a_training_leaves_a_page_and_every_number_of_its_probes(tmp_path):
    # Wherever it stands among the callbacks.
    probe, drift = probe_of(), drift_of()
    fit(tmp_path, ProbeReport(), probe, drift)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "Net: 16 images, 3 views, 3 layers, 2 probed epochs" in page.text
    assert probe.result.verdict(before=probe.history[0], first=probe.history[1]).splitlines()[0] in page.text
    read = read_probes(tmp_path / "probe.json")
    assert [(probed.name, probed.stage, probed.model) for probed in read] == [
        ("probe", "fit", "Net"),
        ("drift", "fit", "Net"),
    ]
    assert_same_numbers(read[0].results, probe.history)
    assert_same_numbers(read[1].results, drift.history)


def test_the_same_page_comes_of_the_files_that_the_training_leaves(tmp_path):
    fit(tmp_path, probe_of(), ProbeReport())
    of_trainer = Page((tmp_path / "report.html").read_text(encoding="utf-8")).data
    (of_folder,) = Page(report.report_text(read_probes(tmp_path))).data
    # In memory images are paired, which files don't hold, and errors are smaller: values are the same.
    assert of_trainer[0]["views"] == of_folder["views"]
    for pair in zip(of_trainer[0]["cells"], of_folder["cells"], strict=True):
        assert pair[0]["cells"] == pair[1]["cells"]
        for name in ("means", "levels"):
            assert pair[0][name]["y"] == pair[1][name]["y"]


def test_the_files_are_where_dirpath_says_or_beside_those_of_the_run(tmp_path):
    fit(tmp_path, probe_of(), ProbeReport(tmp_path / "deep" / "report"))
    assert files_in(tmp_path / "deep" / "report") == ["probe.json", "report.html"]
    assert not (tmp_path / "report.html").exists()
    fit(tmp_path, probe_of(), ProbeReport(), logger=CSVLogger(tmp_path, name="run", version="a"))
    assert {"probe.json", "report.html"} <= set(files_in(tmp_path / "run" / "a"))


class Failing(pl.Callback):
    def __init__(self, error):
        self.error = error

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            raise self.error


def test_a_training_that_fails_leaves_what_it_has(tmp_path):
    with pytest.raises(RuntimeError, match="out of luck"):
        fit(tmp_path, probe_of(), ProbeReport(), Failing(RuntimeError("out of luck")), max_epochs=4)
    (probed,) = read_probes(tmp_path / "probe.json")
    assert [result.epoch for result in probed.results] == [-1, 0, 1]
    assert (tmp_path / "report.html").exists()


def test_a_training_that_fails_before_the_first_probe_leaves_no_file(tmp_path):
    class Broken(Net):
        def on_fit_start(self):
            raise RuntimeError("at once")

    with pytest.raises(RuntimeError, match="at once"):
        fit(tmp_path, probe_of(), ProbeReport(), model=Broken)
    assert files_in(tmp_path) == []


def test_a_test_after_the_training_is_in_the_same_page(tmp_path):
    trainer = trainer_of(tmp_path, probe_of(), ProbeReport())
    model = Net()
    trainer.fit(model, loader(), loader(seed=1))
    trainer.test(model, loader(seed=2), verbose=False)
    read = read_probes(tmp_path / "probe.json")
    assert [(probed.stage, len(probed.results)) for probed in read] == [("fit", 3), ("test", 1)]


def test_an_evaluation_alone_does_not_replace_the_report_of_a_training(tmp_path):
    fit(tmp_path, probe_of(), ProbeReport())
    before = (tmp_path / "report.html").read_bytes()
    validate(tmp_path, probe_of(), ProbeReport())
    assert files_in(tmp_path) == ["probe.json", "report.html", "validate-probe.json", "validate-report.html"]
    assert (tmp_path / "report.html").read_bytes() == before


def test_it_changes_neither_weights_nor_what_is_logged(tmp_path):
    logged = []
    for callbacks in ([probe_of()], [probe_of(), ProbeReport()]):
        logger = LoggedCalls()
        trainer = fit(tmp_path, *callbacks, logger=logger)
        calls = [{tag: value for tag, value in metrics.items() if "seconds" not in tag} for metrics, _ in logger.calls]
        logged.append((calls, [value.clone() for value in trainer.lightning_module.state_dict().values()]))
    assert logged[0][0] == logged[1][0]
    assert all(torch.equal(one, other) for one, other in zip(logged[0][1], logged[1][1], strict=True))


def test_a_trial_leaves_nothing(tmp_path):
    fit(tmp_path, probe_of(), ProbeReport(), fast_dev_run=True)
    assert files_in(tmp_path) == []


def test_without_a_probe_it_says_so(tmp_path):
    with pytest.warns(UserWarning, match="ProbeReport has nothing to gather, as there is no probe in this Trainer"):
        fit(tmp_path, ProbeReport())
    assert files_in(tmp_path) == []


def test_a_page_that_cannot_be_written_is_a_warning(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.warns(UserWarning, match="ProbeReport could not write its files: .*; the results stay in memory"):
        fit(tmp_path, probe_of(), ProbeReport(tmp_path / "file"))


def test_an_address_is_no_folder(tmp_path):
    with pytest.warns(UserWarning, match="s3://bucket is no folder of this machine; pass dirpath="):
        fit(tmp_path, probe_of(), ProbeReport("s3://bucket"))


def test_a_missing_package_is_told_before_the_training(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "find_spec", {}.get)
    with pytest.raises(ImportError, match="pip install altair vl-convert-python jinja2"):
        fit(tmp_path, probe_of(), ProbeReport())


@pytest.mark.distributed
@pytest.mark.filterwarnings("ignore:Using `DistributedSampler` with the dataloaders:UserWarning")
def test_of_several_processes_the_first_one_writes(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    written = tmp_path / "writers.txt"
    write = probe_report.write_report

    def noted(path, probes):
        with written.open("a", encoding="utf-8") as file:
            file.write("written\n")
        write(path, probes)

    # Processes are forked, and have this one in them.
    monkeypatch.setattr(probe_report, "write_report", noted)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        fit(tmp_path / "run", probe_of(), ProbeReport(), strategy=ddp(), devices=2)
    finally:
        torch.set_num_threads(threads)
    assert written.read_text(encoding="utf-8") == "written\n"
    (probed,) = read_probes(tmp_path / "run" / "probe.json")
    assert [result.metadata["world_size"] for result in probed.results] == [2, 2, 2]
