import pytest
from support.nets import (
    Failing,
    SmallCNN,
)
from support.probing import images_of, plain_bank, run, unchanged
from torch import nn

from kornia_lightning_probe.engine.processes import OtherRankError, World

IMAGES = images_of(40)

pytestmark = pytest.mark.usefixtures("seeded")


# Order of execution, repeated calls and outputs of several tensors.


# The scout: layers that do not fire, or whose first axis is not the images.


# What is worth a warning.


# Errors that stop a probe before it has cost much.


@pytest.mark.parametrize("batch_size", [0, -3])
def test_a_batch_has_at_least_one_image(batch_size):
    with pytest.raises(ValueError, match=f"batch_size must be at least 1, got {batch_size}"):
        run(SmallCNN(), IMAGES, plain_bank(), batch_size=batch_size)


def test_an_error_in_the_model_comes_out_as_it_is():
    with pytest.raises(RuntimeError, match=r"^this layer fails$"):
        run(nn.Sequential(Failing()), IMAGES, plain_bank(), layers="0")


# Inputs that hold more than images, merged and cut.


# Metrics and other processes.


def test_a_process_that_fails_tells_the_others_why():
    texts = []
    world = World(size=2, gather=lambda text: (texts.append(text), [text, text])[1], add=unchanged)
    with pytest.raises(RuntimeError, match="this layer fails"):
        run(nn.Sequential(Failing()), IMAGES, plain_bank(), layers="0", world=world)
    assert texts == ["failed: RuntimeError: this layer fails"]


def test_a_process_that_hears_of_a_failure_stops_and_says_nothing_more():
    texts = []
    world = World(
        size=2, gather=lambda text: (texts.append(text), [text, "failed: ValueError: no image"])[1], add=unchanged
    )
    with pytest.raises(OtherRankError, match="the probe failed on rank 1: ValueError: no image"):
        run(SmallCNN(), IMAGES, plain_bank(), world=world)
    assert len(texts) == 1


def test_processes_that_see_other_layers_stop():
    world = World(size=2, gather=lambda text: [text, "7 for 2 layers"], add=unchanged)
    with pytest.raises(OtherRankError, match=r"differ in the layers that run; by rank: .* for . layers \| 7 for 2"):
        run(SmallCNN(), IMAGES, plain_bank(), world=world)
