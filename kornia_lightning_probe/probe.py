"""The whole measurement as one function, for those who have no Trainer."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from kornia_lightning_probe.bank.bank import AugmentationBank
from kornia_lightning_probe.checks import whole_number
from kornia_lightning_probe.engine.memory import AUTO, BatchSize, PassSize
from kornia_lightning_probe.engine.under_views import Plan, run_probe
from kornia_lightning_probe.images.batches import ImageKeys, ToInputs
from kornia_lightning_probe.images.probe_images import ProbeImages
from kornia_lightning_probe.metrics import MetricLike, resolve_metrics
from kornia_lightning_probe.model.calling import Forward, cast_inputs, device_of, forward_of
from kornia_lightning_probe.model.layers import LayerSelector
from kornia_lightning_probe.model.subject import choose_subject as choose_subject
from kornia_lightning_probe.result import ProbeResult

ONE_IMAGE = (
    "one image has no other image to be compared with, so sensitivity is NaN{instead}; pass reference=, images that "
    "supply mean and between-image distance"
)
_INSTEAD = " and relative_change is given instead"


def probe_model(
    model: nn.Module,
    inputs: Any,
    bank: AugmentationBank | str,
    *,
    layers: LayerSelector | Sequence[LayerSelector] = "auto",
    metrics: Sequence[MetricLike] | MetricLike | None = None,
    labels: Tensor | Sequence[int] | None = None,
    reference: Any = None,
    image_keys: ImageKeys | None = None,
    embedding: str | None = None,
    to_inputs: ToInputs | None = None,
    forward: Forward | None = None,
    device: torch.device | str | None = None,
    batch_size: BatchSize = 32,
    seed: int = 0,
    progress: bool = False,
) -> ProbeResult:
    """Measure how far a model's layers move under augmentations.

    The model is run in eval mode and left as it was: training flags, buffers, hooks, random streams, grad mode. The
    numbers do not depend on ``batch_size``. Nothing is communicated, whatever processes there are.

    Args:
        model: any nn.Module; called as ``model(tensor)``, ``model(dict)`` or ``model(*tuple)``.
        inputs: images (N, C, H, W), or as the bank's ``layout`` says; one image (C, H, W); a dict or tuple of tensors
            with N in front; a Dataset or a DataLoader (whose sampler is never used). The model gets floats in the dtype
            of its parameters.
        bank: the augmentations, each with its levels, or a preset's name; "default" has 19 views.
        layers: what :func:`select_layers` takes: "auto", a name, glob, regex, type, predicate, or a list of these. As
            ``input`` is the pixels and ``output`` the prediction, modules of these names go by ``model.input`` and
            ``model.output``.
        metrics: names, metric objects or functions of (clean, augmented); None is the default set.
        labels: integers (N,), or masks (N, H, W) of a segmentation, where ``inputs`` does not bring them; or targets
            (N, K) of K labels for each image, which say that the output is not scores of one class among others.
        reference: images of the same size, in any form that ``inputs`` may have, that supply the mean and the
            between-image distance where the inputs are too few.
        image_keys: which entries of dict or tuple inputs are images; default: the only float entry with 4 dimensions.
        embedding: the layer called the embedding; default: the last chosen layer in front of the head.
        to_inputs: how to get the model's inputs out of a loader's batch: a callable, a key or an index.
        forward: a callable ``(model, inputs)``, or the dotted name of a method or submodule to call.
        device: where to run; the model is moved there and back. Default: where the model is.
        batch_size: at most so many images in one forward pass; "auto" is 32 on a CPU, on a CUDA device as many views of
            32 images, up to 8, as fit into half of the memory that is free, and half as many where it runs out later.
        seed: chooses the order in which images are dealt into blocks.
        progress: whether to show a bar.

    Returns:
        The result; its pixels are the layer ``input``.

    Raises:
        TypeError: where the model is no nn.Module, or the bank no AugmentationBank.
        ValueError: for anything in the inputs, the layers or the bank that can't be used; the text says what came,
            what was expected and what to do.

    Example:
        >>> import kornia.augmentation as K
        >>> images = torch.rand(40, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        >>> bank = AugmentationBank({"hflip": K.RandomHorizontalFlip(p=1.0)})
        >>> result = probe_model(net, images, bank, layers=["0", "4"])
        >>> result.layers
        ('0', '4')
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got a {type(model).__name__}")
    size = PassSize(batch_size if batch_size == AUTO else whole_number("batch_size", batch_size, least=1))
    seed = whole_number("seed", seed)
    if embedding is not None and not isinstance(embedding, str):
        raise TypeError(f"embedding must be a layer's name, got {embedding!r}")
    if isinstance(bank, str):
        bank = AugmentationBank.preset(bank)
    if not isinstance(bank, AugmentationBank):
        raise TypeError(
            f"bank must be an AugmentationBank, got a {type(bank).__name__}; AugmentationBank({{name: augmentation}}) "
            'makes one of augmentations, AugmentationBank.preset("default") is ready-made'
        )
    reading: dict[str, Any] = {"seed": seed, "image_keys": image_keys, "to_inputs": to_inputs}
    reading["layout"] = bank.layout.name
    images = ProbeImages(inputs, labels=labels, **reading)
    others = _reference(reference, images, **reading)
    if images.num_images == 1 and others is None:
        images.notes.append(ONE_IMAGE.format(instead=_INSTEAD if metrics is None else ""))
        metrics = ("sensitivity", "relative_change") if metrics is None else metrics
    plan = Plan(
        images=images,
        bank=bank.fit_channels(bank.layout.channels(images.scout.images[0])),
        metrics=resolve_metrics(metrics),
        default_set=metrics is None,
        reference=others,
        size=size,
        seed=seed,
        progress=progress,
    )
    place = torch.device(device) if device is not None else device_of(model) or images.scout.images[0].device
    with _moved(model, place):
        subject = choose_subject(
            model, cast_inputs(model, forward_of(model, forward)), layers=layers, embedding=embedding, device=place
        )
        result = ProbeResult.of(run_probe(subject, plan))
    for sentence in (*result.metadata.get("notes", ()), *result.metadata["warnings"]):
        warnings.warn(sentence, UserWarning, stacklevel=2)
    return result


def _reference(source: Any, images: ProbeImages, **options: Any) -> ProbeImages | None:
    if source is None:
        return None
    others = ProbeImages(source, **options)
    if others.num_images < 2:
        raise ValueError(
            f"reference has {others.num_images} image; at least 2 are needed to say how far apart images are"
        )
    sizes, expected = ([tuple(entry.shape[1:]) for entry in source.scout.images] for source in (others, images))
    if sizes != expected:
        raise ValueError(
            f"reference has images of {_listed(sizes)} and the inputs have {_listed(expected)}: distances between "
            "images can only be compared at one size, so resize the reference"
        )
    return others


def _listed(sizes: list[tuple[int, ...]]) -> str:
    return " and ".join(map(str, sizes))


@contextmanager
def _moved(model: nn.Module, device: torch.device) -> Iterator[None]:
    home = device_of(model)
    if home is None or home == device:
        yield
        return
    try:
        model.to(device)
        yield
    finally:
        model.to(home)
