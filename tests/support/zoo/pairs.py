"""Models of two networks of which one runs, and encoders that have tokens in front of images."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from support.nets import ResNet
from support.zoo.entry import Entry


class WithTeacher(nn.Module):
    """A student, and a teacher that is its average; only the student runs."""

    def __init__(self) -> None:
        super().__init__()
        self.student = ResNet()
        self.teacher = torch.optim.swa_utils.AveragedModel(self.student)

    def forward(self, images: Tensor) -> Tensor:
        return self.student(images)


class Byol(nn.Module):
    """An encoder with projection and prediction, beside a momentum copy that does not run."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = _headless()
        self.projection = nn.Sequential(nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 8))
        self.prediction = nn.Sequential(nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 8))
        self.backbone_momentum = _headless()
        self.projection_momentum = nn.Sequential(nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 8))

    def forward(self, images: Tensor) -> Tensor:
        return self.prediction(self.projection(self.backbone(images)))


class Dino(nn.Module):
    """A student's and a teacher's head on two encoders; the teacher comes first, and only the student runs."""

    def __init__(self) -> None:
        super().__init__()
        self.teacher_backbone, self.teacher_head = _headless(), _projection()
        self.student_backbone, self.student_head = _headless(), _projection()

    def forward(self, images: Tensor) -> Tensor:
        return self.student_head(self.student_backbone(images))


class TokensFirst(nn.Module):
    """torch's own transformer as its default takes them: (tokens, images, width)."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 16, 16)
        layer = nn.TransformerEncoderLayer(32, 2, 64, dropout=0.0)
        self.encoder = nn.TransformerEncoder(layer, 6, norm=nn.LayerNorm(32), enable_nested_tensor=False)
        self.head = nn.Linear(32, 5)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).permute(2, 0, 1)
        return self.head(self.encoder(tokens).mean(0))


class ColumnsFirst(nn.Module):
    """A reader of lines: columns of a map, first to last, through an LSTM, (columns, images, width)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU())
        self.reader = nn.LSTM(16, 12, num_layers=2, bidirectional=True)
        self.letters = nn.Linear(24, 11)

    def forward(self, images: Tensor) -> Tensor:
        columns = self.stem(images).mean(2).permute(2, 0, 1)
        return self.letters(self.reader(columns)[0]).permute(1, 0, 2)


def _headless() -> nn.Module:
    net = ResNet()
    net.fc = nn.Identity()
    return net


def _projection() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 8), nn.Linear(8, 24, bias=False))


def _make(kind: Any) -> nn.Module:
    return kind()


PAIRS: dict[str, Entry] = {
    "student beside its average": Entry(partial(_make, WithTeacher)),
    "Byol": Entry(partial(_make, Byol)),
    "Dino": Entry(partial(_make, Dino)),
    "tokens first": Entry(partial(_make, TokensFirst)),
    "LSTM over columns": Entry(partial(_make, ColumnsFirst)),
}
