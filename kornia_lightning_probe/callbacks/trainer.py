"""What a probe asks a Trainer: processes, device, precision, step, data. The one place for a Trainer's insides."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from kornia_lightning_probe.engine.processes import World
from kornia_lightning_probe.model.calling import Forward, forward_of

# Under these a forward pass is collective: parameters are gathered from all processes for each layer.
_SHARDED = {"FSDPStrategy", "DeepSpeedStrategy", "ModelParallelStrategy"}
# These run the wrapped model, not the LightningModule itself.
_WRAPPED = {"FSDPStrategy", "DeepSpeedStrategy"}
_TRANSFER_HOOKS = ("on_before_batch_transfer", "on_after_batch_transfer")
_HOOKS_OF_LIGHTNING = ("DataHooks.", "LightningModule.", "LightningDataModule.")


@dataclass(frozen=True)
class Occasion:
    """When and among whom a probe measures.

    Args:
        epoch: of the training; -1 before its first step.
        step: at which Lightning draws its own curves.
        stage: "fit", "validate" or "test".
        world: this process among all.
        progress: whether this process shows a bar.
    """

    epoch: int
    step: int
    stage: str
    world: World
    progress: bool


def occasion_of(trainer: Trainer, *, epoch: int, progress: bool | None) -> Occasion:
    """What a probe that begins now is told.

    Args:
        trainer: the Trainer.
        epoch: of the training; -1 before its first step.
        progress: whether a bar is wanted; None where Lightning shows its own.
    """
    if progress is None:
        progress = shows_bar(trainer)
    step = 0
    if epoch >= 0:
        step = logging_step(trainer)
    return Occasion(
        epoch=epoch,
        step=step,
        stage=stage_of(trainer),
        world=world_of(trainer),
        progress=progress and trainer.is_global_zero,
    )


def world_of(trainer: Trainer) -> World:
    """This process among all, and the two collectives that the engine needs.

    Processes that hold parts of one layer (tensor parallelism) must see the same inputs, so they count as one: each
    works on the same blocks, and the first of them brings its numbers to the sum.
    """
    if trainer.world_size == 1:
        return World()
    strategy = trainer.strategy
    share = getattr(strategy, "distributed_sampler_kwargs", None) or {}
    brings = _is_first_of_its_inputs(strategy)
    return World(
        rank=share.get("rank", trainer.global_rank),
        size=share.get("num_replicas", trainer.world_size),
        add=lambda tensor: _sum(trainer, tensor if brings else torch.zeros_like(tensor)),
        gather=_gather,
        lockstep=type(strategy).__name__ in _SHARDED,
    )


def forward_in(trainer: Trainer, module: LightningModule, forward: Forward | None) -> Callable[[Any], Any]:
    """The forward as Lightning's own validation runs it: inputs converted, inside the precision's context."""
    strategy, precision = trainer.strategy, trainer.precision_plugin
    call = forward_of(module, forward)
    if forward is None and type(strategy).__name__ in _WRAPPED and strategy.model is not None:
        call = forward_of(strategy.model)

    def run(inputs: Any) -> Any:
        with precision.forward_context():
            return call(precision.convert_input(inputs))

    return run


def logging_step(trainer: Trainer) -> int:
    """The step at which Lightning draws its own curves; ``global_step`` is off by one at the end of validation."""
    loop = getattr(trainer.fit_loop, "epoch_loop", None)
    step = int(getattr(loop, "_batches_that_stepped", trainer.global_step))
    if trainer.training:
        # At the end of a training epoch Lightning goes back by one before it logs, and at that of validation it has.
        return max(0, step - 1)
    return step


def is_trial(trainer: Trainer) -> bool:
    """Whether this run only tries the code (``fast_dev_run``) and leaves nothing behind."""
    return bool(getattr(trainer, "fast_dev_run", False))


def is_training(trainer: Trainer) -> bool:
    """Whether this run is a ``fit``, its validations included."""
    return trainer.state.fn == "fit"


def stage_of(trainer: Trainer) -> str:
    """What runs: "fit", "validate" or "test"."""
    function = trainer.state.fn
    return str(getattr(function, "value", function))


def is_untrained(trainer: Trainer) -> bool:
    """Whether this training has not seen a batch yet, neither in this process nor before a checkpoint.

    ``trainer.ckpt_path`` doesn't tell: the finders of a learning rate or a batch size leave their own file there.
    """
    if trainer.global_step > 0 or trainer.current_epoch > 0:
        return False
    epoch_loop = getattr(trainer.fit_loop, "epoch_loop", None)
    progress = getattr(epoch_loop, "batch_progress", None)
    return progress is None or bool(progress.total.ready == 0)


def shows_bar(trainer: Trainer) -> bool:
    """Whether Lightning shows a bar of its own."""
    bar = trainer.progress_bar_callback
    return bar is not None and bool(getattr(bar, "is_enabled", True))


def run_folder(trainer: Trainer) -> str:
    """Where this run keeps its files: the folder in which ModelCheckpoint has its own, by the same rule.

    ``trainer.log_dir`` won't do: with a logger that has no folder for each run it is the same for all of them.
    """
    if not trainer.loggers:
        return str(trainer.default_root_dir)
    logger = trainer.loggers[0]
    save_dir = logger.save_dir
    if save_dir is None:
        save_dir = trainer.default_root_dir
    version = logger.version
    if not isinstance(version, str):
        version = f"version_{version}"
    return os.path.join(save_dir, str(logger.name), version)  # noqa: PTH118 - it may be an address


@contextmanager
def not_training(trainer: Trainer) -> Iterator[None]:
    """Let the Trainer look as in a validation, whatever hook this is."""
    was_training = trainer.training
    if was_training:
        trainer.validating = True
    try:
        yield
    finally:
        if was_training:
            trainer.training = True


def evaluation_loader(trainer: Trainer, dataloader_idx: int) -> Any:
    """The validation (in test: the test) dataloader that the probe takes its images from.

    Raises:
        MisconfigurationException: where there is none, or not so many.
    """
    loaders = list(_flat(_loaders(trainer)))
    if dataloader_idx < len(loaders):
        return loaders[dataloader_idx]
    kind = "test" if trainer.testing else "validation"
    raise MisconfigurationException(
        f"the probe takes its images from {kind} dataloader {dataloader_idx} and there are {len(loaders)}, counted "
        "from 0: give the Trainer such a dataloader, set dataloader_idx=, or pass images=, a tensor, a dataset or a "
        "dataloader"
    )


def has_loader(trainer: Trainer) -> bool:
    """Whether Lightning has made the dataloaders of this stage; to make them earlier would move random streams."""
    return _loaders(trainer) is not None


def _loaders(trainer: Trainer) -> Any:
    # trainer.val_dataloaders can be those of another stage: fit's in validate, validate's before fit has its own.
    loops: dict[str, Callable[[], Any]] = {
        "fit": lambda: trainer.fit_loop.epoch_loop.val_loop,
        "validate": lambda: trainer.validate_loop,
        "test": lambda: trainer.test_loop,
    }
    made = loops[stage_of(trainer)]()._combined_loader
    if made is None:
        return None
    return made.iterables


def require_validation(trainer: Trainer) -> None:
    """Refuse a training in which the probe would never run.

    Raises:
        MisconfigurationException: where the training has no validation.
    """
    if not trainer.enable_validation:
        raise MisconfigurationException(
            "the probe runs at the end of validation and this training has none: define validation_step, give the "
            "Trainer a validation dataloader (any will do where the probe has images= of its own), and leave "
            "limit_val_batches above 0"
        )


def weight_averaging_before(trainer: Trainer, probe: object) -> str | None:
    """The name of a callback that has put its averaged weights away again before the probe's turn comes."""
    for callback in getattr(trainer, "callbacks", ()):
        if callback is probe:
            return None
        if any(kind.__name__ == "WeightAveraging" for kind in type(callback).__mro__):
            return type(callback).__name__
    return None


