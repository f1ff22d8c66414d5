"""Weights that running a model must not change: copied to the host, compared bit for bit, put back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import nn

from kornia_lightning_probe.model.undisturbed.modules import every_module, is_sharded, parameters_of
from kornia_lightning_probe.model.undisturbed.tensors import KeptTensor
from kornia_lightning_probe.wording import quoted


@contextmanager
def guarded_parameters(model: nn.Module) -> Iterator[None]:
    """See whether a model updates its parameters when it is run, put them back, and say so.

    Version counters miss `p.data.mul_()` and can't restore, so a copy of the parameters is held by the host meanwhile,
    on each rank of its own shards. A parameter that the model replaces by another is named too, and put back by
    `undisturbed`. It is meant for the first run of a training.

    Args:
        model: any module; modules that it hides in lists and dicts are watched too.

    Raises:
        RuntimeError: at the end, where parameters have changed, with their names. An error from inside comes as it is,
            with a note.

    Example:
        >>> net = nn.Linear(2, 2)
        >>> with guarded_parameters(net):
        ...     net.bias.data.zero_()
        Traceback (most recent call last):
            ...
        RuntimeError: running Linear in eval mode has changed its parameters 'bias'; ...
    """
    modules = every_module(model)
    kept = own_parameters(modules)
    objects = {} if is_sharded(modules) else parameters_of(modules)
    try:
        yield
    except BaseException as error:
        changed = _replaced(objects, modules) + _put_back(kept)
        if changed:
            error.add_note(_says(model, changed))
        raise
    changed = _replaced(objects, modules) + _put_back(kept)
    if changed:
        raise RuntimeError(_says(model, changed))


def own_parameters(modules: Mapping[str, nn.Module]) -> dict[str, KeptTensor]:
    """The parameters of these modules themselves, not of their children, kept on the host by name."""
    may_move = not is_sharded(modules)
    kept: dict[str, KeptTensor] = {}
    for name, parameter in parameters_of(modules).items():
        kept[name] = KeptTensor(parameter, on_host=True, may_move=may_move)
    return kept


def _replaced(before: dict[str, nn.Parameter], modules: Mapping[str, nn.Module]) -> list[str]:
    """Names under which there is another object now; who keeps the registers puts the former one back."""
    now = parameters_of(modules)
    replaced = [name for name, parameter in before.items() if now.get(name) is not parameter]
    before.clear()
    return replaced


def _put_back(kept: dict[str, KeptTensor]) -> list[str]:
    changed = [name for name, parameter in kept.items() if parameter.put_back()]
    # A traceback may hold on to this frame for long.
    kept.clear()
    return changed


def _says(model: nn.Module, changed: list[str]) -> str:
    return (
        f"running {type(model).__name__} in eval mode has changed its parameters {quoted(changed)}; they are put back "
        "as they were, and a probe must leave a training alone: update them in training mode only (`if self.training:`)"
        ", or pass forward=, a callable (model, inputs) or the name of a method, that does not update them"
    )
