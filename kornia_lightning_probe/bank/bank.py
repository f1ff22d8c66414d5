"""Augmentations with names, severities and seeds: the same views of the same images, whenever and wherever."""

import copy
import difflib
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from kornia.augmentation import AugmentationSequential
from torch import Tensor, nn

from kornia_lightning_probe import presets
from kornia_lightning_probe.bank.matrices import MatrixRecorder, is_kornia_chain
from kornia_lightning_probe.bank.pixels import PixelScale
from kornia_lightning_probe.bank.views import View, describe_transform, read_views
from kornia_lightning_probe.randomness import isolated_rng, reseed, stable_seed

__all__ = ["AugmentationBank", "Augmented", "View"]

# An augmentation whose largest pixel change stays below this, on the scale [0, 1], has done nothing.
_NOTICEABLE = 1e-4


class Augmented(NamedTuple):
    """What became of one block of images.

    Attributes:
        images: one tensor for each entry that was given, in the loader's normalisation, dtype and device.
        changed: False where no pixel of any entry changed by more than 1e-4 of the range.
        matrix: (B, 3, 3) float32, from where a pixel (x, y, 1) of the first entry was to where it is now, integers at
            pixel centres; None where the augmentation doesn't tell.
        through: of a chain, the same after each of its steps but the last, (B, K, 3, 3) on the CPU; None where there is
            no such step.
    """

    images: tuple[Tensor, ...]
    changed: bool
    matrix: Tensor | None
    through: Tensor | None = None


class AugmentationBank:
    """Named, seeded ladders of augmentations.

    Each (augmentation, block of images) is drawn under its own seed, the same for every level, so that a severity curve
    follows one realisation, and the same in every epoch and process. What is given is deep-copied, and never moved or
    changed.

    Args:
        views: a mapping of a name to one augmentation, a list of them (levels 1, 2, ..., severity = level), or a
            mapping of a severity to an augmentation (sorted ascending). An augmentation is any `nn.Module` or callable
            on a (B, C, H, W) float batch in [0, 1] that keeps B and C: a Kornia class, `AugmentationSequential`
            (whatever its data_keys), `ImageSequential`, a torchvision v2 transform.
        seed: the base of all seeds.
        mean: of the normalisation that the loader has applied, one number or one for each channel; None: no shift.
        std: likewise; None: no scaling.
        value_range: lowest and highest value of raw images, before `mean` and `std`.
        moves_pixels: names of augmentations of one's own that move pixels from where they are. Kornia's and
            torchvision's geometric ones, and what holds one of them, are known without that; what a plain function does
            is not.

    Raises:
        TypeError: where `views` isn't a mapping, or an entry isn't an augmentation.
        ValueError: for no views, an empty ladder, a name that is empty or holds "/", a severity that isn't finite, or a
            name in `moves_pixels` that no augmentation has.

    Example:
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
    ) -> None:
        self.seed = int(seed)
        self.pixels = PixelScale(mean=mean, std=std, value_range=value_range)
        self.views = read_views(views, moving=moves_pixels)
        # Set by preset(): what fit_channels may leave out.
        self._needs_rgb: frozenset[str] = frozenset()
        self.left_out: tuple[str, ...] = ()

    @classmethod
    def preset(
        cls,
        name: str = "default",
        *,
        channels: int | None = None,
        exclude: Sequence[str] = (),
        small: bool = False,
        seed: int = 0,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        value_range: tuple[float, float] = (0.0, 1.0),
    ) -> "AugmentationBank":
        """Build a ready-made bank, see `presets.preset_ladders`.

        Args:
            name: "default", "photometric", "geometric" or "corruptions".
            channels: of the images; where it isn't 3, augmentations that need 3 are left out, with one warning. None:
                that happens when the bank first meets images, see `fit_channels`.
            exclude: names of augmentations to leave out.
            small: for "corruptions", the milder levels of CIFAR-C.
            seed: see the class.
            mean: see the class.
            std: see the class.
            value_range: see the class.

        Returns:
            The bank.

        Raises:
            ValueError: for an unknown preset, or an excluded name that the preset doesn't have.

        Example:
            >>> len(AugmentationBank.preset("default", exclude=["blur"]))
            16
        """
        ladders = presets.preset_ladders(name, small=small)
        for unknown in set(exclude) - set(ladders):
            near = difflib.get_close_matches(unknown, ladders, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"exclude: preset {name!r} has no {unknown!r}; it has {', '.join(ladders)}.{hint}")
        kept: dict[str, Any] = {key: ladder for key, ladder in ladders.items() if key not in exclude}
        bank = cls(kept, seed=seed, mean=mean, std=std, value_range=value_range)
        bank._needs_rgb = presets.NEEDS_RGB & set(kept)
        return bank if channels is None else bank.fit_channels(channels)

    def __iter__(self) -> Iterator[View]:
        return iter(self.views)

    def __len__(self) -> int:
        return len(self.views)

    def __getitem__(self, index: int) -> View:
        return self.views[index]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(view.label for view in self)}, seed={self.seed})"

    def describe(self) -> dict[str, Any]:
        """Say what the bank does, in plain types that JSON can hold and that are the same in every process."""
        return {
            "seed": self.seed,
            "mean": list(self.pixels.mean),
            "std": list(self.pixels.std),
            "value_range": list(self.pixels.value_range),
            "views": [
                {
                    "augmentation": view.augmentation,
                    "level": view.level,
                    "severity": view.severity,
                    "moves_pixels": view.moves_pixels,
                    "transform": describe_transform(view.transform),
                }
                for view in self
            ],
        }

    def check(self, images: Tensor, *, what: str = "images") -> None:
        """Raise where images aren't what the bank was told: dtype, shape, NaN, range. See `PixelScale.check`.

        Args:
            images: (B, C, H, W), as the loader gives them.
            what: how the message calls them.
        """
        self.pixels.check(images, what=what)

    def fit_channels(self, channels: int) -> "AugmentationBank":
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
        names = [name for name in dict.fromkeys(view.augmentation for view in self) if name in self._needs_rgb]
        warnings.warn(
            f"Left out {', '.join(names)}: they need images of 3 channels, and these have {channels}.", stacklevel=2
        )
        bank = copy.copy(self)
        bank.views = tuple(view for view in self if view.augmentation not in self._needs_rgb)
        bank._needs_rgb = frozenset()
        bank.left_out = tuple(names)
        return bank

    def augment(self, view: View, images: Tensor | Sequence[Tensor], *, block: int) -> Augmented:
        """Apply a view to one block of images.

        Runs in float32 without autocast, gradients and inference mode, under the seed of (bank, augmentation, block);
        the random streams of Python, NumPy, torch and the images' device, and the default dtype, come back as they
        were.

        Args:
            view: one of the bank's.
            images: (B, C, H, W), as the loader gives them; or several such entries, each of which is drawn under the
                same seed, so that entries of equal shape get the same parameters.
            block: the number of the block that these images are.

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
            return self.draw(view, entries, [self.to_unit(entry) for entry in entries], block=block)

    def to_unit(self, images: Tensor) -> Tensor:
        """What augmentations see of some images: (B, C, H, W) float32 in [0, 1], in memory of its own.

        Raises:
            TypeError: for images that aren't floating point.
            ValueError: for images that aren't (B, C, H, W).
        """
        self.pixels.check_layout(images)
        with _plain_float32(images.device):
            return self.pixels.to_unit(images)

    def draw(
        self, view: View, entries: Sequence[Tensor], units: Sequence[Tensor], *, block: int, changes: bool = False
    ) -> Augmented:
        """As `augment`, for a caller that applies many views to the same images.

        Args:
            view: one of the bank's.
            entries: the images, entry by entry.
            units: what `to_unit` gives for each; they come back as they were.
            block: the number of the block that these images are.
            changes: whether it is known that the view changes images, so that nobody has to look.

        Returns:
            As `augment`; the random streams are left as the view leaves them.
        """
        seed = stable_seed(self.seed, view.augmentation, block)
        done = [self._augment_entry(view, *pair, seed, changes) for pair in zip(entries, units, strict=True)]
        return Augmented(
            images=tuple(augmented for augmented, *_ in done),
            changed=any(changed for _, changed, *_ in done),
            matrix=done[0][2] if done else None,
            through=done[0][3] if done else None,
        )

    def _augment_entry(
        self, view: View, images: Tensor, unit: Tensor, seed: int, changes: bool
    ) -> tuple[Tensor, bool, Tensor | None, Tensor | None]:
        with _plain_float32(images.device):
            reseed(seed, device=images.device)
            version = unit._version
            # What draws from a generator of its own, or counts, would differ from call to call.
            stateless = is_kornia_chain(view.transform)
            transform = view.transform if stateless else copy.deepcopy(view.transform)
            with MatrixRecorder(transform) as recorder:
                augmented = _apply(view, transform, unit if stateless else unit.clone())
            _check_result(view, augmented, unit)
            augmented = augmented.detach().to(unit)
            if augmented.untyped_storage().data_ptr() == unit.untyped_storage().data_ptr():
                augmented = augmented.clone()
            if unit._version != version:
                unit.copy_(self.pixels.to_unit(images))
            changed = changes or augmented.shape != unit.shape or _differ(augmented, unit)
            images_again = self.pixels.from_unit(augmented, dtype=images.dtype)
            return images_again, changed, *recorder.matrices(len(images))


