"""The public face of :mod:`kornia_lightning_probe.functional.similarity`."""

from kornia_lightning_probe.functional.similarity import biased_cka, centred_gram, debiased_cka, rankme, unbiased_hsic

__all__ = ["biased_cka", "centred_gram", "debiased_cka", "rankme", "unbiased_hsic"]
