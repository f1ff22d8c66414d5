"""Reads the package's imports and holds their direction: what a room may know of another."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import kornia_lightning_probe

PACKAGE = kornia_lightning_probe.__name__
ROOT = Path(kornia_lightning_probe.__file__).parent

# A room to the rooms that it must not import, whatever lies between; a trailing dot stands for all that is in it.
FORBIDDEN = {
    "distances": {""},
    "metrics.": {"engine", "probe", "bank", "images", "layers", "recorder", "result", "plotting"},
    "bank": {"metrics.", "engine", "images", "layers", "recorder", "result"},
    "images": {"metrics.", "engine", "bank", "layers", "recorder", "result"},
    "layers": {"metrics.", "engine", "bank", "images", "recorder", "result"},
    "recorder": {"metrics.", "engine", "bank", "images", "result"},
    "result": {"metrics.", "engine", "bank", "images", "layers", "recorder"},
    "plotting": {"metrics.", "engine", "bank", "images", "layers", "recorder", "result"},
    "tensorboard": {"engine", "callbacks."},
    "engine": {"probe", "callbacks.", "tensorboard"},
    "probe": {"callbacks.", "tensorboard"},
}


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


TREES = {name_of(path): ast.parse(path.read_text()) for path in sorted(ROOT.rglob("*.py"))}


def for_types_only(node):
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def walk(tree):
    """Every node that runs, also inside functions; not what only type checkers read."""
    for child in ast.iter_child_nodes(tree):
        if not for_types_only(child):
            yield child
            yield from walk(child)


def imported(tree):
    """The dotted names of all modules that a module imports, with the names taken out of them."""
    for node in walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(dotted):
    """The module of this package that a dotted name is in, or None for others' modules."""
    inner = dotted.removeprefix(f"{PACKAGE}.")
    if not dotted.startswith(f"{PACKAGE}."):
        return None
    return inner if inner in TREES else inner.rpartition(".")[0]


ROOMS = {
    name: {room for dotted in imported(tree) if (room := room_of(dotted)) is not None} for name, tree in TREES.items()
}


def reached_from(name):
    found, waiting = set(), [name]
    while waiting:
        new = ROOMS[waiting.pop()] - found
        found |= new
        waiting += new
    return found


def belongs(name, room):
    return name == room.rstrip(".") or (room.endswith(".") and name.startswith(room))


def who(knows):
    return {name for name, tree in TREES.items() if any(knows(dotted) for dotted in imported(tree))}


def test_the_reader_of_imports_sees_them():
    assert {"bank", "passes", "metrics"} <= ROOMS["engine"]
    assert "metrics.about" in ROOMS["metrics.readouts"], "also those of a package's modules"
    assert "plotting" in ROOMS["result"], "also those inside functions"
    assert "result" not in ROOMS["summary"], "and none for types only"


def test_no_module_imports_itself_on_a_detour():
    # Raises CycleError with the cycle.
    TopologicalSorter(ROOMS).prepare()


@pytest.mark.parametrize("room", FORBIDDEN)
def test_imports_point_down_only(room):
    for name in (name for name in TREES if belongs(name, room)):
        up = [other for other in reached_from(name) if any(belongs(other, wrong) for wrong in FORBIDDEN[room])]
        assert not up, f"{name} reaches {up}"


def test_the_mathematics_knows_nothing_but_torch():
    assert ROOMS["distances"] == set()
    assert ROOMS["functional"] == {"distances"}
    for room in ("distances", "functional"):
        assert {dotted.split(".")[0] for dotted in imported(TREES[room])} <= {
            "__future__",
            "math",
            "torch",
            "typing",
            PACKAGE,
        }


def test_only_the_callbacks_know_lightning():
    assert who(lambda dotted: dotted.split(".")[0] == "lightning") <= {
        name for name in TREES if name.split(".")[0] in ("callbacks", "cli")
    }
    assert who(lambda dotted: dotted.split(".")[0] in ("pytorch_lightning", "lightning_fabric")) == set()


def test_only_the_plots_know_matplotlib_and_none_knows_pyplot():
    plots = {name for name in TREES if name == "drawing" or name.split("_")[0] == "plotting"}
    assert who(lambda dotted: dotted.split(".")[0] == "matplotlib") <= plots
    assert who(lambda dotted: dotted.startswith("matplotlib.pyplot")) == set()


def test_only_tensorboard_py_knows_tensorboard():
    writes = {
        "add_scalar",
        "add_scalars",
        "add_figure",
        "add_image",
        "add_images",
        "add_custom_scalars",
        "add_histogram",
    }
    calls = {
        name
        for name, tree in TREES.items()
        for node in walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in writes
    }
    imports = who(lambda dotted: "tensorboard" in dotted.split(".") and not dotted.startswith(PACKAGE))
    assert calls | imports <= {"tensorboard"}


def test_only_the_engine_runs_the_model():
    runs = {
        name
        for name, tree in TREES.items()
        for node in walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("subject.forward")
    }
    assert runs == {"passes"}
    # Whoever measures goes through the engine's one loop.
    assert who(lambda dotted: dotted == f"{PACKAGE}.engine.run_probe") <= {
        name for name in TREES if name == "probe" or name.startswith("callbacks.")
    }


def test_only_the_init_imports_the_callbacks():
    above = {name for name in TREES if name.split(".")[0] in ("callbacks", "cli")}
    assert who(lambda dotted: dotted.startswith(f"{PACKAGE}.callbacks")) <= above
