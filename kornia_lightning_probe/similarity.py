"""The public face of :mod:`kornia_lightning_probe.functional.similarity`."""

from kornia_lightning_probe.functional.similarity import centred_gram, debiased_cka, rankme

__all__ = ["centred_gram", "debiased_cka", "rankme"]
