import io
import json
import math
import re
import struct
from dataclasses import replace

import pytest
import torch
from support.made_results import SENSITIVITY, made_result, table_of, views_of

from kornia_lightning_probe.quantity import Quantity
from kornia_lightning_probe.result import ProbeResult

NAN = float("nan")


def bits(number):
    return struct.pack("<d", number)


def one_layer(values, **options):
    views = views_of({"blur": tuple(range(1, len(values) + 1))})
    return ProbeResult(layers=("fc",), views=views, tables={"own": table_of(("fc",), values, **options)})


def test_json_brings_every_number_back_bit_for_bit(tmp_path):
    generator = torch.Generator().manual_seed(0)
    numbers = torch.cat([torch.randn(200, 1, generator=generator, dtype=torch.float64).exp() ** 9, torch.zeros(1, 1)])
    special = torch.tensor([[0.1], [-0.0], [5e-324], [1.7976931348623157e308], [NAN], [math.inf], [-math.inf]])
    result = one_layer(torch.cat([numbers, special.double()]).tolist())
    result.to_json(tmp_path / "probe.json")
    again = ProbeResult.from_json(tmp_path / "probe.json")
    assert [bits(row.value) for row in again.rows] == [bits(row.value) for row in result.rows]
    assert [row[:8] for row in again.rows] == [row[:8] for row in result.rows]
    assert again.to_json() == result.to_json()


def test_json_is_strict_and_has_null_for_nan():
    def refuse(constant):
        raise AssertionError(constant)

    found = json.loads(one_layer([[NAN], [math.inf]]).to_json(), parse_constant=refuse)
    assert found["format"] == 2
    assert found["tables"]["own"]["value"] == [[None], ["inf"]]


def test_json_text_is_read_as_well_as_a_path():
    assert ProbeResult.from_json(made_result().to_json()).rows == made_result().rows


def test_a_result_without_views_survives_json():
    result = ProbeResult(layers=("fc",), views=[], tables={"own": table_of(("fc",), torch.zeros(0, 1))})
    assert ProbeResult.from_json(result.to_json()).tensor("own").shape == (0, 1)


def test_a_later_format_is_refused():
    with pytest.raises(
        ValueError, match=r"^the JSON text: this is no probe result of format 1 to 2: its format is 99;"
    ):
        ProbeResult.from_json('{"format": 99}')
    with pytest.raises(ValueError, match=r"^format is missing$"):
        ProbeResult.from_state({})


def test_a_checkpoint_loads_the_state_as_weights_only_and_it_is_small():
    result = made_result(layers=tuple(f"layer{i}" for i in range(16)))
    file = io.BytesIO()
    torch.save(result.state(), file)
    # 6 views x 18 layers of 8 + 8 + 8 + 1 bytes are 2.7 kB; the rest is the archive's own.
    assert file.tell() < 8_000
    file.seek(0)
    again = ProbeResult.from_state(torch.load(file, weights_only=True))
    assert again.rows == result.rows
    assert again.metadata == result.metadata


def test_a_state_does_not_share_memory_with_its_result():
    result = made_result()
    result.state()["tables"]["sensitivity"]["value"].zero_()
    assert result.value("sensitivity") > 0


def test_metadata_is_made_plain():
    given = {
        "device": torch.device("cpu"),
        "ids": torch.tensor([1, 2]),
        "floor": NAN,
        "pair": (1, 2.5),
        5: {"dtype": torch.float32},
        "none": None,
    }
    result = made_result(metadata=given)
    plain = {"ids": [1, 2], "floor": None, "pair": [1, 2.5], "5": {"dtype": "torch.float32"}, "none": None}
    assert result.metadata.others == plain
    assert result.metadata.device == "cpu"
    assert ProbeResult.from_json(result.to_json()).metadata == result.metadata


def test_metadata_added_later_is_saved_too():
    result = made_result()
    result.metadata = replace(result.metadata, seconds=4.5)
    assert ProbeResult.from_json(result.to_json()).metadata["seconds"] == 4.5


