"""Each sentence appears where the numbers say so, and only there; results are made by hand."""

import pytest
import torch
from support.made_results import SENSITIVITY, table_of, views_of

from kornia_lightning_probe.quantity import Quantity
from kornia_lightning_probe.result import ProbeResult

LADDERS = {"blur": (1.0,), "turn": (1.0,), "noise": (1.0,)}
LAYERS = ("conv", "fc")


def made(fc, *, conv=(0.1, 0.1, 0.1), pixels=(0.9, 0.9, 0.9), error=0.01, epoch=1, tables=None, **metadata):
    """Sensitivity of three views at two layers, the embedding last."""
    value = torch.tensor([pixels, conv, fc]).T
    known = {"embedding": "fc", "num_images": 100, "shapes": {"output": [10]}} | metadata
    tables = {"sensitivity": table_of(("input", *LAYERS), value, error, quantity=SENSITIVITY), **(tables or {})}
    return ProbeResult(layers=LAYERS, views=views_of(LADDERS), tables=tables, epoch=epoch, step=epoch, metadata=known)


def accuracies(clean, under):
    """Tables of accuracy under the three views, and of its drop."""
    under = torch.tensor([under]).T
    quantity = Quantity(range=(0.0, 1.0), of_output=True)
    return {
        "accuracy": table_of(("output",), under, images=100, quantity=quantity),
        "accuracy_drop": table_of(("output",), clean - under, images=100, quantity=quantity),
    }


def test_what_leads_by_three_errors_is_named_alone_beside_the_pixels():
    # Without what each image adds the error of a difference is the sum of both, .02: a lead of .1 is five of them.
    text = made((0.3, 0.5, 0.4)).verdict()
    assert "The embedding, fc, moves most under turn (0.50), the pixels themselves by 0.90" in text


def test_what_does_not_lead_is_named_with_those_that_it_does_not_lead():
    text = made((0.3, 0.5, 0.46)).verdict()
    assert "moves most under turn (0.50), noise (0.46), which lead together." in text
    assert "pixels" not in text


def test_the_layer_that_moves_furthest_is_named_where_it_leads():
    assert "of the layers conv moves furthest (0.80)" in made((0.3, 0.5, 0.4), conv=(0.1, 0.8, 0.1)).verdict()
    assert "furthest" not in made((0.3, 0.5, 0.4), conv=(0.1, 0.49, 0.1)).verdict()


def test_of_changes_those_are_told_that_are_beyond_three_errors_and_two_hundredths():
    before = made((0.6, 0.5, 0.4), epoch=-1)
    # Errors of a change are the root of two hundredths: .042 is three of them.
    text = made((0.3, 0.6, 0.42)).verdict(before=before)
    assert "Since before training the embedding moves less under blur (0.60 to 0.30); more under turn" in text
    assert "undecided under noise" in text


def test_a_change_below_two_hundredths_is_never_decided_however_small_its_error():
    before = made((0.6, 0.5, 0.4), error=1e-6, epoch=-1)
    text = made((0.585, 0.5, 0.4), error=1e-6).verdict(before=before)
    assert "Since before training it is undecided whether the embedding moves otherwise." in text
    assert "unchanged" not in text


def test_without_baselines_nothing_is_said_of_changes():
    text = made((0.3, 0.5, 0.4)).verdict()
    assert "since" not in text.lower()
    alone = made((0.3, 0.5, 0.4))
    assert "since" not in alone.verdict(before=alone, first=alone).lower()


def test_both_baselines_are_told_of():
    before, first = made((0.9, 0.9, 0.9), epoch=-1), made((0.3, 0.7, 0.4), epoch=0)
    text = made((0.3, 0.5, 0.4)).verdict(before=before, first=first)
    assert "Since before training" in text
    assert ", and since the first trained probe it moves less under turn" in text


