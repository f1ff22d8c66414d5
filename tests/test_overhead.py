import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parent.parent / "benchmarks" / "overhead.py"


@pytest.mark.slow
def test_the_benchmark_checks_its_answer_and_writes_what_it_measured(tmp_path):
    output = tmp_path / "overhead.json"
    options = ["--images", "8", "--rounds", "2", "--processes", "2", "--memory-runs", "1", "--threads", "1"]
    command = [sys.executable, str(BENCHMARK), *options, "--output", str(output)]
    subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - our own script
    figures = json.loads(output.read_text())
    assert figures["largest_relative_error"] < 1e-5
    # Bare is what the others are divided by.
    assert figures["ratio"]["bare"]["rounds"] == [1.0] * 4
    assert set(figures["memory"]["extra_mb"]) == {"probe", "again", "ad-hoc"}
    # 80 MB is what a probe of 256 images may take; of 8 it can't be more.
    assert figures["memory"]["extra_mb"]["probe"] < 80
    assert figures["machine"]["versions"]["kornia"]
