"""The probe images of a training: the same on every process, also where they can only be read from the front."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader, Dataset

from kornia_lightning_probe.callbacks.trainer import evaluation_loader, is_trial
from kornia_lightning_probe.engine.processes import World
from kornia_lightning_probe.image_layout import image_layout
from kornia_lightning_probe.images.batches import ImageKeys, ToInputs
from kornia_lightning_probe.images.first_images import FirstImages, has_no_indices, read_first
from kornia_lightning_probe.images.generators import reachable
from kornia_lightning_probe.images.probe_images import ProbeImages
from kornia_lightning_probe.images.workers import has_workers

_ONE_BLOCK = 32
# What has the methods of a dataset and is none, or has nothing that it could open.
_IN_MEMORY = (Tensor, np.ndarray, Mapping, list, tuple, range, str, bytes, nn.Module)


@dataclass(frozen=True)
class ImageChoice:
    """Which images a probe takes, and how.

    Args:
        images: a tensor, a dict or tuple of tensors, a dataset or a loader; None takes the validation data.
        num_images: how many of a dataset, None for all; tensors are used whole.
        seed: chooses the images.
        image_keys: which entries of dict or tuple inputs are images.
        to_inputs: how to get the model's inputs out of a batch.
        dataloader_idx: which of several validation dataloaders.
        layout: the axes of images, "image", "volume" or "video".
    """

    images: Any
    num_images: int | None
    seed: int
    image_keys: ImageKeys | None
    to_inputs: ToInputs | None
    dataloader_idx: int
    layout: str = "image"

    def read(self, trainer: Trainer, world: World) -> ProbeImages:
        """Read the images of this process's blocks; every process calls it.

        Raises:
            MisconfigurationException: where there is no such dataloader.
            ValueError: where no images can be found in it.
        """
        source = self._source(trainer)
        wanted = self._wanted(trainer, source)
        if has_no_indices(source):
            source = self._share_first(source, wanted, trainer=trainer, world=world)
        return ProbeImages(
            source,
            num_images=wanted,
            seed=self.seed,
            image_keys=self.image_keys,
            to_inputs=self.to_inputs,
            rank=world.rank,
            world_size=world.size,
            layout=self.layout,
        )

    def _source(self, trainer: Trainer) -> Any:
        if self.images is None:
            return evaluation_loader(trainer, self.dataloader_idx)
        if _is_dataset(self.images):
            return _read_as_by_loaders(self.images, trainer)
        return self.images

    def _wanted(self, trainer: Trainer, source: Any) -> int | None:
        wanted = self.num_images
        if isinstance(source, Tensor | tuple | Mapping):
            wanted = None
        if not is_trial(trainer):
            return wanted
        return _ONE_BLOCK if wanted is None else min(wanted, _ONE_BLOCK)

    def _share_first(self, source: Any, wanted: int | None, *, trainer: Trainer, world: World) -> FirstImages:
        first: FirstImages | None = None
        if trainer.is_global_zero:
            first = read_first(
                source,
                wanted,
                seed=self.seed,
                image_keys=self.image_keys,
                to_inputs=self.to_inputs,
                layout=image_layout(self.layout),
            )
        # Should rank 0 fail, the others learn of it here, and don't wait for its images.
        world.meet("read")
        return cast(FirstImages, trainer.strategy.broadcast(first))


def _read_as_by_loaders(dataset: Any, trainer: Trainer) -> Any:
    """A dataset that a loader of the training reads in workers must not be opened in this process either."""
    parts = _datasets_in(dataset)
    for loader in _loaders_of(trainer):
        if has_workers(loader) and parts & _datasets_in(loader.dataset):
            return DataLoader(
                dataset,
                num_workers=1,
                multiprocessing_context=loader.multiprocessing_context,
                worker_init_fn=loader.worker_init_fn,
            )
    return dataset


def _loaders_of(trainer: Trainer) -> Iterator[Any]:
    for loaders in (trainer.train_dataloader, trainer.val_dataloaders, trainer.test_dataloaders):
        yield from tree_leaves(loaders)


def _datasets_in(dataset: object) -> set[int]:
    return {id(part) for part in reachable(dataset) if _is_dataset(part)}


def _is_dataset(value: object) -> bool:
    """Whether a loader could read it: PyTorch asks for two methods, and for no class."""
    if isinstance(value, Dataset):
        return True
    if isinstance(value, _IN_MEMORY):
        return False
    kind = type(value)
    return hasattr(kind, "__getitem__") and hasattr(kind, "__len__")