WRONG = [
    ("epoch", "now", "epoch must be a whole number, got 'now'"),
    ("step", True, "step must be a whole number, got True"),
    ("step", 2**70, f"step must be a whole number of 64 bits, got {2**70}"),
    ("layers", "conv1", "layers must be a list, got 'conv1'"),
    ("layers", ["conv1", 3], "layers[1] must be a string, got 3"),
    ("views", {}, "views must be a list, got {}"),
    ("views", [5], "views[0] must be a mapping, got 5"),
    ("views", [{"augmentation": "blur", "level": 1}], "views[0].severity is missing"),
    (
        "views",
        [{"augmentation": "blur", "level": "1", "severity": 1}],
        "views[0].level must be a whole number, got '1'",
    ),
    ("tables", [], "tables must be a mapping, got []"),
    ("tables.own", None, "tables.own must be a mapping, got None"),
    ("tables.own.value", 3.5, "tables.own.value must be a list, got 3.5"),
    ("tables.own.value", [[1.0]], "tables.own.value must be a list of 2 entries, got [[1.0]]"),
    ("tables.own.value", [[0, 0], [0]], "tables.own.value[1] must be a list of 2 entries, got [0]"),
    ("tables.own.value", [[0, "x"], [0, 0]], "tables.own.value[0][1] must be a number, got 'x'"),
    ("tables.own.value", [[0, True], [0, 0]], "tables.own.value[0][1] must be a number, got True"),
    ("tables.own.num_images", [[0, 1.5], [0, 0]], "tables.own.num_images[0][1] must be a whole number"),
    (
        "tables.own.attempted",
        [[0, 1], [0, 0]],
        "tables.own.attempted[0][0] must be true or false, got 0",
    ),
    ("tables.own.layers", ["fc", "fc"], "tables.own: a layer is named twice in ('fc', 'fc')"),
    ("tables.own.layers", ["fc", "gone"], "there is no layer 'gone' in this result"),
    ("tables.own.quantity", [], "tables.own.quantity must be a mapping, got []"),
    (
        "tables.own.quantity.scale",
        [0],
        "tables.own.quantity.scale must be a list of 2 entries, got [0]",
    ),
    ("tables.own.quantity.scale", [1, 0], "tables.own.quantity: scale must be (low, high) with low <"),
    ("tables.own.quantity.marks", [[0, 1]], "tables.own.quantity.marks[0][1] must be a string, got 1"),
    ("metadata", "none", "metadata must be a mapping, got 'none'"),
    ("metadata.warnings", "none", "metadata.warnings must be a list, got 'none'"),
    ("metadata.left_out", {"relu": 1}, "metadata.left_out.relu must be a string, got 1"),
    ("metadata.bank", {"views": [{}]}, "metadata.bank.views[0].augmentation is missing"),
]


def plain_state():
    """A small result as a JSON file holds it."""
    table = table_of(("input", "fc"), [[0.5, 0.25], [0.75, 0.5]], quantity=SENSITIVITY)
    views = views_of({"blur": (1.0, 2.0)})
    return json.loads(ProbeResult(layers=("fc",), views=views, tables={"own": table}).to_json())


def place_in(state, place):
    *outer, last = place.split(".")
    for name in outer:
        state = state[name]
    return state, last


@pytest.mark.parametrize(("place", "value", "message"), WRONG)
def test_whatever_is_malformed_is_named_with_the_file_and_the_place(place, value, message, tmp_path):
    state = plain_state()
    part, last = place_in(state, place)
    part[last] = value
    file = tmp_path / "probe.json"
    file.write_text(json.dumps(state))
    with pytest.raises(ValueError, match=f"^{re.escape(f'{file}: {message}')}"):
        ProbeResult.from_json(file)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        ProbeResult.from_state(state)


NEEDED = ["epoch", "step", "layers", "views", "tables", "tables.own.layers", "tables.own.value"]


@pytest.mark.parametrize("place", [*NEEDED, "tables.own.std_error", "tables.own.num_images"])
def test_what_is_missing_is_named_with_its_place(place):
    state = plain_state()
    part, last = place_in(state, place)
    del part[last]
    with pytest.raises(ValueError, match=f"^{re.escape(place)} is missing$"):
        ProbeResult.from_state(state)


LATER = ["metadata", "tables.own.attempted", "tables.own.quantity", "tables.own.quantity.line"]


@pytest.mark.parametrize("place", [*LATER, "metadata.left_out", "severity"])
def test_what_a_later_version_has_added_may_be_missing(place):
    state = plain_state()
    part, last = place_in(state, place)
    del part[last]
    assert ProbeResult.from_state(state).value("own", "fc") == 0.375


