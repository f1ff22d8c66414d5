"""Reads the package's imports and holds the plan of the house: who may know whom, and how large a room may grow."""

import ast
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

import kornia_lightning_probe

PACKAGE = kornia_lightning_probe.__name__
ROOT = Path(kornia_lightning_probe.__file__).parent


class Room(NamedTuple):
    """Modules that may know each other, and of the others those on lower floors.

    Args:
        floor: imports point from a higher floor to a lower one.
        holds: the modules and folders that are in it.
        closed: what it must not know, although it is on a lower floor.
    """

    floor: int
    holds: tuple[str, ...]
    closed: tuple[str, ...] = ()


ROOMS = {
    # The public names, and the faces: thin modules that show what lives further down. Nobody below imports a face.
    "front": Room(7, ("", "influence", "plotting", "presets", "similarity")),
    "cli": Room(7, ("__main__", "cli"), closed=("callbacks", "functional")),
    "callbacks": Room(6, ("callbacks",)),
    "probe": Room(6, ("probe",)),
    "engine": Room(5, ("engine",), closed=("reporting",)),
    "result": Room(5, ("result",)),
    "reporting": Room(4, ("reporting",)),
    "metrics": Room(4, ("metrics",), closed=("results",)),
    "model": Room(4, ("model",), closed=("images.probe_images",)),
    "activations": Room(3, ("activations",)),
    "results": Room(3, ("results",)),
    "bank": Room(3, ("bank",)),
    "images": Room(3, ("images",)),
    "functional": Room(2, ("functional",)),
    "ground": Room(1, ("checks", "image_layout", "quantity", "randomness", "wording")),
}

# Packages of others that only these modules may import, but for type checkers.
GUESTS = {
    "kornia": "bank",
    "torchmetrics": "metrics",
    "matplotlib": "reporting.figures",
    "tensorboard": "reporting.tensorboard",
    "altair": "reporting.html.charts",
    "jinja2": "reporting.html.page",
    "vl_convert": "reporting.html.page",
    "lightning": "callbacks",
    # The twins of Lightning's own packages, whose classes are others.
    "pytorch_lightning": None,
    "lightning_fabric": None,
}
WRITER_METHODS = {
    "add_scalar",
    "add_scalars",
    "add_figure",
    "add_image",
    "add_images",
    "add_custom_scalars",
    "add_histogram",
}
LONGEST_FILE = 350
MOST_MODULES = 12
# From the callbacks down to the arithmetic of runs, six of it inside model/tracing; without that it is 11.
LONGEST_CHAIN = 16

# What is still wrong, to be mended. An entry that isn't true any more must go.
KNOWN: set[str] = set()


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


PATHS = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in PATHS.items()}


def for_types_only(node):
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def running(tree):
    """Every node that runs, also inside functions; not what only type checkers read."""
    for child in ast.iter_child_nodes(tree):
        if not for_types_only(child):
            yield child
            yield from running(child)


def imported(nodes):
    """The dotted names of all modules that are imported, with the names taken out of them."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules_among(dotted_names):
    """The modules of this package that dotted names are, or are names in."""
    inner = {dotted.removeprefix(f"{PACKAGE}.") for dotted in dotted_names if dotted.startswith(f"{PACKAGE}.")}
    return {name if name in TREES else name.rpartition(".")[0] for name in inner}


IMPORTS = {name: modules_among(imported(ast.walk(tree))) for name, tree in TREES.items()}
IMPORTS_THAT_RUN = {name: modules_among(imported(running(tree))) for name, tree in TREES.items()}


def lies_in(name, place):
    return name == place or name.startswith(f"{place}.")


def room_of(name):
    """The name of a module's room, or None where it has none."""
    top = name.split(".")[0]
    return next((title for title, room in ROOMS.items() if top in room.holds), None)


@cache
def reached_from(name):
    found, waiting = set(), [name]
    while waiting:
        new = IMPORTS[waiting.pop()] - found
        found |= new
        waiting += new
    return found


@cache
def longest_chain(name):
    """The modules of the longest chain of imports from here; of a circle only one is counted."""
    circle = {other for other in reached_from(name) if name in reached_from(other)} | {name}
    below = {other for member in circle for other in IMPORTS_THAT_RUN[member]} - circle
    return (name, *max((longest_chain(other) for other in sorted(below)), key=len, default=()))


def who(knows):
    """The modules in which a dotted name is imported, not only for type checkers, for which `knows` is true."""
    return {name for name, tree in TREES.items() if any(knows(dotted) for dotted in imported(running(tree)))}


