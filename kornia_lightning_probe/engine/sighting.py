"""The first look at a model: two images, every module watched, each activation reduced at once and never kept."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kornia_lightning_probe.engine.processes import World
from kornia_lightning_probe.images.batches import describe
from kornia_lightning_probe.images.blocks import Block
from kornia_lightning_probe.images.labels import Targets
from kornia_lightning_probe.images.nested import image_entries, join_rows, map_tensors
from kornia_lightning_probe.images.probe_images import ProbeImages
from kornia_lightning_probe.model.choosing import choose_scores
from kornia_lightning_probe.model.outputs import have_one_number
from kornia_lightning_probe.model.scores import Choice
from kornia_lightning_probe.model.sighting import Sighting
from kornia_lightning_probe.model.subject import Subject
from kornia_lightning_probe.model.tracing import trace
from kornia_lightning_probe.model.tree import module_tree
from kornia_lightning_probe.model.undisturbed import guarded_parameters
from kornia_lightning_probe.randomness import reseed, stable_seed
from kornia_lightning_probe.wording import listed

# What puts out logits, if any.
_PRODUCTS = (nn.Linear, nn.Conv2d, nn.Conv3d)
# What Hugging Face calls the output that others hang on.
_MAIN_ENTRIES = ("logits", "last_hidden_state")
# What torch says of two dtypes that do not go together.
_OF_DTYPES = re.compile("dtype|scalar type|double|float|half", re.IGNORECASE)
_OTHER_CALLS = (
    "If it takes something else, forward= says how it is called: forward=lambda model, images: "
    "model(pixel_values=images), or model(images.permute(0, 2, 3, 1)) where channels come last"
)
_OTHER_CALLS_OF_DICT = (
    "If it takes something else, forward= says how it is called, as forward=lambda model, inputs: model(**inputs); "
    "to_inputs= picks the inputs out of a batch, and image_keys= says which of them are images"
)
_OTHER_CALLS_OF_TUPLE = (
    "If it takes the images alone, pass these alone: labels go into labels= or a dataset, and to_inputs= picks the "
    "inputs out of a batch; image_keys= says which entries are images, and forward= how the model is called, as "
    "forward=lambda model, inputs: model(inputs[0])"
)


@dataclass(frozen=True)
class FirstLook:
    """What a first look has shown.

    Args:
        sighting: which layers and which embedding there are.
        choice: what of the output is class scores.
    """

    sighting: Sighting
    choice: Choice


class StaleLookError(RuntimeError):
    """A model does otherwise than it did when it was looked at."""


class FirstLooks:
    """Looks at a model once, and again where it has become another one.

    What a look shows (layers, axes of images, grids, the head) follows from what a model is made of, and not from the
    values of weights. Another one has other modules, settings of modules or shapes of parameters, or gives activations
    of other layers or shapes. What else a forward does otherwise, at the same shapes and by nothing that its modules
    hold, such as another path from some epoch on, is not seen.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Look anew the next time."""
        self._look: FirstLook | None = None
        self._makeup: tuple[Any, ...] = ()
        self._found: list[Any] | None = None

    @property
    def is_first(self) -> bool:
        """Whether nothing has been seen yet."""
        return self._look is None

    def of(self, subject: Subject, block: Block, **options: Any) -> FirstLook:
        """What a first look shows, see :func:`look_at`; where it is the first one, parameters are guarded.

        Raises:
            RuntimeError: where the model changes its parameters.
        """
        makeup = _makeup(subject.model)
        if self._look is None or makeup != self._makeup:
            self.forget()
            with guarded_parameters(subject.model):
                self._look = look_at(subject, block, **options)
            self._makeup = makeup
        return self._look

    def require_same(self, names: Sequence[str], shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Hold what a scout has found against what it found after the look.

        Args:
            names: the layers that can be compared, the output among them.
            shapes: of their activations as the model gave them.

        Raises:
            StaleLookError: where it is something else.
        """
        found = [*names, *((name, tuple(shape)) for name, shape in shapes.items())]
        if self._found is None:
            self._found = found
        if self._found != found:
            raise StaleLookError("the model gives activations of other layers or shapes than when it was looked at")


def _makeup(model: nn.Module) -> tuple[Any, ...]:
    """What a model is made of, but for the values of its weights."""
    modules = tuple((name, id(module), type(module), _settings(module)) for name, module in model.named_modules())
    parameters = tuple((name, tuple(parameter.shape)) for name, parameter in model.named_parameters())
    return modules, parameters


def _settings(module: nn.Module) -> tuple[Any, ...]:
    """What a module says of itself, and its plain attributes, such as a flag that its forward reads."""
    held = vars(module).items()
    named = [(name, value) for name, value in held if name != "training" and not name.startswith("_")]
    return module.extra_repr(), tuple((name, value) for name, value in named if _is_plain(value))


