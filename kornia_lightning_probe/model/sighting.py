"""What a first look at two images has shown of a model, and which layers and which embedding follow from it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from torch import nn

from kornia_lightning_probe.activations.cells import Cells
from kornia_lightning_probe.activations.site import OUTPUT
from kornia_lightning_probe.functional.grids import Grid as GridOfCells
from kornia_lightning_probe.model.stages import MOST, main_stages
from kornia_lightning_probe.model.subject import Subject, apart_from_ends
from kornia_lightning_probe.model.tracing import NO_CELLS, Activation, Grid, Rows, Trace
from kornia_lightning_probe.model.tree import Node, module_tree

_CALL = re.compile(r"\.call(\d+)")


@dataclass(frozen=True)
class Sighting:
    """What two images have shown of a model whose modules were all watched.

    Args:
        trace: what its operators did.
        differs: whether the two images' rows of an activation differ; they are its first axis.
        knows_head: whether the trace can know the head: of a sharded model, whose weights are others in the forward
            than those that the model holds, it can't.
        output: where the cells of the class scores lie, or why that is not known; None where there are no scores.
    """

    trace: Trace
    differs: Mapping[str, bool]
    knows_head: bool = True
    output: Grid | str | None = None

    @cached_property
    def usable(self) -> dict[str, Activation]:
        """The activations that hold images and depend on them, in order of execution."""
        return {name: found for name, found in self.trace.activations.items() if not self.why_not(name)}

    def why_not(self, name: str) -> str:
        """Why an activation can't be compared between images; an empty text where it can."""
        found = self.trace.activations[name]
        holds_images = isinstance(found.rows, Rows) or name in self.differs
        depends = self.differs.get(name, False) if found.depends is None else found.depends
        if not depends:
            return "it does not depend on the image"
        if 0 in found.shape:
            return f"it is empty, {found.shape}"
        if not holds_images:
            return f"where the images are in it is not known: {found.rows}"
        return ""

    def rows(self, name: str) -> Rows | None:
        """How an activation is brought into order, images first; None where it is so already, or nobody knows."""
        found = self.trace.activations.get(name)
        if found is None or not isinstance(found.rows, Rows):
            return None
        if found.rows.axis == 0 and len(found.rows.entries) < 2:
            return None
        return found.rows

    def cells(self, name: str) -> Cells | str | None:
        """Where the cells of an activation in order lie, or why that is not known; None where there are none."""
        grid = self.trace.activations[name].grid
        if grid == NO_CELLS:
            return None
        if isinstance(grid, str):
            return grid
        return Cells(_plain(grid), grid.map_of_rows)

    def layers(self, root: Node) -> list[str]:
        """The stages and blocks from stem to head that ran, in order of execution, and what goes into the head.

        Args:
            root: the tree of the model's modules.

        Returns:
            Names of modules; empty where nothing that ran can be compared.
        """
        order: dict[str, int] = {}
        for place, found in enumerate(self.usable.values()):
            order.setdefault(found.layer, place)
        ran = _that_ran(root, order)
        if ran is None or not ran.parts:
            return []
        chosen = self._each_once([node.name for node in main_stages(ran)])
        front = self._nearest_maker(self.usable)
        if front is not None:
            chosen = [layer for layer in chosen if not self._only_passes_on(layer)]
            holder = self._seldom_called_holder(front)
            if not self._holds(chosen, front):
                chosen.append(holder)
            chosen = self._seldom_called(chosen, holder)
        return sorted(set(chosen), key=order.__getitem__)

    def embedding(self, layers: Iterable[str]) -> str | None:
        """The last activation of these layers in front of the head, on the way to the output; None where none is.

        Of nested modules that return one tensor it is the outermost.
        """
        if not self.knows_head:
            return None
        wanted = set(layers)
        among = [name for name, found in self.usable.items() if found.layer in wanted]
        maker = self._nearest_maker(among)
        if maker is None:
            return self.trace.embedding(among)
        same = [name for name in self.trace.holding_the_same(maker) if name in among]
        return [name for name in same if not self.usable[name].passes_on][-1]

    def choose(self, subject: Subject) -> Subject:
        """A model with its layers and its embedding chosen by what was seen.

        Args:
            subject: as its user has chosen it.
        """
        if subject.is_auto:
            subject = self._of_those_that_ran(subject)
        rows = {name: found for name in self.usable if (found := self.rows(name)) is not None}
        cells = {name: places for name in self.usable if (places := self.cells(name)) is not None}
        front = self.embedding(subject.layers)
        only = self._only(subject.layers, front) if subject.is_auto else {}
        only = {layer: call for layer, call in only.items() if layer not in subject.named}
        named = apart_from_ends(replace(subject, front=front, rows=rows, cells=cells, only=only))
        if self.output is None or self.output == NO_CELLS:
            return named
        return replace(named, cells={**named.cells, OUTPUT: _cells_of_scores(self.output)})

    def passed_over(self, subject: Subject) -> dict[str, str]:
        """Why "auto" could not take modules of weight that depend on the image: nobody knows where the images are.

        Args:
            subject: with its layers chosen.

        Returns:
            The reasons by the outermost modules' names, which are neither in a chosen layer nor hold one.
        """
        if not subject.is_auto:
            return {}
        usable = {found.layer for found in self.usable.values()}
        lost = {found.layer: self.why_not(name) for name, found in self.trace.activations.items() if found.depends}
        reasons: dict[str, str] = {}
        for node in module_tree(subject.model).walk():
            others = [*subject.layers, *reasons]
            is_apart = not any(_is_inside(node.name, other) or _is_inside(other, node.name) for other in others)
            if node.size and is_apart and node.name in lost and node.name not in usable:
                reasons[node.name] = lost[node.name]
        return reasons

    def _of_those_that_ran(self, subject: Subject) -> Subject:
        root = module_tree(subject.model)
        chosen = set(self.layers(root))
        if not chosen:
            return subject
        chosen |= subject.named
        layers = {node.name: node.module for node in root.walk() if node.name in chosen}
        return replace(subject, layers=layers)

    def _nearest_maker(self, among: Iterable[str]) -> str | None:
        """The last of these activations in front of the head that is more than what a layer was given."""
        if not self.knows_head:
            return None
        return self.trace.embedding([name for name in among if not self.usable[name].passes_on])

    def _seldom_called_holder(self, activation: str) -> str:
        """The innermost layer that made an activation and ran once, as a shared activation function has not."""
        holding = [self.trace.activations[name] for name in self.trace.holding_the_same(activation)]
        made = [found.layer for found in holding if not found.passes_on]
        once = [layer for layer in made if self._calls[layer] == 1]
        return [*once, *made][0]

    @cached_property
    def _calls(self) -> Counter[str]:
        """How often each layer ran."""
        calls = {(found.layer, _call(found)) for found in self.trace.activations.values()}
        return Counter(layer for layer, _ in calls)

    def _only(self, layers: Mapping[str, nn.Module], front: str | None) -> dict[str, int]:
        """Which call counts of a layer without weights that runs in many places: the one in front of the head."""
        if front is None:
            return {}
        found = self.trace.activations[front]
        is_shared = self._calls[found.layer] > 1
        if not is_shared or any(True for _ in layers[found.layer].parameters()):
            return {}
        return {found.layer: _call(found)}

    def _seldom_called(self, layers: list[str], front: str) -> list[str]:
        """Without those that run again most often (shared position encodings), as long as all calls are too many."""
        called = Counter(found.layer for found in self.usable.values() if _call(found) > 1)
        again = {layer: called[layer] for layer in layers}
        while len(again) + sum(again.values()) > MOST:
            most = max(again, key=lambda layer: again[layer])
            if not again[most] or most == front:
                break
            del again[most]
        return list(again)

    def _only_passes_on(self, layer: str) -> bool:
        """Whether a layer returned what it was given, as Dropout, Flatten and Identity do."""
        return all(found.passes_on for found in self.usable.values() if found.layer == layer)

    def _each_once(self, layers: list[str]) -> list[str]:
        """Of nested modules that return one tensor the outermost."""
        kept: dict[str, str] = {}
        for layer in layers:
            sources = [found.source for found in self.usable.values() if found.layer == layer]
            source = sources[0] if sources else layer
            other = kept.get(source)
            if other is None or other.startswith(f"{layer}."):
                kept[source] = layer
        return list(kept.values())

    def _holds(self, layers: Iterable[str], activation: str) -> bool:
        """Whether one of these layers put out the very values of an activation."""
        same = self.trace.holding_the_same(activation)
        owners = {self.trace.activations[name].layer for name in same}
        return not owners.isdisjoint(layers)


