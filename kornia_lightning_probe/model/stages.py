"""Finds a model's own stages and blocks from stem to head, in the tree of its unwrapped modules."""

from __future__ import annotations

import math
from collections.abc import Iterator

from kornia_lightning_probe.model.tree import Node, class_of, module_tree

FEWEST, MOST = 6, 24
"""How many layers "auto" aims at."""


def main_stages(root: Node) -> list[Node]:
    """Returns the stages or blocks from stem to head, about 6 to 24 of them, and what goes into the head.

    Raises:
        ValueError: There is nothing but metrics, losses, augmentations and scripted modules.
    """
    if not root.size:
        root = module_tree(root.module, any_leaf=True)
    if not root.parts:
        raise ValueError(f"layers='auto' finds nothing to look at in {class_of(root)}; name its layers")
    # By place where that is known, and else as they are.
    cut = sorted(_cut(root), key=lambda node: node.place)
    layers = _thinned([*cut[:-1], *_head(root, cut)])
    return [layer.stand_in for layer in layers]


def _cut(root: Node) -> list[Node]:
    """Opens stages and containers, those of one kind together, as long as not too many layers come of it."""
    cut, closed = root.parts, set[str]()
    while groups := _openable(cut, closed):
        group = max(groups, key=_size)
        opened = _opened(cut, group)
        if len(opened) < MOST or _must_open(group, cut):
            cut = opened
        else:
            closed.add(group[0].kind)
    return cut


def _openable(cut: list[Node], closed: set[str]) -> list[list[Node]]:
    groups = [group for group in _groups(cut) if group[0].kind not in closed]
    return [group for group in groups if _may_open(group, cut)]


def _opened(cut: list[Node], group: list[Node]) -> list[Node]:
    opened: list[Node] = []
    for node in cut:
        is_open = node in group and node.parts
        opened += node.parts if is_open else [node]
    return opened


def _groups(cut: list[Node]) -> list[list[Node]]:
    kinds: dict[str, list[Node]] = {}
    for node in cut:
        kinds.setdefault(node.kind, []).append(node)
    return [group for group in kinds.values() if any(map(_is_divisible, group))]


def _is_divisible(node: Node) -> bool:
    return node.size > 1 and bool(node.parts)


def _size(group: list[Node]) -> int:
    return sum(node.size for node in group)


def _must_open(group: list[Node], cut: list[Node]) -> bool:
    if len(cut) < 4:
        return True
    few = 2 if group[0].holds_blocks else 1
    return len(group) <= few and 2 * _size(group) > _size(cut)


def _may_open(group: list[Node], cut: list[Node]) -> bool:
    alone, in_container = len(group) == 1, group[0].is_container
    if _must_open(group, cut):
        return True
    holders = [node for node in group if node.holds_blocks]
    if holders:
        if len(cut) >= FEWEST and not all(node.is_stage for node in holders):
            return False
        return in_container or len(group) < FEWEST
    if alone and in_container and group[0] is cut[-1]:
        return True
    return len(cut) < FEWEST and (alone or in_container)


def _head(root: Node, cut: list[Node]) -> list[Node]:
    """Returns the last layer, with what goes into it before it where that is a module of its own."""
    head = cut[-1]
    if len(cut) < 2 or head.size > 1:
        return [head]
    path = list(_path(root, set(cut[:-1])))
    inside = f"{head.name}."
    leaf = max(i for i, node in enumerate(path) if node is head or node.name.startswith(inside))
    while not path[leaf].size:
        leaf -= 1
    neck = path[leaf - 1]
    if neck.size:
        return [head]
    if neck.name.startswith(inside):
        head = path[leaf]
    return [neck, head]


def _path(node: Node, closed: set[Node]) -> Iterator[Node]:
    """Walks from stem to head: layers that are closed, weighted leaves, and what lies between them."""
    for child in node.children:
        if child in closed or (child.size and not child.parts):
            yield child
        elif child.size:
            yield from _path(child, closed)
        elif child.runs and not child.ignored:
            yield child


def _thinned(layers: list[Node]) -> list[Node]:
    if len(layers) <= MOST:
        return layers
    neck, head = layers[-2:]
    kept = int(head.kind != neck.kind)
    if not neck.size:
        kept = 2
    end = len(layers) - kept
    return [layers[0], *_fewer(layers[1:end], MOST - 1 - kept), *layers[end:]]


def _fewer(layers: list[Node], most: int) -> list[Node]:
    """Every second, third, ... of the kinds that have the most members, so that the others keep theirs."""
    kinds: dict[str, list[Node]] = {}
    for node in layers:
        kinds.setdefault(node.kind, []).append(node)
    largest_first = sorted(kinds.values(), key=len, reverse=True)
    for step in range(2, len(layers)):
        fewer = layers
        for kind in largest_first:
            if len(fewer) > most:
                dropped = set(kind).difference(_every(step, kind))
                fewer = [node for node in fewer if node not in dropped]
        if len(fewer) <= most:
            return fewer
    return _every(math.ceil(len(layers) / most), layers)


def _every(step: int, layers: list[Node]) -> list[Node]:
    # Counted back from the last, so that what is nearest to the head is among them.
    return layers[::-1][::step][::-1]
