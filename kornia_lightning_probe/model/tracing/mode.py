"""Follows the operators of a forward pass, and knows of every tensor what it is made of and where its elements lie."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from kornia_lightning_probe.model.tracing.arrangement import Arrangement
from kornia_lightning_probe.model.tracing.flow import Flow, Flows
from kornia_lightning_probe.model.tracing.operators import Call, Places, Unknown, placed, spare_keys
from kornia_lightning_probe.model.tracing.writes import Geometry, Write, written_into


@dataclass(frozen=True)
class Facts:
    """What is known of a tensor: what it is made of, where its rows lie among the images, where its cells lie."""

    flow: Flow
    rows: Places = None
    grid: Places = None


class Memory:
    """What was written into one piece of memory, which several tensors may look at."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.writes: list[tuple[Geometry, Facts]] = []


@dataclass
class Entry:
    """The facts of one tensor, as it was when it was made, and what of later writes into its memory they know."""

    made: Facts
    memory: Memory
    facts: Facts = field(init=False)
    first: int = field(init=False)
    seen: int = field(init=False)

    def __post_init__(self) -> None:
        self.facts = self.made
        self.first = self.seen = len(self.memory.writes)


@dataclass(frozen=True)
class Operator:
    """What an overload's schema says, read once."""

    name: str
    arguments: tuple[str, ...]
    defaults: Mapping[str, Any]
    written: tuple[str, ...]
    is_pointwise: bool

    @property
    def makes_anew(self) -> bool:
        """Whether it takes nothing but a shape and a type from the tensors that it is given."""
        return self.name.startswith("new_") or self.name.endswith("_like")


