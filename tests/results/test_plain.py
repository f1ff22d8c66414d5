"""Plain data read with the place of every fault."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from kornia_lightning_probe.results.plain import Part, json_text, plain

NAN = float("nan")


@dataclass(frozen=True)
class Note:
    name: str
    size: float = 2.0
    pages: list[int] = field(default_factory=list)
    others: Mapping[str, int | None] | None = None

    def __post_init__(self):
        if self.size < 0:
            raise ValueError("size must not be negative")


def test_what_is_plain_stays_and_all_else_becomes_so():
    given = {1: (True, None, "a", 2.5), "nan": NAN, "tensor": torch.tensor([1, 2]), "type": torch.float32}
    assert plain(given) == {"1": [True, None, "a", 2.5], "nan": None, "tensor": [1, 2], "type": "torch.float32"}


def test_json_has_no_nan_and_no_infinity():
    assert json_text({"a": [NAN, math.inf, -math.inf, 0.1], "b": torch.ones(1)}) == (
        '{"a": [null, "inf", "-inf", 0.1], "b": [1.0]}\n'
    )


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (float, 1, 1.0),
        (float, "inf", math.inf),
        (int, 3, 3),
        (bool, False, False),
        (str, "a", "a"),
        (Any, [NAN], [NAN]),
        (list[str], ("a", "b"), ["a", "b"]),
        (tuple[float, float], [0, "-inf"], (0.0, -math.inf)),
        (tuple[tuple[float, str], ...], [[1, "a"]], ((1.0, "a"),)),
        (Mapping[str, list[int]], {"a": [1]}, {"a": [1]}),
        (float | None, None, None),
        (float | None, 1, 1.0),
    ],
)
def test_a_value_is_read_as_its_annotation_says(kind, value, expected):
    found = Part(value).read(kind)
    assert found == expected
    assert type(found) is type(expected)


def test_a_missing_number_is_nan():
    assert math.isnan(Part(None).read(float))


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (float, "1", "top must be a number, got '1'"),
        (float, True, "top must be a number, got True"),
        (float, [], "top must be a number, got []"),
        (float, 10**400, "top must be a number that a float can hold"),
        (int, 1.0, "top must be a whole number, got 1.0"),
        (bool, 1, "top must be true or false, got 1"),
        (torch.Tensor, 1, "top must be a tensor, got 1"),
        (list[int], {"a": 1}, "top must be a list, got {'a': 1}"),
        (list[int], [1, "b"], "top[1] must be a whole number, got 'b'"),
        (tuple[float, float], [1.0], "top must be a list of 2 entries, got [1.0]"),
        (Mapping[str, int], {"a": None}, "top.a must be a whole number, got None"),
        (Mapping[str, int], {1: 2}, "top must be a mapping of strings, got {1: 2}"),
        (str, list(range(40)), "top must be a string, got a list that begins with [0, 1, 2"),
    ],
)
def test_another_value_is_refused_with_its_place(kind, value, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        Part(value, "top").read(kind)


def test_a_record_is_read_from_what_is_there():
    assert Part({"name": "a", "later": 5}).record(Note) == Note("a")
    assert Part({"name": "a", "pages": [1], "others": {"b": None}}).record(Note) == Note("a", 2.0, [1], {"b": None})


def test_a_record_that_lacks_a_field_or_refuses_one_is_an_error_with_its_place():
    with pytest.raises(ValueError, match=r"^notes\.name is missing$"):
        Part({}, "notes").record(Note)
    with pytest.raises(ValueError, match=r"^notes: size must not be negative$"):
        Part({"name": "a", "size": -1}, "notes").record(Note)


def test_a_tensor_is_read_from_lists_and_from_tensors():
    expected = torch.tensor([[1.0, NAN], [math.inf, 2.0]], dtype=torch.float64)
    lists = Part([[1, None], ["inf", 2.0]]).tensor((2, 2), torch.float64)
    torch.testing.assert_close(lists, expected, equal_nan=True)
    torch.testing.assert_close(Part(expected).tensor((2, 2), torch.float64), expected, equal_nan=True)
    assert Part([]).tensor((0, 3), torch.bool).shape == (0, 3)
