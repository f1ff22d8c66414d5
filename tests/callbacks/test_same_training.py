"""A training with a probe is bit for bit the training without it, whatever its loaders draw and when they are made."""

import lightning.pytorch as pl
import pytest
import torch
from support import drifting
from support.trainings import QUIET, Net, Shaky, assert_same_weights, fit, images_of, probe_of, trainer_of, weights
from torch.utils.data import DataLoader

pytestmark = [
    *(pytest.mark.filterwarnings(line) for line in QUIET),
    pytest.mark.filterwarnings("ignore:the probe .* does not measure before the first step:UserWarning"),
    pytest.mark.filterwarnings("ignore:.* probe images with a label are of class 0:UserWarning"),
]


@pytest.mark.parametrize("options", [{}, {"figures": True, "batch_size": 7, "num_images": 33}])
def test_a_training_ends_in_the_same_weights_with_the_probe(tmp_path, options):
    """Dropout, BatchNorm, a shuffled loader and random transforms, in training and in validation."""

    def trained(*callbacks):
        trainer = fit(
            tmp_path,
            *callbacks,
            train=DataLoader(Shaky(images_of()), 16, shuffle=True),
            val=DataLoader(Shaky(images_of(seed=1)), 16),
            val_check_interval=0.5,
            logger=pl.loggers.TensorBoardLogger(tmp_path),
        )
        return weights(trainer.lightning_module), torch.get_rng_state(), trainer.callback_metrics["val/loss"]

    plain, plain_stream, plain_loss = trained()
    probed, probed_stream, probed_loss = trained(probe_of(**options))
    assert_same_weights(probed, plain)
    assert torch.equal(probed_stream, plain_stream)
    assert torch.equal(probed_loss, plain_loss)
    assert not torch.equal(plain["stem.1.running_mean"], torch.zeros(4))


class Drawing(Net):
    """Its loaders draw from the global stream when they are made, as those of a random split do."""

    def __init__(self):
        super().__init__()
        self.made = []

    def train_dataloader(self):
        self.made.append("train")
        return DataLoader(Shaky(images_of()), 16, shuffle=True)

    def val_dataloader(self):
        self.made.append("val")
        chosen = torch.randperm(64)[:32]
        return DataLoader(Shaky(images_of(seed=1)[chosen]), 16)


@pytest.mark.parametrize(
    "options",
    [
        {"num_sanity_val_steps": 0, "check_val_every_n_epoch": 2},
        {"num_sanity_val_steps": 2, "check_val_every_n_epoch": 2},
        {"num_sanity_val_steps": 0, "check_val_every_n_epoch": 2, "reload_dataloaders_every_n_epochs": 1},
        {"num_sanity_val_steps": 2, "reload_dataloaders_every_n_epochs": 1},
        {"num_sanity_val_steps": 0, "reload_dataloaders_every_n_epochs": 2},
        {"num_sanity_val_steps": 0, "check_val_every_n_epoch": None, "val_check_interval": 3},
        {},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", [probe_of, drifting.probe], ids=["sensitivity", "drift"])
def test_loaders_that_draw_are_made_when_lightning_makes_them(tmp_path, options, kind):
    def trained(*callbacks):
        pl.seed_everything(0, verbose=False)
        model = Drawing()
        trainer_of(tmp_path, *callbacks, max_epochs=4, **options).fit(model)
        return weights(model), torch.get_rng_state(), model.made

    plain, plain_stream, plain_made = trained()
    probed, probed_stream, probed_made = trained(kind(layers=["stem", "body", "head"], num_images=8))
    assert probed_made == plain_made
    assert_same_weights(probed, plain)
    assert torch.equal(probed_stream, plain_stream)
