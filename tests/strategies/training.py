"""A script that trains with a probe, for those who start it: torchrun, SLURM, Lightning's own launchers."""

from __future__ import annotations

import argparse
import warnings

import torch
from support.even import befall, train
from support.processes import ddp
from support.trainings import images_of


def main() -> None:
    """Train as told on the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--start", default="popen", choices=["popen", "spawn", "fork"])
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--images", type=int, default=80)
    parser.add_argument("--mishap", default="")
    told = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    options = {"strategy": ddp(method=told.start), "num_nodes": told.nodes, "devices": told.devices}
    if told.mishap:
        befall(told.folder, told.mishap, rank=told.nodes * told.devices - 1, **options)
        return
    processes = told.nodes * told.devices
    train(told.folder, processes=processes, images=images_of(told.images, seed=3), **options)


if __name__ == "__main__":
    main()
