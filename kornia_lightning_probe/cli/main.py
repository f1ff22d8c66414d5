"""The door of the command line: an exit status for each way in which a command can end."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec

from kornia_lightning_probe.cli.telling import FINE, INTERRUPTED, PROGRAM, WRONG, close_quietly, reason_of, remark

_NO_PARSER = "the command line needs jsonargparse: pip install 'jsonargparse[signatures]' (the extra [cli])"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: what stands behind the program's name; None takes the process's own.

    Returns:
        The exit status: 0 where all went well, 1 where `compare --fail-above` found a metric above what is allowed, 2
        for any error.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if find_spec("jsonargparse") is None:
        remark(f"{PROGRAM}: error: {_NO_PARSER}")
        return WRONG
    shows_traceback = "--debug" in given
    try:
        # Imported here, since the parser's package is an extra.
        status: int = import_module("kornia_lightning_probe.cli.commands").run_command(given)
        sys.stdout.flush()
    except SystemExit as end:
        # The parser ends the process by itself, after --help and after words that it doesn't know.
        return end.code if isinstance(end.code, int) else FINE
    except KeyboardInterrupt:
        remark(f"{PROGRAM}: interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        close_quietly()
        return FINE
    except Exception as error:
        if shows_traceback:
            traceback.print_exc()
        remark(f"{PROGRAM}: error: {reason_of(error)}")
        return WRONG
    return status