def test_the_largest_fall_is_named_alone_only_where_it_leads():
    before = made((0.9, 0.9, 0.9), conv=(0.1, 0.1, 0.1), epoch=-1)
    assert "The largest fall since before training: fc under blur by 0.80." in made((0.1, 0.5, 0.6)).verdict(
        before=before
    )
    together = made((0.1, 0.11, 0.6)).verdict(before=before)
    assert "The largest fall since before training: fc under blur by 0.80, fc under turn by 0.79." in together
    assert "fall" not in made((0.95, 0.95, 0.95)).verdict(before=before)


def test_the_outputs_are_judged_where_they_are_beyond_chance():
    # Chance is .1 of 10 classes, three errors of 100 images .09.
    text = made((0.3, 0.5, 0.4), tables=accuracies(0.9, [0.8, 0.4, 0.7])).verdict()
    assert "The outputs are right on 0.90 of the clean images, and least under turn: 0.40." in text
    text = made((0.3, 0.5, 0.4), tables=accuracies(0.15, [0.1, 0.1, 0.1])).verdict()
    assert "right on 0.15 of the clean images, no more than chance" in text
    assert "outputs" not in made((0.3, 0.5, 0.4)).verdict()


def test_a_baseline_that_answers_by_chance_is_no_baseline_of_the_outputs():
    now = made((0.3, 0.5, 0.4), tables=accuracies(0.9, [0.8, 0.4, 0.7]))
    untrained = made((0.3, 0.5, 0.4), epoch=-1, tables=accuracies(0.1, [0.1, 0.1, 0.1]))
    earlier = made((0.3, 0.5, 0.4), epoch=0, tables=accuracies(0.8, [0.8, 0.3, 0.7]))
    assert "(before: no better than chance)" in now.verdict(before=untrained)
    assert "least under turn: 0.40 (before: 0.80 and 0.30)." in now.verdict(first=earlier)


def spread(value):
    return {"spread": table_of(LAYERS, torch.full((3, 2), value), quantity=Quantity())}


def test_a_fall_that_more_spread_explains_is_doubtful():
    first = made((0.6, 0.6, 0.6), epoch=0, tables=spread(1.0))
    # Twice as far apart: .3 of it is as far as .6 was; .1 of it is not.
    text = made((0.3, 0.1, 0.6), tables=spread(2.0)).verdict(first=first)
    assert "images lie 2 times as far apart, and in its own units the layer moves no less under blur" in text
    assert "Doubtful" not in made((0.3, 0.1, 0.6), tables=spread(1.0)).verdict(first=first)


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        ({"noise_floor": 0.05}, "Doubtful: the forward itself differs by 0.05 from pass to pass."),
        ({"dead_layers": ["conv"]}, "Doubtful: every image gives the same at conv."),
    ],
)
def test_what_the_metadata_knows_is_doubtful(facts, sentence):
    assert sentence in made((0.3, 0.5, 0.4), **facts).verdict()


def test_a_channel_that_holds_most_of_a_layer_is_doubtful():
    def held(share):
        return {"channel_dominance": table_of(("conv",), torch.full((3, 1), share), quantity=Quantity())}

    assert "one channel holds more than half of conv" in made((0.3, 0.5, 0.4), tables=held(0.7)).verdict()
    assert "Doubtful" not in made((0.3, 0.5, 0.4), tables=held(0.3)).verdict()


def test_there_are_five_sentences_at_most_and_none_without_sensitivity():
    tables = accuracies(0.9, [0.8, 0.4, 0.7]) | spread(3.0)
    first = made((0.6, 0.6, 0.6), epoch=0, tables=accuracies(0.8, [0.8, 0.3, 0.7]) | spread(1.0))
    text = made((0.3, 0.1, 0.2), tables=tables, noise_floor=0.05).verdict(before=first, first=first)
    assert len(text.splitlines()) == 5
    other = ProbeResult(layers=LAYERS, views=views_of(LADDERS), tables={})
    assert other.verdict() == ""


