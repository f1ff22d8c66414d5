"""What tells images apart: a number for the content of each, and one hash for all of them in their order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from kornia_lightning_probe.images.batches import describe

_BITS = 52  # float64 holds such integers exactly


def fingerprints_of(images: Sequence[Tensor]) -> Tensor:
    """A content hash of each image.

    Args:
        images: the image entries of the model's inputs, each (B, C, H, W).

    Returns:
        int64 (B,), each in [0, 2**52).

    Example:
        >>> first, second = fingerprints_of([torch.zeros(2, 3, 4, 4)]).tolist()
        >>> first == second
        True
    """
    rows = zip(*images, strict=True)
    return torch.tensor([_fingerprint(entries) for entries in rows])


def content_hash(numbers: Tensor) -> str:
    """Turn the fingerprints of all images into 16 hexadecimal digits that depend on their content and order.

    Args:
        numbers: (N,), as integers or float64.
    """
    text = ",".join(str(int(number)) for number in numbers.tolist())
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _fingerprint(entries: Iterable[Tensor]) -> int:
    digest = hashlib.sha256()
    for image in entries:
        plain_bytes = image.cpu().contiguous().view(torch.uint8)
        digest.update(describe(image).encode())
        digest.update(plain_bytes.numpy().data)
    return int.from_bytes(digest.digest()[:8], "big") >> (64 - _BITS)
