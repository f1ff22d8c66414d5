"""What do MTCNN's face nets notice, and what of it changes their answer? Nets that others trained, on real faces.

MTCNN finds faces by small nets in a row. R-Net and O-Net look at a window and say whether it shows a face, how its box
is to be moved and, O-Net only, where eyes, nose and mouth are. This asks of both: how far does what they have made of a
window move under fifteen changes, and how many faces are lost by it? Prints the answers and draws them.

About half a minute on one core, no download: the nets come with facenet-pytorch, the faces with scikit-image (a hundred
of Labeled Faces in the Wild and as many windows without one, 25 pixels wide).

    pip install --no-deps facenet-pytorch
    pip install scikit-image matplotlib
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kornia_lightning_probe import AugmentationBank, ProbeResult, presets, probe_model
from kornia_lightning_probe.bank.bank import View

#: What the layers of the two nets are for; the first is the last that all answers are made of.
PARTS = {
    "R-Net": {"prelu4": "embedding", "dense5_1": "face score", "dense5_2": "box"},
    "O-Net": {"prelu5": "embedding", "dense6_1": "face score", "dense6_2": "box", "dense6_3": "landmarks"},
}
#: Too near to others to be named in the picture.
UNNAMED = ("contrast", "noise 0.1")
COLOURS = {"R-Net": "#2166ac", "O-Net": "#b2182b"}


class Looked(NamedTuple):
    """What was measured of one net.

    Attributes:
        windows: the result on all windows.
        faces: the result on the faces alone.
        right: the share of windows, as they are, that the net is right on.
    """

    windows: ProbeResult
    faces: ProbeResult
    right: float


def windows(side: int) -> tuple[Tensor, Tensor]:
    """A hundred faces and as many windows without one, of this side in pixels, and which is which; 1 is a face."""
    import skimage

    grey = torch.from_numpy(skimage.data.lfw_subset()).float()[:, None]
    images = nn.functional.interpolate(grey, side, mode="bilinear", antialias=True)
    return images.clamp(0, 1).repeat(1, 3, 1, 1), torch.arange(2).flip(0).repeat_interleave(100)


def nets() -> dict[str, tuple[nn.Module, int]]:
    """The two nets with their weights, and the side of the windows that each one takes."""
    from facenet_pytorch.models.mtcnn import ONet, RNet

    return {"R-Net": (RNet().eval(), 24), "O-Net": (ONet().eval(), 48)}


def as_mtcnn_takes_them(net: nn.Module, images: Tensor) -> object:
    """MTCNN's own normalisation in front of the net."""
    return net((images - 0.5) / (128 / 255))


def scores(net: nn.Module, images: Tensor) -> Tensor:
    """The probabilities of no face and a face, (N, 2): the last of the net's outputs."""
    answers: tuple[Tensor, ...] = net((images - 0.5) / (128 / 255))
    return answers[-1]


def inverted(images: Tensor) -> Tensor:
    """The negative of an image."""
    return 1 - images


def bank() -> AugmentationBank:
    """Eleven changes, fifteen views."""
    changes: dict[str, Any] = {
        "mirrored": presets.hflip(),
        "upside down": presets.vflip(),
        "turned": presets.rotation((20, 45)),
        "shifted": presets.translation((0.1, 0.2)),
        "scaled": presets.scale((0.3,)),
        "blurred": presets.gaussian_blur((0.08,)),
        "noise": presets.gaussian_noise((0.1, 0.2)),
        "darker": presets.darken((-0.3,)),
        "contrast": presets.contrast((0.4,)),
        "negative": inverted,
        "covered": presets.erasing((0.1, 0.2)),
    }
    return AugmentationBank(changes)


def look(net: nn.Module, side: int) -> Looked:
    """Probe a net on all windows, and on the faces alone for how many of them are lost."""
    images, labels = windows(side)
    with torch.no_grad():
        right = float((scores(net, images).argmax(1) == labels).double().mean())
    everything = probe_model(net, images, bank(), labels=labels, forward=as_mtcnn_takes_them, metrics=["sensitivity"])
    faces = probe_model(net, images[:100], bank(), forward=scores, metrics=["flip_rate"])
    return Looked(everything, faces, right)


