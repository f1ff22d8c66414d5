"""Trainings as users start them: two torchrun agents, a SLURM job, Lightning's ddp and ddp_spawn."""

from pathlib import Path

import pytest
from support.even import assert_same_history, train
from support.launching import free_port, launch
from support.trainings import QUIET, images_of

pytestmark = [
    pytest.mark.distributed,
    pytest.mark.slow,
    *(pytest.mark.filterwarnings(line) for line in QUIET),
]

SCRIPT = Path(__file__).parent / "training.py"


def two_agents(folder, *arguments, processes=1):
    """Two torchrun agents on this machine, each with so many processes."""
    port = free_port()
    torchrun = ["-m", "torch.distributed.run", "--nnodes=2", f"--nproc-per-node={processes}"]
    meeting = ["--master-addr=127.0.0.1", f"--master-port={port}"]
    told = [SCRIPT, folder, "--nodes=2", f"--devices={processes}", *arguments]
    commands = [([*torchrun, f"--node-rank={rank}", *meeting, *told], {}) for rank in range(2)]
    return launch(folder, *commands)


def slurm_job(folder, *arguments, tasks=2):
    """What srun does for a job of one node: it starts every task, and tells it its place."""
    job = {
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NAME": "training",
        "SLURM_NODELIST": "127.0.0.1",
        "SLURM_NTASKS": str(tasks),
        "SLURM_NTASKS_PER_NODE": str(tasks),
        "SLURM_NODEID": "0",
        "MASTER_PORT": str(free_port()),
    }
    told = [SCRIPT, folder, f"--devices={tasks}", *arguments]
    commands = [(told, job | {"SLURM_PROCID": str(task), "SLURM_LOCALID": str(task)}) for task in range(tasks)]
    return launch(folder, *commands)


def subprocesses(folder, *arguments, devices=2):
    """One command, which starts the others itself: ``strategy="ddp"``."""
    return launch(folder, ([SCRIPT, folder, f"--devices={devices}", *arguments], {}))


def spawned(folder, *arguments):
    """One command, whose Trainer spawns the processes: ``strategy="ddp_spawn"``."""
    return subprocesses(folder, "--start=spawn", *arguments)


def four_by_two_agents(folder, *arguments):
    return two_agents(folder, *arguments, processes=2)


def three_subprocesses(folder, *arguments):
    return subprocesses(folder, *arguments, devices=3)


# 80 images are three blocks, 20 are one.
@pytest.mark.parametrize(
    ("start", "processes", "count"),
    [
        (two_agents, 2, 80),
        (four_by_two_agents, 4, 20),
        (slurm_job, 2, 80),
        (subprocesses, 2, 20),
        (three_subprocesses, 3, 80),
        (spawned, 2, 80),
    ],
)
def test_a_training_has_the_history_of_one_process(tmp_path, start, processes, count):
    train(tmp_path / "alone", images=images_of(count, seed=3))
    for ended in start(tmp_path / "together", f"--images={count}"):
        assert ended.status == 0, ended.said
    assert_same_history(tmp_path / "together", tmp_path / "alone", processes=processes)


REASON = "OSError: a disk of rank 1 is gone"


@pytest.mark.parametrize("start", [two_agents, slurm_job, subprocesses, spawned])
def test_where_one_process_fails_all_end_and_the_reason_is_told(tmp_path, start):
    everything = start(tmp_path, "--mishap=raise")
    assert [ended.status for ended in everything] == [1] * len(everything)
    for ended in everything:
        assert REASON in ended.said


@pytest.mark.parametrize("start", [two_agents, slurm_job, subprocesses, spawned])
@pytest.mark.parametrize("mishap", ["interrupt", "kill"])
def test_where_one_process_is_gone_all_end(tmp_path, start, mishap):
    for ended in start(tmp_path, f"--mishap={mishap}"):
        assert ended.status != 0, ended.said
