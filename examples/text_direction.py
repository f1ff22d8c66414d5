"""Where does a text-direction classifier start to tell up from down? A net that others trained, layer by layer.

Scanners turn a page the right way up by a small net that answers one question: is this line of text upright? This looks
into rapidocr's, a MobileNetV3 of 53 convolutions: how far does each of them move when a line is turned by 180 degrees,
beside two mirror images, and how much of that is there without training? Prints the answer and draws it.

Three quarters of a minute on one core, no download: the net comes with rapidocr, the page with scikit-image.

    pip install --no-deps rapidocr onnx2torch
    pip install onnx scikit-image matplotlib
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import kornia.augmentation as K  # noqa: N812 - Kornia's own convention
import torch
from torch import Tensor, nn

from kornia_lightning_probe import ActivationRecorder, AugmentationBank, ProbeResult, probe_model, select_layers

MODEL = "ch_ppocr_mobile_v2.0_cls_mobile.onnx"
HALF = (0.5, 0.5, 0.5)
# The middles of four printed lines of scikit-image's page, in pixels, and how many pieces of each are taken.
LINES = (58, 76, 93, 111)
PIECES = 64
COLOURS = {"turn": "#b2182b", "flip": "#ef8a62", "mirror": "#2166ac"}
SEEDS = range(4)
TITLES = {"turn": "turned by 180°", "flip": "upside down in a mirror", "mirror": "mirrored"}


def pieces_of_lines() -> tuple[Tensor, Tensor]:
    """Pieces of printed lines, 20 x 120 pixels of a page, as large as the net takes them; and the line of each."""
    import skimage

    page = torch.from_numpy(skimage.data.page()).float() / 255
    random = torch.Generator().manual_seed(0)
    pieces = []
    for middle in LINES:
        # No place twice, but most of them overlap.
        lefts = torch.randperm(page.shape[1] - 119, generator=random)[:PIECES].tolist()
        pieces += [page[middle - 10 : middle + 10, left : left + 120] for left in lefts]
    grey = nn.functional.interpolate(torch.stack(pieces)[:, None], (48, 192), mode="bilinear", antialias=True)
    lines = torch.arange(len(LINES)).repeat_interleave(PIECES)
    return grey.clamp(0, 1).repeat(1, 3, 1, 1), lines


def classifier() -> nn.Module:
    """The net of rapidocr: probabilities that a line is upright, and that it is turned by 180 degrees."""
    import onnx
    import onnx2torch

    package = find_spec("rapidocr")
    if package is None:
        raise SystemExit("The net comes with rapidocr; see the top of this file for how to install it")
    model: Any = onnx.load(Path(str(package.origin)).parent / "models" / MODEL)
    # Its constants are nodes, which onnx2torch only takes as initializers.
    for node in [node for node in model.graph.node if node.op_type == "Constant"]:
        node.attribute[0].t.name = node.output[0]
        model.graph.initializer.append(node.attribute[0].t)
        model.graph.node.remove(node)
    converted: nn.Module = onnx2torch.convert(model)
    return converted.eval()


def untrained(net: nn.Module, seed: int) -> nn.Module:
    """The net with every weight drawn anew, in place of its own."""
    torch.manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
            module.reset_parameters()
    return net


def convolutions(net: nn.Module, images: Tensor) -> list[str]:
    """The convolutions that see where things are, in order: not those of the squeeze-and-excite branches."""
    chosen = select_layers(net, nn.Conv2d)
    with torch.no_grad(), ActivationRecorder(chosen) as recorder:
        net(images[:2])
        maps = dict(recorder.activations)
    return [name for name in chosen if maps[name].shape[-1] > 1]


def turned(images: Tensor) -> Tensor:
    """By 180 degrees."""
    return images.flip(-1, -2)


def measure(net: nn.Module, images: Tensor, layers: Sequence[str]) -> ProbeResult:
    """How far each layer moves under three changes of the whole image, as a share of how far apart two pieces lie."""
    changes: dict[str, Any] = {
        "turn": turned,
        "flip": K.RandomVerticalFlip(p=1.0),
        "mirror": K.RandomHorizontalFlip(p=1.0),
    }
    bank = AugmentationBank(changes, mean=HALF, std=HALF, moves_pixels=["turn"])
    return probe_model(net, 2 * images - 1, bank, layers=list(layers), metrics=["sensitivity", "flip_rate"])


def by_line(net: nn.Module, images: Tensor, lines: Tensor, layers: Sequence[str]) -> list[list[float]]:
    """The sensitivity to the turn of each layer, for the pieces of each line by themselves."""
    changes: dict[str, Any] = {"turn": turned}
    bank = AugmentationBank(changes, mean=HALF, std=HALF, moves_pixels=["turn"])
    result = probe_model(net, 2 * images - 1, bank, layers=list(layers), metrics=["sensitivity"], labels=lines)
    return [[row.value for row in result.by_label("sensitivity", layer)] for layer in layers]


def first_beyond(values: Sequence[float], layers: Sequence[str]) -> str:
    """The first layer from which on every value is above 1: further than from one piece to another."""
    below = [position for position, value in enumerate(values) if value <= 1.0]
    position = below[-1] + 1 if below else 0
    return layers[position] if position < len(layers) else "none"


def draw(trained: ProbeResult, anew: Sequence[ProbeResult], each_line: list[list[float]], layers: Sequence[str]) -> Any:
    """The profile over depth of the trained net, and between which values the turn moves the untrained ones."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    numbers = [number_of(layer) for layer in layers]
    without = [[result.value("sensitivity", layer, "turn") for result in anew] for layer in layers]
    lowest, highest = [min(values) for values in without], [max(values) for values in without]
    label = f"turned, {len(anew)} untrained nets"
    axes.fill_between(numbers, lowest, highest, color="black", alpha=0.12, linewidth=0, label=label)
    for position in range(len(LINES)):
        one_line = [values[position] for values in each_line]
        axes.plot(numbers, one_line, color=COLOURS["turn"], linewidth=0.6, alpha=0.6)
    for change, colour in COLOURS.items():
        values = [trained.value("sensitivity", layer, change) for layer in layers]
        errors = [2 * trained.std_error("sensitivity", layer, change) for layer in layers]
        axes.errorbar(numbers, values, errors, color=colour, linewidth=1.6, elinewidth=0.8, label=TITLES[change])
    axes.axhline(1.0, color="black", linewidth=0.6)
    axes.text(0, 1.03, "as far as to another piece of text", va="bottom", fontsize=8)
    start = first_beyond([trained.value("sensitivity", layer, "turn") for layer in layers], layers)
    axes.axvline(number_of(start), color="black", linewidth=0.6, linestyle=":")
    axes.text(number_of(start) + 0.4, 0.03, start, fontsize=9)
    axes.set_xlabel("convolution, from the image to the answer")
    axes.set_ylabel("sensitivity")
    axes.set_ylim(0, 3.2)
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def number_of(layer: str) -> int:
    """The number of a convolution, 18 of Conv@18."""
    return int(layer.removeprefix("Conv@"))


