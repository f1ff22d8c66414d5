"""The commands: their arguments and their help; each is run by the module of its name. Another is one more entry."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple

from jsonargparse import ArgumentError, ArgumentParser, DefaultHelpFormatter

from kornia_lightning_probe.cli.telling import PROGRAM, CommandError, one_line
from kornia_lightning_probe.wording import listed, near_names

_ABOUT = """How far a vision model's layers move under augmentations: look at saved results, compare them, write a
page of them, probe saved checkpoints."""
_EXIT = """exit status:
  0    all went well
  1    compare --fail-above: a metric is above what is allowed
  2    any other error, said in one sentence; --debug shows where in the code it arose
  130  interrupted by Ctrl-C
"""
_NO_COMMAND = ("-h", "--help", "--version")
_WRONG_VALUE = re.compile(
    r'Parser key "(?P<key>\w+)"(?: element \d+)?: .*?Expected an? <class \'(?P<kind>\w+)\'>. Got value: (?P<value>\S+)'
)
_KINDS = {"float": "numbers", "int": "whole numbers"}


class _Formatter(argparse.RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Keeps the lines of examples as they are, and says of a default only what a reader can use."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = (action.help or "").replace("%", "%%")
        if action.required or not action.default or action.default == argparse.SUPPRESS:
            return text
        default = action.default
        return f"{text} (default: {' '.join(default) if isinstance(default, list) else default})"


class Command(NamedTuple):
    """One command.

    Args:
        about: what it is for, in a sentence.
        example: lines that a reader can copy.
        add: adds its arguments to a parser.
    """

    about: str
    example: str
    add: Callable[[ArgumentParser], None]


def _add_show(parser: ArgumentParser) -> None:
    parser.add_argument(
        "path", type=str, metavar="FILE|DIR", help="a result's JSON file, or a folder that is searched with its folders"
    )
    parser.add_argument("--full", action="store_true", help="severity curves, equivariance and each other metric too")
    parser.add_argument("--plot", type=str, metavar="OUT.png", help="draw the result, too (PNG, PDF or SVG)")
    parser.add_argument("--kind", type=str, default="profile", help="the picture: profile, heatmap, severity or worst")


def _add_compare(parser: ArgumentParser) -> None:
    for name, which in (("first", "the result before"), ("second", "the result after, or of the other model")):
        parser.add_argument(name, type=str, help=f"{which}: a JSON file, or a folder of one run")
    parser.add_argument(
        "--fail-above",
        type=str,
        nargs="+",
        action="extend",
        default=[],
        metavar="METRIC=CHANGE",
        help="end with status 1 where METRIC has grown by more than CHANGE, beyond error, at any layer under any view",
    )
    parser.add_argument(
        "--errors", type=float, default=3.0, metavar="NUMBER", help="how many standard errors are beyond error"
    )
    parser.add_argument("--metric", type=str, help="the metric of the table (default: sensitivity)")


def _add_report(parser: ArgumentParser) -> None:
    parser.add_argument(
        "dirs",
        type=str,
        nargs="+",
        metavar="DIR",
        help="log directories, searched with the folders in them; several runs stand side by side",
    )
    parser.add_argument("-o", "--output", type=str, default="report.html", metavar="FILE", help="where the page goes")


def _add_run(parser: ArgumentParser) -> None:
    needed: dict[str, Any] = {"type": str, "required": True}
    parser.add_argument("--model", **needed, metavar="MODULE:NAME", help="a class or function that makes the model")
    parser.add_argument(
        "--checkpoint",
        **needed,
        nargs="+",
        metavar="FILE",
        help="files, or patterns in quotes such as 'runs/**/*.ckpt'; taken in natural order, read as weights only",
    )
    parser.add_argument(
        "--images",
        **needed,
        metavar="SOURCE",
        help="a folder of pictures, a .pt or .npy file, or MODULE:NAME of a dataset",
    )
    parser.add_argument(
        "--size", type=int, nargs="+", metavar="SIDE", help="resize pictures to this side, or to height and width"
    )
    parser.add_argument(
        "--mean", type=float, nargs="+", metavar="NUMBER", help="of the normalisation that the model expects"
    )
    parser.add_argument("--std", type=float, nargs="+", metavar="NUMBER", help="its standard deviation")
    parser.add_argument(
        "--bank",
        type=str,
        default="default",
        help="a preset (default, photometric, geometric, corruptions), or a YAML file",
    )
    parser.add_argument(
        "--output", **needed, metavar="DIR", help="where a JSON file for each checkpoint and report.html go"
    )
    parser.add_argument("--num-images", type=int, default=256, metavar="N", help="at most so many images")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="images in one pass")
    parser.add_argument("--layers", type=str, nargs="+", default=["auto"], metavar="NAME", help="names or globs")
    parser.add_argument(
        "--metrics", type=str, nargs="+", metavar="NAME", help="names of metrics (default: the default set)"
    )
    parser.add_argument("--forward", type=str, help="a method or submodule to call in place of forward")
    parser.add_argument("--device", type=str, default="cpu", help="where to run, such as cuda")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="chooses the images")


COMMANDS: Mapping[str, Command] = {
    "show": Command(
        "Show a result: the verdict and a table. Of a folder, the newest result of each run.",
        f"{PROGRAM} show lightning_logs/version_0/probe\n{PROGRAM} show runs --full --plot probe.png",
        _add_show,
    ),
    "compare": Command(
        "Say what has changed from one result to another; for a test of a new model, fail where it got worse.",
        f"{PROGRAM} compare old.json new.json\n"
        f"{PROGRAM} compare old.json new.json --fail-above sensitivity=0.05 flip_rate=0.02",
        _add_compare,
    ),
    "report": Command(
        "Write one page, which opens from disk, of every probe in some log directories.",
        f"{PROGRAM} report lightning_logs -o report.html\n"
        f"{PROGRAM} report lightning_logs/version_3 lightning_logs/version_4 -o both.html",
        _add_report,
    ),
    "run": Command(
        "Probe saved checkpoints: a JSON file for each, one report over all, and what has changed since the first.",
        f"{PROGRAM} run --model my_project.nets:Classifier --checkpoint 'runs/**/*.ckpt' \\\n"
        "    --images photographs --size 224 --mean 0.485 0.456 0.406 --std 0.229 0.224 0.225 --output probed",
        _add_run,
    ),
}


def parser_of_commands() -> ArgumentParser:
    """The parser of the whole command line."""
    examples = "\n".join(command.example for command in COMMANDS.values())
    parser = _parser(_ABOUT, examples, prog=PROGRAM)
    parser.add_argument("--version", action="version", version=f"%(prog)s {_version()}")
    commands = parser.add_subcommands()
    for name, command in COMMANDS.items():
        own = _parser(command.about, command.example)
        command.add(own)
        own.add_argument("--debug", action="store_true", help="show where in the code an error arose")
        commands.add_subcommand(name, own, help=command.about)
    return parser


def _version() -> str:
    # The front door is on the same floor as this room.
    found: str = import_module("kornia_lightning_probe").__version__
    return found


def _parser(about: str, example: str, **options: Any) -> ArgumentParser:
    indented = "\n".join(f"  {line}" for line in example.splitlines())
    epilog = f"example:\n{indented}\n\n{_EXIT}"
    return ArgumentParser(description=about, epilog=epilog, formatter_class=_Formatter, exit_on_error=False, **options)


def run_command(arguments: Sequence[str]) -> int:
    """Read the arguments and run what they ask for; returns the exit status.

    Raises:
        SystemExit: after --help and --version.
        CommandError: for words that the parser doesn't know, and where the command refuses.
    """
    name = _command_of(arguments)
    try:
        given = parser_of_commands().parse_args(list(arguments))
    except ArgumentError as error:
        raise CommandError(_sentence(str(error), name)) from error
    # A command is the function of its module's name; what only it needs is imported when it runs.
    run: Callable[[Any], int] = getattr(import_module(f"kornia_lightning_probe.cli.{name}"), name)
    return run(given[name])


def _command_of(arguments: Sequence[str]) -> str:
    """The command that is asked for; "" where help is.

    Raises:
        CommandError: where there is no such command.
    """
    first = arguments[0] if arguments else ""
    if first in COMMANDS:
        return first
    if first in _NO_COMMAND:
        return ""
    if not first:
        raise CommandError(f"a command was expected: {listed(COMMANDS)}; see {PROGRAM} --help")
    near = near_names(first, COMMANDS)
    hint = f"did you mean {near[0]!r}?" if near else f"the commands are {listed(COMMANDS)}"
    raise CommandError(f"there is no command {first!r}; {hint}")


def _sentence(said: str, name: str) -> str:
    """What the parser says, in the words of the command line: an option's name is its own, not that of a key."""
    text = one_line(said).replace(f"{name}.", "")
    wrong = _WRONG_VALUE.search(text)
    if wrong:
        option = wrong["key"].replace("_", "-")
        kind = _KINDS.get(wrong["kind"], wrong["kind"])
        text = f"--{option} takes {kind}, got {wrong['value']!r}"
    return f"{text}; see {PROGRAM} {name} --help"
