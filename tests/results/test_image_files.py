from dataclasses import replace

import numpy as np
import pytest
import torch
from support.nets import SmallCNN
from support.probing import images_of

from kornia_lightning_probe import AugmentationBank, ProbeResult, presets, probe_model
from kornia_lightning_probe.randomness import isolated_rng
from kornia_lightning_probe.results.image_files import ImagesInFile


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


def filed(measured, folder):
    """A result that has been written, and where its images are."""
    folder.mkdir(exist_ok=True)
    measured.to_json(folder / "probe.json")
    return ImagesInFile.of_result(measured, folder / "probe.json")


def test_images_are_read_when_they_are_asked_for(measured, tmp_path):
    older = measured.without_influence()
    older.images_elsewhere = filed(measured, tmp_path)
    assert older.images_held is None
    for name in ("moved", "apart", "labels"):
        pair = (getattr(result.images, name) for result in (older, measured))
        torch.testing.assert_close(*pair, rtol=0, atol=0, equal_nan=True)
    assert older.worst_images() == measured.worst_images()
    assert older.by_label() == measured.by_label()
    assert [row.worst for row in older.severity()] == [row.worst for row in measured.severity()]
    # It goes on to results made of it, and to their files.
    copied = ProbeResult.of(older)
    copied.to_json(tmp_path / "copy.json")
    assert ProbeResult.from_json(tmp_path / "copy.json").worst_images() == measured.worst_images()


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04broken"])
def test_images_that_are_gone_or_broken_are_none_without_a_word(measured, tmp_path, content):
    place = filed(measured, tmp_path)
    target = tmp_path / "probe.images.npz"
    target.unlink() if content is None else target.write_bytes(content)
    assert place() is None


def test_a_file_that_is_damaged_inside_is_none_too(measured, tmp_path):
    place = filed(measured, tmp_path)
    target = tmp_path / "probe.images.npz"
    whole = bytearray(target.read_bytes())
    for start in range(64, len(whole) // 2, 7):
        whole[start] ^= 0xFF
    target.write_bytes(whole)
    assert place() is None


def test_images_of_a_result_that_was_written_over_them_are_not_taken(measured, tmp_path):
    place = filed(measured, tmp_path)
    later = ProbeResult.of(measured)
    later.epoch = 7
    later.to_json(tmp_path / "probe.json")
    assert place() is None


@pytest.mark.parametrize("checkpoint", ["run/last.ckpt", "run/checkpoints/last.ckpt"])
def test_in_a_folder_that_was_moved_images_are_found_beside_the_checkpoint(measured, tmp_path, checkpoint):
    (tmp_path / "there").mkdir()
    place = filed(measured, tmp_path / "there" / "probe")
    (tmp_path / "there").rename(tmp_path / "run")
    assert ImagesInFile.from_state(place.state())() is None
    found = ImagesInFile.from_state(place.state(), near=tmp_path / checkpoint)
    assert torch.equal(found().moved, measured.images.moved)
    # Where they have not been moved, they are taken from where they were written.
    (tmp_path / "run").rename(tmp_path / "there")
    assert ImagesInFile.from_state(place.state(), near=tmp_path / checkpoint) == place


def test_checkpoints_hold_no_images(measured):
    assert ProbeResult.from_state(measured.state()).images is None
