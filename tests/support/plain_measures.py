"""The definitions of the measures, written down as they are read: one block, float64, pairs of images in loops."""

from __future__ import annotations

import torch


def pairs(block):
    """The mean squared distance of two different images."""
    return sum((block - other).square().sum() for other in block) / (len(block) * (len(block) - 1))


def sensitivity(clean, augmented):
    return ((augmented - clean).square().sum(1).mean() / pairs(clean)).sqrt()


def cosine(clean, augmented):
    return torch.cosine_similarity(clean - clean.mean(0), augmented - clean.mean(0), dim=1, eps=0.0).nanmean()


def spread(clean, augmented):
    return pairs(clean).sqrt()


def spread_ratio(clean, augmented):
    return (pairs(augmented) / pairs(clean)).sqrt()


def shared_shift(clean, augmented):
    moved = augmented - clean
    others = ~torch.eye(len(moved), dtype=torch.bool)
    return (moved @ moved.T)[others].mean() / moved.square().sum(1).mean()


def channel_dominance(clean, augmented):
    return clean.var(0).max() / clean.var(0).sum()


def channel_median(clean, augmented):
    per_channel = ((augmented - clean).square().mean(0) / (2 * clean.var(0))).sqrt()
    return per_channel[clean.var(0) > 0].quantile(0.5)


def retrieval_auc(clean, augmented):
    shares = []
    for i, query in enumerate(augmented):
        distance = (clean - query).square().sum(1)
        others = distance[torch.arange(len(clean)) != i]
        shares.append((others > distance[i]).double().mean() + 0.5 * (others == distance[i]).double().mean())
    return torch.stack(shares).mean()


def flip_rate(clean, augmented):
    return (clean.argmax(1) != augmented.argmax(1)).double().mean()


def js_divergence(clean, augmented):
    p, q = clean.softmax(1), augmented.softmax(1)
    mixture = (p + q) / 2
    return (torch.xlogy(p, p / mixture) + torch.xlogy(q, q / mixture)).sum(1).mean() / 2


def accuracy(clean, augmented):
    return (augmented.argmax(1) == torch.arange(len(clean)) % clean.shape[1]).double().mean()


def accuracy_drop(clean, augmented):
    return accuracy(clean, clean) - accuracy(clean, augmented)


PLAIN = {
    function.__name__: function
    for function in (
        sensitivity,
        cosine,
        spread,
        spread_ratio,
        shared_shift,
        channel_dominance,
        channel_median,
        retrieval_auc,
        flip_rate,
        js_divergence,
        accuracy,
        accuracy_drop,
    )
} | {"sensitivity_flat": sensitivity, "sensitivity_pooled": sensitivity}
