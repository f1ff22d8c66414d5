"""Takes the activations of chosen modules out of a forward pass, by hooks that live inside one `with`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from kornia_lightning_probe.model.layers import select_layers

# What a recorder puts behind a layer's name: the number of a later call, an entry of its output.
_PART = re.compile(r"(\.call\d+)?(\[|$)")


class ActivationRecorder:
    r"""Records what chosen layers put out, in the order in which they run.

    Hooks are registered on entering the `with` and removed on leaving it, also after an exception; if one of them can't
    be registered, those before it are removed again. Nothing is modified in the model, and RNG, training flags and grad
    mode are the caller's.

    An output of several tensors is taken apart. Where a layer `f` puts out

    ==========================  =========================================================================
    a tensor                    the activation is named `f`
    a tuple or list             `f[0]`, `f[1]`, ...
    a dict, HF's `ModelOutput`  `f[key]`
    a dataclass                 `f[field]`
    any of these, nested        `f[hidden_states][0]`
    ==========================  =========================================================================

    A layer's second call in one pass is `f.call2` (`f.call2[0]`, ...), or `f.call02` where a layer is itself called
    `f.call2`. Nested tensors are padded with zeros, complex ones become real with a last axis of two, quantised ones
    are dequantised. What can't be an activation (integers, scalars, strings) is named in `left_out`; an entry that is
    None is no entry.

    A hook that is added to a model which `torch.compile` has already compiled never fires, and nothing says so. Run
    such a model under `torch.compiler.set_stance("force_eager")`, as `probe_model` does: every hook fires, and the
    compiled code is used again afterwards. `calls` tells which layers have run.

    Args:
        layers: Modules by name, as `select_layers` gives them; a model stands for `select_layers(model)`.
        receive: Called inside the hook as `receive(name, activation)`, in place of keeping a clone. The activation is
            the model's own tensor, only detached: reduce or copy it at once, since an in-place operation that follows
            overwrites it, and never write into it.
        graph: Whether activations keep their graph, so that gradients with respect to inputs or weights can be taken of
            them. The graph, with all that it saves, lives as long as one of them.
        only: Of layers that are called several times, the number of the only call that is recorded, from 1; of others
            all are.

    Attributes:
        layers: The watched modules by name.
        activations: Clones by name, in order of execution, detached but for `graph`; empty where `receive` is given.
        calls: How often each layer has run since the last `reset`, in order of (first) execution. A layer that did not
            run is missing.
        left_out: Why an output, or an entry of it, is no activation, by its name.

    Raises:
        TypeError: A layer is no `nn.Module`, or takes no hooks, as a `ScriptModule` (on entering).
        RuntimeError: The recorder is entered while it is open.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(144, 2))
        >>> with torch.no_grad(), ActivationRecorder({"0": net[0], "3": net[3]}) as recorder:
        ...     logits = net(torch.rand(5, 3, 8, 8))
        >>> {name: tuple(activation.shape) for name, activation in recorder.activations.items()}
        {'0': (5, 4, 6, 6), '3': (5, 2)}
    """

    def __init__(
        self,
        layers: nn.Module | Mapping[str, nn.Module],
        *,
        receive: Callable[[str, Tensor], None] | None = None,
        graph: bool = False,
        only: Mapping[str, int] | None = None,
    ) -> None:
        self.layers = select_layers(layers) if isinstance(layers, nn.Module) else dict(layers)
        for name, module in self.layers.items():
            if not isinstance(module, nn.Module):
                kind = type(module).__name__
                raise TypeError(f"layer {name!r} is a {kind}, expected an nn.Module; select_layers finds them")
        self.activations: dict[str, Tensor] = {}
        self.calls: dict[str, int] = {}
        self.left_out: dict[str, str] = {}
        self._receive = receive
        self._graph = graph
        self._only = dict(only or {})
        self._hooks: ExitStack | None = None

    def __enter__(self) -> Self:
        if self._hooks is not None:
            raise RuntimeError("this ActivationRecorder is open already; leave its `with` first, or make a second one")
        self.reset()
        with ExitStack() as opening:
            for name, module in self.layers.items():
                handle = _register(name, module, partial(self._record, name))
                opening.callback(handle.remove)
            self._hooks = opening.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._hooks is not None:
            self._hooks.close()
            self._hooks = None

    def reset(self) -> None:
        """Starts a new forward pass: forgets activations and counts calls from one again."""
        self.activations.clear()
        self.calls.clear()

    def _record(self, layer: str, _module: nn.Module, _args: object, output: object) -> None:
        call = self.calls[layer] = self.calls.get(layer, 0) + 1
        if self._only.get(layer, call) != call:
            return
        name = self._name(layer, call)
        if isinstance(output, Tensor):
            self._take(name, output)
            return
        for entry_name, entry in named_entries(name, output):
            self._take(entry_name, entry)

    def _name(self, layer: str, call: int) -> str:
        if call == 1:
            return layer
        number = str(call)
        # A child may itself be called "call2": zeros in front tell the call from it.
        while f"{layer}.call{number}" in self.layers:
            number = f"0{number}"
        return f"{layer}.call{number}"

    def _take(self, name: str, entry: object) -> None:
        reason = _why_no_activation(entry)
        if reason or not isinstance(entry, Tensor):
            self.left_out[name] = reason
            return
        activation = _as_real(entry if self._graph else entry.detach())
        if self._receive is None:
            self.activations[name] = activation.clone()
        else:
            self._receive(name, activation)


def _register(name: str, module: nn.Module, hook: Callable[..., None]) -> RemovableHandle:
    try:
        return module.register_forward_hook(hook)
    except RuntimeError as error:
        raise TypeError(
            f"layer {name!r} ({type(module).__name__}) takes no hooks: {error}; "
            "choose layers outside of it, or probe the model before torch.jit.script"
        ) from error


def belongs(activation: str, layer: str) -> bool:
    """Whether an activation is a layer's: its own, that of a later call, or an entry of its output.

    Example:
        >>> [belongs(name, "f") for name in ("f", "f.call2", "f[key][0]", "f.call2[0]", "f.conv", "ff")]
        [True, True, True, True, False, False]
    """
    return activation.startswith(layer) and _PART.match(activation[len(layer) :]) is not None


def named_entries(name: str, output: object) -> Iterator[tuple[str, object]]:
    """Takes an output apart: the name and value of every entry, `name` itself where there is only one value."""
    children = _children(output)
    if not children:
        yield name, output
    for key, child in children:
        yield from named_entries(f"{name}[{key}]", child)


def _children(output: object) -> list[tuple[Any, object]]:
    pairs: list[tuple[Any, object]] = []
    if isinstance(output, Mapping):
        pairs = list(output.items())
    elif isinstance(output, tuple | list):
        pairs = list(enumerate(output))
    elif dataclasses.is_dataclass(output) and not isinstance(output, type):
        names = [field.name for field in dataclasses.fields(output)]
        pairs = [(name, getattr(output, name)) for name in names]
    return [(key, child) for key, child in pairs if child is not None]


def _why_no_activation(entry: object) -> str:
    """A text that says why an output's entry is no activation; empty where it is one."""
    if not isinstance(entry, Tensor):
        return f"no tensor in the output ({type(entry).__name__})"
    if not (entry.is_floating_point() or entry.is_complex() or entry.is_quantized):
        dtype = str(entry.dtype).removeprefix("torch.")
        return f"integer tensor ({dtype})"
    if entry.ndim == 0:
        return "scalar tensor (no axis of images)"
    return ""


def _as_real(activation: Tensor) -> Tensor:
    """A float tensor without gaps, of a quantised, nested or complex one."""
    if activation.is_quantized:
        return activation.dequantize()
    if activation.is_nested:
        activation = torch.nested.to_padded_tensor(activation, 0.0)
    if activation.is_complex():
        return torch.view_as_real(activation.resolve_conj())
    return activation
