"""How time and memory of a probe grow with images, views, layers and processes: draws docs/pictures/growth.png.

    python benchmarks/growth.py --output docs/pictures/growth.png --figures growth.json

The small network of the overhead benchmark and the default set. Each point is a process of its own with one thread, and
the mean of two trials: the first probe of a training, and a later one, which has its first look behind it. Time is that
of the processor, so that a busy machine changes little. No views are kept, so that memory shows what a probe itself
needs: its peak beyond that of the network's passes and of the images. Of 64 processes one rank's share is run, with the
sums and meetings left out; 2 and 4 are real, and the busiest of them counts.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # what the first traced pass of a process imports, and optimizers have in any training
import torch.distributed as dist
from matplotlib.figure import Figure
from memory_mark import high_water_mark, reset_high_water_mark
from torch import Tensor
from workloads import SETTINGS, build_images, build_model

from kornia_lightning_probe import AugmentationBank, presets
from kornia_lightning_probe.engine.processes import World
from kornia_lightning_probe.engine.sighting import FirstLooks
from kornia_lightning_probe.engine.under_views import Plan, run_probe
from kornia_lightning_probe.images.probe_images import ProbeImages
from kornia_lightning_probe.metrics import resolve_metrics
from kornia_lightning_probe.model.calling import forward_of
from kornia_lightning_probe.model.subject import choose_subject

USUAL = {"images": 256, "views": 8, "layers": 18, "processes": 1}
AXES: dict[str, list[int]] = {
    "images": [64, 256, 1024],
    "views": [2, 8, 32],
    "layers": [2, 6, 18],
    "processes": [1, 2, 4, 64],
}
SIMULATED = 8
PROBES = 2


def world_of(rank: int, size: int) -> World:
    """The processes of a point: none beside this, real ones, or one rank's share of many."""
    if size == 1:
        return World()
    if size > SIMULATED:
        return World(rank=rank, size=size, gather=lambda text: [text] * size)
    return World(rank=rank, size=size, add=_sum, gather=_gather)


def _sum(tensor: Tensor) -> Tensor:
    dist.all_reduce(tensor)
    return tensor


def _gather(text: str) -> list[str]:
    texts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(texts, text)
    return texts


def measure(point: dict[str, int], rank: int) -> dict[str, float]:
    """CPU seconds of a first and of a later probe, and the peak of memory beyond bare passes in MB."""
    torch.set_num_threads(1)
    device = torch.device("cpu")
    model = build_model(SETTINGS["small"], device)
    layers: list[str] = model.weight_layers()[: point["layers"]]  # type: ignore[operator] # it is the small network
    levels = [0.2 * level / point["views"] for level in range(1, point["views"] + 1)]
    source = build_images(point["images"], 64, device)
    world = world_of(rank, point["processes"])
    forward = forward_of(model)
    subject = choose_subject(model, forward, layers=layers, embedding=None, device=device)
    images = ProbeImages(source, rank=world.rank, world_size=world.size)
    del source
    with torch.no_grad():
        model(images.scout.inputs)
    resettable = reset_high_water_mark()
    before = high_water_mark()
    first: list[float] = []
    later: list[float] = []
    for _ in range(PROBES):
        # Made anew, since what a bank draws of some images is looked at once.
        bank = AugmentationBank({"noise": presets.gaussian_noise(levels)})
        looks = FirstLooks()
        for seconds in (first, later):
            plan = Plan(images, bank, resolve_metrics(None), default_set=True, world=world, looks=looks)
            started = time.process_time()
            run_probe(subject, plan)
            seconds.append(time.process_time() - started)
    peak = (high_water_mark() - before) / 1024 if resettable else float("nan")
    return {"first": statistics.median(first), "later": statistics.median(later), "extra_mb": peak}


def run_point(point: dict[str, int]) -> dict[str, float]:
    """A point in processes of its own; the slowest of them counts, and of memory the largest."""
    real = point["processes"] if point["processes"] <= SIMULATED else 1
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, __file__, "--point", json.dumps(point), "--meeting", f"{folder}/meeting"]
        started = [
            subprocess.Popen([*command, "--rank", str(rank)], stdout=subprocess.PIPE, text=True, env=environment)  # noqa: S603
            for rank in range(real)
        ]
        answers = [json.loads(process.communicate()[0]) for process in started]
    return {name: max(answer[name] for answer in answers) for name in answers[0]}


def answer_point(options: argparse.Namespace) -> None:
    """Print one process's part of a point."""
    point = json.loads(options.point)
    is_real = 1 < point["processes"] <= SIMULATED
    if is_real:
        dist.init_process_group(
            "gloo", init_method=f"file://{options.meeting}", rank=options.rank, world_size=point["processes"]
        )
    print(json.dumps(measure(point, options.rank)))
    if is_real:
        dist.destroy_process_group()


def draw(figures: dict[str, dict[str, dict[str, float]]]) -> Figure:
    """Seconds above, memory below, a column for what grows."""
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    rows = figure.subplots(2, len(AXES), sharey="row")
    for column, axis in enumerate(AXES):
        points = {int(value): answer for value, answer in figures[axis].items()}
        upper, lower = rows[0][column], rows[1][column]
        for name, style in (("first", "o-"), ("later", "s--")):
            upper.plot(list(points), [answer[name] for answer in points.values()], style, label=f"{name} probe")
        lower.plot(list(points), [answer["extra_mb"] for answer in points.values()], "o-", color="#555555")
        if axis == "processes":
            for axes in (upper, lower):
                axes.set_xscale("log", base=2)
        for axes in (upper, lower):
            axes.set_xticks(list(points), [str(value) for value in points])
            axes.grid(alpha=0.3)
            axes.spines[["top", "right"]].set_visible(False)
        lower.set_xlabel(axis)
    for row in rows:
        # The axes of a row are one.
        row[0].set_ylim(bottom=0)
    rows[0][0].set_ylabel("CPU seconds of a process")
    rows[0][0].legend(frameon=False)
    rows[1][0].set_ylabel("MB beyond passes and images")
    return figure


def main() -> None:
    """Measure every point, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("growth.png"))
    parser.add_argument("--figures", type=Path, default=Path("growth.json"), help="the numbers as JSON")
    parser.add_argument("--point", help=argparse.SUPPRESS)
    parser.add_argument("--meeting", help=argparse.SUPPRESS)
    parser.add_argument("--rank", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.point:
        answer_point(options)
        return
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for axis, values in AXES.items():
        figures[axis] = {}
        for value in values:
            figures[axis][str(value)] = answer = run_point({**USUAL, axis: value})
            told = f"first {answer['first']:.2f} s, later {answer['later']:.2f} s, {answer['extra_mb']:.0f} MB"
            print(f"{axis} {value}: {told}", flush=True)
    options.figures.write_text(json.dumps(figures, indent=2))
    draw(figures).savefig(options.output, dpi=110)


if __name__ == "__main__":
    main()
