from dataclasses import replace

import numpy as np
import pytest
import torch
from support.nets import SmallCNN
from support.probing import images_of

from kornia_lightning_probe import AugmentationBank, ProbeResult, presets, probe_model
from kornia_lightning_probe.randomness import isolated_rng


@pytest.fixture(scope="module")
def measured():
    bank = AugmentationBank({"turn": presets.rotation((5, 30))})
    with isolated_rng(3):
        net = SmallCNN()
    return probe_model(net, images_of(9), bank, labels=[0, 1, 2] * 3, metrics=["sensitivity"])


def test_a_result_from_files_has_the_images_that_it_was_written_with(measured, tmp_path):
    measured.to_json(tmp_path / "probe.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["probe.images.npz", "probe.json"]
    read = ProbeResult.from_json(tmp_path / "probe.json")
    assert read.worst_images() == measured.worst_images()
    assert read.by_label() == measured.by_label()
    assert [row.worst for row in read.severity()] == [row.worst for row in measured.severity()]
    assert read.images.moved.dtype == torch.float32


def test_the_pictures_of_the_worst_images_come_back(measured, tmp_path):
    measured.to_json(tmp_path / "probe.json")
    read, worst = ProbeResult.from_json(tmp_path / "probe.json").images.worst, measured.images.worst
    assert (read.layer, read.view) == (worst.layer, worst.view)
    for name in ("places", "clean", "augmented"):
        assert torch.equal(getattr(read, name), getattr(worst, name))


def test_a_file_without_pictures_as_earlier_versions_wrote_it_is_read(measured, tmp_path):
    older = ProbeResult.of(measured)
    older.images = replace(measured.images, worst=None)
    older.to_json(tmp_path / "probe.json")
    read = ProbeResult.from_json(tmp_path / "probe.json")
    assert read.images.worst is None
    assert read.worst_images() == measured.worst_images()


@pytest.mark.parametrize("wrong", [{"view": 2}, {"view": -1}, {"layer": "other"}, {"places": torch.full((6,), 9)}])
def test_pictures_of_what_the_tables_do_not_hold_are_left_out_with_a_warning(measured, tmp_path, wrong):
    broken = ProbeResult.of(measured)
    broken.images = replace(measured.images, worst=replace(measured.images.worst, **wrong))
    broken.to_json(tmp_path / "probe.json")
    with pytest.warns(UserWarning, match="which its tables do not hold"):
        assert ProbeResult.from_json(tmp_path / "probe.json").images is None


def test_numpy_reads_it_without_pickles(measured, tmp_path):
    measured.to_json(tmp_path / "probe.json")
    with np.load(tmp_path / "probe.images.npz", allow_pickle=False) as arrays:
        assert arrays["moved"].shape == (2, 1 + len(measured.layers), 9)
        assert arrays["labels"].tolist() == measured.images.labels.tolist()


def test_the_text_of_a_result_holds_no_images(measured):
    assert ProbeResult.from_json(measured.to_json()).images is None


def test_a_result_without_images_leaves_none_behind(measured, tmp_path):
    measured.to_json(tmp_path / "probe.json")
    measured.without_influence().to_json(tmp_path / "probe.json")
    assert [path.name for path in tmp_path.iterdir()] == ["probe.json"]
    assert ProbeResult.from_json(tmp_path / "probe.json").images is None


def test_images_of_another_result_are_left_out_with_a_warning(measured, tmp_path):
    measured.to_json(tmp_path / "probe.json")
    later = ProbeResult.of(measured)
    later.epoch = 7
    later.to_json(tmp_path / "later.json")
    (tmp_path / "later.images.npz").replace(tmp_path / "probe.images.npz")
    with pytest.warns(UserWarning, match="it is of another result than the JSON file"):
        read = ProbeResult.from_json(tmp_path / "probe.json")
    assert read.images is None
    assert read.value("sensitivity") == measured.value("sensitivity")


def test_images_of_another_model_on_the_same_images_are_another_results(measured, tmp_path):
    # Without a Trainer every result is of epoch 0 and step 0.
    with isolated_rng(4):
        net = SmallCNN()
    other = probe_model(
        net, images_of(9), AugmentationBank({"turn": presets.rotation((5, 30))}), labels=[0, 1, 2] * 3,
        metrics=["sensitivity"],
    )  # fmt: skip
    measured.to_json(tmp_path / "probe.json")
    other.to_json(tmp_path / "other.json")
    (tmp_path / "other.images.npz").replace(tmp_path / "probe.images.npz")
    with pytest.warns(UserWarning, match="it is of another result"):
        assert ProbeResult.from_json(tmp_path / "probe.json").images is None


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04broken"])
def test_a_broken_file_is_a_warning_that_names_it(measured, tmp_path, content):
    measured.to_json(tmp_path / "probe.json")
    (tmp_path / "probe.images.npz").write_bytes(content)
    with pytest.warns(UserWarning, match=r"probe\.images\.npz is left out"):
        assert ProbeResult.from_json(tmp_path / "probe.json").images is None


def test_checkpoints_hold_no_images(measured):
    assert ProbeResult.from_state(measured.state()).images is None
