"""The pictures that a result keeps of the images that moved furthest, as addresses that hold a whole PNG each."""

from __future__ import annotations

import struct
import zlib
from base64 import b64encode
from dataclasses import replace

from torch import Tensor

from kornia_lightning_probe.reporting.html.gathered import ADDRESS, Probed, Thumbnails
from kornia_lightning_probe.reporting.text.table import number
from kornia_lightning_probe.results.image_scores import Shown, shown_images

_HEAD = struct.Struct(">IIBBBBB")
_BITS, _RGB = 8, 2


def with_pictures(probed: Probed) -> Probed:
    """A probe with the pictures that its latest result keeps, where it has none yet and the result keeps some."""
    images = probed.latest.images
    if probed.worst or images is None or images.worst is None:
        return probed
    worst, shown = shown_images(probed.latest)
    under = f"under {probed.latest.views[worst.view].named}, at {worst.layer}"
    return replace(probed, worst=[_pair(each) for each in shown], worst_under=under)


def _pair(shown: Shown) -> Thumbnails:
    row = shown.row
    facts = [number(row.score), f"image {row.image}"]
    if row.label is not None:
        facts.append(f"label {row.label}")
    return Thumbnails(address_of(shown.clean), address_of(shown.augmented), ", ".join(facts))


def address_of(picture: Tensor) -> str:
    """A picture as an address that holds it.

    Args:
        picture: (H, W, 3) uint8.

    Example:
        >>> import torch
        >>> address_of(torch.zeros(1, 1, 3, dtype=torch.uint8))[:34]
        'data:image/png;base64,iVBORw0KGgoA'
    """
    height, width = picture.shape[:2]
    rows = picture.contiguous().numpy().reshape(height, -1)
    # Each row of pixels has the kind of its filter in front: none.
    pixels = b"".join(b"\0" + row.tobytes() for row in rows)
    head = _HEAD.pack(width, height, _BITS, _RGB, 0, 0, 0)
    parts = [_part(b"IHDR", head), _part(b"IDAT", zlib.compress(pixels, 9)), _part(b"IEND", b"")]
    whole = b"\x89PNG\r\n\x1a\n" + b"".join(parts)
    return f"{ADDRESS}{b64encode(whole).decode()}"


def _part(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)
