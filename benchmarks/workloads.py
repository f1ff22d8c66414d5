"""What the benchmark works on: networks, images and views, and the arms that go through them."""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch._dynamo  # what the first traced pass of a process imports, 68 MB, and optimizers have in any training
from real_size import ResNet50, ViTSmall
from resnet import ResNet18
from torch import Tensor, nn

from kornia_lightning_probe import presets, probe_model
from kornia_lightning_probe.bank.bank import AugmentationBank
from kornia_lightning_probe.engine.sighting import FirstLooks
from kornia_lightning_probe.engine.under_views import KeptViews, Plan, run_probe
from kornia_lightning_probe.images.blocks import Block
from kornia_lightning_probe.images.probe_images import ProbeImages
from kornia_lightning_probe.metrics import resolve_metrics
from kornia_lightning_probe.model.calling import forward_of
from kornia_lightning_probe.model.subject import choose_subject

ARMS = ("bare", "probe", "again", "ad-hoc")
TOLERANCE = 1e-5

Arm = Callable[[], object]


def build_bank() -> AugmentationBank:
    """Four geometric and four photometric presets at one middle level each."""
    return AugmentationBank(
        {
            "hflip": presets.hflip(),
            "rotation": presets.rotation([15]),
            "translation": presets.translation([0.05]),
            "perspective": presets.perspective([0.2]),
            "blur": presets.gaussian_blur([0.01]),
            "noise": presets.gaussian_noise([0.05]),
            "darken": presets.darken([-0.2]),
            "contrast": presets.contrast([0.6]),
        }
    )


def build_images(number: int, size: int, device: torch.device) -> Tensor:
    """Smooth random colour fields with some grain, (N, 3, S, S) in [0, 1]: closer to photographs than noise is."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(number, 3, 8, 8, generator=generator)
    smooth = nn.functional.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=False)
    return (smooth + 0.05 * torch.randn(smooth.shape, generator=generator)).clamp(0, 1).to(device)


class Setting(NamedTuple):
    """A network and what it is shown.

    Attributes:
        model: makes the network.
        size: of its images in pixels.
        images: how many there are, where nobody says otherwise.
        bank: makes the views.
    """

    model: Callable[[], nn.Module]
    size: int
    images: int
    bank: Callable[[], AugmentationBank]


SETTINGS = {
    "small": Setting(ResNet18, 64, 256, build_bank),
    "resnet50": Setting(ResNet50, 224, 64, AugmentationBank.preset),
    "vit_s": Setting(ViTSmall, 224, 64, AugmentationBank.preset),
}


def build_model(setting: Setting, device: torch.device) -> nn.Module:
    """An untrained network in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = setting.model()
    return model.to(device).eval()


