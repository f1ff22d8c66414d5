"""A ResNet-18 of any width in plain torch: the network of the overhead benchmark."""

from itertools import pairwise
from typing import cast

from torch import Tensor, nn


def shortcut_of(before: int, after: int, stride: int) -> nn.Module:
    """What leads past a residual block: nothing, or a 1x1 convolution where the block changes the shape."""
    if stride == 1 and before == after:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(before, after, 1, stride=stride, bias=False), nn.BatchNorm2d(after))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, with an in-place ReLU after each, as in the original."""

    def __init__(self, before: int, after: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = shortcut_of(before, after, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, before, H, W) to (B, after, H / stride, W / stride)."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return cast("Tensor", self.relu(y + self.shortcut(x)))


class ResNet18(nn.Module):
    """A stem, four stages of two blocks each, and a linear head.

    Args:
        width: the channels of the first stage; 64 is the original, 32 the benchmark's.
        classes: the number of logits.
    """

    def __init__(self, width: int = 32, *, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        channels = [width, width, 2 * width, 4 * width, 8 * width]
        self.stages = nn.Sequential(
            *(
                nn.Sequential(
                    BasicBlock(before, after, stride=2 if after > before else 1), BasicBlock(after, after, stride=1)
                )
                for before, after in pairwise(channels)
            )
        )
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], classes))

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to logits (B, classes)."""
        return cast("Tensor", self.head(self.stages(self.stem(x))))

    def weight_layers(self) -> list[str]:
        """Name the 18 layers that give the network its name: stem, sixteen 3x3 convolutions, head."""
        blocks = [f"stages.{stage}.{block}.conv{conv}" for stage in range(4) for block in range(2) for conv in (1, 2)]
        return ["stem.0", *blocks, "head.2"]
