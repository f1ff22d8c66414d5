"""One of several processes fails, is interrupted or killed in the middle of a probe: the others end within seconds."""

import os
import warnings
from typing import NamedTuple

import pytest
import torch
from support.even import MEASURING, SCOUTING, befall, seconds_since
from support.processes import SECONDS, ddp, run_forked

pytestmark = pytest.mark.distributed

# Far below the time after which the group itself gives up, and enough for a busy machine.
SOON = SECONDS / 3


class Case(NamedTuple):
    """Of `size` processes one is unlucky, in one of its passes."""

    size: int
    unlucky: int
    at: int = MEASURING

    def __str__(self):
        return f"rank {self.unlucky} of {self.size} in pass {self.at}"


# Rank 0 sums and writes, rank 1 has the other block, and the others none: they have only the passes of the scout.
CASES = [Case(2, 0), Case(2, 1), Case(3, 0, SCOUTING), Case(3, 1), Case(4, 1), Case(4, 3, SCOUTING)]
cases = pytest.mark.parametrize("case", CASES, ids=str)


def _train(rank, folder, mishap, case, on_error):
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    options = {"strategy": ddp(method="popen"), "devices": case.size, "on_error": on_error}
    try:
        probe = befall(folder, mishap, rank=case.unlucky, at=case.at, epochs=3, **options)
        end = f"trained, probed in {[result.epoch for result in probe.history]}"
    except BaseException as error:
        end = f"{type(error).__name__}: {error}"
    (folder / f"{rank}.txt").write_text(f"{seconds_since(folder):.1f} {end}")


def ends(folder, mishap, case, *, on_error="raise"):
    """How each process has ended, by rank, all of them soon; a killed one says nothing."""
    run_forked(case.size, _train, folder, mishap, case, on_error)
    said = {}
    for rank in range(case.size):
        path = folder / f"{rank}.txt"
        if path.exists():
            seconds, _, said[rank] = path.read_text().partition(" ")
            assert float(seconds) < SOON
    return said


@cases
def test_where_one_fails_all_end_with_its_reason(tmp_path, case):
    reason = f"OSError: a disk of rank {case.unlucky} is gone"
    expected = dict.fromkeys(range(case.size), f"OtherRankError: the probe failed on rank {case.unlucky}: {reason}")
    expected[case.unlucky] = reason
    assert ends(tmp_path, "raise", case) == expected


@cases
def test_with_on_error_warn_all_leave_this_probe_out_and_train_on(tmp_path, case):
    said = ends(tmp_path, "raise", case, on_error="warn")
    assert said == dict.fromkeys(range(case.size), "trained, probed in [0, 2]")
    written = sorted(path.name for path in (tmp_path / "probe").glob("*.json"))
    # 64 images in batches of 16 for each process.
    steps = -(-64 // (16 * case.size))
    assert written == [f"fit-epoch={epoch}-step={(epoch + 1) * steps - 1}.json" for epoch in (0, 2)]


@cases
@pytest.mark.parametrize("mishap", ["interrupt", "kill"])
def test_where_one_is_gone_the_others_end(tmp_path, mishap, case):
    assert_others_end(ends(tmp_path, mishap, case), mishap, case)


@pytest.mark.parametrize("mishap", ["interrupt", "kill"])
def test_with_on_error_warn_nobody_trains_on_without_one_that_is_gone(tmp_path, mishap):
    case = Case(3, 1)
    assert_others_end(ends(tmp_path, mishap, case, on_error="warn"), mishap, case)


def assert_others_end(said, mishap, case):
    if mishap == "interrupt":
        # Lightning ends an interrupted process itself.
        assert said.pop(case.unlucky) == "SystemExit: 1"
    assert len(said) == case.size - 1
    for end in said.values():
        # The group's own words, on every process.
        assert end.startswith("RuntimeError: ")
        assert "Connection closed by peer" in end or "Connection reset by peer" in end
