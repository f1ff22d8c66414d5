"""What a page is made of: the results of probes, by probe and stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kornia_lightning_probe.results.lookup import ProbeNumbers
from kornia_lightning_probe.results.tables import CLEAN

#: How the address of a picture begins that stands in the page itself.
ADDRESS = "data:image/png;base64,"


@dataclass(frozen=True)
class Thumbnails:
    """An image and what was made of it, as small pictures.

    Args:
        clean: a `data:image/png;base64,...` address.
        augmented: likewise.
        caption: what is said below them: score, number, label.

    Raises:
        ValueError: For another address: a page asks nothing of the network.
    """

    clean: str
    augmented: str
    caption: str

    def __post_init__(self) -> None:
        for address in (self.clean, self.augmented):
            if not address.startswith(ADDRESS):
                raise ValueError(f"a picture's address must begin with {ADDRESS!r}, got {address[:40]!r}")


@dataclass(frozen=True)
class Probed:
    """The results of one probe in one stage.

    Args:
        name: the probe's.
        results: oldest first.
        stage: "fit", "validate" or "test".
        model: the class of the model; "" where it is not known.
        worst: pairs of pictures of the images that moved furthest; those that the latest result keeps are shown where
            none are given.
        worst_under: the view that moved them so and the layer, in words.
        labels: a name for each result, such as that of its file, for results that have no time to tell them apart.

    Raises:
        ValueError: Without a result.
    """

    name: str
    results: Sequence[ProbeNumbers]
    stage: str = "fit"
    model: str = ""
    worst: Sequence[Thumbnails] = ()
    worst_under: str = ""
    labels: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not self.results:
            raise ValueError(f"the probe {self.name!r} has no results in the stage {self.stage!r}; leave it out")

    @property
    def title(self) -> str:
        """The probe, and the stage where it isn't the training."""
        return self.name if self.stage == "fit" else f"{self.name}, {self.stage}"

    @property
    def latest(self) -> ProbeNumbers:
        """The last result."""
        return self.results[-1]

    @property
    def is_drift(self) -> bool:
        """Whether it compares the clean images' features, and knows no augmentation."""
        return tuple(self.latest.views) == (CLEAN,)

    @property
    def num_epochs(self) -> int:
        """After how many epochs of the training there is a result."""
        return len({numbers.epoch for numbers in self.results if numbers.epoch >= 0})

    @property
    def before(self) -> ProbeNumbers | None:
        """The probe before training; None where there is none, or nothing after it."""
        first = self.results[0]
        return first if first.epoch < 0 and len(self.results) > 1 else None

    @property
    def first_trained(self) -> ProbeNumbers | None:
        """The first probe of the training; None where it is the only one."""
        trained = [numbers for numbers in self.results if numbers.epoch >= 0]
        return trained[0] if self.stage == "fit" and len(trained) > 1 else None

    @property
    def baseline(self) -> ProbeNumbers | None:
        """What changes are relative to: the first result of a training that has several."""
        return self.before or self.first_trained
