"""What the tests of figures read off them."""

from types import SimpleNamespace

from kornia_lightning_probe.bank.pixels import PixelScale

FORTY = tuple(f"backbone.layer{1 + i // 10}.{i % 10}.conv2" for i in range(40))


class FakeBank(list):
    """Doubles the pixels at level 1 and crops at level 2, on images that a loader has mapped to [-1, 1]."""

    pixels = PixelScale(mean=0.5, std=0.5)
    layout = pixels.layout

    def augment(self, view, images, block=0):
        return SimpleNamespace(images=(images[..., 1:, :] if view.level == 2 else images.clamp(max=0.0),))


def small_print(figure):
    return figure.get_supxlabel().replace("\n", " ")


def tick_labels(axis):
    return [text.get_text() for text in axis.get_ticklabels()]


def lines_with_values(ax):
    return [line for line in ax.get_lines() if line.get_label()[:1] != "_"]


def pictures(figure):
    return [ax.images[0].get_array() for ax in figure.findobj(lambda artist: bool(getattr(artist, "images", None)))]


def titles(figure):
    return [ax.get_title() for ax in figure.findobj(lambda artist: hasattr(artist, "get_title")) if ax.get_title()]
