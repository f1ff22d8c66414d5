"""Networks of real size in plain torch: the layouts of ResNet-50 and ViT-S/16, with random weights."""

from itertools import pairwise
from typing import cast

import torch
from resnet import shortcut_of
from torch import Tensor, nn


class Bottleneck(nn.Module):
    """A 3x3 convolution between two of 1x1, beside a shortcut."""

    def __init__(self, before: int, width: int, *, stride: int) -> None:
        super().__init__()
        after = 4 * width
        self.conv1 = nn.Conv2d(before, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, after, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(after)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = shortcut_of(before, after, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, before, H, W) to (B, 4 width, H / stride, W / stride)."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return cast("Tensor", self.relu(y + self.shortcut(x)))


class ResNet50(nn.Module):
    """A stem, four stages of 3, 4, 6 and 3 bottlenecks, and a linear head."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        self.layer1, self.layer2, self.layer3, self.layer4 = self._stages()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(2048, classes)

    def _stages(self) -> list[nn.Sequential]:
        stages = []
        for number, (before, after) in enumerate(pairwise([64, 256, 512, 1024, 2048])):
            blocks = [Bottleneck(before, after // 4, stride=1 if number == 0 else 2)]
            blocks += [Bottleneck(after, after // 4, stride=1) for _ in range((3, 4, 6, 3)[number] - 1)]
            stages.append(nn.Sequential(*blocks))
        return stages

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to logits (B, classes)."""
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.stem(x)))))
        return cast("Tensor", self.fc(self.pool(x).flatten(1)))


class Attention(nn.Module):
    """Self-attention with its heads in one product."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, T, C) to tokens."""
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        return cast("Tensor", self.proj(mixed.transpose(1, 2).reshape(batch, tokens, width)))


class TransformerBlock(nn.Module):
    """Attention and two dense layers, each behind a norm and beside a shortcut."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, T, C) to tokens."""
        x = x + self.attn(self.norm1(x))
        return cast("Tensor", x + self.mlp(self.norm2(x)))


class ViTSmall(nn.Module):
    """ViT-S/16 at 224 pixels: 196 patches and a class token, twelve blocks of width 384 and six heads."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, 384, 16, stride=16)
        self.cls_token = nn.Parameter(torch.randn(1, 1, 384) * 0.02)
        self.pos_embed = nn.Parameter(torch.randn(1, 197, 384) * 0.02)
        self.blocks = nn.Sequential(*(TransformerBlock(384, 6) for _ in range(12)))
        self.norm = nn.LayerNorm(384)
        self.head = nn.Linear(384, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, 3, 224, 224) to logits (B, classes)."""
        tokens = self.patch_embed(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), tokens], 1) + self.pos_embed
        return cast("Tensor", self.head(self.norm(self.blocks(tokens))[:, 0]))
