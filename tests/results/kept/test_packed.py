import io

import pytest
import torch
from support.made_results import COSINE, made_result, table_of

from kornia_lightning_probe.result import ProbeResult
from kornia_lightning_probe.results.kept.packed import is_packed, packed, unpacked
from kornia_lightning_probe.results.kept.rounded import rounded

NAN, INF = float("nan"), float("inf")
LAYERS = ("input", "conv1", "conv2", "fc")


def result_of(*, layers=LAYERS, **changes):
    """Two metrics of random numbers under the six views; the second is not measured everywhere."""
    generator = torch.Generator().manual_seed(0)
    value = torch.randn(6, len(layers), generator=generator, dtype=torch.float64)
    value[0, -1], value[1, -1], value[2, -1] = NAN, INF, -INF
    attempted = torch.rand(6, len(layers), generator=generator) > 0.3
    own = table_of(layers, value, error=1 / 3, images=7, attempted=attempted, quantity=COSINE)
    return made_result(layers=("conv1", "conv2", "fc"), tables={"own": own}, **changes)


def read(state):
    """The result in a state, through the file of a checkpoint."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return ProbeResult.from_state(unpacked(torch.load(file, weights_only=True)))


def assert_same(left, right):
    assert left.metrics == right.metrics
    for metric in left.metrics:
        one, other = left.table(metric), right.table(metric)
        assert (one.layers, one.quantity) == (other.layers, other.quantity)
        for column in ("value", "std_error", "num_images", "attempted"):
            torch.testing.assert_close(getattr(one, column), getattr(other, column), rtol=0, atol=0, equal_nan=True)


def test_an_exact_result_comes_back_bit_for_bit():
    result = result_of()
    again = read(packed(result.state(), exact=True))
    assert_same(again, result)
    assert (again.epoch, again.step, again.layers, again.views) == (3, 120, result.layers, result.views)
    assert again.metadata == result.metadata


def test_an_older_result_comes_back_in_the_digits_that_are_kept():
    result = result_of()
    older = ProbeResult.of(result)
    older.tables = {name: rounded(name, table) for name, table in result.tables.items()}
    states = [packed(older.state(), exact=exact) for exact in (False, True)]
    for state in states:
        assert_same(read(state), older)
    assert states[0]["numbers"].numel() < states[1]["numbers"].numel()


@pytest.mark.parametrize("layers", [("input",), ("fc",), ("fc", "input"), ()], ids=str)
def test_tables_of_any_layers_come_back(layers):
    empty = {"own": table_of(layers, torch.rand(6, len(layers)))}
    result = made_result(tables=empty)
    assert_same(read(packed(result.state(), exact=True)), result)
    alone = ProbeResult(layers=("fc",), views=[], tables={"own": table_of(layers, torch.zeros(0, len(layers)))})
    assert_same(read(packed(alone.state(), exact=False)), alone)


def test_a_result_without_metrics_comes_back():
    result = ProbeResult(layers=("fc",), views=[], tables={}, epoch=4)
    again = read(packed(result.state(), exact=False))
    assert (again.metrics, again.epoch, again.layers) == ((), 4, ("fc",))


def test_the_numbers_of_the_pixels_are_apart_from_those_of_the_layers():
    result, later = result_of(), result_of()
    later.tables["own"].value[:, 1:] += 1.0
    first, second = (packed(each.state(), exact=True) for each in (result, later))
    assert torch.equal(first["pixels"], second["pixels"])
    assert not torch.equal(first["numbers"], second["numbers"])


def test_what_a_result_writes_of_itself_is_not_taken_for_packed():
    state = result_of().state()
    assert not is_packed(state)
    assert is_packed(packed(state, exact=True))
    assert not is_packed([])


def test_an_earlier_version_of_the_package_says_that_the_form_is_a_later_one():
    with pytest.raises(ValueError, match="its format is 3; update the package"):
        ProbeResult.from_state(packed(result_of().state(), exact=True))


def broken(**changes):
    state = packed(result_of().state(), exact=False)
    return {**state, **changes}


def dtypes(*names):
    tables = packed(result_of().state(), exact=False)["tables"]
    return {**tables, "own": {**tables["own"], "dtypes": list(names)}}


WRONG = [
    ({"numbers": 3}, r"^numbers must be a tensor, got 3$"),
    ({"numbers": torch.zeros(5, dtype=torch.uint8)}, r"^numbers must be the compressed bytes of a result's tables \("),
    ({"numbers": torch.zeros(0, dtype=torch.uint8)}, r"^numbers holds 0 bytes or more, and the tables have"),
    ({"tables": {}}, r"^pixels holds 1 bytes or more, and the tables have 0$"),
    ({"tables": dtypes("float32")}, r"^tables\.own\.dtypes must be a list of 3 entries"),
    ({"tables": dtypes("float32", "text", "int64")}, r"^tables\.own\.dtypes\[1\] must be one of float64, float32, bfl"),
    ({"views": None}, r"^views must be a list, got None$"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_what_is_malformed_is_named_with_its_place(changes, message):
    with pytest.raises(ValueError, match=message):
        unpacked(broken(**changes))


def test_bytes_are_not_unpacked_beyond_what_the_tables_have():
    # A megabyte of zeros is a kilobyte here.
    bomb = packed(made_result(tables={"own": table_of(("fc",), torch.zeros(6, 1))}, layers=("fc",)).state(), exact=True)
    swollen = packed(ProbeResult(layers=("fc",), views=[], tables={}).state(), exact=True)
    with pytest.raises(ValueError, match=r"^numbers holds 1 bytes or more, and the tables have 0$"):
        unpacked({**swollen, "numbers": bomb["numbers"]})
