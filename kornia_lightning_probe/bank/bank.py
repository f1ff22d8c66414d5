"""Augmentations with names, severities and seeds: the same views of the same images, whenever and wherever."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from kornia_lightning_probe.bank import presets
from kornia_lightning_probe.bank.doubts.looking import Look, look_at
from kornia_lightning_probe.bank.drawing import Augmented, draw_unit, draw_view, plain_float32
from kornia_lightning_probe.bank.from_training.views import views_from_training
from kornia_lightning_probe.bank.pixels import PixelScale
from kornia_lightning_probe.bank.views import View, describe_ladders, describe_view, read_views
from kornia_lightning_probe.checks import whole_number
from kornia_lightning_probe.image_layout import ImageLayout, image_layout
from kornia_lightning_probe.randomness import isolated_rng, stable_seed
from kornia_lightning_probe.wording import listed

__all__ = ["AugmentationBank", "Augmented", "View"]


class AugmentationBank:
    """Named, seeded ladders of augmentations.

    Each (augmentation, block of images) is drawn under its own seed, the same for every level, so that a severity curve
    follows one realisation, and the same in every epoch and process. What is given is deep-copied, and never moved or
    changed.

    Args:
        views: a mapping of a name to one augmentation, a list of them (levels 1, 2, ..., severity = level; any sequence
            is one), or a mapping of a severity to an augmentation (sorted ascending). An augmentation is any
            `nn.Module` or callable on a (B, C, H, W) float batch in [0, 1] that keeps B and C: a Kornia class,
            `AugmentationSequential` (whatever its data_keys), `ImageSequential`, a torchvision v2 transform. See
            `layout` for volumes and video.
        seed: the base of all seeds.
        mean: of the normalisation that the loader has applied, one number or one for each channel; None: no shift.
        std: likewise; None: no scaling.
        value_range: lowest and highest value of raw images, before `mean` and `std`.
        moves_pixels: names of augmentations of one's own that move pixels from where they are. Kornia's and
            torchvision's geometric ones, and what holds one of them, are known without that; what a plain function does
            is not.
        layout: "image"; "volume" for images (B, C, D, H, W), with Kornia's 3-D classes or callables on such a batch; or
            "video" for clips (B, T, C, H, W). Of the latter a `VideoSequential`, and a callable that takes five axes,
            get whole clips; Kornia's 2-D classes, and what takes four axes only, get all first frames, all second
            ones and so on, each under the same seed, so that they do the same to every frame. There are no matrices
            of volumes and video, hence no equivariance.

    Raises:
        TypeError: where `views` isn't a mapping, or an entry isn't an augmentation.
        ValueError: for no views, an empty ladder, a name that is empty or holds "/", a severity that isn't finite, a
            name in `moves_pixels` that no augmentation has, or an unknown layout.

    Example:
        >>> import torch
        >>> import kornia.augmentation as K
        >>> bank = AugmentationBank({
        ...     "flip": K.RandomHorizontalFlip(p=1.0),
        ...     "rotation": {15: K.RandomRotation((15.0, 15.0), p=1.0), 5: K.RandomRotation((5.0, 5.0), p=1.0)},
        ... })
        >>> [view.label for view in bank]
        ['flip', 'rotation 5', 'rotation 15']
        >>> augmented = bank.augment(bank[0], torch.tensor([[[[0.0, 0.25, 1.0]]]]), block=0)
        >>> augmented.images[0], augmented.changed
        (tensor([[[[1.0000, 0.2500, 0.0000]]]]), True)
    """

    def __init__(
        self,
        views: dict[str, nn.Module | list[nn.Module] | dict[float, nn.Module]],
        *,
        seed: int = 0,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        value_range: tuple[float, float] = (0.0, 1.0),
        moves_pixels: str | Sequence[str] = (),
        layout: str = "image",
    ) -> None:
        self.seed = whole_number("seed", seed)
        self.pixels = PixelScale(mean=mean, std=std, value_range=value_range, layout=image_layout(layout))
        self.views = read_views(views, moving=moves_pixels)
        # Set by preset(): what fit_channels may leave out.
        self._needs_rgb: frozenset[str] = frozenset()
        self.left_out: dict[str, str] = {}

    @classmethod
    def preset(
        cls,
        name: str = "default",
        *,
        channels: int | None = None,
        exclude: str | Sequence[str] = (),
        small: bool = False,
        seed: int = 0,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        value_range: tuple[float, float] = (0.0, 1.0),
        layout: str = "image",
    ) -> AugmentationBank:
        """Build a ready-made bank, see `presets.preset_ladders`.

        Args:
            name: "default", "photometric", "geometric" or "corruptions".
            channels: of the images; where it isn't 3, augmentations that need 3 are left out, with one warning. None:
                that happens when the bank first meets images, see `fit_channels`.
            exclude: names of augmentations to leave out.
            small: for "corruptions", the milder levels of CIFAR-C.
            seed: see the class, as the others below.
            mean: see the class.
            std: see the class.
            value_range: see the class.
            layout: "image", or "video", where every frame gets the same; the presets have nothing for volumes.

        Returns:
            The bank.

        Raises:
            ValueError: for an unknown preset, an excluded name that the preset doesn't have, or volumes.

        Example:
            >>> len(AugmentationBank.preset("default", exclude=["blur"]))
            16
        """
        presets.check_layout(name, image_layout(layout))
        kept: dict[str, Any] = {**presets.preset_ladders(name, small=small, exclude=exclude)}
        bank = cls(kept, seed=seed, mean=mean, std=std, value_range=value_range, layout=layout)
        bank._needs_rgb = presets.NEEDS_RGB & set(kept)
        return bank if channels is None else bank.fit_channels(channels)

    @classmethod
    def from_training(
        cls,
        pipeline: Any,
        levels: int = 3,
        *,
        seed: int = 0,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        value_range: tuple[float, float] = (0.0, 1.0),
        layout: str = "image",
    ) -> AugmentationBank:
        """Build a bank of what a model is trained with: a ladder for each augmentation, and the whole as a last view.

        Each is always applied, at 1/levels, 2/levels, ... of its range, from the identity to the further end; a range
        to both sides draws a side for each image. Severities are in the parameter's own unit, or parts "of the range"
        of several. What has no known magnitude is one view with its own draw. See docs/augmentations.md.

        Args:
            pipeline: Kornia's `AugmentationSequential` or `ImageSequential`, an `nn.Sequential`, or torchvision's
                `Compose`; it stays as it is. A name that it gives a child is the name in results.
            levels: how many parts, at least 1.
            seed: see the class.
            mean: see the class; None: that of the `Normalize` in a `Compose`.
            std: likewise.
            value_range: see the class.
            layout: see the class.

        Returns:
            The bank; one warning names what it leaves out, such as MixUp.

        Raises:
            TypeError: for anything but a container.
            ValueError: for no augmentation, or no level.

        Example:
            >>> from torch import nn
            >>> import kornia.augmentation as K
            >>> bank = AugmentationBank.from_training(nn.Sequential(K.RandomRotation(30.0), K.RandomHorizontalFlip()))
            >>> [view.label for view in bank]
            ['rotation 10', 'rotation 20', 'rotation 30', 'horizontal_flip', 'pipeline']
        """
        read = views_from_training(pipeline, levels)
        if read.left_out:
            warnings.warn(f"Left out of the pipeline: {read.why_left_out()}", stacklevel=2)
        mean, std = read.statistics(mean, std)
        bank = cls(read.views, seed=seed, mean=mean, std=std, value_range=value_range, layout=layout)
        bank.left_out = read.left_out
        return bank

    def __iter__(self) -> Iterator[View]:
        return iter(self.views)

    def __len__(self) -> int:
        return len(self.views)

    def __getitem__(self, index: int) -> View:
        return self.views[index]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({'; '.join([*describe_ladders(self.views), f'seed={self.seed}'])})"

    @property
    def layout(self) -> ImageLayout:
        """The axes of the images that the bank takes."""
        return self.pixels.layout

    def describe(self) -> dict[str, Any]:
        """Say what the bank does, in plain types that JSON can hold and that are the same in every process."""
        return {
            "seed": self.seed,
            "mean": list(self.pixels.mean),
            "std": list(self.pixels.std),
            "value_range": list(self.pixels.value_range),
            "layout": self.layout.name,
            "views": [describe_view(view) for view in self],
        }

    def check(self, images: Tensor, *, what: str = "images") -> None:
        """Raise where images aren't what the bank was told: dtype, shape, NaN, range. See `PixelScale.check`.

        Args:
            images: (B, C, H, W), or as `layout` says, as the loader gives them.
            what: how the message calls them.
        """
        self.pixels.check(images, what=what)

    def why_implausible(self, images: Tensor) -> str:
        """Say what is implausible about images that `check` lets pass; an empty text where nothing is."""
        return self.pixels.why_implausible(images)

    def fit_channels(self, channels: int) -> AugmentationBank:
        """Leave out what can't be done to images of that many channels.

        Only a preset leaves something out, with one warning; with views of one's own, an augmentation that refuses the
        images is an error of `augment`.

        Args:
            channels: C.

        Returns:
            This bank where everything fits, else a smaller one that shares the views it keeps.
        """
        if channels == 3 or not self._needs_rgb:
            return self
        out = [view.augmentation for view in self if view.augmentation in self._needs_rgb]
        names = list(dict.fromkeys(out))
        warnings.warn(
            f"Left out {listed(names)}: they need images of 3 channels, and these have {channels}", stacklevel=2
        )
        bank = copy.copy(self)
        bank.views = tuple(view for view in self if view.augmentation not in names)
        bank._needs_rgb = frozenset()
        bank.left_out = self.left_out | dict.fromkeys(names, "this augmentation needs images of 3 channels")
        return bank

    def augment(self, view: View, images: Tensor | Sequence[Tensor], *, block: int, graph: bool = False) -> Augmented:
        """Apply a view to one block of images.

        Runs in float32 without autocast and inference mode, under the seed of (bank, augmentation, block); the random
        streams of Python, NumPy, torch and the images' device, and the default dtype, come back as they were.

        Args:
            view: one of the bank's.
            images: (B, C, H, W), as the loader gives them; or several such entries, each of which is drawn under the
                same seed, so that entries of equal shape get the same parameters.
            block: the number of the block that these images are.
            graph: whether the augmented images keep their graph, so that gradients reach the images, see `draw`.

        Returns:
            The augmented images, and what is known about the change.

        Raises:
            TypeError: for images that aren't floating point, or an augmentation that doesn't return such a tensor.
            ValueError: for images that aren't (B, C, H, W), or an augmentation that changes B or C.
            RuntimeError: where the augmentation raises; names the view.
        """
        entries = (images,) if isinstance(images, Tensor) else tuple(images)
        device = next((entry.device for entry in entries if isinstance(entry, Tensor)), None)
        with isolated_rng(device=device):
            units = [self.to_unit(entry, graph=graph) for entry in entries]
            return self.draw(view, entries, units, block=block, graph=graph)

    def to_unit(self, images: Tensor, *, graph: bool = False) -> Tensor:
        """What augmentations see of some images: a (B, ...) float32 tensor in [0, 1], in memory of its own.

        Args:
            images: (B, C, H, W), or as `layout` says, as the loader gives them.
            graph: whether gradients reach these.

        Raises:
            TypeError: for images that aren't floating point.
            ValueError: for images that aren't (B, C, H, W).
        """
        self.pixels.check_layout(images)
        with plain_float32(images.device, graph=graph):
            return self.pixels.to_unit(images)

    def draw(
        self,
        view: View,
        entries: Sequence[Tensor],
        units: Sequence[Tensor],
        *,
        block: int,
        changes: bool = False,
        graph: bool = False,
    ) -> Augmented:
        """As `augment`, for a caller that applies many views to the same images.

        Args:
            view: one of the bank's.
            entries: the images, entry by entry, at least one.
            units: what `to_unit` gives for each; they come back as they were.
            block: the number of the block that these images are.
            changes: whether it is known that the view changes images, so that nobody has to look.
            graph: whether the augmented images keep their graph: where a unit image requires gradients and the
                augmentation can be differentiated, so can they. The images are the same either way.

        Returns:
            As `augment`; the random streams are left as the view leaves them.

        Example:
            >>> import torch
            >>> import kornia.augmentation as K
            >>> bank = AugmentationBank({"flip": K.RandomHorizontalFlip(p=1.0)})
            >>> images = torch.tensor([[[[0.25, 0.75]]]])
            >>> unit = bank.to_unit(images).requires_grad_()
            >>> (flipped,) = bank.draw(bank[0], [images], [unit], block=0, graph=True).images
            >>> torch.autograd.grad(flipped[0, 0, 0, 0], unit)  # the left pixel was the right one
            (tensor([[[[0., 1.]]]]),)
        """
        seed = stable_seed(self.seed, view.augmentation, block)
        done = []
        for entry, unit in zip(entries, units, strict=True):
            done.append(draw_view(view, entry, unit, pixels=self.pixels, seed=seed, changes=changes, graph=graph))
        images = tuple(one.images for one in done)
        through, frames = done[0].way or (None, None)
        return Augmented(images, any(one.changed for one in done), done[0].matrix, through, frames)

    def look_at(self, view: View, units: Sequence[Tensor], augmented: Augmented) -> Look:
        """Look at what `draw` made of block 0: whether it repeats itself, follows its seed, stays in the range.

        Args:
            view: one of the bank's.
            units: what `draw` was given.
            augmented: what it returned.
        """

        def draw(images: Sequence[Tensor], block: int) -> list[Tensor]:
            seed = stable_seed(self.seed, view.augmentation, block)
            return [draw_unit(view, unit, layout=self.layout, seed=seed) for unit in images]

        drawn = [self.pixels.undone(images) for images in augmented.images]
        return look_at(view, units, drawn, draw)
