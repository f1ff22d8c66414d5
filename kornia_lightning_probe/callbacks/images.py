"""The probe images of a training: the same on every process, also where they can only be read from the front."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from lightning.pytorch import Trainer
from torch import Tensor

from kornia_lightning_probe.callbacks.trainer import evaluation_loader, is_trial
from kornia_lightning_probe.engine.processes import World
from kornia_lightning_probe.images.batches import ImageKeys, ToInputs
from kornia_lightning_probe.images.probe_images import ProbeImages
from kornia_lightning_probe.images.sources import FirstImages, has_no_indices, read_first

_ONE_BLOCK = 32


@dataclass(frozen=True)
class ImageChoice:
    """Which images a probe takes, and how.

    Args:
        images: a tensor, a dict or tuple of tensors, a dataset or a loader; None takes the validation data.
        num_images: how many of a dataset; tensors are used whole.
        seed: chooses the images.
        image_keys: which entries of dict or tuple inputs are images.
        to_inputs: how to get the model's inputs out of a batch.
        dataloader_idx: which of several validation dataloaders.
    """

    images: Any
    num_images: int
    seed: int
    image_keys: ImageKeys | None
    to_inputs: ToInputs | None
    dataloader_idx: int

    def read(self, trainer: Trainer, world: World) -> ProbeImages:
        """Read the images of this process's blocks; every process calls it.

        Raises:
            MisconfigurationException: where there is no such dataloader.
            ValueError: where no images can be found in it.
        """
        source = evaluation_loader(trainer, self.dataloader_idx) if self.images is None else self.images
        wanted = None if isinstance(source, Tensor | tuple | Mapping) else self.num_images
        if is_trial(trainer):
            wanted = _ONE_BLOCK if wanted is None else min(wanted, _ONE_BLOCK)
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
        )

    def _share_first(self, source: Any, wanted: int | None, *, trainer: Trainer, world: World) -> FirstImages:
        first: FirstImages | None = None
        if trainer.is_global_zero:
            first = read_first(source, wanted, seed=self.seed, image_keys=self.image_keys, to_inputs=self.to_inputs)
        # Should rank 0 fail, the others learn of it here, and don't wait for its images.
        world.meet("read")
        return cast(FirstImages, trainer.strategy.broadcast(first))
