"""Files and checkpoints of format 1, as they were written before sensitivity had one meaning."""

import json

import pytest
import torch

from kornia_lightning_probe.result import ProbeResult

# A map, a sequence with a class token, a vector, and the pixels, under a view that moves pixels and one that doesn't.
FILE = """{
  "format": 1, "epoch": 4, "step": 200, "layers": ["stem", "block", "head"],
  "views": [
    {"augmentation": "rotation", "level": 1, "severity": 15.0, "from_identity": true, "geometric": true},
    {"augmentation": "blur", "level": 1, "severity": 0.02, "from_identity": true, "geometric": false}
  ],
  "tables": {
    "sensitivity": {
      "layers": ["input", "stem", "block", "head"],
      "value": [[0.9, 0.8, 0.7, 0.6], [0.5, 0.4, 0.3, null]],
      "std_error": [[0.09, 0.08, 0.07, 0.06], [0.05, 0.04, 0.03, null]],
      "num_images": [[32, 32, 32, 32], [32, 32, 32, 0]],
      "attempted": [[true, true, true, true], [true, true, true, true]]
    },
    "sensitivity_pooled": {
      "layers": ["input", "stem", "block:cls", "block:patch"],
      "value": [[0.01, 0.25, 0.11, 0.12], [0.02, 0.35, 0.13, 0.14]],
      "std_error": [[0.001, 0.025, 0.011, 0.012], [0.002, 0.035, 0.013, 0.014]],
      "num_images": [[30, 30, 30, 30], [30, 30, 30, 30]],
      "attempted": [[true, true, true, true], [true, true, true, true]]
    },
    "sensitivity_median": {
      "layers": ["stem"], "value": [[0.5], [0.25]], "std_error": [[null], [null]], "num_images": [[32], [32]],
      "attempted": [[true], [true]]
    },
    "retrieval_auc": {
      "layers": ["head"], "value": [[0.75], [1.0]], "std_error": [[0.01], [0.0]], "num_images": [[32], [32]],
      "attempted": [[true], [true]]
    },
    "mine": {
      "layers": ["head"], "value": [["inf"], ["-inf"]], "std_error": [[null], [null]], "num_images": [[32], [32]],
      "attempted": [[true], [false]]
    }
  },
  "metadata": {
    "num_images": 32, "device": "cpu", "embedding": "block", "notes": null,
    "shapes": {"stem": [4, 8, 8], "block": [17, 6], "head": [3]},
    "metrics_without_influence": ["sensitivity_median"], "metrics_left_out": {"sensitivity": "asked for elsewhere"}
  },
  "severity": {"sensitivity": {"threshold": 0.25}}
}
"""


@pytest.fixture
def result(tmp_path):
    path = tmp_path / "epoch=4-step=200.json"
    path.write_text(FILE, encoding="utf-8")
    return ProbeResult.from_json(path)


def test_an_old_file_shows_the_one_number_and_the_old_ones_under_their_new_names(result):
    names = ("sensitivity", "sensitivity_flat", "sensitivity_pooled", "channel_median", "retrieval_auc", "mine")
    assert result.metrics == names
    # The map is pooled under rotation; pixels and vector never are, and under blur nothing is.
    assert result.value("sensitivity", "stem", "rotation") == 0.25
    assert result.std_error("sensitivity", "stem", "rotation") == 0.025
    assert [result.value("sensitivity", layer, "rotation") for layer in ("input", "head")] == [0.9, 0.6]
    assert [result.value("sensitivity", layer, "blur") for layer in ("input", "stem", "block")] == [0.5, 0.4, 0.3]
    assert result.value("sensitivity_flat", "stem", "rotation") == 0.8
    assert result.value("channel_median", "stem", "rotation") == 0.5
    assert result.table("sensitivity").num_images.tolist() == [[32, 30, 0, 32], [32, 32, 32, 0]]


def test_the_mean_over_all_tokens_was_never_measured_and_has_no_row(result):
    rows = [row for row in result.rows if row.metric == "sensitivity" and row.layer == "block"]
    assert [row.augmentation for row in rows] == ["blur"]


def test_views_say_what_moves_pixels(result):
    assert [view.moves_pixels for view in result.views] == [True, False]
    assert "maps and tokens: spatial mean under rotation" in result.summary(full=True)


def test_known_metrics_have_their_quantity_and_others_have_none(result):
    assert result.table("sensitivity").quantity.line == 1.0
    assert result.table("retrieval_auc").quantity.at_identity == 1.0
    assert result.table("mine").quantity.at_identity is None
    # The presets' curve starts at the identity: a triangle of .25 over its range.
    curve = next(row for row in result.severity() if (row.layer, row.augmentation) == ("stem", "rotation"))
    assert (curve.start, curve.area) == (0.0, pytest.approx(0.125))


def test_metadata_name_the_metrics_anew(result):
    assert result.metadata.metrics_without_influence == ["channel_median"]
    assert result.metadata.metrics_left_out == {"sensitivity_flat": "asked for elsewhere"}
    assert result.metadata.notes == []


def test_an_old_file_is_written_in_the_new_format_and_read_again(result):
    assert json.loads(result.to_json())["format"] == 2
    again = ProbeResult.from_json(result.to_json())
    assert again.to_json() == result.to_json()


def test_the_state_of_an_old_checkpoint_reads_as_its_file_does(result):
    state = json.loads(FILE)
    dtypes = {"value": torch.float64, "std_error": torch.float64, "num_images": torch.int64, "attempted": torch.bool}
    for table in state["tables"].values():
        for name, dtype in dtypes.items():
            cells = [[float("nan" if cell is None else cell) for cell in row] for row in table[name]]
            table[name] = torch.tensor(cells).to(dtype) if dtype != torch.float64 else torch.tensor(cells, dtype=dtype)
    assert ProbeResult.from_state(state).to_json() == result.to_json()


def test_without_a_pooled_one_maps_have_no_number_where_pixels_move():
    state = json.loads(FILE)
    del state["tables"]["sensitivity_pooled"]
    result = ProbeResult.from_state(state)
    assert result.value("sensitivity", "head", "rotation") == 0.6
    rows = [row.layer for row in result.rows if row.metric == "sensitivity" and row.augmentation == "rotation"]
    assert rows == ["input", "head"]


def test_without_a_sensitivity_there_is_none():
    state = json.loads(FILE)
    del state["tables"]["sensitivity"]
    assert "sensitivity" not in ProbeResult.from_state(state).metrics


def test_an_old_drift_says_what_it_means():
    state = {
        "format": 1, "epoch": 0, "step": 0, "layers": ["stem"],
        "views": [{"augmentation": "clean", "level": 1, "severity": 0.0}],
        "tables": {
            "rankme": {"layers": ["stem"], "value": [[2.0]], "std_error": [[None]], "num_images": [[4]]},
        },
    }  # fmt: skip
    assert "how many directions the images spread over" in ProbeResult.from_state(state).summary(full=True)
