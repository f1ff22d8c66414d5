"""What is known of a probe beside its numbers: one field for each fact, readable as a mapping."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

#: Fields that are a list or mapping in every result, empty or not.
_ALWAYS = ("left_out", "warnings", "notes")


@dataclass(frozen=True)
class ProbeMetadata(Mapping[str, Any]):
    """The facts of one probe. As a mapping it holds those that are known: a field that is None is not in it.

    Args:
        num_images: N.
        num_blocks: of how many blocks.
        image_ids: each image's number in its source, in the order of the tables.
        content_hash: of the images, in that order.
        content_hash_by_number: of the images in the order of their numbers.
        bank: what was done to the images, in plain data.
        seed: of the choice of images and of the forward's random stream.
        batch_size: at most so many images in one pass.
        device: where the model was.
        world_size: how many processes took part.
        seconds: what the probe took.
        embedding: the layer called the embedding.
        output: which part of the model's output is measured as class scores: "output", "output[2]", "output[logits]".
        output_kind: "classes", or of one number for two classes "logit" or "probability".
        shapes: each layer's activation, of one image.
        grids: of the pixels, each layer and the output whose cells' places in the image are known: how many there are
            ("size"), the pixels from one to the next ("stride"), the pixel of the first one's centre ("offset"), and by
            how many pixels they may lie off that ("spread"), down and right.
        activation_dtypes: the dtypes of activations that were seen.
        noise_floor: how far two equal passes lie apart, as a sensitivity.
        batch_dependent_layers: layers at which images of a batch touch each other.
        clean_block_bytes: what one block's clean activations take.
        unchanged_views: views that changed no pixel.
        views_without_matrix: views that did not tell a matrix.
        implausible_images: what is implausible about the images, as a sentence.
        views_with_ranges: views that draw their magnitude from a range where the bank names a number, and that range.
        views_outside_range: views that put out values far outside of [0, 1], with the lowest and the highest.
        partly_changed_views: views that leave some images as they are by chance, with the share that they change.
        unrepeatable_views: views that differ from draw to draw under one seed.
        self_seeded_views: views that draw, and give the same under every seed.
        largest_class_share: of the images with a label, the share of the class that most are of, on which a model is
            right that always answers it.
        dead_layers: layers that give every clean image the same activation.
        non_finite: by layer the numbers of the images whose activation was not finite.
        non_finite_cells: in how many cells that was.
        missing_cells: by layer the share of cells in which it did not run.
        metrics_left_out: metrics of the default set that apply nowhere, and why.
        metrics_without_influence: metrics that do not say what each image adds to their values.
        readout: of a drift, "pooled" or "flattened" features.
        pooled_for_their_size: of a drift, layers that are too large to be flattened.
        references: of a drift, the epoch of each probe that it is compared with.
        head: of the directions of the embedding that a linear head reads, their number (`directions`) among its
            `features`, the share that `chance` gives and that of the differences `between_images`.
        left_out: the name of a layer, metric or view, and the reason why it is not in the result.
        warnings: sentences that were said aloud.
        warning_kinds: of each of them, by what it is known again where it has other values; empty for its words.
        notes: sentences on what a reader should know.
        versions: of the packages.
        others: what else is to be kept, by name; its entries are those of the mapping too.

    Example:
        >>> metadata = ProbeMetadata(num_images=3, embedding="features", others={"run": "a"})
        >>> metadata["embedding"], metadata["run"], metadata.get("device"), "device" in metadata
        ('features', 'a', None, False)
    """

    num_images: int | None = None
    num_blocks: int | None = None
    image_ids: list[int] | None = None
    content_hash: str | None = None
    content_hash_by_number: str | None = None
    bank: Mapping[str, Any] | None = None
    seed: int | None = None
    batch_size: int | None = None
    device: str | None = None
    world_size: int | None = None
    seconds: float | None = None
    embedding: str | None = None
    output: str | None = None
    output_kind: str | None = None
    shapes: Mapping[str, list[int]] | None = None
    grids: Mapping[str, Mapping[str, list[Any]]] | None = None
    activation_dtypes: list[str] | None = None
    noise_floor: float | None = None
    batch_dependent_layers: list[str] | None = None
    clean_block_bytes: int | None = None
    unchanged_views: list[str] | None = None
    views_without_matrix: list[str] | None = None
    implausible_images: str | None = None
    views_with_ranges: Mapping[str, str] | None = None
    views_outside_range: Mapping[str, list[float]] | None = None
    partly_changed_views: Mapping[str, float] | None = None
    unrepeatable_views: list[str] | None = None
    self_seeded_views: list[str] | None = None
    largest_class_share: float | None = None
    dead_layers: list[str] | None = None
    non_finite: Mapping[str, list[int]] | None = None
    non_finite_cells: int | None = None
    missing_cells: Mapping[str, float] | None = None
    metrics_left_out: Mapping[str, str] | None = None
    metrics_without_influence: list[str] | None = None
    readout: str | None = None
    pooled_for_their_size: list[str] | None = None
    references: Mapping[str, int | None] | None = None
    head: Mapping[str, float] | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    warning_kinds: list[str] | None = None
    notes: list[str] = field(default_factory=list)
    versions: Mapping[str, str] | None = None
    others: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> ProbeMetadata:
        """From plain data such as :meth:`state` gives; what has no field is kept in ``others``."""
        if isinstance(facts, cls):
            return facts
        names = {entry.name for entry in fields(cls)} - {"others"}
        known = {name: value for name, value in facts.items() if name in names}
        for name in _ALWAYS:
            # An older file may hold nothing there.
            if known.get(name) is None:
                known.pop(name, None)
        return cls(**known, others={name: value for name, value in facts.items() if name not in names})

    def state(self) -> dict[str, Any]:
        """The mapping as a dict."""
        return {name: self[name] for name in self}

    def __getitem__(self, name: str) -> Any:
        if name in self.others:
            return self.others[name]
        value = getattr(self, name, None) if name in _NAMES else None
        if value is None:
            raise KeyError(name)
        return value

    def __iter__(self) -> Iterator[str]:
        yield from (name for name in _NAMES if getattr(self, name) is not None)
        yield from self.others

    def __len__(self) -> int:
        return sum(1 for _ in self)


_NAMES = tuple(entry.name for entry in fields(ProbeMetadata) if entry.name != "others")
