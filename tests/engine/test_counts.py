"""What a view costs beyond its forward, in operators and calls and not in time; where numbers are read by the host.

From the second probe of a training on views are kept, so that the difference between two numbers of views is what the
loop over views does.
"""

import sys
import traceback
from collections import Counter
from functools import cache
from pathlib import Path

import kornia.augmentation as K  # noqa: N812
import pytest
import torch
from support.nets import ResNet
from torch.utils._python_dispatch import TorchDispatchMode

import kornia_lightning_probe
from kornia_lightning_probe import AugmentationBank, presets
from kornia_lightning_probe.engine.sighting import FirstLooks
from kornia_lightning_probe.engine.under_views import KeptViews, Plan, run_probe
from kornia_lightning_probe.images.probe_images import ProbeImages
from kornia_lightning_probe.metrics import resolve_metrics
from kornia_lightning_probe.model.calling import forward_of
from kornia_lightning_probe.model.subject import choose_subject

PACKAGE = Path(kornia_lightning_probe.__file__).parent
# These make a tensor of another's memory, and run nothing on a device.
VIEWS = {"detach", "select", "slice", "view", "expand", "unsqueeze", "squeeze", "alias", "permute", "transpose"}
VIEWS |= {"_unsafe_view", "split", "unbind", "as_strided", "t", "movedim", "unfold", "lift_fresh"}
# Beside an accelerator the host waits for these.
WAITING = {"_local_scalar_dense", "nonzero", "equal", "is_nonzero", "item", "masked_select", "_unique2", "unique_dim"}
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}
# These read matrices of views, which are on the host whatever the device is, and scores once a view, behind the loop.
ON_THE_HOST = {"functional/grid_warp.py", "functional/warping.py", "results/image_scores.py"}
LAYERS, BLOCKS = 18, 2
FEW, MANY, SIZE = 2, 6, 16


class Counting(TorchDispatchMode):
    """Counts operators, and the places of the package from which the host waits."""

    def __init__(self):
        super().__init__()
        self.operators = Counter()
        self.waits = Counter()
        self.calls = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name not in VIEWS:
            self.operators[name] += 1
        if name in WAITING or (name in INDEXING and _is_by_mask(args)):
            self.waits[_place()] += 1
        return func(*args, **(kwargs or {}))


def _is_by_mask(args):
    """Whether the places are a mask, of which the device must count the cells first."""
    return any(index is not None and index.dtype == torch.bool for index in args[1])


def _place():
    files = [Path(frame.filename) for frame in traceback.extract_stack()]
    inside = [file for file in files if PACKAGE in file.parents]
    return inside[-1].relative_to(PACKAGE).as_posix()


def model_of():
    torch.manual_seed(0)
    return ResNet().eval()


def layers_of(model):
    return [name for name, module in model.named_modules() if isinstance(module, torch.nn.Conv2d)][:LAYERS]


@cache
def counted(ladder, levels, metrics):
    """What the second probe does, under so many views."""
    model = model_of()
    bank = AugmentationBank({"it": ladder(levels)})
    images = ProbeImages(torch.rand(32 * BLOCKS, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)))
    forward = forward_of(model)
    subject = choose_subject(model, forward, layers=layers_of(model), embedding=None, device=torch.device("cpu"))
    plan = Plan(
        images=images,
        bank=bank,
        metrics=resolve_metrics(metrics),
        default_set=metrics is None,
        looks=FirstLooks(),
        kept=KeptViews(2**30),
    )
    run_probe(subject, plan)
    with Counting() as counting:
        run_probe(subject, plan)
    counting.calls = python_calls(lambda: run_probe(subject, plan))
    return counting


def python_calls(work):
    """How often a function of Python was called, ours or another's."""
    calls = 0

    def count(_frame, event, _arg):
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return calls


def noise(levels):
    return presets.gaussian_noise([0.01 * level for level in range(1, levels + 1)])


def turn(levels):
    return presets.rotation([5.0 * level for level in range(1, levels + 1)])


@pytest.mark.parametrize(
    ("ladder", "metrics", "most"),
    [
        # A difference and its norm; of a view that moves pixels the mean over cells, all layers measured together.
        (noise, ("sensitivity",), 2.5),
        (turn, ("sensitivity",), 1.5),
        (noise, None, 6.0),
        (turn, None, 35.0),
    ],
)
def test_operators_beyond_the_forward_for_each_layer_and_view(ladder, metrics, most):
    model, images = model_of(), torch.rand(32, 3, SIZE, SIZE)
    with Counting() as bare, torch.no_grad():
        model(images)
    few, many = (counted(ladder, levels, metrics) for levels in (FEW, MANY))
    passes = (MANY - FEW) * BLOCKS
    beyond = many.operators.total() - few.operators.total() - passes * bare.operators.total()
    assert beyond / (passes * LAYERS) <= most


@pytest.mark.parametrize(
    ("ladder", "metrics", "most"),
    [(noise, ("sensitivity",), 800), (turn, ("sensitivity",), 800), (noise, None, 2400), (turn, None, 3900)],
)
def test_python_calls_beyond_the_forward_for_each_block_and_view(ladder, metrics, most):
    model, images = model_of(), torch.rand(32, 3, SIZE, SIZE)
    with torch.no_grad():
        bare = python_calls(lambda: model(images))
    few, many = (counted(ladder, levels, metrics) for levels in (FEW, MANY))
    assert (many.calls - few.calls) / ((MANY - FEW) * BLOCKS) - bare <= most


def flip(levels):
    return [K.RandomHorizontalFlip(p=1.0) for _ in range(levels)]


@pytest.mark.parametrize("ladder", [noise, turn, flip])
@pytest.mark.parametrize("metrics", [("sensitivity",), None])
def test_nobody_waits_for_a_device_in_the_loop_over_views(ladder, metrics):
    few, many = (counted(ladder, levels, metrics) for levels in (FEW, MANY))
    assert {place for place in many.waits if many.waits[place] != few.waits[place]} <= ON_THE_HOST