def number(result: ProbeResult, metric: str, layer: str | None, view: View) -> tuple[float, float]:
    """A value and its standard error."""
    where: dict[str, Any] = {"layer": layer, "augmentation": view.augmentation, "level": view.level}
    return result.value(metric, **where), result.std_error(metric, **where)


def lost(looked: Looked, view: View) -> tuple[float, float]:
    """The share of faces that is no longer called one, and its standard error."""
    return number(looked.faces, "flip_rate", None, view)


def draw(looked: dict[str, Looked]) -> Any:
    """Left: faces lost over how far the embedding moves. Right: what of O-Net's answers moves."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for name, one in looked.items():
        _draw_faces_lost(left, name, one)
    left.set_xlabel("how far the embedding moves (1: as to another window)")
    left.set_ylabel("faces lost")
    left.set_xlim(0, 1.1)
    left.legend(frameon=False, fontsize=9, loc="upper left")
    _draw_answers(right, looked["O-Net"].windows, list(PARTS["O-Net"]))
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _draw_faces_lost(axes: Any, name: str, looked: Looked) -> None:
    embedding = next(iter(PARTS[name]))
    for position, view in enumerate(bank()):
        moved, moved_error = number(looked.windows, "sensitivity", embedding, view)
        share, error = lost(looked, view)
        label = name if position == 0 else None
        style = {"color": COLOURS[name], "marker": "o", "markersize": 4, "elinewidth": 0.7, "label": label}
        axes.errorbar(moved, share, 2 * error, 2 * moved_error, **style)
        if name == "O-Net" and view.label not in UNNAMED:
            # Those at the bottom lie beside each other.
            slope = 50 if share < 0.1 else 0
            style = {"xytext": (3, 3), "textcoords": "offset points", "fontsize": 8, "rotation": slope}
            axes.annotate(view.label, (moved, share), **style)


def _draw_answers(axes: Any, result: ProbeResult, layers: Sequence[str]) -> None:
    shown = [view for view in bank() if view.label in ("mirrored", "upside down", "turned 45", "shifted 0.2", "darker")]
    for position, layer in enumerate(layers):
        numbers = [number(result, "sensitivity", layer, view) for view in shown]
        places = [place + 0.2 * (position - 1.5) for place in range(len(shown))]
        heights, errors = [value for value, _ in numbers], [2 * error for _, error in numbers]
        colour = ("#999999", "#b2182b", "#67a9cf", "#2166ac")[position]
        style = {"color": colour, "error_kw": {"elinewidth": 0.7}, "label": PARTS["O-Net"][layer]}
        axes.bar(places, heights, 0.18, yerr=errors, **style)
    axes.set_xticks(range(len(shown)), [view.label.replace(" ", "\n", 1) for view in shown])
    axes.set_ylabel("how far it moves, O-Net")
    axes.legend(frameon=False, fontsize=9)


def print_table(looked: dict[str, Looked]) -> None:
    """Faces lost and how far the parts move, a row for each view."""
    for name, one in looked.items():
        print(f"\n{name}: right on {one.right:.3f} of the windows as they are")
        print("".ljust(14), "faces lost".rjust(12), *(title.rjust(12) for title in PARTS[name].values()))
        for view in bank():
            cells = [lost(one, view)]
            cells += [number(one.windows, "sensitivity", layer, view) for layer in PARTS[name]]
            print(view.label.ljust(14), *(f"{value:.2f} ±{error:.2f}".rjust(12) for value, error in cells))


def main() -> None:
    """Look into both nets, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("face_nets.png"), help="the picture")
    arguments = parser.parse_args()
    # The runtime of several threads starts anew after each forward, which costs more than it gains here.
    torch.set_num_threads(1)

    looked = {name: look(net, side) for name, (net, side) in nets().items()}
    print_table(looked)
    draw(looked).savefig(arguments.output, dpi=100)
    print(f"wrote {arguments.output}")


if __name__ == "__main__":
    main()