def test_a_comparison_says_what_changed_and_what_most():
    text = made((0.6, 0.5, 0.4), epoch=0).compare(made((0.3, 0.5, 0.4))).verdict()
    assert text.splitlines() == [
        "Since the first result the embedding moves less under blur (0.60 to 0.30); undecided under turn, noise.",
        "The largest fall since the first result: fc under blur by 0.30.",
    ]


def test_a_comparison_speaks_of_the_embedding_and_not_of_the_outputs_behind_it():
    one, other = made((0.6, 0.5, 0.4), embedding="conv"), made((0.3, 0.5, 0.4), embedding="conv")
    assert (
        one.compare(other)
        .verdict()
        .startswith("Since the first result it is undecided whether the embedding moves otherwise.")
    )


def test_without_an_embedding_it_is_the_last_layer_that_is_spoken_of():
    one, other = made((0.6, 0.5, 0.4), embedding=None, epoch=0), made((0.3, 0.5, 0.4), embedding=None)
    assert other.verdict().startswith("The last layer, fc, moves most under turn (0.50)")
    assert other.verdict(before=one).splitlines()[1].startswith("Since before training the last layer, fc, moves less")
    assert one.compare(other).verdict().startswith("Since the first result the last layer, fc, moves less")


def test_results_and_comparisons_are_short_in_print():
    one, other = made((0.6, 0.5, 0.4), epoch=0), made((0.3, 0.5, 0.4))
    assert str(one).splitlines()[1:-1] == one.verdict().splitlines()
    comparison = one.compare(other)
    assert comparison.verdict() in str(comparison)
    for shown in (str(one), str(comparison), repr(comparison)):
        assert len(shown) < 700
    assert repr(comparison) == "Comparison(epoch 1, step 1 minus the first: 9 cells of 1 metric)"


def outputs(clean, under, **options):
    """The sentence on the outputs, of accuracies with an error of .01 each."""
    text = made((0.3, 0.5, 0.4), tables=accuracies(clean, under), **options).verdict()
    return next((line for line in text.splitlines() if line.startswith("The outputs")), "")


def test_of_outputs_one_augmentation_is_named_only_where_it_leads():
    # The errors of two add up to .014 and three of them to .042.
    assert "and least under turn: 0.50." in outputs(0.9, (0.8, 0.5, 0.8))
    assert "and least under turn (0.79), noise (0.80), blur (0.80), which lead together." in outputs(
        0.9, (0.8, 0.79, 0.795)
    )
    assert "and no augmentation costs more than its error." in outputs(0.9, (0.9, 0.9, 0.93))
    assert "and least under turn: 0.50." in outputs(0.9, (float("nan"), 0.5, 0.8))


def test_outputs_that_always_say_the_commonest_class_are_no_better_than_chance():
    # Of 100 images .84 are of one class: three errors of a share of them are .11.
    assert "no more than chance" in outputs(0.84, (0.84, 0.84, 0.84), largest_class_share=0.84)
    assert "right on 0.96 of the clean images" in outputs(0.96, (0.9, 0.9, 0.5), largest_class_share=0.84)
    assert "no more than chance" not in outputs(0.96, (0.9, 0.9, 0.5), largest_class_share=0.84)


def test_what_is_no_number_is_doubtful():
    lost = made((0.3, float("nan"), 0.4), non_finite={"conv": [3, 5], "fc": [5]}).verdict()
    assert "activations of 2 images are not finite at conv, fc" in lost
    assert "fc has no value under turn" in lost
    assert "no value" not in made((0.3, 0.5, 0.4)).verdict()


@pytest.mark.parametrize(("images", "said"), [(3, False), (4, True)])
def test_of_fewer_than_four_images_one_may_hold_most(images, said):
    tables = {"image_dominance": table_of(LAYERS, torch.full((3, 2), 0.9), images=images)}
    assert ("one image holds more than half" in made((0.3, 0.5, 0.4), tables=tables).verdict()) == said


def test_where_the_embedding_itself_moves_furthest_it_is_not_named_twice():
    assert "further than any other layer." in made((0.3, 0.9, 0.4), pixels=(0.1, 0.1, 0.1)).verdict()
