"""The first look: what is said of errors in it, and that processes agree on the labels."""

import lightning.pytorch as pl
import pytest
import torch
from support.nets import Failing
from support.probing import images_of, plain_bank, run
from support.trainings import QUIET, trainer_of
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from kornia_lightning_probe import SensitivityProbe, probe_model
from kornia_lightning_probe.engine.processes import OtherRankError, World
from kornia_lightning_probe.engine.sighting import agreed_targets, first_forward_note
from kornia_lightning_probe.images.labels import Targets
from kornia_lightning_probe.images.probe_images import ProbeImages

IMAGES = images_of(10)


def note_of(model, inputs, kind, **options):
    """The note of an error that keeps its type."""
    with pytest.raises(kind) as caught:
        probe_model(model, inputs, plain_bank(), **options)
    assert type(caught.value) is kind
    (note,) = caught.value.__notes__
    return note


class TakesKeywords(nn.Module):
    """As Hugging Face's models do."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, input_ids=None, pixel_values=None):
        if pixel_values is None:
            raise ValueError("You have to specify pixel_values")
        return self.fc(pixel_values.mean((2, 3)))


def test_a_dict_that_a_model_takes_as_keywords():
    inputs = {"pixel_values": IMAGES}
    note = note_of(TakesKeywords(), inputs, ValueError)
    assert note.startswith(
        "the probe's first forward called TakesKeywords(inputs) with a dict of 'pixel_values': float32 (2, 3, 12, 12). "
    )
    for way_out in ("forward=lambda model, inputs: model(**inputs)", "to_inputs=", "image_keys="):
        assert way_out in note
    torch.manual_seed(0)
    probe_model(TakesKeywords(), inputs, plain_bank(), forward=lambda model, inputs: model(**inputs))


def test_images_whose_channels_a_model_wants_last():
    class ChannelsLast(nn.Sequential):
        def forward(self, x):
            return super().forward(x).mean((1, 2))

    torch.manual_seed(0)
    net = ChannelsLast(nn.Linear(3, 4), nn.Linear(4, 2))
    note = note_of(net, IMAGES, RuntimeError)
    assert "called ChannelsLast(images) with float32 (2, 3, 12, 12)" in note
    assert "model(images.permute(0, 2, 3, 1))" in note
    probe_model(net, IMAGES, plain_bank(), forward=lambda model, images: model(images.permute(0, 2, 3, 1)))


def test_a_tuple_that_was_images_and_labels():
    note = note_of(nn.Sequential(nn.Flatten()), (IMAGES, torch.arange(10)), TypeError)
    assert "called Sequential(*inputs) with a tuple of float32 (2, 3, 12, 12), int64 (2,)" in note
    assert "labels go into labels=" in note
    assert "forward=lambda model, inputs: model(inputs[0])" in note


def quiet(test):
    for line in QUIET:
        test = pytest.mark.filterwarnings(line)(test)
    return test


class Wide(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(432, 4), nn.Linear(4, 2))

    def forward(self, images):
        return self.net(images)

    def validation_step(self, batch, _):
        self(batch[0].to(self.net[1].weight))


def validated(tmp_path, precision):
    data = TensorDataset(IMAGES.double(), torch.arange(10) % 2)
    probe = SensitivityProbe(plain_bank(), figures=False)
    trainer = trainer_of(tmp_path, probe, precision=precision)
    torch.manual_seed(0)
    trainer.validate(Wide(), DataLoader(data, 10), verbose=False)
    return probe.result


@quiet
def test_float64_images_in_a_training_are_converted_as_its_precision_does(tmp_path):
    with pytest.raises(RuntimeError) as caught:
        validated(tmp_path, "32-true")
    assert any("The images are float64 and the parameters float32" in note for note in caught.value.__notes__)


@quiet
def test_double_precision_takes_them_as_they_are(tmp_path):
    assert validated(tmp_path, "64-true").tensor("sensitivity").isfinite().all()


def test_dtypes_are_said_only_where_the_error_is_of_them():
    images = IMAGES.double()
    of_dtypes = RuntimeError("mat1 and mat2 must have the same dtype, but got Double and Float")
    assert "The images are float64" in first_forward_note(of_dtypes, images, nn.Linear(3, 2))
    assert "The images are" not in first_forward_note(ValueError("no"), images, nn.Linear(3, 2))
    assert "The images are" not in first_forward_note(of_dtypes, images, nn.Flatten())


def test_memory_that_has_run_out_gets_no_such_note():
    class Full(nn.Module):
        def forward(self, x):
            raise torch.OutOfMemoryError("out of memory")

    with pytest.raises(torch.OutOfMemoryError) as caught:
        run(nn.Sequential(Full()), IMAGES, plain_bank(), layers="0")
    assert not getattr(caught.value, "__notes__", [])


# Labels among processes.

LABELLED = ProbeImages(IMAGES, labels=torch.arange(10) % 3)


def world_of(*others):
    return World(size=1 + len(others), gather=lambda text: [text, *others])


def test_processes_agree_on_the_labels_of_all():
    other = Targets((), 0, 7).to_text()
    assert agreed_targets(LABELLED, world_of(other)) == Targets((), 0, 7)
    assert agreed_targets(LABELLED, World()) == Targets((), 0, 2)


def test_one_process_that_has_targets_of_another_kind_stops_all_from_having_labels():
    other = Targets(others="float32 (10,)").to_text()
    assert agreed_targets(LABELLED, world_of(other)).others == "float32 (10,)"


def test_without_labels_nobody_asks():
    def refuse(text):
        raise AssertionError(text)

    assert agreed_targets(ProbeImages(IMAGES), World(size=2, gather=refuse)) == Targets()


def test_a_process_that_has_failed_before_is_heard():
    with pytest.raises(OtherRankError, match="failed on rank 1: ValueError: no image"):
        agreed_targets(LABELLED, world_of("failed: ValueError: no image"))


def test_an_error_of_a_layer_has_one_note():
    with pytest.raises(RuntimeError) as caught:
        run(nn.Sequential(Failing()), IMAGES, plain_bank(), layers="0")
    assert len(caught.value.__notes__) == 1
