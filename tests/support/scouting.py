"""A model that has been scouted on the first block of some images, its hooks still open."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from kornia_lightning_probe.engine.notes import Findings
from kornia_lightning_probe.engine.passes import Forward, Passes
from kornia_lightning_probe.engine.scout import Scout, Scouted
from kornia_lightning_probe.images.probe_images import ProbeImages
from kornia_lightning_probe.model.scores import Choice, Scores
from kornia_lightning_probe.model.subject import choose_subject
from kornia_lightning_probe.model.undisturbed import undisturbed
from support.probing import CPU


def subject_of(model, *, forward=None, layers="auto", **options):
    """The model as the engine has it, its layers chosen without a look at what runs."""
    subject = choose_subject(model, forward or model, layers=layers, embedding=None, device=CPU)
    return replace(subject, **options)


@contextmanager
def scouting(
    model, inputs, *, batch_size=32, wants_scores=False, findings=None, graph=False, **options
) -> Iterator[tuple[Scouted, Passes]]:
    """What the scout has found, and passes over the same layers."""
    subject, findings = subject_of(model, **options), findings or Findings()
    with undisturbed(model, device=CPU, graph=graph), Forward(subject, seed=0, graph=graph) as forward:
        block = ProbeImages(inputs).scout
        choice = Choice(Scores(), is_known=True) if wants_scores else None
        scouted = Scout(forward, findings, batch_size, choice).run(block)
        shapes = {site.name: site.shape for site in scouted.sites}
        yield scouted, Passes(forward, shapes, findings, batch_size=batch_size, scores=scouted.scores)
