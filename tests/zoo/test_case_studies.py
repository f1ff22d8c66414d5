"""The main sentences of the case studies, and that their scripts and pages run."""

from __future__ import annotations

import contextlib
import io
import re
import sys
import types
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs/case_studies"

pytest.importorskip("skimage")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Using a non-tuple sequence for multidimensional indexing"),
]


def example(name: str) -> Iterator[types.ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "examples"))
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        yield import_module(name)
        torch.set_num_threads(threads)
        sys.modules.pop(name)


@pytest.fixture(scope="module")
def text_direction() -> Iterator[types.ModuleType]:
    for package in ("onnx", "onnx2torch", "rapidocr"):
        pytest.importorskip(package)
    yield from example("text_direction")


@pytest.fixture(scope="module")
def face_nets() -> Iterator[types.ModuleType]:
    pytest.importorskip("facenet_pytorch.models.mtcnn")
    yield from example("face_nets")


def run_main(module: types.ModuleType, output: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(sys, "argv", [module.__name__, "--output", str(output)])
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        module.main()
    return said.getvalue()


def run_block(page: str) -> str:
    (block,) = re.findall(r"^```python\n(.*?)^```$", (PAGES / page).read_text(encoding="utf-8"), re.M | re.S)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(block, page, "exec"), {})  # noqa: S102 - our own page
    return said.getvalue()


def test_a_text_classifier_tells_up_from_down_from_convolution_18_on(text_direction: types.ModuleType) -> None:
    images, lines = text_direction.pieces_of_lines()
    net = text_direction.classifier()
    layers = text_direction.convolutions(net, images)
    trained = text_direction.measure(net, images, layers)

    def beyond(result: object, layer: str, change: str) -> float:
        """By how many standard errors a layer moves further than to another piece, negative where less far."""
        value = result.value("sensitivity", layer, change)
        return (value - 1) / result.std_error("sensitivity", layer, change)

    start = layers.index("Conv@18")
    assert all(beyond(trained, layer, "turn") < -3 for layer in layers[:start])
    assert all(beyond(trained, layer, "turn") > 3 for layer in layers[start:])
    # Up and down, not left and right; before that strokes, whose slant a mirror changes and a turn doesn't.
    assert beyond(trained, "Conv@18", "flip") > 3
    assert beyond(trained, "Conv@18", "mirror") < -3
    strokes = {change: trained.value("sensitivity", "Conv@12", change) for change in ("turn", "flip", "mirror")}
    assert 2 * strokes["turn"] < min(strokes["flip"], strokes["mirror"])
    # One of the four lines has the step two convolutions earlier.
    each_line = text_direction.by_line(net, images, lines, layers)
    starts = [text_direction.first_beyond([values[line] for values in each_line], layers) for line in range(4)]
    assert sorted(starts) == ["Conv@16", "Conv@18", "Conv@18", "Conv@18"]


def test_untrained_copies_of_it_tell_a_turn_by_its_height_alone(text_direction: types.ModuleType) -> None:
    images, _ = text_direction.pieces_of_lines()
    net = text_direction.classifier()
    layers = text_direction.convolutions(net, images)
    highest = []
    for seed in text_direction.SEEDS:
        result = text_direction.measure(text_direction.untrained(net, seed), images, layers)
        turn, flip, mirror = (
            torch.tensor([result.value("sensitivity", layer, change) for layer in layers[layers.index("Conv@7") :]])
            for change in ("turn", "flip", "mirror")
        )
        assert (turn - flip).abs().max() < 0.08
        assert (mirror < 0.8 * turn).all()
        highest.append(float(turn.max()))
    # So that a height alone tells nothing of training.
    assert min(highest) < 0.5
    assert max(highest) > 1.6


def test_face_nets_notice_a_mirrored_face_and_lose_none_but_lose_many_upside_down(face_nets: types.ModuleType) -> None:
    for name, (net, side) in face_nets.nets().items():
        looked = face_nets.look(net, side)
        assert looked.right == 1.0
        views = {view.label: view for view in face_nets.bank()}
        embedding, score = list(face_nets.PARTS[name])[:2]

        def moved(layer: str, change: str, looked: object = looked, views: dict = views) -> float:
            return face_nets.number(looked.windows, "sensitivity", layer, views[change])[0]

        assert moved(embedding, "mirrored") > 0.5
        assert moved(embedding, "upside down") < moved(embedding, "mirrored") + 0.2
        assert face_nets.lost(looked, views["mirrored"])[0] == 0.0
        share, error = face_nets.lost(looked, views["upside down"])
        assert share - 3 * error > 0.2
        # The layer that answers moves several times as far where faces are lost.
        assert moved(score, "upside down") > 2.5 * moved(score, "mirrored")
        if name == "O-Net":
            assert moved("dense6_3", "mirrored") > 1.0 > 4 * moved("dense6_1", "mirrored")


def test_the_script_and_the_page_on_text_run(
    text_direction: types.ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = run_main(text_direction, tmp_path / "here.png", monkeypatch)
    assert "further than another piece of text from Conv@18 on" in said
    assert 0 < (tmp_path / "here.png").stat().st_size < 120_000
    assert "256 images x 1 view x 7 layers" in run_block("text_direction.md")


def test_the_script_and_the_page_on_faces_run(
    face_nets: types.ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = run_main(face_nets, tmp_path / "here.png", monkeypatch)
    assert said.count("right on 1.000 of the windows as they are") == 2
    assert 0 < (tmp_path / "here.png").stat().st_size < 120_000
    assert "mirrored 0.6" in run_block("face_nets.md")


@pytest.mark.parametrize("name", ["text_direction", "face_nets"])
def test_the_pictures_of_the_pages_are_small(name: str) -> None:
    assert f"({name}.png)" in (PAGES / f"{name}.md").read_text(encoding="utf-8")
    assert (PAGES / f"{name}.png").stat().st_size < 120_000