class Workload:
    """Model, images and views, and the arms that go through them.

    Args:
        setting: the name of one.
        num_images: how many images; None for those of the setting.
        device: where all of it is.
        metrics: what the probe measures; "default" alone is the default set.
    """

    def __init__(self, setting: str, *, num_images: int | None, device: str, metrics: list[str]) -> None:
        chosen = SETTINGS[setting]
        self.device = torch.device(device)
        self.metrics = None if metrics == ["default"] else metrics
        self.model = build_model(chosen, self.device)
        self.bank = chosen.bank()
        self.images = build_images(num_images or chosen.images, chosen.size, self.device)
        self.probe_images = ProbeImages(self.images)
        self.blocks = self.probe_images.blocks
        self.layers = self._layers()
        self._looks, self._kept = FirstLooks(), KeptViews(256 * 2**20)

    def _layers(self) -> list[str]:
        """The weight layers of the small network, else what "auto" chooses."""
        if isinstance(self.model, ResNet18):
            return self.model.weight_layers()
        with warnings.catch_warnings():
            # Two images are too few to be measured, and enough to see the layers.
            warnings.simplefilter("ignore")
            result = probe_model(
                self.model, self.images[:2], AugmentationBank({"flip": presets.hflip()}), metrics="cosine"
            )
        return list(result.layers)

    def arm(self, name: str) -> Arm:
        """Return what one arm does in one round."""
        return {"bare": self.bare, "probe": self.probe, "again": self.again, "ad-hoc": self.ad_hoc}[name]

    @torch.no_grad()
    def bare(self) -> None:
        """Augment and run the model; keep nothing."""
        for block in self.blocks:
            self.model(block.inputs)
            for view in self.bank:
                self.model(view.transform(block.inputs))

    def probe(self) -> Any:
        """Measure with the package."""
        return probe_model(self.model, self.images, self.bank, layers=self.layers, metrics=self.metrics)

    def again(self) -> Any:
        """Measure as the second and every later probe of a training does, which keeps views and its first look."""
        subject = choose_subject(
            self.model, forward_of(self.model), layers=self.layers, embedding=None, device=self.device
        )
        plan = Plan(
            images=self.probe_images,
            bank=self.bank,
            metrics=resolve_metrics(self.metrics),
            default_set=self.metrics is None,
            looks=self._looks,
            kept=self._kept,
        )
        return run_probe(subject, plan)

    @torch.no_grad()
    def ad_hoc(self) -> list[list[float]]:
        """Store the activations of all images, one augmentation at a time, and compare them."""
        stored: dict[str, list[Tensor]] = {}
        modules = dict(self.model.named_modules())
        layers = self.layers
        handles = [modules[name].register_forward_hook(_storing(stored, name)) for name in layers]
        clean = self._activations(stored, lambda images: images)
        rows = []
        for view in self.bank:
            augmented = self._activations(stored, view.transform)
            rows.append([_plain_sensitivity(clean[name], augmented[name]) for name in layers])
        for handle in handles:
            handle.remove()
        return rows

    def _activations(self, stored: dict[str, list[Tensor]], transform: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        stored.clear()
        for block in self.blocks:
            self.model(transform(block.inputs))
        return {name: torch.cat(parts) for name, parts in stored.items()}

    @torch.no_grad()
    def expected(self) -> Tensor:
        """S of every view and layer in float64, block by block from stored activations, (views, layers).

        Of maps under a view that moves pixels it is that of the spatial mean.
        """
        moved = torch.zeros(len(self.bank), len(self.layers), dtype=torch.float64)
        between = torch.zeros_like(moved)
        for block in self.blocks:
            clean = self._layer_outputs(block.inputs)
            for row, view in enumerate(self.bank):
                augmented = self._layer_outputs(self._augmented(view, block))
                for layer, outputs in enumerate(zip(clean, augmented, strict=True)):
                    a, b = (_compared(output, pooled=view.moves_pixels) for output in outputs)
                    n = len(a)
                    between[row, layer] += n / (n - 1) * (a - a.mean(0)).square().sum().cpu()
                    moved[row, layer] += (b - a).square().sum().cpu()
        return (moved / (2 * between)).sqrt()

    def _augmented(self, view: Any, block: Block) -> Tensor:
        images = self.bank.augment(view, block.inputs, block=block.index).images
        return images if isinstance(images, Tensor) else images[0]

    def _layer_outputs(self, images: Tensor) -> list[Tensor]:
        stored: dict[str, list[Tensor]] = {}
        modules = dict(self.model.named_modules())
        handles = [modules[name].register_forward_hook(_storing(stored, name, flat=False)) for name in self.layers]
        self.model(images)
        for handle in handles:
            handle.remove()
        return [stored[name][0].double() for name in self.layers]

    def check(self) -> float:
        """Return the largest relative error of the probe's sensitivities.

        Raises:
            SystemExit: if it is above 1e-5: a wrong answer has no speed.
        """
        result = self.probe()
        table = [
            [
                result.value("sensitivity", layer, augmentation=view.augmentation, level=view.level)
                for layer in self.layers
            ]
            for view in self.bank
        ]
        expected = self.expected()
        error = float(((torch.tensor(table, dtype=torch.float64) - expected) / expected).abs().max())
        if not error <= TOLERANCE:
            raise SystemExit(f"the probe is off by {error:.2g} of the float64 values, {TOLERANCE:.0e} is allowed")
        return error


def _storing(
    stored: dict[str, list[Tensor]], name: str, *, flat: bool = True
) -> Callable[[nn.Module, Any, Tensor], None]:
    def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        kept = output.detach().flatten(1) if flat else output.detach()
        stored.setdefault(name, []).append(kept.clone())

    return hook


def _compared(output: Tensor, *, pooled: bool) -> Tensor:
    """What sensitivity compares of a layer: its mean over cells or tokens, or all of it, (B, features)."""
    if not pooled or output.ndim == 2:
        return output.flatten(1)
    return output.mean((2, 3)) if output.ndim == 4 else output.mean(1)


def _plain_sensitivity(clean: Tensor, augmented: Tensor) -> float:
    moved = (augmented - clean).square().sum(1).mean()
    spread = (clean - clean.mean(0)).square().sum(1).sum() / (len(clean) - 1)
    return float((moved / (2 * spread)).sqrt())