def _is_plain(value: object) -> bool:
    """Whether a value can be held and compared: no tensor, nor a tuple of some."""
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def agreed_targets(images: ProbeImages, world: World) -> Targets:
    """What all probe images are labelled with, the same on every process.

    Args:
        images: those of this process.
        world: all processes; they meet here, where there are labels.
    """
    if world.size == 1 or images.scout.labels is None:
        return images.targets
    texts = world.exchange(images.targets.to_text())
    return Targets.joined(Targets.from_text(text) for text in texts)


def look_at(
    subject: Subject, block: Block, *, seed: int, targets: Targets | None = None, is_asked_for: bool = False
) -> FirstLook:
    """Run a model on two images of a block, follow what its operators do, and choose what of its output is used.

    Args:
        subject: the model.
        block: the first block, on the model's device; of one image, the second is its mirror image.
        seed: of the random stream that the pass finds.
        targets: what all probe images are labelled with.
        is_asked_for: whether measures of class scores were asked for by name.

    Raises:
        Exception: whatever the model raises, with a note that says what it was called with, and the ways out.
    """
    inputs = map_tensors(_two_images(block), torch.clone)
    modules = {node.name: node.module for node in module_tree(subject.model).walk() if node.runs}
    differs: dict[str, bool] = {}

    numbers: list[Tensor] = []

    def receive(name: str, activation: Tensor) -> None:
        if activation.is_quantized:
            activation = activation.dequantize()
        if not activation.is_nested and activation.shape[0] == 2:
            differs[name] = not torch.equal(activation[0], activation[1])
            if isinstance(modules.get(name), _PRODUCTS) and have_one_number(activation):
                numbers.append(activation.clone())

    reseed(stable_seed(seed, "forward", block.index, "sight"), device=subject.device)
    entries = image_entries(inputs, block.image_keys)
    grid_axes = block.layout.grid_axes
    with trace(modules, entries, model=subject.model, grid_axes=grid_axes, receive=receive) as tracing:
        output = _first_output(subject, inputs)
    choice = choose_scores(
        output,
        num_images=2,
        image_shape=tuple(entries[0].shape[1:]),
        targets=targets or Targets(),
        layout=block.layout,
        is_asked_for=is_asked_for,
    ).knowing_numbers(output, numbers)
    scores = None if choice.scores is None else choice.scores.part_of(output)
    grid = None if scores is None else tracing.grid_of_output(scores)
    is_sharded = any(hasattr(parameter, "device_mesh") for parameter in subject.model.parameters())
    sighting = Sighting(tracing.result(_main_entry(choice.of(output))), differs, knows_head=not is_sharded, output=grid)
    return FirstLook(sighting, choice.knowing(has_head=sighting.trace.head.exists))


def first_forward_note(error: Exception, inputs: Any, model: nn.Module) -> str:
    """What the model was called with in the first forward, and what to do where that is not what it takes.

    Args:
        error: what it raised.
        inputs: what it was called with.
        model: the model.

    Example:
        >>> note = first_forward_note(ValueError("no pixels"), {"pixels": torch.zeros(2, 3, 8, 8)}, nn.Flatten())
        >>> note.split(". ")[0]
        "the probe's first forward called Flatten(inputs) with a dict of 'pixels': float32 (2, 3, 8, 8)"
    """
    name = type(model).__name__
    call, way_out = f"{name}(images)", _OTHER_CALLS
    if isinstance(inputs, Mapping):
        call, way_out = f"{name}(inputs)", _OTHER_CALLS_OF_DICT
    elif isinstance(inputs, tuple):
        call, way_out = f"{name}(*inputs)", _OTHER_CALLS_OF_TUPLE
    sentences = [f"the probe's first forward called {call} with {describe(inputs)}"]
    if _OF_DTYPES.search(str(error)):
        sentences += _other_dtypes(inputs, model)
    return ". ".join([*sentences, way_out])


def _other_dtypes(inputs: Any, model: nn.Module) -> list[str]:
    """What to do about images of another dtype than the parameters."""
    floats: set[torch.dtype] = set()

    def look(tensor: Tensor) -> Tensor:
        if tensor.is_floating_point():
            floats.add(tensor.dtype)
        return tensor

    map_tensors(inputs, look)
    weights = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
    if not weights or not floats - weights:
        return []
    came, wanted = _names(floats), _names(weights)
    return [f"The images are {came} and the parameters {wanted}: convert the images, in the dataset or by to_inputs="]


def _names(dtypes: Iterable[torch.dtype]) -> str:
    return listed(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))


def _first_output(subject: Subject, inputs: Any) -> Any:
    try:
        return subject.forward(inputs)
    except Exception as error:
        if not isinstance(error, torch.OutOfMemoryError | MemoryError):
            error.add_note(first_forward_note(error, inputs, subject.model))
        raise


def _main_entry(output: Any) -> Any:
    """The entry of an output whose name says that it is the main one; else all of it."""
    if not isinstance(output, Mapping):
        return output
    named = [output[name] for name in _MAIN_ENTRIES if isinstance(output.get(name), Tensor)]
    return named[0] if named else output


def _two_images(block: Block) -> Any:
    if len(block) > 1:
        return block.rows(0, 2)
    mirrored = block.with_images([image.flip(-1) for image in block.images])
    return join_rows([block.inputs, mirrored])