# The rules: each yields what is wrong, as one line of text.


def homeless_modules():
    yield from (f"{name} is in no room" for name in TREES if room_of(name) is None)


def imports_that_do_not_point_down():
    for name, others in IMPORTS.items():
        here = room_of(name)
        for other in sorted(others):
            there = room_of(other)
            if here != there and ROOMS[here].floor <= ROOMS[there].floor:
                yield f"{name} imports {other}"


def closed_doors():
    for name, others in IMPORTS.items():
        closed = ROOMS[room_of(name)].closed
        yield from (f"{name} knows {other}" for other in sorted(others) if any(lies_in(other, door) for door in closed))


def circles():
    yield from (f"{name or PACKAGE} is in a circle" for name in TREES if name in reached_from(name))


def long_chains():
    longest = max((longest_chain(name) for name in TREES), key=len)
    if len(longest) > LONGEST_CHAIN:
        print(" -> ".join(longest))  # noqa: T201 - shown where the test fails
        yield f"a chain of imports is longer than {LONGEST_CHAIN}"


def long_files():
    for name, path in PATHS.items():
        if len(path.read_text(encoding="utf-8").splitlines()) > LONGEST_FILE:
            yield f"{name} has more than {LONGEST_FILE} lines"


def crowded_folders():
    counts = Counter(path.parent.relative_to(ROOT).as_posix() for path in PATHS.values())
    yield from (f"{folder} holds more than {MOST_MODULES}" for folder, count in counts.items() if count > MOST_MODULES)


def uninvited_guests():
    for guest, place in GUESTS.items():
        for name in sorted(who(lambda dotted, guest=guest: dotted.split(".")[0] == guest)):
            if place is None or not lies_in(name, place):
                yield f"{name} knows {guest}"


def pyplots():
    # pyplot keeps every figure, and chooses a backend for the whole process.
    yield from (f"{name} knows pyplot" for name in who(lambda dotted: dotted.startswith("matplotlib.pyplot")))


def writers_of_tensorboard():
    for name, tree in TREES.items():
        attributes = {node.attr for node in running(tree) if isinstance(node, ast.Attribute)}
        if attributes & WRITER_METHODS and name != GUESTS["tensorboard"]:
            yield f"{name} writes to TensorBoard"


def impure_mathematics():
    allowed = sys.stdlib_module_names | {"torch", PACKAGE}
    for name in (name for name in TREES if room_of(name) == "functional"):
        foreign = {dotted.split(".")[0] for dotted in imported(ast.walk(TREES[name]))} - allowed
        inner = {other for other in IMPORTS[name] if room_of(other) != "functional"}
        yield from (f"{name} knows {other}" for other in sorted(foreign | inner))


def others_that_run_the_model():
    for name, tree in TREES.items():
        calls = (ast.unparse(node.func) for node in running(tree) if isinstance(node, ast.Call))
        if any(call.endswith("subject.forward") for call in calls) and room_of(name) != "engine":
            yield f"{name} runs the model"


RULES = [
    homeless_modules,
    imports_that_do_not_point_down,
    closed_doors,
    circles,
    long_chains,
    long_files,
    crowded_folders,
    uninvited_guests,
    pyplots,
    writers_of_tensorboard,
    impure_mathematics,
    others_that_run_the_model,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_there_are_no_new(rule):
    assert sorted(set(rule()) - KNOWN) == []


def test_what_is_known_to_be_wrong_is_still_wrong():
    wrong = {line for rule in RULES for line in rule()}
    assert sorted(KNOWN - wrong) == [], "delete these entries of KNOWN: they are mended"


def test_the_reader_of_imports_sees_them():
    source = """
from typing import TYPE_CHECKING
from kornia_lightning_probe.bank.views import View
from kornia_lightning_probe.metrics import resolve_metrics

if TYPE_CHECKING:
    from kornia_lightning_probe import result

def late():
    import kornia_lightning_probe.images.batches
"""
    tree = ast.parse(source)
    runs = {"bank.views", "metrics", "images.batches"}
    assert modules_among(imported(running(tree))) == runs
    assert modules_among(imported(ast.walk(tree))) == runs | {"result"}


def test_the_engine_is_entered_by_who_measures_only():
    entered = who(lambda dotted: dotted.startswith(f"{PACKAGE}.engine.") and dotted.endswith(".run_probe"))
    assert {room_of(name) for name in entered} <= {"probe", "callbacks", "engine"}


def test_every_room_of_the_table_that_is_there_holds_something():
    assert {title for title in ROOMS if title not in {room_of(name) for name in TREES}} == set()
