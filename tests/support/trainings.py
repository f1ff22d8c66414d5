"""A tiny training that the tests of the callbacks share: 64 images of 8 x 8, three layers, two epochs."""

import kornia.augmentation as K  # noqa: N812 - Kornia's own convention
import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers.logger import DummyLogger
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from kornia_lightning_probe import AugmentationBank, SensitivityProbe

LAYERS = ("stem", "body", "head")

# Lightning's own noise, and what is true of every training as small as these.
QUIET = (
    "ignore:.*isinstance\\(treespec, LeafSpec\\).*",
    "ignore:.*does not have many workers.*",
    "ignore:.*takes more than 10 % of an epoch.*:UserWarning",
    # The shared bank does so on purpose: what is drawn must be the same everywhere.
    "ignore:these views draw their magnitude from a range.*:UserWarning",
    "ignore:one channel holds more than half of the variance.*:UserWarning",
)


class Net(pl.LightningModule):
    """Three layers, with all that a probe could disturb: BatchNorm and dropout."""

    def __init__(self, *, lr=0.1):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.body = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2))
        self.head = nn.Linear(24, 2)
        self.lr = lr

    def forward(self, images):
        return self.head(self.body(self.stem(images)))

    def training_step(self, batch, batch_idx):
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.log("val/loss", nn.functional.cross_entropy(self(batch[0]), batch[1]), sync_dist=True)

    def test_step(self, batch, batch_idx):
        self(batch[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)


class Headless(Net):
    """A module whose forward is Lightning's placeholder, as where everything happens in training_step."""

    forward = pl.LightningModule.forward

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(self.stem, self.body, self.head)

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.backbone(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.backbone(batch[0])


class Shaky(Dataset):
    """Images under a random transform: noise from torch's global stream."""

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        noisy = (self.images[index] + 0.1 * torch.randn(3, 1, 1)).clamp(0, 1)
        return noisy, index % 2


class LoggedCalls(DummyLogger):
    """A logger that keeps what it is given."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def log_metrics(self, metrics, step=None):
        self.calls.append((dict(metrics), step))

    def of(self, name):
        """Every call that has a value of the probe of this name: the probe's values and the step."""
        calls = [({tag: value for tag, value in metrics.items() if name in tag}, step) for metrics, step in self.calls]
        return [call for call in calls if call[0]]


def images_of(count=64, *, seed=0):
    """Images (count, 3, 8, 8) in [0, 1]; those of odd number are darker."""
    images = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    images[1::2] *= 0.7
    return images


def loader(count=64, *, batch_size=16, seed=0, **options):
    """A loader of such images and their labels."""
    return DataLoader(TensorDataset(images_of(count, seed=seed), torch.arange(count) % 2), batch_size, **options)


def bank_of():
    """Three views: two levels of a random rotation, and a flip."""
    rotation = {angle: K.RandomRotation((-angle, angle), p=1.0) for angle in (10.0, 30.0)}
    return AugmentationBank({"rotation": rotation, "flip": K.RandomHorizontalFlip(p=1.0)})


def probe_of(**options):
    """A probe of all three layers on 16 images, without figures."""
    return SensitivityProbe(bank_of(), **{"layers": list(LAYERS), "num_images": 16, "figures": False} | options)


def trainer_of(folder, *callbacks, **options):
    """A quiet Trainer of two epochs on one CPU process."""
    defaults = {
        "max_epochs": 2,
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "log_every_n_steps": 1,
        "default_root_dir": folder,
    }
    return pl.Trainer(callbacks=list(callbacks), **defaults | options)


def fit(folder, *callbacks, model=Net, train=None, val=None, ckpt_path=None, seed=0, **options):
    """Train the same small net as every call does, or a given one, or one of a given class; returns the Trainer."""
    pl.seed_everything(seed, verbose=False)
    trainer = trainer_of(folder, *callbacks, **options)
    train, val = (default if given is None else given for given, default in ((train, loader()), (val, loader(seed=1))))
    trainer.fit(model if isinstance(model, nn.Module) else model(), train, val, ckpt_path=ckpt_path)
    return trainer


def validate(folder, *callbacks, model=Net, val=None, seed=0, **options):
    """Validate the same untrained net as every call does; returns the Trainer."""
    pl.seed_everything(seed, verbose=False)
    trainer = trainer_of(folder, *callbacks, **options)
    made = model if isinstance(model, nn.Module) else model()
    trainer.validate(made, loader(seed=1) if val is None else val, verbose=False)
    return trainer


def weights(model):
    """Every parameter and buffer by name."""
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same_weights(left, right):
    """Bit for bit."""
    assert left.keys() == right.keys()
    assert [name for name in left if not torch.equal(left[name], right[name])] == []


def assert_same_numbers(left, right, *, rtol=0.0, atol=0.0):
    """Two results, or lists of them, agree in values and standard errors; without tolerances bit for bit."""
    left, right = ([each] if hasattr(each, "rows") else list(each) for each in (left, right))
    assert [(result.epoch, result.step, result.layers) for result in left] == [
        (result.epoch, result.step, result.layers) for result in right
    ]
    for one, other in zip(left, right, strict=True):
        for metric in one.metrics:
            for numbers in ("value", "std_error"):
                pair = (getattr(result.table(metric), numbers) for result in (one, other))
                torch.testing.assert_close(*pair, rtol=rtol, atol=atol, equal_nan=True)
