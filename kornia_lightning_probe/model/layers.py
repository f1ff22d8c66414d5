"""Chooses which modules of a model are looked at: by name, glob, regex, type, predicate, or "auto"."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import TypeAlias

import torch
from torch import nn

from kornia_lightning_probe.model.stages import main_stages
from kornia_lightning_probe.model.tree import WRAPPED, Node, is_exported, module_tree, unwrap
from kornia_lightning_probe.wording import listed, near_names, quoted

LayerSelector: TypeAlias = str | type[nn.Module] | Callable[[str, nn.Module], bool]
"""A name, a glob, a regex ("re:..."), "auto", a module type, or a predicate (name, module) -> bool."""

_REGEX = "re:"


def select_layers(model: nn.Module, layers: LayerSelector | Sequence[LayerSelector] = "auto") -> dict[str, nn.Module]:
    r"""Chooses layers of a model.

    `"auto"` takes the model's own stages or blocks from stem to head, about 6 to 24 of them, and what goes into the
    head. It descends through wrappers and containers (`LightningModule.model`, `encoder.layer`, `features`) to the
    finest level of blocks that fits; of a longer sequence of equal rank it takes every second, third, ... member. It
    passes over metrics, losses, augmentations, dropout and averaged copies of the model. Without an input it can't know
    what runs: the probes choose among the modules that did, in order of execution, and may choose others.

    Args:
        model: Any module. The prefixes of wrappers (`module.`, `_orig_mod.`, `_fsdp_wrapped_module.`,
            `_checkpoint_wrapped_module.`) are no part of a name; an attribute that somebody has called `module` is.
        layers: A name, a glob (`fnmatch` over the dotted name, so `*` matches dots too), a regex (`"re:..."`, full
            match), a module type, a predicate `(name, module) -> bool`, `"auto"`, or a list of those. Globs, regexes,
            types and predicates pass over containers that never run (`ModuleList`, `ModuleDict`).

    Returns:
        The modules by name, in the model's order, each once; one that has several names goes by its first.

    Raises:
        ValueError: A selector matches nothing (near names are shown), a regex is none, `layers` is empty, or the model
            has no submodules, or none that take hooks (TorchScript, an exported program).
        TypeError: `model` is no module, or a selector is none of the above.

    Example:
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(32, 2))
        >>> list(select_layers(net))
        ['0', '2', '3', '4']
        >>> list(select_layers(net, [nn.Conv2d, "re:[34]"]))
        ['0', '2', '3', '4']
        >>> list(select_layers(net, lambda name, module: isinstance(module, nn.ReLU)))
        ['1']
    """
    return _select(model, layers)[0]


def exact_names(model: nn.Module, layers: LayerSelector | Sequence[LayerSelector] = "auto") -> frozenset[str]:
    """Tells which of the chosen layers were asked for by their very name, and therefore must run.

    Args:
        model: As for `select_layers`.
        layers: As for `select_layers`.

    Returns:
        The keys of `select_layers(model, layers)` that no glob, regex, type, predicate or "auto" was needed for.

    Example:
        >>> from torch import nn
        >>> sorted(exact_names(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), ["1", nn.Linear]))
        ['1']
    """
    return _select(model, layers)[1]


def without_auto(layers: LayerSelector | Sequence[LayerSelector]) -> list[LayerSelector] | None:
    """The selectors beside "auto"; None where that is not among them.

    Example:
        >>> without_auto(["auto", "head"]), without_auto("auto"), without_auto("head")
        (['head'], [], None)
    """
    selectors = _as_list(layers)
    others = [selector for selector in selectors if selector != "auto"]
    return None if len(others) == len(selectors) else others


def clean_name(dotted: str) -> str:
    """Strips the prefixes that wrappers put into a dotted name, `module.` only where the name begins with it.

    Example:
        >>> clean_name("module._orig_mod.blocks.3._checkpoint_wrapped_module.attn")
        'blocks.3.attn'
    """
    parts = [part for part in dotted.split(".") if part not in WRAPPED]
    while parts[:1] == ["module"]:
        del parts[0]
    return ".".join(parts)


def _select(
    model: nn.Module, layers: LayerSelector | Sequence[LayerSelector]
) -> tuple[dict[str, nn.Module], frozenset[str]]:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}, expected an nn.Module")
    root = module_tree(model)
    selectors = _as_list(layers)
    _require_layers(root)
    nodes = {node.name: node for node in root.walk()}
    chosen: set[str] = set()
    exact: set[str] = set()
    for selector in selectors:
        name = _exact(selector, nodes, root.module)
        if name:
            exact.add(name)
        else:
            chosen.update(node.name for node in _matches(selector, nodes, root))
    chosen |= exact
    modules = {name: node.module for name, node in nodes.items() if name in chosen}
    return modules, frozenset(exact)


def _as_list(layers: LayerSelector | Sequence[LayerSelector]) -> list[LayerSelector]:
    if isinstance(layers, str) or not isinstance(layers, Sequence):
        return [layers]
    if not layers:
        raise ValueError("layers is empty, expected at least one name, pattern, type or predicate; or 'auto'")
    return list(layers)


def _require_layers(root: Node) -> None:
    kind = type(root.module).__name__
    if isinstance(root.module, torch.jit.ScriptModule):
        raise ValueError(
            f"{kind} is TorchScript, whose modules take no hooks; probe the model that it was scripted or traced from"
        )
    if is_exported(root.module):
        raise ValueError(
            f"{kind} is an exported program, which runs as one graph and not by its modules; probe the model that it "
            "was exported from, or torch.export.unflatten(program)"
        )
    if not root.children:
        raise ValueError(f"{kind} has no submodules to choose from; wrap it: nn.Sequential(model)")


def _exact(selector: LayerSelector, nodes: dict[str, Node], root: nn.Module) -> str:
    """Returns the name of the module that `selector` names, or an empty text where it is no name."""
    if not isinstance(selector, str) or selector in ("", "auto"):
        return ""
    if selector in nodes:
        return selector
    clean = clean_name(selector)
    try:
        module = unwrap(root.get_submodule(selector))
    except AttributeError:
        return clean if clean in nodes else ""
    return _name_of(module, nodes)


def _name_of(module: nn.Module, nodes: dict[str, Node]) -> str:
    return next((name for name, node in nodes.items() if node.module is module), "")


def _matches(selector: LayerSelector, nodes: dict[str, Node], root: Node) -> list[Node]:
    if isinstance(selector, str) and selector == "auto":
        return main_stages(root)
    test = _test(selector, nodes)
    found = [node for node in nodes.values() if test(node.name, node.module)]
    running = [node for node in found if node.runs]
    if running:
        return running
    if not found:
        raise ValueError(_no_match(selector, nodes))
    inner = [child.name for node in found for child in node.children]
    example = inner[0] if inner else "features.*"
    names = quoted(node.name for node in found)
    raise ValueError(
        f"layers={_text(selector)} matches only containers that never run: {names}; choose what is in them, "
        f"e.g. {example!r}"
    )


def _test(selector: LayerSelector, nodes: dict[str, Node]) -> Callable[[str, nn.Module], bool]:
    if isinstance(selector, str):
        return _test_of_names(selector)
    if isinstance(selector, type) and issubclass(selector, nn.Module):
        return lambda _name, module: isinstance(module, selector)
    if isinstance(selector, nn.Module):
        name = _name_of(selector, nodes)
        what = repr(name) if name else "its name"
        raise TypeError(f"a layer is chosen by its name, not by the module itself; pass {what}")
    if callable(selector) and not isinstance(selector, type):
        return selector
    raise TypeError(
        f"layers={_text(selector)}: expected a name, a glob, 're:...', a type of module, "
        "a predicate (name, module) -> bool, or a list of these"
    )


def _test_of_names(selector: str) -> Callable[[str, nn.Module], bool]:
    if not selector.startswith(_REGEX):
        return lambda name, _module: fnmatchcase(name, selector)
    try:
        pattern = re.compile(selector.removeprefix(_REGEX))
    except re.error as error:
        raise ValueError(f"layers={selector!r} is not a valid regular expression: {error}") from error
    return lambda name, _module: pattern.fullmatch(name) is not None


def _no_match(selector: LayerSelector, nodes: dict[str, Node]) -> str:
    top = quoted(name for name in nodes if "." not in name)
    if isinstance(selector, str):
        near = _near(selector, nodes)
        what = f"near names: {quoted(near)}" if near else f"its names begin with {top}"
        return f"no layer matches {selector!r}; {what}"
    if isinstance(selector, type):
        types = {type(node.module).__name__ for node in nodes.values()}
        return f"no layer is a {selector.__name__}; the model has {listed(sorted(types), most=12)}"
    return f"no layer satisfies the predicate {_text(selector)}; the model has {len(nodes)}, e.g. {top}"


def _near(selector: str, nodes: dict[str, Node]) -> list[str]:
    wanted = re.sub(r"[*?\[\]\\^$()+|]", "", selector.removeprefix(_REGEX))
    last_parts = [name for name in nodes if name.endswith(f".{wanted}")]
    near = [*last_parts[:3], *near_names(wanted, nodes, most=5)]
    return list(dict.fromkeys(near))[:5]


def _text(selector: object) -> str:
    return getattr(selector, "__qualname__", None) or repr(selector)
