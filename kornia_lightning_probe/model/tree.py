"""The tree of a model's modules, without wrappers: what in it is a layer, a container, a stage."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import is_parametrized
from torch.optim.swa_utils import AveragedModel

WRAPPED = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
_WRAPPERS = {"DistributedDataParallel", "DataParallel", "FullyShardedDataParallel", "DeepSpeedEngine"}
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
# The base of eager-mode quantised layers, whose weights are packed and no parameters.
_QUANTISED = "WeightedQuantizedModule"
_WEIGHTED = (
    nn.modules.conv._ConvNd,
    nn.Linear,
    nn.Bilinear,
    nn.Embedding,
    nn.EmbeddingBag,
    nn.MultiheadAttention,
    nn.RNNBase,
)


@dataclass(eq=False)
class Node:
    """A module in the tree of unwrapped modules; each module is in the tree once."""

    name: str
    module: nn.Module
    children: list[Node] = field(default_factory=list)
    any_leaf: bool = False
    model_weights: frozenset[nn.Parameter] = frozenset()
    is_silent: bool = False
    is_prefix: bool = False
    place: int = 0

    @cached_property
    def ignored(self) -> bool:
        """Whether it is, or holds nothing but, metrics, losses, augmentations, dropout and the like."""
        if not self.name:
            return False
        if _is_no_layer(self.module):
            return True
        if _is_called_no_layer(self.name, self.module) and not self.holds_most:
            return True
        return bool(self.children) and all(child.ignored for child in self.children)

    @property
    def holds_most(self) -> bool:
        """Whether most of the model's weights are in its children: a model with its loss is more than a loss."""
        inner = set(chain.from_iterable(child.parameters() for child in self.module.children()))
        return 2 * _count(self.model_weights & inner) > _count(self.model_weights)

    @cached_property
    def size(self) -> int:
        """The number of weighted modules (convolutions, linear maps, attentions) in it."""
        if self.ignored:
            return 0
        inner = sum(child.size for child in self.children)
        if inner:
            return inner
        counts = self.any_leaf and not self.children
        return int(counts or _is_weighted(self.module))

    @cached_property
    def parts(self) -> list[Node]:
        """The modules of weight one level below; what never runs itself gives way to what is in it."""
        weighted = [child for child in self.children if child.size]
        parts: list[Node] = []
        for child in weighted:
            parts += [child] if child.runs or child.is_prefix else child.parts
        return parts

    @property
    def stand_in(self) -> Node:
        """Itself; of a prefix, which takes no hooks, the last layer of its own way through.

        A lone product at the end, behind layers right below the prefix, is a shortcut's.
        """
        if not self.is_prefix:
            return self
        inner = [child for child in self.children if child.is_layer]
        beside_layers = any(child.size and not child.is_prefix for child in inner[:-1])
        while len(inner) > 1 and beside_layers and inner[-1].is_prefix and inner[-1].size < 2:
            del inner[-1]
        return inner[-1].stand_in

    @property
    def is_layer(self) -> bool:
        """Whether it is, or holds, something that runs and is looked at."""
        if self.is_prefix:
            return any(child.is_layer for child in self.children)
        return self.runs and not self.ignored

    @property
    def runs(self) -> bool:
        """Whether it has a forward of its own, as a ModuleList has not, and gave something in it."""
        if self.is_silent:
            return False
        if isinstance(self.module, torch.jit.ScriptModule) or "forward" in vars(self.module):
            return True
        return type(self.module).forward is not nn.Module.forward

    @property
    def is_container(self) -> bool:
        """Whether it is a sequence, list or dictionary of modules."""
        is_sequence = isinstance(self.module, nn.Sequential | nn.ModuleList | nn.ModuleDict)
        return is_sequence or (self.is_prefix and self.holds_prefixes)

    @property
    def holds_prefixes(self) -> bool:
        """Whether two or more prefixes of several layers are right below it: a graph's stage, not its block."""
        return len([child for child in self.children if child.is_prefix and child.size > 1]) > 1

    @property
    def kind(self) -> str:
        """What it has in common with its peers, which are opened together or not at all."""
        if not self.is_container:
            return f"{class_of(self)}[]"
        passes_on = len(self.parts) == 1 and self.parts[0].size > 1
        if self.holds_blocks or passes_on:
            return "container of blocks"
        return f"{class_of(self)}{sorted(set(map(class_of, self.parts)))}"

    @cached_property
    def holds_blocks(self) -> bool:
        """Whether a sequence of two or more blocks of one class is in it, which makes it a stage or more."""
        blocks = [class_of(part) for part in self.parts if part.size > 1]
        if self.is_container and len(set(blocks)) < len(blocks):
            return True
        return any(child.holds_blocks for child in self.children if child.size)

    @property
    def is_stage(self) -> bool:
        """Whether it is a sequence of blocks with little around it, rather than a block that has one inside."""
        others = [child for child in self.children if child.size and not child.holds_blocks]
        return self.is_container or len(others) <= 1

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
    root = unwrap(model, at_root=True)
    seen = {root}
    # A frozen perceptual loss may be larger than the model; in a frozen model, all weights count.
    weights = frozenset(weight for weight in root.parameters() if weight.requires_grad) or frozenset(root.parameters())

    def grow(name: str, module: nn.Module, *, in_graph: bool) -> Node:
        in_graph = in_graph or isinstance(module, torch.fx.GraphModule)
        # What a graph module has in place of the modules whose forward it has written out.
        is_prefix = bool(name) and in_graph and type(module) is nn.Module
        node = Node(name, module, any_leaf=any_leaf, model_weights=weights, is_prefix=is_prefix)
        prefix = f"{name}." if name else ""
        for key, wrapped in module.named_children():
            child = unwrap(wrapped)
            is_weight = key == "parametrizations" and is_parametrized(module)
            if child not in seen and not is_weight:
                seen.add(child)
                node.children.append(grow(f"{prefix}{key}", child, in_graph=in_graph))
        return node

    return grow("", root, in_graph=False)


