"""What is said of labels that are of no use to any metric."""

from __future__ import annotations

from collections.abc import Sequence

from kornia_lightning_probe.activations.site import OUTPUT, Site
from kornia_lightning_probe.engine.notes import Findings
from kornia_lightning_probe.images.blocks import Block
from kornia_lightning_probe.images.probe_images import ProbeImages
from kornia_lightning_probe.model.outputs import why_labels_do_not_fit


def note_unused_labels(
    images: ProbeImages, block: Block, sites: Sequence[Site], *, findings: Findings, default_set: bool
) -> None:
    """Say aloud that labels= is of no use, where nobody has asked for metrics that may need none.

    Args:
        images: the probe images.
        block: one of their blocks.
        sites: the pixels, the layers, and the output where there is one.
        findings: where it is noted.
        default_set: whether nobody asked for these metrics in particular.
    """
    # Targets have been of use: they say that the output is none of one class.
    if images.other_targets or not (images.labels_given and default_set):
        return
    output = next((site for site in sites if site.kind == "output"), None)
    if output is None:
        findings.labels_unused(f"the output is left out, as {findings.left_out[OUTPUT]}")
    elif output.label_shape is not None:
        sides = block.layout.grid(block.images[0])
        why = why_labels_do_not_fit(output.label_shape, scores_shape=output.shape, image_size=sides)
        if why:
            findings.labels_unused(why)
