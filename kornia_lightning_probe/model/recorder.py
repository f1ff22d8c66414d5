"""Takes the activations of chosen modules out of a forward pass, by hooks that live inside one `with`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from kornia_lightning_probe.model.layers import select_layers


class ActivationRecorder:
    r"""Records what chosen layers put out, in the order in which they run.

    Hooks are registered on entering the `with` and removed on leaving it, also after an exception; if one of them can't
    be registered, those before it are removed again. Nothing is modified in the model, no graph is kept, and RNG,
    training flags and grad mode are the caller's.

    An output of several tensors is taken apart. Where a layer `f` puts out

    ==========================  =========================================================================
    a tensor                    the activation is named `f`
    a tuple or list             `f[0]`, `f[1]`, ...
    a dict, HF's `ModelOutput`  `f[key]`
    a dataclass                 `f[field]`
    any of these, nested        `f[hidden_states][0]`
    ==========================  =========================================================================

    A layer's second call in one pass is `f.call2` (`f.call2[0]`, ...). Nested tensors are padded with zeros, complex
    ones become real with a last axis of two. What can't be an activation (integers, scalars, strings) is named in
    `left_out`; an entry that is None is no entry.

    A hook that is added to a model which `torch.compile` has already compiled never fires, and nothing says so. Run
    such a model under `torch.compiler.set_stance("force_eager")`, as `probe_model` does: every hook fires, and the
    compiled code is used again afterwards. `calls` tells which layers have run.

    Args:
        layers: Modules by name, as `select_layers` gives them; a model stands for `select_layers(model)`.
        receive: Called inside the hook as `receive(name, activation)`, in place of keeping a clone. The activation is
            the model's own tensor, only detached: reduce or copy it at once, since an in-place operation that follows
            overwrites it, and never write into it.

    Attributes:
        layers: The watched modules by name.
        activations: Detached clones by name, in order of execution; empty where `receive` is given.
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
    ) -> None:
        self.layers = select_layers(layers) if isinstance(layers, nn.Module) else dict(layers)
        for name, module in self.layers.items():
            if not isinstance(module, nn.Module):
                msg = f"layer {name!r} is a {type(module).__name__}, expected an nn.Module; select_layers finds them"
                raise TypeError(msg)
        self.activations: dict[str, Tensor] = {}
        self.calls: dict[str, int] = {}
        self.left_out: dict[str, str] = {}
        self._receive = receive
        self._hooks: ExitStack | None = None

    def __enter__(self) -> Self:
        if self._hooks is not None:
            msg = "this ActivationRecorder is open already; leave its `with` first, or make a second one"
            raise RuntimeError(msg)
        self.reset()
        with ExitStack() as opening:
            for name, module in self.layers.items():
                opening.callback(_register(name, module, partial(self._record, name)).remove)
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
        count = self.calls[layer] = self.calls.get(layer, 0) + 1
        name = layer if count == 1 else f"{layer}.call{count}"
        if isinstance(output, Tensor):
            self._take(name, output)
        else:
            for entry_name, entry in named_entries(name, output):
                self._take(entry_name, entry)

    def _take(self, name: str, entry: object) -> None:
        activation = _activation(entry)
        if isinstance(activation, str):
            self.left_out[name] = activation
        elif self._receive is not None:
            self._receive(name, activation)
        else:
            self.activations[name] = activation.clone()


def _register(name: str, module: nn.Module, hook: Callable[..., None]) -> RemovableHandle:
    try:
        return module.register_forward_hook(hook)
    except RuntimeError as error:
        msg = (
            f"layer {name!r} ({type(module).__name__}) takes no hooks: {error}; "
            "choose layers outside of it, or probe the model before torch.jit.script"
        )
        raise TypeError(msg) from error


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
        pairs = [(field.name, getattr(output, field.name)) for field in dataclasses.fields(output)]
    return [(key, child) for key, child in pairs if child is not None]


def _activation(entry: object) -> Tensor | str:
    """An output's entry as a real, padded tensor without a graph, or a text that says why it is no activation."""
    if not isinstance(entry, Tensor):
        return f"no tensor in the output ({type(entry).__name__})"
    is_real = entry.is_floating_point()
    if not (is_real or entry.is_complex()):
        return f"integer tensor ({str(entry.dtype).removeprefix('torch.')})"
    if entry.ndim == 0:
        return "scalar tensor (no axis of images)"
    activation: Tensor = entry.detach() if entry.requires_grad else entry
    if activation.is_nested:
        activation = torch.nested.to_padded_tensor(activation, 0.0)
    return activation if is_real else torch.view_as_real(activation.resolve_conj())
