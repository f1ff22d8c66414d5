"""The model under probe: its chosen layers, its device, and how it is called."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from kornia_lightning_probe.activations.cells import Cells
from kornia_lightning_probe.activations.site import INPUT, OUTPUT
from kornia_lightning_probe.model.layers import LayerSelector, exact_names, select_layers, without_auto
from kornia_lightning_probe.wording import quoted

# A layer's name, then what the recorder puts behind it for later calls and for entries of an output.
_EMBEDDING = re.compile(r"(?P<layer>.*?)(?P<part>(\.call\d+)?(\[.*)?)", re.DOTALL)


class InOrder(Protocol):
    """How an activation is brought into order: images first, for each of the model's image entries."""

    @property
    def axis(self) -> int | None:
        """The axis along which images follow one another; None where they are folded among others."""
        ...

    @property
    def entries(self) -> tuple[int, ...]:
        """Which image entries follow one another in it; fewer than two where it holds one thing."""
        ...

    @property
    def is_folded(self) -> bool:
        """Whether its rows are images times something else: windows, slices, frames."""
        ...

    def unfold(self, activation: Tensor) -> tuple[Tensor, ...]:
        """The activation as (N, ...), one for each of the entries, or one of all."""
        ...


@dataclass(frozen=True)
class Subject:
    """The model under probe, and how it is called.

    Args:
        model: the module whose flags, buffers and hooks are put back.
        forward: takes inputs on ``device`` and returns the model's output.
        layers: the chosen modules by name.
        device: where the model is.
        exact: those of the layers that were named exactly, and so must fire.
        embedding: the activation that was asked for as the embedding; None: nobody did.
        front: the last chosen activation in front of the head, where that is known.
        is_auto: whether layers are chosen among those that run.
        named: those of the layers that were asked for in another way than "auto".
        rows: how activations are brought into order, images first, by name; others are so already.
        cells: where the cells of activations lie in the image, or why that is not known, by name.
        only: of layers that are called several times, the number of the only call that counts; of others all do.
    """

    model: nn.Module
    forward: Callable[[Any], Any]
    layers: dict[str, nn.Module]
    device: torch.device
    exact: frozenset[str] = frozenset()
    embedding: str | None = None
    front: str | None = None
    is_auto: bool = False
    named: frozenset[str] = frozenset()
    rows: Mapping[str, InOrder] = field(default_factory=dict)
    cells: Mapping[str, Cells | str] = field(default_factory=dict)
    only: Mapping[str, int] = field(default_factory=dict)


def choose_subject(
    model: nn.Module,
    forward: Callable[[Any], Any],
    *,
    layers: LayerSelector | Sequence[LayerSelector],
    embedding: str | None,
    device: torch.device,
) -> Subject:
    """A model with its chosen layers; a named embedding is one of them, whether it was chosen or not.

    Args:
        model: the module that is run.
        forward: how it is called.
        layers: what `select_layers` takes.
        embedding: a layer's name, as the recorder spells it (``block``, ``block.call2``, ``encoder[hidden]``).
        device: where the model is.

    Raises:
        ValueError: for layers or an embedding that the model doesn't have, or parameters that do not exist yet.

    Example:
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Linear(3, 2))
        >>> subject = choose_subject(net, net, layers="2", embedding="1", device=torch.device("cpu"))
        >>> list(subject.layers), subject.embedding
        (['2', '1'], '1')
    """
    _require_parameters(model)
    others = without_auto(layers)
    subject = Subject(
        model,
        forward,
        select_layers(model, layers),
        device,
        exact=exact_names(model, layers),
        is_auto=others is not None,
        named=frozenset(select_layers(model, others)) if others else frozenset(),
    )
    if embedding is not None and embedding not in subject.layers:
        subject = _with_embedding(subject, embedding)
    else:
        subject = replace(subject, embedding=embedding)
    return apart_from_ends(subject)


def _with_embedding(subject: Subject, embedding: str) -> Subject:
    layer, part = _EMBEDDING.fullmatch(embedding).group("layer", "part")  # type: ignore[union-attr]  # matches all texts
    try:
        found = exact_names(subject.model, layer)
        chosen = select_layers(subject.model, layer)
    except ValueError as error:
        raise ValueError(f"embedding={embedding!r}: {error}") from error
    if not found:
        raise ValueError(f"embedding={embedding!r} must be one layer's name; it is none, and matches {list(chosen)}")
    (name,) = found
    return replace(
        subject,
        layers=subject.layers | chosen,
        exact=subject.exact | found,
        named=subject.named | found,
        embedding=f"{name}{part}",
    )


def apart_from_ends(subject: Subject) -> Subject:
    """Call modules named "input" or "output" by another name, since these are the pixels and the prediction."""
    names = {name: f"model.{name}" for name in (INPUT, OUTPUT) if name in subject.layers}
    if not names:
        return subject
    return replace(
        subject,
        layers={names.get(name, name): module for name, module in subject.layers.items()},
        exact=frozenset(names.get(name, name) for name in subject.exact),
        rows={names.get(name, name): found for name, found in subject.rows.items()},
        cells={names.get(name, name): found for name, found in subject.cells.items()},
        embedding=names.get(subject.embedding or "", subject.embedding),
        front=names.get(subject.front or "", subject.front),
    )


def _require_parameters(model: nn.Module) -> None:
    tensors = chain(model.named_parameters(), model.named_buffers())
    lazy = [name for name, tensor in tensors if is_lazy(tensor)]
    if lazy:
        raise ValueError(
            f"{quoted(lazy)} of {type(model).__name__} do not exist yet, as its lazy layers have seen no image: "
            "call the model once on a batch before it is probed"
        )
