"""Images, banks, metrics and simulated processes that the tests of probing share."""

import random

import kornia.augmentation as K  # noqa: N812 - the name that Kornia's own documentation uses
import numpy as np
import torch

from kornia_lightning_probe.bank.bank import AugmentationBank
from kornia_lightning_probe.engine.memory import PassSize
from kornia_lightning_probe.engine.processes import World
from kornia_lightning_probe.engine.under_views import Plan, run_probe
from kornia_lightning_probe.images.probe_images import ProbeImages
from kornia_lightning_probe.metrics import (
    ChannelDominance,
    ChannelMedian,
    PositionDominance,
    ProbeMetric,
    SensitivityPositions,
    resolve_metrics,
)
from kornia_lightning_probe.model.subject import choose_subject
from kornia_lightning_probe.result import ProbeResult

CPU = torch.device("cpu")
# One metric of whole activations and one of pooled features.
BOTH = ("sensitivity", "spread")
# What is added up over blocks, in whatever order these come, and what comes of products of matrices, which a machine
# adds up in an order of its own.
SUMS = {kind.name for kind in (ChannelDominance, ChannelMedian, PositionDominance, SensitivityPositions)}
SUMS |= {"sensitivity_median", "sensitivity_within"}


def images_of(count, *, size=12, channels=3, seed=0):
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(seed))


MARKED = 17


def marked_images():
    """Forty images below 0.9, of which number 17 of the source has one white pixel."""
    inputs = images_of(40) * 0.9
    inputs[MARKED, :, 0, 0] = 1.0
    return inputs


def where_marked(value):
    """Puts `value` into the features of images with the white pixel."""
    return lambda x, features: torch.where(x[:, :1, :1, :1] > 0.99, value, features)


def said(result):
    """All that a result has to say aloud."""
    return "\n".join(result.metadata["warnings"])


def halved(x):
    return x / 2


def mirrored(x):
    return x.flip(3)


def unchanged(x):
    return x


def plain_bank():
    """Two views that draw nothing."""
    return AugmentationBank({"halve": halved, "mirror": mirrored})


def random_bank(seed=0):
    """Four views whose parameters and pixels are drawn."""
    return AugmentationBank(
        {
            "rotation": {degrees: K.RandomRotation((-degrees, degrees), p=1.0) for degrees in (10.0, 30.0)},
            "noise": K.RandomGaussianNoise(std=0.05, p=1.0),
            "erasing": K.RandomErasing(p=1.0),
        },
        seed=seed,
    )


def mixed_bank():
    """A move, two photometric views and a random one."""
    return AugmentationBank(
        {
            "hflip": K.RandomHorizontalFlip(p=1.0),
            "darken": {0.2: K.RandomBrightness((0.8, 0.8), p=1.0), 0.5: K.RandomBrightness((0.5, 0.5), p=1.0)},
            "noise": K.RandomGaussianNoise(std=0.1, p=1.0),
        }
    )


def streams():
    """What the global random streams would give next, read without moving them."""
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002 - as said


def same(left, right, **tolerances):
    """Raise where two results differ in their numbers: by default in a single bit, in such sums by 1e-12."""
    assert left.metrics == right.metrics
    assert left.layers == right.layers
    for metric in left.metrics:
        bound = {"rtol": 1e-12 if metric in SUMS else 0, "atol": 0} | tolerances
        for field in ("value", "std_error", "num_images"):
            pair = (getattr(result.table(metric), field) for result in (left, right))
            torch.testing.assert_close(*pair, equal_nan=True, **bound)


def run(
    model,
    inputs,
    bank,
    *,
    layers="auto",
    metrics=BOTH,
    forward=None,
    world=None,
    embedding=None,
    batch_size=32,
    **options,
):
    """The engine on a model, without the sentences that probe_model says aloud."""
    world = world or World()
    options["size"] = PassSize(batch_size)
    subject = choose_subject(model, forward or model, layers=layers, embedding=embedding, device=CPU)
    images = ProbeImages(inputs, rank=world.rank, world_size=world.size)
    return ProbeResult.of(run_probe(subject, Plan(images, bank, resolve_metrics(metrics), world=world, **options)))


def run_on_all(size, model, inputs, bank, *, lockstep=False, **options):
    """The results of `size` simulated processes: all send what they would sum, then all receive the sum."""
    if size == 1:
        return [run(model, inputs, bank, **options)]
    totals = []
    while True:
        sent = []
        results = [
            run(model, inputs, bank, world=_simulated(rank, size, totals, sent, lockstep=lockstep), **options)
            for rank in range(size)
        ]
        if not sent:
            return results
        totals.append(torch.stack(sent).sum(0))
        # One for the numbers, whatever is measured, and one for the pictures.
        assert len(totals) <= 2
        assert len(sent) == size


def _simulated(rank, size, totals, sent, *, lockstep):
    """One of the processes: it receives the sums that are known, and its part of the next one is kept."""
    summed = []

    def add(tensor):
        place = len(summed)
        summed.append(place)
        if place < len(totals):
            return totals[place].clone()
        if place == len(totals):
            sent.append(tensor.clone())
        return tensor

    return World(rank=rank, size=size, add=add, gather=lambda text: [text] * size, lockstep=lockstep)


class Labels(ProbeMetric):
    """How far each image's label is from the number that its first pixel holds."""

    name = "labels"
    statistics = ("error",)

    def applies_to(self, site):
        return site.kind == "input" and site.representation == "activation"

    def measure(self, clean, augmented, about):
        return {"error": (clean[:, 0, 0, 0] * 100 - about.labels).abs()}

    def reduce(self, table):
        return table["error"].amax(-1), table["error"].isnan().sum(-1).double()


class Raising(ProbeMetric):
    """Fails on the first activation that it measures."""

    name = "raising"
    statistics = ("nothing",)

    def measure(self, clean, augmented, about):
        msg = "this metric fails"
        raise RuntimeError(msg)

    def reduce(self, table):
        return table["nothing"].mean(-1), table["nothing"].mean(-1)
