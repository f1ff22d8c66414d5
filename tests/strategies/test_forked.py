"""Trainings in forked processes: the history of one process, whatever their number."""

import pytest
from support.even import assert_same_history, train
from support.processes import ddp
from support.trainings import QUIET, images_of

pytestmark = [
    pytest.mark.distributed,
    pytest.mark.usefixtures("one_thread"),
    *(pytest.mark.filterwarnings(line) for line in QUIET),
]


# Blocks hold at most 32 images: 80 are three of 27, 27 and 26, and 20 are one. So two processes have unequal shares,
# of four one has nothing to do, and of 20 images all but one have nothing.
@pytest.mark.parametrize("count", [80, 20])
@pytest.mark.parametrize("processes", [2, 3, 4])
def test_a_training_has_the_history_of_one_process(tmp_path, processes, count):
    images = images_of(count, seed=3)
    train(tmp_path / "alone", images=images)
    train(tmp_path / "together", processes=processes, images=images, strategy=ddp())
    assert_same_history(tmp_path / "together", tmp_path / "alone", processes=processes)
