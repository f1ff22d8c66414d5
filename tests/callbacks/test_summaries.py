"""What is relative to an earlier probe is so to one of the same images, augmentations, layers and embedding."""

import math

import kornia.augmentation as K  # noqa: N812 - Kornia's own convention
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from support.trainings import QUIET, Net, fit, loader, probe_of

from kornia_lightning_probe import AugmentationBank, SensitivityProbe
from kornia_lightning_probe.callbacks.summaries import Origin, compared

pytestmark = [
    *(pytest.mark.filterwarnings(line) for line in QUIET),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty:UserWarning"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks used to create:UserWarning"),
]


def spread_of(trainer, name="probe"):
    return float(trainer.callback_metrics[f"{name}/spread"])


def saved(folder, probe):
    """The checkpoint of a training of one epoch."""
    fit(folder, probe, ModelCheckpoint(folder, filename="last"), enable_checkpointing=True, max_epochs=1)
    return folder / "last.ckpt"


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"seed": 5}, "images"),
        ({"embedding": "stem"}, "embedding"),
        ({"layers": ["stem", "body"], "embedding": "body"}, "layers"),
    ],
    ids=["other images", "another embedding", "other layers"],
)
def test_after_a_resume_with_something_else_the_spread_starts_anew_and_says_so_once(tmp_path, options, what):
    path = saved(tmp_path, probe_of(embedding="body"))
    probe = probe_of(**{"embedding": "body"} | options)
    with pytest.warns(UserWarning, match=rf"probe/spread was relative to epoch -1, with other {what}, ") as said:
        trainer = fit(tmp_path, probe, ckpt_path=path, max_epochs=3)
    assert sum("spread was relative to" in str(warning.message) for warning in said) == 1
    # The result of epoch 1 is what that of epoch 2 is relative to.
    layer = options.get("embedding", "body")
    expected = probe.history[-1].value("spread", layer) / probe.history[-2].value("spread", layer)
    assert spread_of(trainer) == pytest.approx(expected, rel=1e-6)
    assert list(compared(probe.history)) == ["start", "now"]
    assert compared(probe.history)["start"].epoch == 1


def test_another_bank_after_a_resume_is_seen(tmp_path):
    path = saved(tmp_path, probe_of())
    bank = AugmentationBank({"flip": K.RandomHorizontalFlip(p=1.0)})
    probe = SensitivityProbe(bank, layers=["stem", "body", "head"], num_images=16, figures=False)
    with pytest.warns(
        UserWarning, match="relative to epoch -1, with other augmentations, which can't be compared: from epoch 1 on"
    ):
        fit(tmp_path, probe, ckpt_path=path, max_epochs=2)


def test_a_resumed_training_is_relative_to_the_start_of_the_first_one(tmp_path):
    path = saved(tmp_path, probe_of())
    probe = probe_of()
    trainer = fit(tmp_path, probe, ckpt_path=path, max_epochs=2)
    expected = probe.history[-1].value("spread", "body") / probe.history[0].value("spread", "body")
    assert spread_of(trainer) == pytest.approx(expected, rel=1e-6)
    assert list(compared(probe.history)) == ["start", "previous", "now"]


class Waking(Net):
    """Its embedding is dead until the second epoch."""

    def forward(self, images):
        wakes = float(self.trainer.current_epoch >= 1)
        return self.head(self.body(self.stem(images) * wakes))


@pytest.mark.filterwarnings("ignore:these layers give every clean image the same activation:UserWarning")
def test_a_reference_that_is_dead_is_replaced_by_the_first_that_is_not(tmp_path):
    probe = probe_of()
    seen = []

    class Watching(Waking):
        def on_validation_end(self):
            if not self.trainer.sanity_checking:
                seen.append(spread_of(self.trainer))

    fit(tmp_path, probe, model=Watching, max_epochs=3)
    # Dead at the start and in epoch 0; epoch 1 is relative to itself.
    assert math.isnan(seen[0])
    assert seen[1] == 1.0
    expected = probe.history[-1].value("spread", "body") / probe.history[-2].value("spread", "body")
    assert seen[2] == pytest.approx(expected, rel=1e-6)


def test_validate_on_the_images_of_the_training_is_relative_to_its_start_and_on_others_to_itself(tmp_path):
    probe = probe_of()
    trainer = fit(tmp_path, probe)
    last = spread_of(trainer)
    trainer.validate(trainer.lightning_module, loader(seed=1), verbose=False)
    assert spread_of(trainer, "probe_validate") == pytest.approx(last, rel=1e-5)
    # A warning would be an error here: a test's images are never those of the training.
    trainer.test(trainer.lightning_module, loader(seed=2), verbose=False)
    assert spread_of(trainer, "probe_test") == 1.0
    with pytest.warns(UserWarning, match="probe_validate/spread was relative to epoch -1, with other images"):
        trainer.validate(trainer.lightning_module, loader(seed=3), verbose=False)
    assert spread_of(trainer, "probe_validate") == 1.0


def test_an_origin_comes_back_from_its_state(tmp_path):
    probe = probe_of()
    fit(tmp_path, probe, max_epochs=1)
    origin = Origin.of(probe.history[0])
    assert Origin.from_state(origin.state()) == origin
    assert origin.has_spread
    assert origin.differences(Origin.of(probe.history[1])) == []
    assert torch.tensor(origin.spread).isfinite()