def _plain(grid: Grid) -> GridOfCells:
    """A grid in pixels, without its arithmetic."""
    stride, offset, spread = ([float(part) for part in line] for line in (grid.stride, grid.offset, grid.spread))
    return GridOfCells(grid.size, tuple(stride), tuple(offset), tuple(spread))


def _cells_of_scores(grid: Grid | str) -> Cells | str:
    """The cells of class scores (B, K, H, W), or of one number for each pixel (B, H, W)."""
    if isinstance(grid, str):
        return grid
    if not grid.is_raster or len(grid.axes) < len(grid.size):
        return "its cells do not come row by row"
    return Cells(_plain(grid))


def _beyond(found: Activation) -> str:
    """What the recorder has put behind a layer's name."""
    return found.name.removeprefix(found.layer)


def _call(found: Activation) -> int:
    """Which of a layer's calls gave an activation, from 1."""
    number = _CALL.match(found.name.removeprefix(found.layer))
    return int(number[1]) if number else 1


def _is_inside(name: str, other: str) -> bool:
    """Whether a module is another one, or in it."""
    return name == other or name.startswith(f"{other}.")


def _that_ran(node: Node, order: Mapping[str, int]) -> Node | None:
    """The tree of what ran, in order of execution; None where nothing in it did."""
    children = [child for child in (_that_ran(child, order) for child in node.children) if child is not None]
    if not children and node.name not in order:
        return None
    children.sort(key=lambda child: child.place)
    ended = order.get(node.name)
    return Node(
        node.name,
        node.module,
        children,
        any_leaf=node.any_leaf,
        model_weights=node.model_weights,
        is_silent=bool(node.name) and ended is None,
        is_prefix=node.is_prefix,
        # When it ended, or the first of what is in it where it gave nothing itself.
        place=children[0].place if ended is None else ended,
    )