def unused_transfer_hooks(trainer: Trainer, module: LightningModule) -> list[str]:
    """The batch transfer hooks that module or datamodule override; the probe, which has no batch, can't call them."""
    found: list[str] = []
    for owner in (module, getattr(trainer, "datamodule", None)):
        for hook in _TRANSFER_HOOKS:
            method = getattr(type(owner), hook, None)
            is_own = not getattr(method, "__qualname__", "").startswith(_HOOKS_OF_LIGHTNING)
            if method is not None and is_own:
                found.append(f"{type(owner).__name__}.{hook}")
    return found


def _is_first_of_its_inputs(strategy: object) -> bool:
    mesh = getattr(strategy, "device_mesh", None)
    if "tensor_parallel" not in (getattr(mesh, "mesh_dim_names", None) or ()):
        return True
    return bool(mesh["tensor_parallel"].get_local_rank() == 0)  # type: ignore[index]  # a DeviceMesh


def _sum(trainer: Trainer, tensor: Tensor) -> Tensor:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(tensor)
        return tensor
    return torch.as_tensor(trainer.strategy.reduce(tensor, reduce_op="sum"))


def _gather(text: str) -> list[str]:
    texts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(texts, text)
    return texts


def _flat(loaders: Any) -> Iterator[Any]:
    if isinstance(loaders, Mapping):
        loaders = list(loaders.values())
    if isinstance(loaders, list | tuple):
        for entry in loaders:
            yield from _flat(entry)
    elif loaders is not None:
        yield loaders
