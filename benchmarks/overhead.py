"""What a probe costs: `probe_model` against the same augmentations and forward passes without any measuring.

    python benchmarks/overhead.py --rounds 3 --processes 5 --threads 2 --output overhead.json

Of --setting "small" a ResNet-18 layout of width 32 sees 256 images of 3 x 64 x 64 under 8 views, at 18 layers; of
"resnet50" and "vit_s" such a network sees 64 images of 224 pixels under the default bank's 19 views, at the layers that
"auto" chooses. Four arms do that work:

- bare: applies the augmentations and runs the model over clean and augmented images; measures nothing.
- probe: `probe_model`, its input checks, first look, scout and noise floor included: the first probe of a training.
- again: every later probe of a training, for which views and the first look are kept.
- ad-hoc: the script that a person would write: hooks that store, one augmentation at a time, then the formula.

Arms alternate within a round, every other round backwards, so that a slow minute of the machine hits all of them; the
figure is the median over rounds of the time relative to bare in the same round, with quartiles. Rounds are spread over
child processes, since where memory and threads happen to lie stays the same within one. These are told to keep what
memory they have had, as an accelerator's allocator does: else glibc maps every large tensor anew or not, as it happens,
and clearing its pages takes up to 40 % of a pass of ResNet-50. Before anything is timed, the probe's sensitivities are
held against a float64 computation of the same formula.

Extra memory is the peak of an arm minus the peak of bare. On CUDA both are `torch.cuda.max_memory_allocated`. On the
CPU each arm runs in fresh child processes, and the peak is the kernel's own high-water mark of the resident set
(VmHWM), reset after a bare warm-up: sampling would miss short peaks, and `getrusage` can't be reset, so that a peak
while importing would hide the work. Where the mark can't be reset, `getrusage` is what is left, and the JSON says so.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from memory_mark import high_water_mark, reset_high_water_mark
from workloads import ARMS, SETTINGS, Workload

# For glibc: no mapping of its own for a large tensor, and nothing is given back to the kernel.
KEEPING_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}


def time_rounds(work: Workload, arms: list[str], rounds: int) -> dict[str, list[float]]:
    """Run the arms in alternation, every other round backwards; seconds by arm, one per round."""
    for arm in arms:
        work.arm(arm)()
    seconds: dict[str, list[float]] = {arm: [] for arm in arms}
    for number in range(rounds):
        for arm in arms if number % 2 == 0 else reversed(arms):
            _synchronize(work.device)
            started = time.perf_counter()
            work.arm(arm)()
            _synchronize(work.device)
            seconds[arm].append(time.perf_counter() - started)
    return seconds


def time_processes(options: argparse.Namespace, arms: list[str]) -> dict[str, list[float]]:
    """:func:`time_rounds` in child processes one after the other; the rounds of all."""
    seconds: dict[str, list[float]] = {arm: [] for arm in arms}
    for _ in range(options.processes):
        command = ["--time-only", "--rounds", str(options.rounds), "--arms", *arms]
        for arm, rounds in _ask_child(options, command).items():
            seconds[arm] += rounds
    return seconds


def _ask_child(options: argparse.Namespace, command: list[str]) -> Any:
    """What this script prints as JSON when it is run with the same workload and another task."""
    call = [sys.executable, __file__, *command, *_forwarded(options)]
    environment = os.environ | (KEEPING_MEMORY if "--time-only" in command else {})
    answer = subprocess.run(call, check=True, capture_output=True, text=True, env=environment)  # noqa: S603 - this file
    return json.loads(answer.stdout)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def summarize(values: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, median, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return {"median": median, "lower_quartile": low, "upper_quartile": high}


def peak_of_this_process(work: Workload, arm: str) -> dict[str, Any]:
    """Peak memory in MB while one arm runs, after a bare warm-up."""
    work.bare()
    if work.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(work.device)
        work.arm(arm)()
        return {"peak_mb": torch.cuda.max_memory_allocated(work.device) / 2**20, "source": "torch.cuda"}
    resettable = reset_high_water_mark()
    work.arm(arm)()
    kilobytes = high_water_mark() if resettable else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"peak_mb": kilobytes / 1024, "source": "VmHWM" if resettable else "ru_maxrss"}


def measure_memory(options: argparse.Namespace, arms: list[str]) -> dict[str, Any]:
    """Peaks of each arm in child processes of their own, and what each arm needs beyond bare, in MB."""
    peaks: dict[str, list[float]] = {arm: [] for arm in arms}
    source = ""
    for _ in range(options.memory_runs):
        for arm in arms:
            answer = _ask_child(options, ["--peak-of", arm])
            peaks[arm].append(answer["peak_mb"])
            source = answer["source"]
    medians = {arm: statistics.median(values) for arm, values in peaks.items()}
    extra = {arm: medians[arm] - medians["bare"] for arm in arms if arm != "bare"}
    return {"source": source, "peak_mb": peaks, "extra_mb": extra}


def _forwarded(options: argparse.Namespace) -> list[str]:
    given = ["--setting", options.setting, "--threads", str(options.threads), "--device", options.device]
    if options.images:
        given += ["--images", str(options.images)]
    return [*given, "--metrics", *options.metrics]


def describe_machine(options: argparse.Namespace, work: Workload) -> dict[str, Any]:
    """Versions, processor and settings: what a number needs beside it to be repeated."""
    packages = ("kornia-lightning-probe", "torch", "kornia", "torchmetrics", "numpy")
    on_gpu = options.device.startswith("cuda")
    return {
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
        "platform": platform.platform(),
        "cpu": _cpu_model(),
        "cpu_count": os.cpu_count(),
        "gpu": torch.cuda.get_device_name(options.device) if on_gpu else None,
        "threads": torch.get_num_threads(),
        "device": options.device,
        "setting": options.setting,
        "images": len(work.images),
        "layers": len(work.layers),
        "views": len(work.bank),
        "rounds": options.rounds,
        "processes": options.processes,
        "metrics": options.metrics,
        "load_average": os.getloadavg(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds of a process, each running every arm once")
    parser.add_argument("--processes", type=int, default=5, help="child processes that take so many rounds each")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="torch's CPU threads")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--setting", choices=SETTINGS, default="small", help="network, image size and views")
    parser.add_argument("--images", type=int, help="the number of probe images, where it is not the setting's")
    parser.add_argument("--metrics", nargs="+", default=["sensitivity"], help='names, or "default" for all')
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), help="bare always runs")
    parser.add_argument(
        "--memory-runs", type=int, default=3, help="child processes for each arm's peak; 0 leaves it out"
    )
    parser.add_argument("--output", type=Path, help="write all figures there as JSON")
    parser.add_argument("--peak-of", choices=ARMS, help=argparse.SUPPRESS)
    parser.add_argument("--time-only", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def report(figures: dict[str, Any]) -> None:
    """Print the table."""
    extra = figures["memory"].get("extra_mb", {})
    print(f"largest relative error against float64: {figures['largest_relative_error']:.1e}")
    print(f"{'arm':<10}{'seconds':>10}{'ratio':>8}  {'quartiles':<15}{'extra MB':>9}")
    for arm, seconds in figures["seconds"].items():
        ratio = figures["ratio"][arm]
        quartiles = f"{ratio['lower_quartile']:.2f} to {ratio['upper_quartile']:.2f}"
        memory = f"{extra[arm]:.0f}" if arm in extra else "-"
        print(f"{arm:<10}{seconds['median']:>10.2f}{ratio['median']:>8.2f}  {quartiles:<15}{memory:>9}")


def main() -> None:
    """Check, time, weigh, report."""
    options = parse_options()
    torch.set_num_threads(options.threads)
    work = Workload(options.setting, num_images=options.images, device=options.device, metrics=options.metrics)
    if options.peak_of:
        print(json.dumps(peak_of_this_process(work, options.peak_of)))
        return
    arms = [arm for arm in ARMS if arm == "bare" or arm in options.arms]
    if options.time_only:
        print(json.dumps(time_rounds(work, arms, options.rounds)))
        return
    figures: dict[str, Any] = {"machine": describe_machine(options, work), "largest_relative_error": work.check()}
    rounds = time_processes(options, arms)
    ratios = {arm: [mine / bare for mine, bare in zip(rounds[arm], rounds["bare"], strict=True)] for arm in arms}
    figures["seconds"] = {arm: {**summarize(values), "rounds": values} for arm, values in rounds.items()}
    figures["ratio"] = {arm: {**summarize(values), "rounds": values} for arm, values in ratios.items()}
    figures["memory"] = measure_memory(options, arms) if options.memory_runs else {}
    report(figures)
    if options.output:
        options.output.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