def main() -> None:
    """Measure the trained net and untrained ones, say where up is told from down, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("text_direction.png"), help="the picture")
    arguments = parser.parse_args()
    # The runtime of several threads starts anew after each forward, which costs more than it gains here.
    torch.set_num_threads(1)
    # onnx2torch indexes tensors by lists.
    warnings.filterwarnings("ignore", "Using a non-tuple sequence for multidimensional indexing")

    images, lines = pieces_of_lines()
    net = classifier()
    layers = convolutions(net, images)
    trained = measure(net, images, layers)
    each_line = by_line(net, images, lines, layers)
    anew = [measure(untrained(net, seed), images, layers) for seed in SEEDS]

    turned_by_depth = [trained.value("sensitivity", layer, "turn") for layer in layers]
    print(f"answers that turn with the text: {trained.value('flip_rate', augmentation='turn'):.3f}")
    print(f"further than another piece of text from {first_beyond(turned_by_depth, layers)} on; line by line:")
    for position in range(len(LINES)):
        print(f"  line {position + 1}: from {first_beyond([values[position] for values in each_line], layers)} on")
    print_table(trained, anew, layers)
    draw(trained, anew, each_line, layers).savefig(arguments.output, dpi=100)
    print(f"wrote {arguments.output}")


def print_table(trained: ProbeResult, anew: Sequence[ProbeResult], layers: Sequence[str]) -> None:
    """Sensitivity with its standard error, a row for each convolution; of the untrained nets turn, flip and mirror."""
    print("sensitivity".ljust(12), *(change.rjust(12) for change in COLOURS), "  untrained: turn flip mirror")
    for layer in layers:
        cells = [_cell(trained, layer, change) for change in COLOURS]
        others = [
            "/".join(f"{result.value('sensitivity', layer, change):.2f}" for change in COLOURS) for result in anew
        ]
        print(layer.ljust(12), *(cell.rjust(12) for cell in cells), "  ", *others)


def _cell(result: ProbeResult, layer: str, change: str) -> str:
    return f"{result.value('sensitivity', layer, change):.2f} ±{result.std_error('sensitivity', layer, change):.2f}"


if __name__ == "__main__":
    main()
