"""The first look at a model: two images, every module watched, each activation reduced at once and never kept."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kornia_lightning_probe.images.blocks import Block
from kornia_lightning_probe.images.nested import image_entries, join_rows, map_tensors
from kornia_lightning_probe.model.sighting import Sighting
from kornia_lightning_probe.model.stages import module_tree
from kornia_lightning_probe.model.subject import Subject
from kornia_lightning_probe.model.tracing import trace
from kornia_lightning_probe.randomness import reseed, stable_seed


def sight(subject: Subject, block: Block, *, seed: int) -> Sighting:
    """Run a model on two images of a block, and follow what its operators do.

    Args:
        subject: the model.
        block: the first block, on the model's device; of one image, the second is its mirror image.
        seed: of the random stream that the pass finds.
    """
    inputs = map_tensors(_two_images(block), torch.clone)
    modules = {node.name: node.module for node in module_tree(subject.model).walk() if node.runs}
    differs: dict[str, bool] = {}

    def receive(name: str, activation: Tensor) -> None:
        if not activation.is_nested and activation.shape[0] == 2:
            differs[name] = not torch.equal(activation[0], activation[1])

    reseed(stable_seed(seed, "forward", block.index, "sight"), device=subject.device)
    entries = image_entries(inputs, block.image_keys)
    with trace(modules, entries, model=subject.model, grid_axes=block.layout.grid_axes, receive=receive) as tracing:
        output = subject.forward(inputs)
    is_sharded = any(hasattr(parameter, "device_mesh") for parameter in subject.model.parameters())
    return Sighting(tracing.result(output), differs, knows_head=not is_sharded)


def _two_images(block: Block) -> Any:
    if len(block) > 1:
        return block.rows(0, 2)
    mirrored = block.with_images([image.flip(-1) for image in block.images])
    return join_rows([block.inputs, mirrored])