def _differ(images: Tensor, others: Tensor) -> bool:
    # Both are NaN where a pixel is, and NaN differs.
    lowest, highest = torch.aminmax(images - others)
    return not (float(lowest) >= -_NOTICEABLE and float(highest) <= _NOTICEABLE)


@contextmanager
def _plain_float32(device: torch.device) -> Iterator[None]:
    if not (
        torch.is_grad_enabled()
        or torch.is_inference_mode_enabled()
        or torch.is_autocast_enabled(device.type)
        or torch.get_default_dtype() != torch.float32
    ):
        # As for every view of a probe; entering all this takes as long as drawing some of them.
        yield
        return
    with ExitStack() as stack:
        stack.callback(torch.set_default_dtype, torch.get_default_dtype())
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.autocast(device.type, enabled=False))
        torch.set_default_dtype(torch.float32)
        yield


def _apply(view: View, transform: Callable[..., Any], unit: Tensor) -> Any:
    try:
        if isinstance(transform, AugmentationSequential):
            return transform(unit, data_keys=["input"])
        return transform(unit)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        raise RuntimeError(
            f"{view.title} raised {type(error).__name__} on images of shape {tuple(unit.shape)}: {error}"
        ) from error


def _check_result(view: View, result: Any, unit: Tensor) -> None:
    if not isinstance(result, Tensor):
        raise TypeError(f"{view.title} returned {type(result).__name__}, expected a tensor like the images it got.")
    if not result.is_floating_point():
        raise TypeError(f"{view.title} returned {result.dtype}, expected floating point images in [0, 1].")
    if result.ndim != 4 or result.shape[:2] != unit.shape[:2]:
        raise ValueError(
            f"{view.title} turned images of shape {tuple(unit.shape)} into {tuple(result.shape)}; it must keep the "
            "number of images and of channels."
        )
