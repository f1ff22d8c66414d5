"""What each measure costs: a later probe of `sensitivity` and one measure more, against one of `sensitivity` alone.

    python benchmarks/metric_costs.py --setting small --rounds 5 --output metric_costs.json

Networks and views are those of overhead.py. Views are kept, so that nothing is drawn. All measures take turns within a
round, every other round backwards, so that a slow minute hits all of them; of each the fastest round counts, since a
busy machine only ever adds, and what is added here is mostly more than what a measure costs. Figures are in per cent of
the bare augmenting and forward passes, on one thread, in time of the processor. What several measures share, such as
the distances of whole maps, counts at each of them, so that they add up to more than the default set, which is last.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from workloads import SETTINGS, Workload

from kornia_lightning_probe.metrics import resolve_metrics

BARE, BASE, ALL = "bare", "sensitivity", "the default set"


def seconds_of(work: Callable[[], object]) -> float:
    """What a call takes of the processor."""
    started = time.process_time()
    work()
    return time.process_time() - started


def measure(work: Workload, rounds: int) -> dict[str, list[float]]:
    """Seconds of the bare work, of each measure beside the sensitivity, and of all, one for each round."""
    names = [metric.name for metric in resolve_metrics(None)]
    sets: dict[str, list[str] | None] = {name: [BASE, name] for name in names if name != BASE}
    sets |= {BASE: [BASE], ALL: None}

    def seconds(name: str) -> float:
        if name == BARE:
            return seconds_of(work.bare)
        work.metrics = sets[name]
        return seconds_of(work.again)

    turns = [BARE, *sets]
    seconds(ALL)
    found: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(rounds):
        for name in turns if number % 2 == 0 else reversed(turns):
            found[name].append(seconds(name))
    return found


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--setting", choices=SETTINGS, default="small", help="network, image size and views")
    parser.add_argument("--images", type=int, help="the number of probe images, where it is not the setting's")
    parser.add_argument("--output", type=Path, help="write the seconds of all rounds there as JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    work = Workload(options.setting, num_images=options.images, device="cpu", metrics=[BASE])
    found = measure(work, options.rounds)
    fastest = {name: min(seconds) for name, seconds in found.items()}
    bare, base = fastest.pop(BARE), fastest.pop(BASE)
    print(f"bare {bare:.2f} s; {BASE} {base / bare:.2f} times that; beside it, in per cent of the bare work:")
    for name, seconds in sorted(fastest.items(), key=lambda item: item[1]):
        print(f"{name:<22}{100 * (seconds - base) / bare:>6.1f}")
    if options.output:
        options.output.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
