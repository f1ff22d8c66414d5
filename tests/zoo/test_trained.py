"""Trained networks that ship inside a package, on real images that do too: right there, and so found right here."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import kornia.augmentation as K  # noqa: N812 - the name that Kornia's own documentation uses
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
    # Labels have told which output is meant, so that nothing is said of the others.
    assert not [sentence for sentence in result.metadata["warnings"] if "class scores" in sentence]


def test_its_first_output_is_taken_and_said_where_no_labels_tell():
    images, _ = faces(24)
    net = facenet.RNet().eval()
    with pytest.warns(UserWarning, match=r"output\[0\] \(N, 4\), is taken for class scores; the others are "):
        result = probe_model(net, images[90:110], bank(), forward=as_mtcnn_takes_them)
    assert result.metadata["output"] == "output[0]"


# The middles of four printed lines of scikit-image's page, in pixels.
LINES = (58, 76, 93, 111)


def pieces_of_lines() -> Tensor:
    """256 pieces of printed lines, 20 x 120 pixels of a page, as large as the classifier takes them and upright."""
    page = torch.from_numpy(skimage.data.page()).float() / 255
    random = torch.Generator().manual_seed(0)
    pieces = []
    for middle in LINES:
        # No place twice.
        lefts = torch.randperm(page.shape[1] - 119, generator=random)[:64].tolist()
        pieces += [page[middle - 10 : middle + 10, left : left + 120] for left in lefts]
    grey = nn.functional.interpolate(torch.stack(pieces)[:, None], (48, 192), mode="bilinear", antialias=True)
    return grey.clamp(0, 1).repeat(1, 3, 1, 1)


def classifier_of_directions() -> nn.Module:
    """rapidocr's: is a line of text upright (class 0), or turned by 180 degrees?"""
    onnx, onnx2torch = pytest.importorskip("onnx"), pytest.importorskip("onnx2torch")
    package = find_spec("rapidocr")
    if package is None:
        pytest.skip("rapidocr is not installed")
    folder = Path(str(package.origin)).parent / "models"
    model = onnx.load(folder / "ch_ppocr_mobile_v2.0_cls_mobile.onnx")
    # Its constants are nodes, which onnx2torch only takes as initializers.
    for node in [node for node in model.graph.node if node.op_type == "Constant"]:
        node.attribute[0].t.name = node.output[0]
        model.graph.initializer.append(node.attribute[0].t)
        model.graph.node.remove(node)
    return onnx2torch.convert(model).eval()


def upside_down(images: Tensor) -> Tensor:
    return images.flip(-1, -2)


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence for multidimensional indexing")
def test_a_classifier_of_text_lines_tells_up_from_down_from_convolution_18_on():
    net, images = classifier_of_directions(), pieces_of_lines()
    tilt = {degrees: K.RandomRotation((degrees, degrees), p=1.0) for degrees in (2.0, 5.0, 10.0)}
    half = (0.5, 0.5, 0.5)
    bank = AugmentationBank({"turn": upside_down, "tilt": tilt}, mean=half, std=half, moves_pixels=["turn"])
    third = [f"Conv@{number}" for number in range(0, 53, 3)]

    result = probe_model(net, (images - 0.5) / 0.5, bank, layers=third)

    # Right for nearly every piece that is upright, and so is its answer another one for those that are turned.
    with torch.no_grad():
        assert (net(images * 2 - 1).argmax(1) == 0).double().mean() > 0.99
    assert result.value("flip_rate", augmentation="turn") > 0.97
    assert result.metadata["output_kind"] == "classes"
    turned = [result.value("sensitivity", layer, "turn") for layer in third]
    tilted = [result.value("sensitivity", layer, "tilt") for layer in third]
    assert max(turned[:6]) < 0.5
    assert min(turned[6:]) > 1.0
    assert turned[6] > 3 * turned[5]
    # The layer that tells is where the movement grows most, by more than twice, and grows no further from there on.
    gains = {row.layer: row.gain for row in result.gain("turn", metric="sensitivity")}
    assert max(list(gains)[5:], key=gains.__getitem__) == "Conv@18"
    assert gains["Conv@18"] > 2.4 > max(list(gains.values())[6:])
    # What is only tilted stays what it was, and moves no further there than before.
    assert max(tilted[6:]) < max(tilted[:6])


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence for multidimensional indexing")
def test_its_convolutions_are_found_in_the_graph_that_it_was_converted_to():
    bank = AugmentationBank({"darker": barely_darker}, mean=(0.5,) * 3, std=(0.5,) * 3)
    result = probe_model(classifier_of_directions(), pieces_of_lines()[:8] * 2 - 1, bank, metrics="sensitivity")
    assert result.layers[0] == "Conv@0"
    assert 6 <= len(result.layers) <= 24
    # A product with a matrix of the graph's initializers and softmax are behind it.
    assert result.metadata["embedding"] == result.layers[-1] == "GlobalAveragePool@9"
