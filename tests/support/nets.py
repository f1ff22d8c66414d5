"""Small nets in the shapes that people train: residual stages, tokens, skip connections, dictionaries, sharing."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn


class BasicBlock(nn.Module):
    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(hidden)).add_(self.downsample(x)))


class ResNet(nn.Module):
    """Four residual stages with in-place operations, (B, C, H, W) -> (B, classes); laid out as torchvision's."""

    def __init__(self, depths: Sequence[int] = (2, 2, 2, 2), *, width: int = 4, channels: int = 3, classes: int = 5):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(2)
        self.layer1 = self._stage(depths[0], width, width)
        self.layer2 = self._stage(depths[1], width, 2 * width)
        self.layer3 = self._stage(depths[2], 2 * width, 2 * width)
        self.layer4 = self._stage(depths[3], 2 * width, 4 * width)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4 * width, classes)

    def _stage(self, depth: int, channels: int, width: int) -> nn.Sequential:
        stride = 1 if channels == width else 2
        later = [BasicBlock(width, width, 1) for _ in range(depth - 1)]
        return nn.Sequential(BasicBlock(channels, width, stride), *later)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))


class TokenBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, 2, batch_first=True)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(0.1), nn.Linear(2 * width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        normed = self.norm1(tokens)
        tokens = tokens + self.attn(normed, normed, normed, need_weights=False)[0]
        return tokens + self.mlp(self.norm2(tokens))


class ViT(nn.Module):
    """Patches, a class token and blocks of attention, (B, C, H, W) -> (B, classes); tokens are (B, 1 + P, width)."""

    def __init__(self, depth: int = 6, *, width: int = 8, patch: int = 4, size: int = 16, classes: int = 5) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, width, patch, patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.randn(1, 1 + (size // patch) ** 2, width) * 0.02)
        self.pos_drop = nn.Dropout(0.1)
        self.blocks = nn.Sequential(*[TokenBlock(width) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.head_drop = nn.Dropout(0.1)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patch_embed(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), patches], dim=1) + self.pos_embed
        return self.head(self.head_drop(self.norm(self.blocks(self.pos_drop(tokens)))[:, 0]))


class DoubleConv(nn.Sequential):
    def __init__(self, channels: int, width: int) -> None:
        super().__init__(
            nn.Conv2d(channels, width, 3, 1, 1),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, 1, 1),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )


class Down(nn.Module):
    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(2)
        self.conv = DoubleConv(channels, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.pool(x))


class Up(nn.Module):
    def __init__(self, channels: int, skipped: int, width: int) -> None:
        super().__init__()
        self.up = nn.Upsample(scale_factor=2)
        self.conv = DoubleConv(channels + skipped, width)

    def forward(self, x: Tensor, skipped: Tensor) -> Tensor:
        return self.conv(torch.cat([skipped, self.up(x)], dim=1))


class UNet(nn.Module):
    """Three levels down and up with skip connections: (B, C, H, W) -> (B, classes, H, W), sides divisible by 8."""

    def __init__(self, width: int = 4, *, classes: int = 2) -> None:
        super().__init__()
        self.inc = DoubleConv(3, width)
        self.down1 = Down(width, width)
        self.down2 = Down(width, width)
        self.down3 = Down(width, width)
        self.up1 = Up(width, width, width)
        self.up2 = Up(width, width, width)
        self.up3 = Up(width, width, width)
        self.outc = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.inc(x)
        second = self.down1(first)
        third = self.down2(second)
        x = self.up1(self.down3(third), third)
        return self.outc(self.up3(self.up2(x, second), first))


class ModelOutput(OrderedDict[str, object]):
    """A dictionary whose entries are attributes too, as Hugging Face's outputs are."""

    def __getattr__(self, key: str) -> object:
        try:
            return self[key]
        except KeyError as error:
            raise AttributeError(key) from error


class Encoder(nn.Module):
    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        self.layer = nn.ModuleList(TokenBlock(width) for _ in range(depth))

    def forward(self, tokens: Tensor) -> ModelOutput:
        hidden = [tokens]
        for layer in self.layer:
            hidden.append(layer(hidden[-1]))
        return ModelOutput(last_hidden_state=hidden[-1], hidden_states=tuple(hidden))


class HuggingViT(nn.Module):
    """An encoder whose blocks sit in `encoder.layer` and whose outputs are dictionaries: (B, 3, H, W) -> logits."""

    def __init__(self, depth: int = 6, *, width: int = 8, classes: int = 5) -> None:
        super().__init__()
        self.embeddings = nn.Conv2d(3, width, 4, 4)
        self.encoder = Encoder(depth, width)
        self.layernorm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, classes)

    def forward(self, pixel_values: Tensor) -> ModelOutput:
        tokens = self.embeddings(pixel_values).flatten(2).transpose(1, 2)
        encoded = self.encoder(tokens)["last_hidden_state"]
        return ModelOutput(logits=self.classifier(self.layernorm(encoded).mean(1)))


class SharedTwice(nn.Module):
    """One convolution that is called twice in a pass: (B, 3, H, W) -> (B, 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Conv2d(3, 3, 3, 1, 1)
        self.fc = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.shared(torch.tanh(self.shared(x))).mean((2, 3)))


class InPlace(nn.Module):
    """A convolution whose output the ReLU after it overwrites: (B, 3, H, W) -> (B, 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.relu(self.conv(x)).mean((2, 3)))


class Pair(NamedTuple):
    left: Tensor
    right: Tensor


class Returns(nn.Module):
    """Puts out what `make` gives for its input, whatever that is."""

    def __init__(self, make: object) -> None:
        super().__init__()
        self.make = make

    def forward(self, x: Tensor) -> object:
        return self.make(x) if callable(self.make) else self.make


class Failing(nn.Module):
    """Raises in its forward."""

    def forward(self, x: Tensor) -> Tensor:
        msg = "this layer fails"
        raise RuntimeError(msg)


class SmallCNN(nn.Module):
    """Two blocks with BatchNorm, in-place ReLU and dropout before a head: (B, C, H, W) -> (B, classes)."""

    def __init__(self, *, channels: int = 3, width: int = 4, classes: int = 5) -> None:
        super().__init__()
        self.block1 = nn.Sequential(nn.Conv2d(channels, width, 3, 1, 1), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.block2 = nn.Sequential(nn.Conv2d(width, 2 * width, 3, 2, 1), nn.BatchNorm2d(2 * width), nn.ReLU())
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.block2(self.block1(x)).mean((2, 3))))


