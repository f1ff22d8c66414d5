"""Trained networks that ship inside a package, on real images that do too: right there, and so found right here."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from kornia_lightning_probe import AugmentationBank, probe_model

facenet = pytest.importorskip("facenet_pytorch.models.mtcnn")
skimage = pytest.importorskip("skimage")


def faces(side: int) -> tuple[Tensor, Tensor]:
    """A hundred faces and as many patches without one, of this side in pixels; 1 is a face."""
    grey = torch.from_numpy(skimage.data.lfw_subset()).float()[:, None]
    images = nn.functional.interpolate(grey, side, mode="bilinear", antialias=True).clamp(0, 1).repeat(1, 3, 1, 1)
    return images, torch.cat([torch.ones(100), torch.zeros(100)]).long()


def as_mtcnn_takes_them(model: nn.Module, images: Tensor) -> object:
    return model((images - 0.5) / (128 / 255))


def barely_darker(images: Tensor) -> Tensor:
    return images * 0.999


def bank() -> AugmentationBank:
    return AugmentationBank({"darker": barely_darker})


# Boxes, of the larger net landmarks, then probabilities: not a face, a face.
@pytest.mark.parametrize(
    ("kind", "side", "output", "embedding"),
    [(facenet.RNet, 24, "output[1]", "prelu4"), (facenet.ONet, 48, "output[2]", "prelu5")],
    ids=["RNet", "ONet"],
)
def test_the_last_output_of_a_face_detector_is_its_class_scores(kind, side, output, embedding):
    images, labels = faces(side)
    result = probe_model(kind().eval(), images, bank(), labels=labels, forward=as_mtcnn_takes_them)
    assert result.metadata["output"] == output
    assert result.value("accuracy") == 1.0
    assert result.value("accuracy_drop") == 0.0
    assert result.metadata["embedding"] == embedding
    assert result.metadata["warnings"] == []


def test_its_first_output_is_taken_and_said_where_no_labels_tell():
    images, _ = faces(24)
    net = facenet.RNet().eval()
    with pytest.warns(UserWarning, match=r"output\[0\] \(N, 4\), is taken for class scores; the others are "):
        result = probe_model(net, images[90:110], bank(), forward=as_mtcnn_takes_them)
    assert result.metadata["output"] == "output[0]"