def unwrap(module: nn.Module, *, at_root: bool = False) -> nn.Module:
    """Returns the module inside of compile, DDP, FSDP and checkpoint wrappers, or the module itself."""
    children = dict(module.named_children())
    wrapped = [key for key in WRAPPED if key in children]
    if wrapped:
        return unwrap(children[wrapped[0]], at_root=at_root)
    if list(children) != ["module"]:
        return module
    is_wrapper = not _WRAPPERS.isdisjoint(_base_names(module))
    has_weights = bool(list(module.parameters(recurse=False)))
    if is_wrapper or (at_root and not has_weights):
        return unwrap(children["module"], at_root=at_root)
    return module


def is_exported(module: nn.Module) -> bool:
    """Whether a module is a program of `torch.export`, which runs as one graph."""
    return any(base.__module__ == "torch.export._unlift" for base in type(module).__mro__)


def _base_names(module: nn.Module) -> set[str]:
    return {base.__name__ for base in type(module).__mro__}


def class_of(node: Node) -> str:
    """The name of a module's class."""
    return type(node.module).__qualname__


def _count(weights: Iterable[nn.Parameter]) -> int:
    return sum(weight.numel() for weight in weights if not is_lazy(weight))


def _is_no_layer(module: nn.Module) -> bool:
    if isinstance(module, AveragedModel):
        return True
    return any(base.__module__.startswith(_NO_LAYERS) for base in type(module).__mro__)


def _is_called_no_layer(name: str, module: nn.Module) -> bool:
    if _NO_LAYER_CLASS.fullmatch(type(module).__name__):
        return True
    return _LOSS_NAME.search(name.rpartition(".")[2]) is not None


def _is_weighted(module: nn.Module) -> bool:
    if isinstance(module, _WEIGHTED) or _QUANTISED in _base_names(module):
        return True
    if "norm" in type(module).__name__.lower():
        return False
    if is_parametrized(module):
        return True
    return any(is_lazy(weight) or weight.ndim > 1 for weight in module.parameters(recurse=False))