class Follower(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves the base's hook untyped
    """A dispatch mode that keeps facts of tensors by weak reference, and changes nothing.

    A rule that fails, or an operator without one, makes places unknown; it never fails the forward.

    Attributes:
        flows: the products that were seen.
        is_paused: while True, operators run unseen.
    """

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.flows = Flows()
        self.is_paused = False
        self._entries: Any = WeakTensorKeyDictionary()
        self._memories: WeakValueDictionary[int, Memory] = WeakValueDictionary()

    def add_weights(self, tensors: Iterable[Tensor]) -> None:
        """Says which tensors are parameters and buffers."""
        for tensor in tensors:
            self.put(tensor, Facts(self.flows.weight()))

    def put(self, tensor: Tensor, facts: Facts) -> None:
        """Says what is known of a tensor."""
        self._entries[tensor] = Entry(facts, self._memory_of(tensor, facts.flow))

    def knows(self, tensor: Tensor) -> bool:
        """Whether anything is known of a tensor."""
        return tensor in self._entries or _address(tensor) in self._memories

    def facts_of(self, tensor: Tensor) -> Facts:
        """What is known of a tensor."""
        entry: Entry | None = self._entries.get(tensor)
        if entry is None:
            return self._facts_of_stranger(tensor)
        if entry.seen < len(entry.memory.writes):
            entry.facts = self._with_parts(entry, tensor)
            entry.seen = len(entry.memory.writes)
        return entry.facts

    def forget(self) -> None:
        """Drops all facts."""
        self._entries = WeakTensorKeyDictionary()
        self._memories.clear()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs an operator, then notes what its results are."""
        del types
        kwargs = kwargs or {}
        if self.is_paused:
            return func(*args, **kwargs)
        if torch.is_inference_mode_enabled() and _is_composite(func, args):
            # Inference mode shows operators that are made of others.
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        try:
            self._follow(func, args, kwargs, result)
        except Exception as fault:
            self._lose((args, kwargs), result, f"{func}: fault in the tracing ({type(fault).__name__}: {fault})")
        return result

    def _follow(self, func: OpOverload, args: Sequence[Any], kwargs: dict[str, Any], result: Any) -> None:
        operator = _described(func)
        arguments = {**operator.defaults, **dict(zip(operator.arguments, args, strict=False)), **kwargs}
        results = _tensors(result)
        written: list[Tensor] = []
        for name in operator.written:
            written += _tensors(arguments[name])
        if not results and not written:
            return
        inputs = {} if operator.makes_anew else arguments
        facts = {name: self._facts_of_all(value) for name, value in inputs.items() if _tensors(value)}
        flow = self._flow(operator, arguments, facts, results)
        shapes = [_shape(tensor) for tensor in results]
        rows = self._places("rows", operator, arguments, facts, shapes)
        grids = self._places("grid", operator, arguments, facts, shapes)
        for tensor, row, grid in zip(results, rows, grids, strict=True):
            found = Facts(flow, row, grid)
            if any(tensor is target for target in written):
                self._write(tensor, found)
            else:
                self.put(tensor, found)
        lost = Unknown(f"{operator.name}: written beside its result")
        for target in written:
            # A norm's running statistics stay weights.
            returned = any(target is tensor for tensor in results)
            if not returned and not self.facts_of(target).flow.is_weight:
                self._write(target, Facts(flow, lost, lost))

    def _flow(
        self,
        operator: Operator,
        arguments: Mapping[str, Any],
        facts: Mapping[str, Sequence[Facts | None]],
        results: Sequence[Tensor],
    ) -> Flow:
        read = dict(facts)
        if operator.name in _OVERWRITING:
            read.pop("self", None)
        flows = [fact.flow for fact in _flat(read)]
        same = None
        first = next((arguments[name] for name in facts), None)
        if flows and results and isinstance(first, Tensor) and not operator.written:
            same = flows[0] if _holds_same(operator.name, first, results[0]) else None
        is_packed = any(isinstance(value, torch.ScriptObject) for value in arguments.values())
        return self.flows.through(operator.name, flows, same=same, is_packed=is_packed)

    def _places(
        self,
        kind: str,
        operator: Operator,
        arguments: Mapping[str, Any],
        facts: Mapping[str, Sequence[Facts | None]],
        shapes: Sequence[tuple[int, ...] | None],
    ) -> Sequence[Places]:
        """Where the elements of all results lie: their rows or their grid."""
        found = {name: _places_of(several, kind) for name, several in facts.items()}
        if operator.name in _OVERWRITING:
            found.pop("self", None)
        spare_keys(operator.name, found)
        for several in found.values():
            lost = next((place for place in several if isinstance(place, Unknown)), None)
            if lost is not None:
                return [lost] * len(shapes)
        known = [shape for shape in shapes if shape is not None]
        if len(known) < len(shapes):
            return [Unknown(f"{operator.name}: nested tensor")] * len(shapes)
        places = {name: _single(several, arguments[name]) for name, several in found.items()}
        call = Call(operator.name, arguments, places, tuple(known))
        return placed(call, is_pointwise=operator.is_pointwise, by_shape=kind == "rows")

    def _write(self, tensor: Tensor, facts: Facts) -> None:
        memory = self._memory_of(tensor, facts.flow)
        if not tensor.is_nested and tensor.layout == torch.strided:
            memory.writes.append((Geometry.of(tensor), facts))
        self.put(tensor, facts)

    def _with_parts(self, entry: Entry, tensor: Tensor) -> Facts:
        """The facts of a tensor after others were written into its memory."""
        flow = entry.facts.flow
        for _, written in entry.memory.writes[entry.seen :]:
            flow = self.flows.joined(flow, written.flow)
        writes = entry.memory.writes[entry.first :]
        if len(writes) > _MOST_WRITES:
            lost = Unknown(f"written into more than {_MOST_WRITES} times")
            return Facts(flow, lost, lost)
        made, geometry = entry.made, Geometry.of(tensor)
        rows = [(part, written.rows) for part, written in writes]
        grids = [(part, written.grid) for part, written in writes]
        return Facts(flow, _after(made.rows, rows, geometry), _after(made.grid, grids, geometry))

    def _facts_of_all(self, value: Any) -> list[Facts | None]:
        if isinstance(value, Tensor):
            return [self.facts_of(value)]
        return [self.facts_of(tensor) if isinstance(tensor, Tensor) else None for tensor in value]

    def _facts_of_stranger(self, tensor: Tensor) -> Facts:
        """A tensor that no operator was seen to make may share memory with one that is known (NumPy, detached)."""
        if isinstance(tensor, nn.Parameter):
            return Facts(self.flows.weight())
        memory = self._memories.get(_address(tensor) or 0)
        if memory is None:
            return Facts(self.flows.untracked())
        lost = Unknown("a tensor that came from outside of torch's operators")
        return Facts(memory.flow, lost, lost) if memory.flow.is_moving else Facts(memory.flow)

    def _memory_of(self, tensor: Tensor, flow: Flow) -> Memory:
        address = _address(tensor)
        memory = self._memories.get(address) if address else None
        if memory is None:
            memory = Memory(flow)
            if address:
                self._memories[address] = memory
        elif memory.flow != flow:
            memory.flow = self.flows.joined(memory.flow, flow)
        return memory

    def _lose(self, arguments: Any, result: Any, reason: str) -> None:
        """Results of an operator that can't be followed depend on what it was given."""
        flows = [self.facts_of(leaf).flow for leaf in tree_leaves(arguments) if isinstance(leaf, Tensor)]
        flow = self.flows.through(reason, flows)
        lost = Unknown(reason)
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.put(leaf, Facts(flow, lost, lost))


# Each write is held against all before it; a loop over pixels would take minutes.
_MOST_WRITES = 256
_OVERWRITING = frozenset({"copy", "fill", "zero", "normal", "uniform", "exponential", "random", "bernoulli"})
_COPYING = frozenset({"clone", "_to_copy", "contiguous", "native_dropout", "dropout", "_unsafe_view"})


@lru_cache(maxsize=4096)
def _described(func: OpOverload) -> Operator:
    schema = func._schema
    name = schema.name.split("::")[1]
    # `add_` does what `add` does; `_foo__` and names of one underscore stay.
    if schema.is_mutable and name.endswith("_") and not name.endswith("__"):
        name = name[:-1]
    if func.namespace == "quantized":
        # What is called conv2d there takes its weights, stride and padding in one packed object.
        name = f"quantized_{name}"
    names = tuple(argument.name for argument in schema.arguments)
    defaults = {each.name: each.default_value for each in schema.arguments if each.has_default_value()}
    written = tuple(each.name for each in schema.arguments if each.alias_info and each.alias_info.is_write)
    return Operator(name, names, defaults, written, torch.Tag.pointwise in func.tags)


def _is_composite(func: Any, args: Sequence[Any]) -> bool:
    if not isinstance(func, OpOverload):
        return False
    nested = any(isinstance(value, Tensor) and value.is_nested for value in args)
    return func.namespace == "aten" and not nested and bool(func._can_decompose())


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if not isinstance(value, list | tuple):
        return []
    return [entry for entry in value if isinstance(entry, Tensor)]


def _after(made: Places, writes: Sequence[tuple[Geometry, Places]], geometry: Geometry) -> Places:
    """Where a tensor's elements lie after some writes; constants change nothing."""
    lost = next((place for _, place in writes if isinstance(place, Unknown)), None)
    if lost is not None:
        return lost
    known = [Write(part, place) for part, place in writes if isinstance(place, Arrangement)]
    return written_into(made, known, geometry)


def _places_of(several: Sequence[Facts | None], kind: str) -> list[Places]:
    return [getattr(fact, kind, None) for fact in several]


def _single(several: Sequence[Any], value: Any) -> Any:
    """The place of a tensor, or the places of a list of tensors."""
    return several[0] if isinstance(value, Tensor) else several


def _flat(facts: Mapping[str, Sequence[Facts | None]]) -> list[Facts]:
    known: list[Facts] = []
    for several in facts.values():
        known.extend(fact for fact in several if fact is not None)
    return known


def _shape(tensor: Tensor) -> tuple[int, ...] | None:
    return None if tensor.is_nested else tuple(tensor.shape)


def _address(tensor: Tensor) -> int | None:
    """Where a tensor's memory begins; None where it has none of its own (sparse, nested, meta)."""
    if tensor.layout != torch.strided or tensor.is_nested:
        return None
    try:
        return tensor.untyped_storage().data_ptr() or None
    except (RuntimeError, NotImplementedError):
        return None


def _holds_same(name: str, first: Tensor, result: Tensor) -> bool:
    """Whether a result holds the very values of an operand: all of a view, or a copy."""
    if first.is_nested or result.is_nested or first.numel() != result.numel():
        return False
    address = _address(first)
    return name in _COPYING or (address is not None and address == _address(result))
