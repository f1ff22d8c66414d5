"""The rules of torch's operators: where the elements of their results lie. On import the table of rules is filled."""

from kornia_lightning_probe.model.tracing.operators import mixing, sampling, shaping
from kornia_lightning_probe.model.tracing.operators.rules import Call, Places, Unknown, placed, spare_keys

__all__ = ["Call", "Places", "Unknown", "mixing", "placed", "sampling", "shaping", "spare_keys"]
