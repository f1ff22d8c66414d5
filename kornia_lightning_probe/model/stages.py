"""Finds a model's own stages and blocks from stem to head, in the tree of its unwrapped modules."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import is_parametrized
from torch.optim.swa_utils import AveragedModel

FEWEST, MOST = 6, 24
"""How many layers "auto" aims at."""

WRAPPED = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
_WRAPPERS = ("DistributedDataParallel", "DataParallel", "FullyShardedDataParallel", "DeepSpeedEngine")
_NO_LAYERS = (
    "torchmetrics.",
    "kornia.augmentation",
    "kornia.color",
    "kornia.enhance",
    "kornia.filters",
    "kornia.geometry",
    "torchvision.transforms",
    "albumentations.",
    "torch.nn.modules.loss",
    "torch.nn.modules.dropout",
    "torch.jit.",
)
_NO_LAYER_CLASS = re.compile(
    r"identity|\w*dropout[123]?d?|drop(path|block\w*)|stochasticdepth|\w*(loss|criterion|metrics?)", re.IGNORECASE
)
_LOSS_NAME = re.compile(r"(^|_)(loss|losses|criterion|lpips)(_|$)", re.IGNORECASE)
_WEIGHTED = (
    nn.modules.conv._ConvNd,
    nn.Linear,
    nn.Bilinear,
    nn.Embedding,
    nn.EmbeddingBag,
    nn.MultiheadAttention,
    nn.RNNBase,
)


def main_stages(root: Node) -> list[Node]:
    """Returns the stages or blocks from stem to head, about 6 to 24 of them, and what goes into the head.

    Raises:
        ValueError: There is nothing but metrics, losses, augmentations and scripted modules.
    """
    if not root.size:
        root = module_tree(root.module, any_leaf=True)
    if not root.parts:
        msg = f"layers='auto' finds nothing to look at in {type(root.module).__name__}; name its layers"
        raise ValueError(msg)
    cut = _cut(root)
    return _thinned([*cut[:-1], *_head(root, cut)])


@dataclass(eq=False)
class Node:
    """A module in the tree of unwrapped modules; each module is in the tree once."""

    name: str
    module: nn.Module
    children: list[Node] = field(default_factory=list)
    any_leaf: bool = False

    @cached_property
    def ignored(self) -> bool:
        """Whether it is, or holds nothing but, metrics, losses, augmentations, dropout and the like."""
        if not self.name:
            return False
        inner = bool(self.children) and all(child.ignored for child in self.children)
        return inner or _is_no_layer(self.name, self.module)

    @cached_property
    def size(self) -> int:
        """The number of weighted modules (convolutions, linear maps, attentions) in it."""
        if self.ignored:
            return 0
        inner = sum(child.size for child in self.children)
        return inner or int(_is_weighted(self.module) or (self.any_leaf and not self.children))

    @cached_property
    def parts(self) -> list[Node]:
        """The modules of weight one level below; what never runs itself gives way to what is in it."""
        weighted = [child for child in self.children if child.size]
        return [part for child in weighted for part in ([child] if child.runs else child.parts)]

    @property
    def runs(self) -> bool:
        """Whether it has a forward of its own, as a ModuleList has not."""
        patched = isinstance(self.module, torch.jit.ScriptModule) or "forward" in vars(self.module)
        return patched or type(self.module).forward is not nn.Module.forward

    @property
    def is_container(self) -> bool:
        """Whether it is a sequence, list or dictionary of modules."""
        return isinstance(self.module, nn.Sequential | nn.ModuleList | nn.ModuleDict)

    @property
    def kind(self) -> str:
        """What it has in common with its peers, which are opened together or not at all."""
        passes_on = len(self.parts) == 1 and self.parts[0].size > 1
        if self.is_container and (self.holds_blocks or passes_on):
            return "container of blocks"
        inner = sorted({type(part.module).__qualname__ for part in self.parts}) if self.is_container else []
        return f"{type(self.module).__qualname__}{inner}"

    @cached_property
    def holds_blocks(self) -> bool:
        """Whether a sequence of two or more blocks of one class is in it, which makes it a stage or more."""
        blocks = [type(part.module).__qualname__ for part in self.parts if part.size > 1]
        own = self.is_container and len(set(blocks)) < len(blocks)
        return own or any(child.holds_blocks for child in self.children if child.size)

    def walk(self) -> Iterator[Node]:
        """Yields all modules below it, in the model's order."""
        for child in self.children:
            yield child
            yield from child.walk()


