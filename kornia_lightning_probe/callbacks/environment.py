"""What a probe asks a Trainer: processes, device, precision, step and validation data; the one place for its insides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from kornia_lightning_probe.calling import Forward, forward_of
from kornia_lightning_probe.engine import World

# Under these a forward pass is collective: parameters are gathered from all processes for each layer.
_SHARDED = {"FSDPStrategy", "DeepSpeedStrategy", "ModelParallelStrategy"}
# These run the wrapped model, not the LightningModule itself.
_WRAPPED = {"FSDPStrategy", "DeepSpeedStrategy"}
_TRANSFER_HOOKS = ("on_before_batch_transfer", "on_after_batch_transfer")


def world_of(trainer: Trainer) -> World:
    """This process among all, and the two collectives that the engine needs."""
    return World(
        rank=trainer.global_rank,
        size=trainer.world_size,
        add=lambda tensor: _sum(trainer, tensor),
        gather=_gather,
        lockstep=type(trainer.strategy).__name__ in _SHARDED and trainer.world_size > 1,
    )


def forward_in(trainer: Trainer, module: LightningModule, forward: Forward | None) -> Callable[[Any], Any]:
    """The forward as Lightning's own validation runs it: inputs converted, inside the precision's context."""
    strategy, precision = trainer.strategy, trainer.precision_plugin
    wrapped = type(strategy).__name__ in _WRAPPED and forward is None
    call = strategy.model if wrapped and strategy.model is not None else forward_of(module, forward)

    def run(inputs: Any) -> Any:
        with precision.forward_context():
            return call(precision.convert_input(inputs))

    return run


def logging_step(trainer: Trainer) -> int:
    """The step at which Lightning draws its own curves; ``global_step`` is off by one at the end of validation."""
    loop = getattr(trainer.fit_loop, "epoch_loop", None)
    return int(getattr(loop, "_batches_that_stepped", trainer.global_step))


def evaluation_loader(trainer: Trainer, dataloader_idx: int) -> Any:
    """The validation (in test: the test) dataloader that the probe takes its images from.

    Raises:
        MisconfigurationException: where there is none, or not so many.
    """
    if trainer.val_dataloaders is None and not trainer.testing and trainer.state.fn == "fit":
        _set_up_validation(trainer)
    loaders = trainer.test_dataloaders if trainer.testing else trainer.val_dataloaders
    flat = _flat(loaders)
    if dataloader_idx >= len(flat):
        raise MisconfigurationException(
            f"the probe takes its images from validation dataloader {dataloader_idx} and there are {len(flat)}: give "
            "the Trainer a validation dataloader, or pass images=, a tensor, a dataset or a dataloader"
        )
    return flat[dataloader_idx]


def require_validation(trainer: Trainer) -> None:
    """Refuse a training in which the probe would never run.

    Raises:
        MisconfigurationException: where the training has no validation.
    """
    if not trainer.enable_validation:
        raise MisconfigurationException(
            "the probe runs at the end of validation and this training has none: define validation_step, give the "
            "Trainer a validation dataloader, and leave limit_val_batches above 0"
        )


def unused_transfer_hooks(module: LightningModule) -> list[str]:
    """The batch transfer hooks that a module overrides; the probe, which has no batch, can't call them."""
    return [
        hook
        for hook in _TRANSFER_HOOKS
        if not getattr(getattr(type(module), hook, None), "__qualname__", "").startswith(
            ("DataHooks.", "LightningModule.")
        )
    ]


def _sum(trainer: Trainer, tensor: Tensor) -> Tensor:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(tensor)
        return tensor
    return torch.as_tensor(trainer.strategy.reduce(tensor, reduce_op="sum"))


def _gather(text: str) -> list[str]:
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [text]
    texts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(texts, text)
    return texts


def _set_up_validation(trainer: Trainer) -> None:
    # What the fit loop itself does before its first epoch where that epoch ends in a validation.
    trainer.validating = True
    try:
        trainer.fit_loop.epoch_loop.val_loop.setup_data()
    finally:
        trainer.training = True


def _flat(loaders: Any) -> list[Any]:
    if loaders is None:
        return []
    if isinstance(loaders, dict):
        return [loader for entry in loaders.values() for loader in _flat(entry)]
    if isinstance(loaders, list | tuple):
        return [loader for entry in loaders for loader in _flat(entry)]
    return [loaders]
