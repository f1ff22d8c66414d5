"""Follows one forward pass: which layers ran, what depends on the image, where rows and cells lie, what the head is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from itertools import pairwise
from types import TracebackType
from typing import Self, TypeVar

from torch import Tensor, nn

from kornia_lightning_probe.model.recorder import named_entries
from kornia_lightning_probe.model.tracing.arrangement import Arrangement
from kornia_lightning_probe.model.tracing.flow import Flow, bits
from kornia_lightning_probe.model.tracing.grids import Grid, grid_of
from kornia_lightning_probe.model.tracing.mode import Facts, Follower
from kornia_lightning_probe.model.tracing.operators import Places, Unknown
from kornia_lightning_probe.model.tracing.rows import Rows, rows_of
from kornia_lightning_probe.model.tracing.runs import LostError

_Found = TypeVar("_Found", Rows, Grid)


@dataclass(frozen=True)
class Activation:
    """What the trace knows of one activation.

    Args:
        name: as the recorder gives it: `layer`, `layer.call2`, `layer[0]`, `layer[key]`.
        layer: the module's name.
        shape: the activation's.
        depends: whether it depends on the image; None where the trace is lost, so that values must decide.
        source: the first activation that held these very values: itself, or the one that a Dropout, Identity, Flatten
            or container passed on.
        passes_on: whether the layer returned what it was given.
        rows: where the images are, or why that is unknown.
        grid: where the cells are, or why there are none.
    """

    name: str
    layer: str
    shape: tuple[int, ...]
    depends: bool | None
    source: str
    passes_on: bool
    rows: Rows | str
    grid: Grid | str


@dataclass(frozen=True)
class Head:
    """Where a model ends.

    Args:
        exists: whether the output is made of matrix products or convolutions with a weight alone; else the model is an
            encoder without a head.
        layers: the activations that are the head's results, first to last.
        front: the activations on the way to the output that lie in front of the head, or all where there is none;
            the one nearest to it comes last.
    """

    exists: bool
    layers: tuple[str, ...]
    front: tuple[str, ...]


@dataclass(frozen=True)
class Trace:
    """What one forward pass did.

    Args:
        activations: by name, in order of execution.
        head: where the model ends.
        left_out: why an output of a layer is no activation.
    """

    activations: Mapping[str, Activation]
    head: Head
    left_out: Mapping[str, str]

    def embedding(self, among: Collection[str] | None = None) -> str | None:
        """The last activation in front of the head that depends on the image; None where there is none.

        What passes on what it was given (Dropout, Flatten) gives way to the layer that made it.

        Args:
            among: the activations that may be named; None is all that made something.
        """
        for name in reversed(self.head.front):
            if self.activations[name].depends is False:
                continue
            for held in self.holding_the_same(name):
                allowed = held in among if among is not None else not self.activations[held].passes_on
                if allowed:
                    return held
        return None

    def holding_the_same(self, name: str) -> tuple[str, ...]:
        """All activations that hold the very values of this one, in order of execution."""
        source = self.activations[name].source
        return tuple(other.name for other in self.activations.values() if other.source == source)


@dataclass(frozen=True)
class _Seen:
    """An activation as it was when its layer put it out."""

    name: str
    layer: str
    shape: tuple[int, ...]
    passes_on: bool
    facts: Facts


class Tracing:
    """The following of one forward pass, open inside a `with`; see :func:`trace`."""

    def __init__(
        self,
        layers: Mapping[str, nn.Module],
        images: Sequence[Tensor],
        *,
        model: nn.Module | None,
        grid_axes: Sequence[int] | None,
        receive: Callable[[str, Tensor], None] | None,
    ) -> None:
        self._layers = dict(layers)
        self._images = tuple(images)
        self._model = model
        self._grid_axes = grid_axes
        self._receive = receive
        self._count = len(images[0]) if images else 0
        self._follower = Follower()
        self._calls: dict[str, int] = {}
        self._given: dict[str, list[set[int]]] = {}
        self._seen: list[_Seen] = []
        self._left_out: dict[str, str] = {}
        self._open: ExitStack | None = None

    def __enter__(self) -> Self:
        if self._open is not None or self._seen:
            raise RuntimeError("this tracing was entered before; make another one with trace(...)")
        roots = [self._model] if self._model is not None else self._layers.values()
        modules = {module for root in roots for module in root.modules()}
        for module in modules:
            self._follower.add_weights(_weights_of(module))
        for entry, image in enumerate(self._images):
            self._follower.put(image, self._facts_of_image(entry, image))
        self._images = ()
        with ExitStack() as opening:
            if self._model is not None:
                handle = self._model.register_forward_pre_hook(self._take_inputs, with_kwargs=True)
                opening.callback(handle.remove)
            for name, module in self._layers.items():
                self._watch(name, module, opening)
            opening.enter_context(self._follower)
            self._open = opening.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None

    def result(self, output: object) -> Trace:
        """What the pass did, given the output that is used; facts of tensors are forgotten.

        Args:
            output: the very object, or a part of it, that the model returned: a tensor, or any structure of them, of
                which the last counts where they lead from one to the next (a pyramid), else the first that is more
                than a stage of another.
        """
        leaves = [leaf for _, leaf in named_entries("output", output) if isinstance(leaf, Tensor)]
        flows = [self._follower.facts_of(leaf).flow for leaf in leaves if _is_activation(leaf)]
        self._follower.forget()
        sources: dict[int, str] = {}
        for seen in self._seen:
            sources.setdefault(seen.facts.flow.value, seen.name)
        found = [self._activation(seen, sources[seen.facts.flow.value]) for seen in self._seen]
        return Trace({each.name: each for each in found}, self._head(flows), self._left_out)

    def grid_of_output(self, output: Tensor) -> Grid | str:
        """Where the cells of an output lie, however far branches disagree, or why not; asked before :meth:`result`."""
        return self._grid(self._follower.facts_of(output), may_disagree=True)

    def _facts_of_image(self, entry: int, image: Tensor) -> Facts:
        rows = Arrangement.of_image(image.shape, (-1, 0), at=(Fraction(entry), Fraction(0)))
        axes = range(2, image.ndim) if self._grid_axes is None else self._grid_axes
        walks = [axis % image.ndim for axis in axes]
        grid = Arrangement.of_image(image.shape, walks) if walks else None
        return Facts(self._follower.flows.image(), rows, grid)

    def _take_inputs(self, _module: nn.Module, args: object, kwargs: object) -> None:
        """What the model is given beside the images (texts, masks) does not depend on them."""
        for tensor in [*_tensors_of(args), *_tensors_of(kwargs)]:
            if not self._follower.knows(tensor):
                self._follower.put(tensor, Facts(self._follower.flows.input()))

    def _watch(self, name: str, module: nn.Module, opening: ExitStack) -> None:
        try:
            opening.callback(module.register_forward_pre_hook(partial(self._note_given, name)).remove)
            opening.callback(module.register_forward_hook(partial(self._record, name)).remove)
        except RuntimeError as error:
            # ScriptModules take no hooks; what is around them does.
            self._left_out[name] = f"takes no hooks ({error})"

    def _note_given(self, layer: str, _module: nn.Module, args: object) -> None:
        """What a layer is given, before it may write into it."""
        given = {self._follower.facts_of(tensor).flow.value for tensor in _tensors_of(args)}
        self._given.setdefault(layer, []).append(given)

    def _record(self, layer: str, _module: nn.Module, _args: object, output: object) -> None:
        calls = self._calls[layer] = self._calls.get(layer, 0) + 1
        name = layer if calls == 1 else f"{layer}.call{calls}"
        given = self._given[layer].pop()
        for entry_name, entry in named_entries(name, output):
            if isinstance(entry, Tensor) and _is_activation(entry):
                self._enter(entry_name, layer, entry, given)
            else:
                self._left_out[entry_name] = f"no floating tensor ({type(entry).__name__})"

    def _enter(self, name: str, layer: str, tensor: Tensor, given: Collection[int]) -> None:
        known = self._follower.facts_of(tensor)
        facts = replace(known, flow=self._follower.flows.entered(known.flow, len(self._seen)))
        self._follower.put(tensor, facts)
        shape = () if tensor.is_nested else tuple(tensor.shape)
        self._seen.append(_Seen(name, layer, shape, known.flow.value in given, facts))
        if self._receive is not None:
            self._follower.is_paused = True
            try:
                self._receive(name, tensor.detach())
            finally:
                self._follower.is_paused = False

    def _activation(self, seen: _Seen, source: str) -> Activation:
        facts = seen.facts
        rows, grid = self._rows(facts), self._grid(facts)
        return Activation(seen.name, seen.layer, seen.shape, facts.flow.reached, source, seen.passes_on, rows, grid)

    def _rows(self, facts: Facts) -> Rows | str:
        if isinstance(facts.rows, Arrangement):
            return _or_why(partial(rows_of, facts.rows, self._count))
        return _why(facts.rows, facts.flow)

    def _grid(self, facts: Facts, *, may_disagree: bool = False) -> Grid | str:
        if not isinstance(facts.grid, Arrangement):
            return _why(facts.grid, facts.flow)
        rows = facts.rows if isinstance(facts.rows, Arrangement) else None
        if isinstance(self._rows(facts), str):
            rows = None
        return _or_why(partial(grid_of, facts.grid, rows, self._count, may_disagree=may_disagree))

    def _head(self, flows: Sequence[Flow]) -> Head:
        used = _that_is_used([flow for flow in flows if flow.is_moving])
        if used is None:
            return Head(False, (), ())
        if not used.heads:
            return Head(False, (), self._names(used.layers))
        in_front = 0
        for product in bits(used.heads):
            in_front |= self._follower.flows.fronts[product]
        return Head(True, self._names(used.layers & ~in_front), self._names(in_front))

    def _names(self, mask: int) -> tuple[str, ...]:
        seen = [self._seen[index] for index in bits(mask)]
        return tuple(each.name for each in seen if each.facts.flow.reached is not False)


def trace(
    layers: Mapping[str, nn.Module],
    images: Sequence[Tensor],
    *,
    model: nn.Module | None = None,
    grid_axes: Sequence[int] | None = None,
    receive: Callable[[str, Tensor], None] | None = None,
) -> Tracing:
    """Follows the operators of one forward pass that runs inside a `with`.

    The pass computes what it would without, bit for bit, and no tensor is kept alive. An operator that isn't known, or
    a rule that fails, makes what it touches unknown; it never fails the pass.

    Args:
        layers: the modules to watch, by name; as many as wanted.
        images: the very tensors that the model is given, (N, ...) each; several for a model of several images.
        model: the model, whose parameters and buffers are weights, and whose inputs beside the images do not depend on
            them; None takes the weights of `layers`.
        grid_axes: the axes of the images along which pixels lie; None takes all behind the first two.
        receive: called in a hook as `receive(name, activation)`, unseen by the trace.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Flatten(), nn.Linear(128, 2)).eval()
        >>> images = torch.zeros(2, 3, 8, 8)
        >>> with torch.no_grad(), trace(dict(net.named_children()), [images]) as tracing:
        ...     logits = net(images)
        >>> found = tracing.result(logits)
        >>> found.embedding(), found.head.layers, found.activations["0"].grid.offset == (0, 0)
        ('0', ('2',), True)
    """
    return Tracing(layers, images, model=model, grid_axes=grid_axes, receive=receive)


def _that_is_used(flows: Sequence[Flow]) -> Flow | None:
    """Of outputs that lead from one to the next the last; else the first that is no mere stage of another."""
    if all(_is_stage_of(flow, after) for flow, after in pairwise(flows)):
        return flows[-1] if flows else None
    ends = [flow for flow in flows if flow.heads or not any(_is_stage_of(flow, other) for other in flows)]
    return ends[0]


def _is_stage_of(flow: Flow, other: Flow) -> bool:
    """Whether an output lies on the way to another one, which is made of more layers."""
    beyond = other.layers & ~flow.layers
    return beyond != 0 and not flow.layers & ~other.layers


def _is_activation(entry: Tensor) -> bool:
    return entry.ndim > 0 and (entry.is_floating_point() or entry.is_complex() or entry.is_quantized)


def _weights_of(module: nn.Module) -> Iterator[Tensor]:
    """Parameters, buffers, and tensors that a module keeps as plain attributes (anchors, text features)."""
    for value in vars(module).values():
        yield from _tensors_of(value)


def _tensors_of(arguments: object) -> list[Tensor]:
    return [entry for _, entry in named_entries("", arguments) if isinstance(entry, Tensor)]


def _or_why(find: Callable[[], _Found]) -> _Found | str:
    try:
        return find()
    except LostError as lost:
        return str(lost)


def _why(places: Places, flow: Flow) -> str:
    if isinstance(places, Unknown):
        return places.reason
    if flow.reached is False:
        return "it does not depend on the image"
    return "the trace was lost"
