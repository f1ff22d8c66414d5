"""Results of two probes whose change is known."""

import torch

from kornia_lightning_probe.functional.estimates import sensitivity
from kornia_lightning_probe.functional.influence import sensitivity_influence
from kornia_lightning_probe.result import MetricTable, ProbeResult
from support.made_results import views_of

BLUR = {"blur": (1.0, 2.0)}


def squares(generator, *shape):
    """Positive scalars as skewed as squared distances in eight dimensions."""
    return torch.randn(*shape, 8, generator=generator, dtype=torch.float64).square().mean(-1)


def measured(distance, deviation, *, images="same", ladders=BLUR, influence=True, epoch=0):
    """The result of a sensitivity probe from its (V, L, N) scalars."""
    estimate = sensitivity(distance, deviation)
    kept = sensitivity_influence(distance, deviation) if influence else None
    layers = tuple(f"layer{i}" for i in range(distance.shape[1]))
    table = MetricTable(layers, estimate.value, estimate.std_error, estimate.num_images, influence=kept)
    return ProbeResult(
        layers=layers,
        views=views_of(ladders),
        tables={"sensitivity": table},
        epoch=epoch,
        metadata={} if images is None else {"content_hash": images},
    )


def trained(seed, *, layers=1, count=64, change=1.0, **options):
    """Two probes of the same images: what moves an image far does so in both, up to a little noise."""
    generator = torch.Generator().manual_seed(seed)
    common, deviation = squares(generator, 1, layers, count), squares(generator, 1, layers, count).expand(2, -1, -1)
    first, second = (common * (1 + 0.1 * squares(generator, 2, layers, count)) for _ in range(2))
    return measured(first, deviation, **options), measured(change * second, deviation, epoch=1, **options)
