import pytest

from kornia_lightning_probe.wording import known_names, listed, near_names, quoted, unknown

LAYERS = ["conv1", "conv2", "layer1.0", "head"]


@pytest.mark.parametrize(
    ("names", "most", "text"),
    [
        ([], 8, ""),
        (["a"], 8, "a"),
        (["a", "b", "c"], 3, "a, b, c"),
        (["a", "b", "c"], 2, "a, b and 1 more"),
        (range(11), 8, "0, 1, 2, 3, 4, 5, 6, 7 and 3 more"),
        ((letter for letter in "abc"), 1, "a and 2 more"),
    ],
)
def test_of_many_names_the_first_few_are_listed_and_the_others_counted(names, most, text):
    assert listed(names, most=most) == text


def test_quoted_names_are_those_of_a_list_in_quotes():
    assert quoted(["conv1", 3]) == "'conv1', 3"
    assert quoted(LAYERS, most=1) == "'conv1' and 3 more"


@pytest.mark.parametrize(
    ("name", "near"), [("conv", ["conv2", "conv1"]), ("haed", ["head"]), ("xyz", []), (3, []), ("", [])]
)
def test_names_are_near_where_most_of_their_letters_agree(name, near):
    assert near_names(name, LAYERS) == near


def test_a_lower_cutoff_takes_names_that_are_farther_off():
    assert near_names("vonc", LAYERS, cutoff=0.9) == []
    assert near_names("vonc", LAYERS, cutoff=0.3)


def test_an_unknown_name_is_shown_the_nearest_ones():
    assert (
        unknown("layer", "con1", LAYERS) == "there is no layer 'con1' in this result; did you mean 'conv1' or 'conv2'?"
    )


def test_a_name_like_no_other_is_shown_all_names():
    text = "there is no layer 'xyz' in this model; each layer that it has: conv1, conv2, layer1.0, head"
    assert unknown("layer", "xyz", LAYERS, place="model") == text
    assert known_names("layer", [f"b{number}" for number in range(14)], most=2) == (
        "each layer that it has: b0, b1 and 12 more"
    )
