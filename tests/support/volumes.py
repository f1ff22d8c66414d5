"""Volumes, clips, and nets that take them."""

import torch
from torch import nn


def volumes_of(count, *, channels=1, depth=8, size=12, seed=0):
    """(count, channels, depth, size, size), with a bright ball somewhere in each."""
    generator = torch.Generator().manual_seed(seed)
    noise = 0.2 * torch.rand(count, channels, depth, size, size, generator=generator)
    centre = torch.rand(count, 3, generator=generator)
    axes = [torch.linspace(0, 1, length) for length in (depth, size, size)]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    distance = (grid - centre[:, :, None, None, None]).square().sum(1, keepdim=True)
    return noise + 0.8 * (distance < 0.1)


def clips_of(count, *, frames=5, channels=3, size=8, seed=0):
    """(count, frames, channels, size, size), noise."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, frames, channels, size, size, generator=generator)


class Convolution(nn.Sequential):
    """A convolution, and behind it norm, dropout and activation, but for the last one of a net."""

    def __init__(self, inside, outside, *, stride=1, transposed=False, conv_only=False):
        super().__init__()
        kind = nn.ConvTranspose3d if transposed else nn.Conv3d
        more = {"output_padding": stride - 1} if transposed else {}
        self.add_module("conv", kind(inside, outside, 3, stride=stride, padding=1, **more))
        if not conv_only:
            parts = [("N", nn.InstanceNorm3d(outside)), ("D", nn.Dropout(0.0)), ("A", nn.PReLU())]
            adn = nn.Sequential()
            for name, part in parts:
                adn.add_module(name, part)
            self.add_module("adn", adn)


class ResidualUnit(nn.Module):
    """Two convolutions, and a third beside them."""

    def __init__(self, inside, outside, *, stride):
        super().__init__()
        self.conv = nn.Sequential(Convolution(inside, outside, stride=stride), Convolution(outside, outside))
        self.residual = nn.Conv3d(inside, outside, 3, stride=stride, padding=1)

    def forward(self, x):
        return self.conv(x) + self.residual(x)


class SkipConnection(nn.Module):
    """What goes through a part of the net, behind what went around it."""

    def __init__(self, submodule):
        super().__init__()
        self.submodule = submodule

    def forward(self, x):
        return torch.cat([x, self.submodule(x)], 1)


class UNet3d(nn.Module):
    """A U-Net of nested skip connections, as monai builds it."""

    def __init__(self, inside=1, outside=2, channels=(4, 8, 16)):
        super().__init__()
        first, second, third = channels
        bottom = ResidualUnit(second, third, stride=1)
        middle = self._level(first, second, SkipConnection(bottom), second + third, first)
        self.model = self._level(inside, first, SkipConnection(middle), 2 * first, outside, is_top=True)

    def _level(self, inside, down, skip, wide, outside, *, is_top=False):
        up = nn.Sequential(
            Convolution(wide, outside, stride=2, transposed=True),
            Convolution(outside, outside, conv_only=is_top),
        )
        return nn.Sequential(ResidualUnit(inside, down, stride=2), skip, up)

    def forward(self, x):
        return self.model(x)


class FrameByFrame(nn.Module):
    """A 2-D net on the frames of clips (B, T, C, H, W), whose features are averaged over time."""

    def __init__(self, channels=6):
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.head = nn.Linear(channels, 4)

    def forward(self, clips):
        features = self.stem(clips.flatten(0, 1)).relu().mean((2, 3))
        return self.head(features.unflatten(0, clips.shape[:2]).mean(1))


class InTime(nn.Module):
    """A 3-D net on clips (B, T, C, H, W), which it turns to (B, C, T, H, W) first."""

    def __init__(self, channels=6):
        super().__init__()
        self.stem = nn.Conv3d(3, channels, 3, padding=1)
        self.body = nn.Conv3d(channels, channels, 3, stride=2, padding=1)
        self.head = nn.Linear(channels, 4)

    def forward(self, clips):
        features = self.body(self.stem(clips.transpose(1, 2)).relu()).relu()
        return self.head(features.mean((2, 3, 4)))
