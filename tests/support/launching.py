"""Commands that run at the same time, each in a session of its own: all end, or what is left of them is killed."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import kornia_lightning_probe

TESTS = Path(__file__).parent.parent
# Importing everything takes most of a launched process's time, on a busy machine a minute.
SECONDS = 280


class Ended(NamedTuple):
    """How a command has ended, and all that it has printed."""

    status: int
    said: str


def free_port():
    """A port of this machine that nobody listens at."""
    with socket.socket() as probing:
        probing.bind(("127.0.0.1", 0))
        return probing.getsockname()[1]


def launch(folder, *commands, seconds=SECONDS):
    """Run Python with these arguments, each a pair of them and of more environment, at the same time.

    Args:
        folder: where what they print is kept.
        commands: pairs of arguments and environment variables.
        seconds: after so many it is a hang.

    Returns:
        How each has ended, in order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    running = []
    deadline = time.monotonic() + seconds
    try:
        for number, (arguments, environment) in enumerate(commands):
            with (folder / f"said-{number}.txt").open("w") as output:
                running.append(
                    subprocess.Popen(  # noqa: S603 - our own script
                        [sys.executable, *map(str, arguments)],
                        env=_environment() | environment,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                    )
                )
        statuses = [process.wait(max(0.0, deadline - time.monotonic())) for process in running]
    finally:
        for process in running:
            _end(process)
    return [Ended(status, (folder / f"said-{number}.txt").read_text()) for number, status in enumerate(statuses)]


def _environment():
    # The package as this test sees it, and this folder's siblings.
    package = Path(kornia_lightning_probe.__file__).parent.parent
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "TORCHELASTIC_"))}
    return inherited | {"PYTHONPATH": os.pathsep.join([str(TESTS), str(package)]), "OMP_NUM_THREADS": "1"}


def _end(process):
    # Whatever it has started is of its session.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