@pytest.mark.parametrize("place", ["metadata.others", "views", "tables.own", "tables.own.quantity"])
def test_what_is_not_known_is_passed_over(place):
    state = plain_state()
    part, last = place_in(state, place)
    inner = part.setdefault(last, {})
    (inner[0] if isinstance(inner, list) else inner)["not yet thought of"] = [1]
    assert ProbeResult.from_state(state).value("own", "fc") == 0.375


def test_a_state_with_a_tensor_of_another_shape_is_refused_with_the_place():
    state = made_result().state()
    state["tables"]["sensitivity"]["value"] = torch.zeros(2, 3)
    message = "tables.sensitivity.value must be a tensor of the shape (6, 5), got one of (2, 3)"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ProbeResult.from_state(state)


@pytest.mark.parametrize("state", [[1], None, "text", 5])
def test_a_state_that_is_no_mapping_is_refused(state):
    with pytest.raises(ValueError, match=r"^the whole must be a mapping, got "):
        ProbeResult.from_state(state)


FILES = {
    "list": (b"[1]", "the whole must be a mapping, got [1]"),
    "cut short": (b'{"format": 2, "epo', "is no JSON, or only a piece of it: Unterminated string"),
    "empty": (b"", "is no JSON, or only a piece of it: Expecting value"),
    "no text": (b"\xff\xfe\x00", "can't decode byte 0xff"),
    "deep": (b"[" * 100_000, "it is nested too deeply"),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_is_no_result_is_named(kind, tmp_path):
    content, message = FILES[kind]
    file = tmp_path / "probe.json"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=f"^{re.escape(str(file))}.*{re.escape(message)}"):
        ProbeResult.from_json(file)


def test_every_cut_of_a_file_is_refused(tmp_path):
    text = json.dumps(plain_state())
    file = tmp_path / "probe.json"
    for end in range(0, len(text), 97):
        file.write_text(text[:end])
        with pytest.raises(ValueError, match=re.escape(str(file))):
            ProbeResult.from_json(file)


def test_a_file_that_is_not_there_is_said_by_the_system(tmp_path):
    with pytest.raises(FileNotFoundError):
        ProbeResult.from_json(tmp_path / "gone.json")


def test_what_a_metric_says_of_itself_is_kept_in_files_and_states():
    own = Quantity(
        "how much", "nats", (0.0, math.inf), 0.0, (0.0, 2.0), ((0.0, "none"), (1.0, "some")), 1.0, True, True
    )
    result = made_result(tables={"own": table_of(("fc",), torch.zeros(6, 1), quantity=own)})
    assert ProbeResult.from_json(result.to_json()).table("own").quantity == own
    assert ProbeResult.from_state(result.state()).table("own").quantity == own


def with_grid(**changes):
    grid = {"size": [4, 6], "stride": [2.0, 2.5], "offset": [0.5, 1.0], "spread": [0.0, 0.25], **changes}
    return made_result(metadata={"num_images": 32, "grids": {"conv1": grid}})


def test_grids_come_back_as_they_were():
    again = ProbeResult.from_json(with_grid().to_json())
    assert again.metadata["grids"] == with_grid().metadata["grids"]
    assert [type(cells) for cells in again.metadata["grids"]["conv1"]["size"]] == [int, int]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"size": [4.5, 6]}, r"metadata.grids.conv1.size\[0\] must be a whole number, got 4.5"),
        ({"stride": [2.0]}, r"metadata.grids.conv1.stride must be a list of 2 entries, got \[2.0\]"),
        ({"offset": [0.5, "right"]}, r"metadata.grids.conv1.offset\[1\] must be a number, got 'right'"),
        ({"spread": None}, r"metadata.grids.conv1.spread must be a list, got None"),
    ],
)
def test_a_grid_that_no_comparison_could_read_is_refused(changes, told):
    with pytest.raises(ValueError, match=told):
        ProbeResult.from_json(with_grid(**changes).to_json())


def test_a_grid_without_a_part_is_refused():
    state = with_grid().state()
    del state["metadata"]["grids"]["conv1"]["offset"]
    with pytest.raises(ValueError, match=r"^metadata.grids.conv1.offset is missing$"):
        ProbeResult.from_state(state)
