"""The definitions of the measures, written down as they are read: one block, float64, pairs of images in loops."""

from __future__ import annotations

import torch

# The default set without the measures of maps: of pooled features, of the output, and all of it.
POOLED = ["spread", "spread_ratio", "shared_shift", "channel_dominance", "channel_median"]
OUTPUT = ["flip_rate", "js_divergence", "accuracy", "accuracy_drop"]
SENSITIVITIES = ["sensitivity", "sensitivity_flat", "sensitivity_pooled", "sensitivity_median", "sensitivity_within"]
OURS = [*SENSITIVITIES, "cosine", *POOLED, "image_dominance", "retrieval_auc", *OUTPUT]


def pairs(block):
    """The mean squared distance of two different images."""
    return sum((block - other).square().sum() for other in block) / (len(block) * (len(block) - 1))


def sensitivity(clean, augmented):
    return ((augmented - clean).square().sum(1).mean() / pairs(clean)).sqrt()


def sensitivity_median(clean, augmented):
    moved = (augmented - clean).square().sum(1)
    near = []
    for i, image in enumerate(clean):
        others = [float((image - other).square().sum()) for j, other in enumerate(clean) if j != i]
        farthest = -(-len(others) // 10)
        near.append(sum(sorted(others)[: len(others) - farthest]) / (len(others) - farthest))
    return (moved.quantile(0.5) / torch.tensor(near).double().quantile(0.5)).sqrt()


def sensitivity_within(clean, augmented):
    # An image's label is its number modulo the number of features.
    labels = torch.arange(len(clean)) % clean.shape[1]
    moved, apart = [], []
    for label in labels.unique():
        block = clean[labels == label]
        if len(block) > 1:
            moved += (augmented - clean)[labels == label].square().sum(1).tolist()
            apart += [float(pairs(block)) / 2] * len(block)
    return (torch.tensor(moved).double().mean() / (2 * torch.tensor(apart).double().mean())).sqrt()


def image_dominance(clean, augmented):
    moved = (augmented - clean).square().sum(1)
    apart = (clean - clean.mean(0)).square().sum(1)
    shares = torch.stack([moved.max() / moved.sum(), apart.max() / apart.sum()])
    # Where nothing moves it is that of the distance alone.
    return shares[~shares.isnan()].max()


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


def unbiased_hsic(first, second):
    """HSIC_1 of two Gram matrices as it is written in the paper, term by term."""
    n = len(first)
    k, l = (gram.clone().fill_diagonal_(0) for gram in (first, second))  # noqa: E741 - the paper's letters
    ones = torch.ones(n, dtype=torch.float64)
    trace = (k @ l).trace()
    whole = (ones @ k @ ones) * (ones @ l @ ones) / ((n - 1) * (n - 2))
    return (trace + whole - 2 / (n - 2) * (ones @ k @ l @ ones)) / (n * (n - 3))


def biased_cka(first, second):
    """Linear CKA with the biased HSIC, of centred Gram matrices: the cosine of the two."""
    one, other = (gram.double() - gram.double().mean(0) for gram in (first, second))
    one, other = (gram - gram.mean(1, keepdim=True) for gram in (one, other))
    return (one * other).sum() / (one.norm() * other.norm())


PLAIN = {
    function.__name__: function
    for function in (
        sensitivity,
        sensitivity_median,
        sensitivity_within,
        image_dominance,
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