def module_tree(model: nn.Module, *, any_leaf: bool = False) -> Node:
    """Returns the tree of a model's modules under the names that they have without wrappers and parametrizations.

    Args:
        model: Any module; its own wrappers are taken off too.
        any_leaf: Whether a module without weights counts where nothing is in it.
    """
    seen: set[int] = set()

    def grow(name: str, module: nn.Module, *, at_root: bool = False) -> Node:
        node = Node(name, module, any_leaf=any_leaf)
        for key, wrapped in module.named_children():
            child = unwrap(wrapped)
            if id(child) in seen or (key == "parametrizations" and is_parametrized(module)):
                continue
            seen.add(id(child))
            node.children.append(grow(key if at_root else f"{name}.{key}", child))
        return node

    root = unwrap(model, at_root=True)
    seen.add(id(root))
    return grow("", root, at_root=True)


def unwrap(module: nn.Module, *, at_root: bool = False) -> nn.Module:
    """Returns the module inside of compile, DDP, FSDP and checkpoint wrappers, or the module itself."""
    children = dict(module.named_children())
    inner = next((children[key] for key in WRAPPED if key in children), None)
    if inner is None and list(children) == ["module"]:
        is_wrapper = any(base.__name__ in _WRAPPERS for base in type(module).__mro__)
        if is_wrapper or (at_root and not list(module.parameters(recurse=False))):
            inner = children["module"]
    return module if inner is None else unwrap(inner, at_root=at_root)


def _is_no_layer(name: str, module: nn.Module) -> bool:
    return (
        any(base.__module__.startswith(_NO_LAYERS) for base in type(module).__mro__)
        or isinstance(module, AveragedModel)
        or _NO_LAYER_CLASS.fullmatch(type(module).__name__) is not None
        or _LOSS_NAME.search(name.rpartition(".")[2]) is not None
    )


def _is_weighted(module: nn.Module) -> bool:
    if isinstance(module, _WEIGHTED):
        return True
    if "norm" in type(module).__name__.lower():
        return False
    weights = list(module.parameters(recurse=False))
    return is_parametrized(module) or any(is_lazy(weight) or weight.ndim > 1 for weight in weights)


def _cut(root: Node) -> list[Node]:
    """Opens stages and containers, those of one kind together, as long as not too many layers come of it."""
    cut, closed = root.parts, set[str]()
    while groups := [group for group in _groups(cut) if group[0].kind not in closed and _may_open(group, cut)]:
        group = max(groups, key=_size)
        opened = [part for node in cut for part in (node.parts or [node] if node in group else [node])]
        if len(opened) < MOST or _must_open(group, cut):
            cut = opened
        else:
            closed.add(group[0].kind)
    return cut


def _groups(cut: list[Node]) -> list[list[Node]]:
    kinds: dict[str, list[Node]] = {}
    for node in cut:
        kinds.setdefault(node.kind, []).append(node)
    return [group for group in kinds.values() if any(node.size > 1 and node.parts for node in group)]


def _size(group: list[Node]) -> int:
    return sum(node.size for node in group)


def _must_open(group: list[Node], cut: list[Node]) -> bool:
    few = len(group) == 1 or (len(group) == 2 and group[0].holds_blocks)
    return len(cut) < 4 or (few and 2 * _size(group) > _size(cut))


def _may_open(group: list[Node], cut: list[Node]) -> bool:
    alone, in_container = len(group) == 1, group[0].is_container
    if _must_open(group, cut):
        return True
    if any(node.holds_blocks for node in group):
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
    leaf = max(i for i, node in enumerate(path) if node is head or node.name.startswith(f"{head.name}."))
    while not path[leaf].size:
        leaf -= 1
    neck = path[leaf - 1]
    if neck.size:
        return [head]
    return [neck, path[leaf] if neck.name.startswith(f"{head.name}.") else head]


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
    kept = 2 if not neck.size else int(head.kind != neck.kind)
    body = layers[1 : len(layers) - kept]
    step = -(-len(body) // (MOST - 1 - kept))
    return [layers[0], *body[::-1][::step][::-1], *layers[len(layers) - kept :]]
