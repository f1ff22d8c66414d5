"""Real architectures with random weights, small ones and ones that take their time; their libraries may be missing."""

from support.zoo.entry import Entry
from support.zoo.hugging_faces import HUGGING_FACE
from support.zoo.hugging_faces_dense import HUGGING_FACE_DENSE
from support.zoo.kornias import KORNIA
from support.zoo.pairs import PAIRS
from support.zoo.timms import TIMM
from support.zoo.torchvisions import TORCHVISION

ZOO: dict[str, Entry] = TORCHVISION | TIMM | HUGGING_FACE | HUGGING_FACE_DENSE | KORNIA | PAIRS
"""By name."""

__all__ = ["ZOO", "Entry"]