class Composed(nn.Module):
    """A small net around a function of its input: named convolution, what `change` makes of it, named head."""

    def __init__(self, change: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.changed = nn.Identity()
        self.head = nn.Linear(4, 2)
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.changed(self.change(x, self.conv(x))).mean((2, 3)))


class AlwaysDropout(nn.Module):
    """Drops features in eval mode too, as Monte Carlo dropout does."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(nn.functional.dropout(self.conv(x).mean((2, 3)), 0.5, training=True))


class CountsCalls(nn.Module):
    """Counts its calls in two buffers, one in place and one by a new tensor, and caches a table on first use."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("new_calls", torch.zeros(()))
        self.register_buffer("cache", None)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.new_calls = self.new_calls + 1
        self.cache = torch.ones(4)
        self.register_buffer("late", torch.ones(4), persistent=False)
        return self.conv(x) * self.cache.view(-1, 1, 1)


class SequenceFirst(nn.Module):
    """Tokens with the sequence in front, (T, B, D), between a convolution and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.tokens = nn.Linear(4, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.tokens(self.conv(x).flatten(2).permute(2, 0, 1)).mean(0))


class ImageAndMask(nn.Module):
    """Called as `model({"image": image, "mask": mask})`."""

    def __init__(self) -> None:
        super().__init__()
        self.net = SmallCNN()

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return self.net(batch["image"] * batch["mask"])


class LeftAndRight(nn.Module):
    """Called as `model(left, right)`."""

    def __init__(self) -> None:
        super().__init__()
        self.net = SmallCNN()

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.net(left) - self.net(right)


def hooks(model: nn.Module) -> int:
    """Counts the forward hooks that are registered in `model`."""
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())
