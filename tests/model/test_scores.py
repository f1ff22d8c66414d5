from dataclasses import dataclass

import kornia.augmentation as K  # noqa: N812 - the name that Kornia's own documentation uses
import pytest
import torch
from support.nets import ModelOutput, Pair, Returns
from support.probing import images_of, plain_bank, run, unchanged
from torch import nn
from torch.utils.data import TensorDataset

from kornia_lightning_probe import AugmentationBank, probe_model
from kornia_lightning_probe.engine.processes import World
from kornia_lightning_probe.images.labels import Targets
from kornia_lightning_probe.model.choosing import choose_scores
from kornia_lightning_probe.model.scores import Scores, are_of_pairs, entries_of

IMAGE = (3, 12, 12)
NOTHING = Targets()
SCORES = torch.zeros(2, 5)
BOXES, LANDMARKS, CLASSES = torch.zeros(2, 4), torch.zeros(2, 10), torch.zeros(2, 2)


@dataclass
class Output:
    logits: torch.Tensor


class Attributes:
    """No structure that anybody knows."""

    logits = SCORES


def chosen(output, targets=NOTHING, **options):
    return choose_scores(output, num_images=2, image_shape=IMAGE, targets=targets, **options)


@pytest.mark.parametrize(
    "output",
    [
        SCORES,
        {"logits": SCORES, "loss": torch.tensor(0.0)},
        {"aux": torch.zeros(2, 7), "out": SCORES},
        ModelOutput(logits=SCORES),
        Output(SCORES),
        Attributes(),
        (SCORES, torch.zeros(2)),
        [SCORES],
        (torch.tensor(0.0), SCORES),
    ],
    ids=["tensor", "logits", "out", "ModelOutput", "dataclass", "attributes", "tuple", "list", "behind a loss"],
)
def test_class_scores_are_found_in_the_outputs_of_common_libraries(output):
    choice = chosen(output)
    assert choice.scores.of(output) is SCORES
    assert choice.is_known
    assert choice.remark == ""


@pytest.mark.parametrize("output", [None, "text", {}, [], (), ({"boxes": SCORES},), {"embedding": SCORES}], ids=repr)
def test_what_holds_none_gives_none(output):
    choice = chosen(output)
    assert choice.scores is None
    assert "no tensor of class scores was found" in choice.reason


@pytest.mark.parametrize("output", [(BOXES, LANDMARKS, CLASSES), Pair(BOXES, CLASSES), {"b": BOXES, "c": CLASSES}])
def test_with_labels_the_narrowest_that_they_fit_is_chosen(output):
    choice = chosen(output, Targets((), 0, 1))
    assert choice.scores.of(output) is CLASSES
    assert choice.of(output) is CLASSES
    # Class 3 is one of four: the boxes are as wide as that, and the classes are not.
    assert chosen(output, Targets((), 0, 3)).scores.of(output) is BOXES


def test_without_labels_the_first_is_chosen_and_one_sentence_names_the_others():
    choice = chosen((BOXES, LANDMARKS, CLASSES))
    assert choice.scores.name == "output[0]"
    assert not choice.is_known
    assert choice.remark == (
        "the first of several outputs, output[0] (N, 4), is taken for class scores; the others are output[1] (N, 10), "
        "output[2] (N, 2); labels= tell which one is meant, or forward= chooses it, for example forward=lambda model, "
        "images: model(images)[1]"
    )


def test_where_the_labels_fit_none_the_first_is_left_out_with_the_others():
    choice = chosen((BOXES, CLASSES), Targets((), 0, 7))
    assert choice.scores is None
    assert choice.reason.startswith("labels go up to 7 and it has 4 entries; it is the first of several outputs, the")
    assert "output[1] (N, 2)" in choice.reason
    assert "forward=" in choice.reason


def test_of_equal_width_the_one_that_is_called_so_is_chosen():
    output = {"aux": torch.zeros(2, 5), "out": SCORES}
    assert chosen(output, Targets((), 0, 4)).scores.name == "output[out]"
    # Nothing narrower is meant where one is called logits.
    assert chosen({"more": CLASSES, "logits": SCORES}, Targets((), 0, 1)).scores.name == "output[logits]"
    # Two scores tell more than one number.
    assert chosen((torch.zeros(2, 1), CLASSES), Targets((), 0, 1)).scores.name == "output[1]"


def test_masks_choose_maps_and_labels_of_images_vectors():
    output = (SCORES, torch.zeros(2, 7, 6, 6))
    assert chosen(output, Targets((12, 12), 0, 4)).scores.name == "output[1]"
    assert chosen(output, Targets((), 0, 4)).scores.name == "output[0]"


def test_what_lies_deeper_is_no_output():
    output = {"logits": SCORES, "hidden": (BOXES, CLASSES)}
    assert list(entries_of(output)) == ["output[logits]"]
    assert Scores("output[gone]").of(output) is None


@pytest.mark.parametrize("shape", [(2,), (2, 1)], ids=str)
def test_one_number_is_a_logit_where_all_labels_are_0_and_1(shape):
    number = torch.zeros(shape)
    assert chosen(number, Targets((), 0, 1)).scores.kind == "number"
    for targets in (NOTHING, Targets((), 0, 2), Targets((), -1, 1), Targets((12, 12), 0, 1)):
        choice = chosen(number, targets)
        assert choice.scores is None
        assert "a regression or a single logit" in choice.reason


def test_one_number_for_each_pixel_is_two_classes_unless_masks_say_otherwise():
    numbers = torch.zeros(2, 1, 12, 12)
    assert chosen(numbers, Targets((12, 12), 0, 1)).remark == ""
    assert "is taken for a segmentation of two classes" in chosen(numbers).remark
    assert chosen(numbers, Targets((12, 12), 0, 2)).reason == "labels go up to 2 and it has 2 entries"
    # Without an axis of classes it may be anything, but for masks of its own size.
    assert chosen(numbers[:, 0]).scores is None
    assert chosen(numbers[:, 0], Targets((12, 12), 0, 1)).scores.kind == "number"


def test_one_number_is_a_probability_where_all_lie_between_0_and_1():
    scores = Scores(kind="number")
    assert scores.settled(torch.tensor([0.0, 0.3, 1.0, torch.nan])).kind == "probability"
    assert scores.settled(torch.tensor([0.0, 1.1])).kind == "logit"
    assert scores.settled(torch.tensor([-0.1, 1.0])).kind == "logit"
    assert Scores().settled(torch.rand(4, 2)).kind == "classes"


@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 1, 6, 6), (4, 6, 6)], ids=str)
def test_two_classes_are_likely_as_the_number_says(shape):
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    two = Scores(kind="logit").as_classes(logits)
    # softmax([0, z]) = [1 - s, s] with s the sigmoid of z.
    torch.testing.assert_close(two.softmax(1)[:, 1].flatten(), logits.sigmoid().flatten())
    likely = Scores(kind="probability").as_classes(logits.sigmoid())
    torch.testing.assert_close(likely, two.softmax(1))


def test_more_outputs_than_twice_the_labels_are_features_unless_somebody_asks_for_their_measures():
    features = torch.zeros(2, 128)
    choice = chosen(features, Targets((), 0, 9))
    assert choice.scores is None
    assert "it has 128 entries and labels go up to 9 only" in choice.reason
    assert choice.remark.startswith(f"the output is left out, as {choice.reason}; if it is class scores all the same")
    assert chosen(features, Targets((), 0, 9), is_asked_for=True).scores == Scores()
    assert chosen(features, Targets((), 0, 63)).scores == Scores()
    assert chosen({"logits": features}, Targets((), 0, 9)).scores.name == "output[logits]"


def test_masks_tell_a_segmentation_of_three_classes_from_an_image():
    maps = torch.zeros(2, 3, 12, 12)
    assert chosen(maps, Targets((12, 12), 0, 2)).scores == Scores()
    choice = chosen(maps)
    assert choice.scores is None
    assert "an image" in choice.reason
    assert "masks of a segmentation" in choice.remark
    assert chosen(maps, is_asked_for=True).remark == ""
    assert chosen({"logits": maps}).scores.name == "output[logits]"


def test_scores_of_all_pairs_of_a_batch_are_as_wide_as_the_batch():
    assert are_of_pairs((7, 7), (2,))
    assert not are_of_pairs((7, 2), (2,))
    assert not are_of_pairs((2, 2), (2,))
    assert not are_of_pairs((10, 10), (10,))


# In a probe.


class Ending(nn.Module):
    """A layer, another one, and what `end` makes of image and features for an output."""

    def __init__(self, end):
        super().__init__()
        self.layer, self.neck, self.end = nn.Conv2d(3, 4, 3, 1, 1), nn.Linear(4, 4), Returns(end)

    def forward(self, x):
        return self.end((x, self.neck(self.layer(x).mean((2, 3)))))


IMAGES = images_of(40)
MIDDLE = float(IMAGES.mean((1, 2, 3)).median())
BRIGHT = (IMAGES.mean((1, 2, 3)) > MIDDLE).long()


def logit_of(x):
    """Positive for images that are labelled 1."""
    return 100 * (x.mean((1, 2, 3)) - MIDDLE)


def two_logits(x):
    return torch.stack([-logit_of(x), logit_of(x)], 1)


def probed(end, inputs=IMAGES, bank=None, **options):
    torch.manual_seed(0)
    return probe_model(Ending(end), inputs, bank or plain_bank(), layers=["layer", "neck"], **options)


ENDS = {
    "tuple": (lambda given: (given[1], given[1].repeat(1, 3)[:, :10], two_logits(given[0]).softmax(1)), "output[2]"),
    "list": (lambda given: [given[1], two_logits(given[0])], "output[1]"),
    "dict": (lambda given: {"boxes": given[1], "classes": two_logits(given[0])}, "output[classes]"),
    "ModelOutput": (lambda given: ModelOutput(logits=two_logits(given[0])), "output[logits]"),
    "one logit": (lambda given: logit_of(given[0]), "output"),
    "one logit in a column": (lambda given: logit_of(given[0])[:, None], "output"),
    "one probability": (lambda given: logit_of(given[0]).sigmoid(), "output"),
}


@pytest.mark.parametrize(("end", "name"), ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("labels", [BRIGHT, BRIGHT[:, None]], ids=["(N,)", "(N, 1)"])
def test_a_network_that_is_right_is_found_right_wherever_its_scores_are(end, name, labels):
    result = probed(end, labels=labels)
    # Half of the pixels' brightness is below any of these: all are taken for class 0, and half of them are.
    assert result.value("accuracy", augmentation="halve") == 0.5
    assert result.value("accuracy_drop", augmentation="halve") == 0.5
    assert result.value("flip_rate", augmentation="halve") == 0.5
    assert result.value("accuracy", augmentation="mirror") == 1.0
    assert result.metadata["output"] == name
    assert result.metadata["warnings"] == []
    assert result.table("accuracy").layers == ("output",)


class FaceDetector(nn.Module):
    """Laid out as MTCNN's refining nets: boxes, landmarks and probabilities of one embedding."""

    def __init__(self):
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 6, 3), nn.PReLU(6)
        self.conv2, self.prelu2 = nn.Conv2d(6, 8, 3), nn.PReLU(8)
        self.dense4, self.prelu4 = nn.Linear(512, 16), nn.PReLU(16)
        self.dense5_1, self.softmax5_1 = nn.Linear(16, 2), nn.Softmax(1)
        self.dense5_2, self.dense5_3 = nn.Linear(16, 4), nn.Linear(16, 10)

    def forward(self, x):
        x = self.prelu2(self.conv2(self.prelu1(self.conv1(x))))
        x = self.prelu4(self.dense4(x.flatten(1)))
        return self.dense5_2(x), self.dense5_3(x), self.softmax5_1(self.dense5_1(x))


def test_the_embedding_is_that_of_the_output_that_is_used():
    torch.manual_seed(0)
    net = FaceDetector().eval()
    result = probe_model(net, IMAGES, plain_bank(), labels=BRIGHT)
    with torch.no_grad():
        right = (net(IMAGES / 2)[2].argmax(1) == BRIGHT).double().mean().item()
    assert result.metadata["output"] == "output[2]"
    assert result.metadata["embedding"] == "prelu4"
    assert result.value("accuracy", augmentation="halve") == pytest.approx(right)


def test_processes_choose_by_the_labels_of_all():
    def gather(text):
        others = Targets((), 0, 3).to_text() if text.startswith("[") else text
        return [text, others]

    torch.manual_seed(0)
    chosen_by = {}
    for world in (World(), World(size=2, gather=gather, add=unchanged)):
        data = TensorDataset(IMAGES, BRIGHT)
        result = run(FaceDetector(), data, plain_bank(), metrics=["flip_rate"], world=world)
        chosen_by[world.size] = result.metadata["output"]
    # The other process has class 3, and four boxes are wide enough for it.
    assert chosen_by == {1: "output[2]", 2: "output[0]"}


def test_the_choice_stands_in_the_summary():
    assert "class scores: output[2]\n" in probed(ENDS["tuple"][0], labels=BRIGHT).summary(full=True)
    single = probed(ENDS["one logit"][0], labels=BRIGHT)
    assert "class scores: output, a logit of the second of two classes" in single.summary(full=True)
    assert single.metadata["output_kind"] == "logit"
    assert "class scores" not in probed(lambda given: two_logits(given[0]), labels=BRIGHT).summary(full=True)


def test_the_choice_is_made_by_the_labels_of_all_blocks():
    # Only the last image of the source has class 2, and it may lie in any block.
    labels = torch.cat([BRIGHT[:-1], torch.tensor([2])])
    three = lambda given: (two_logits(given[0]), given[1][:, :3])  # noqa: E731
    assert probed(three, labels=labels).metadata["output"] == "output[1]"
    assert probed(three, labels=BRIGHT).metadata["output"] == "output[0]"


def test_a_probability_diverges_as_its_logit_does():
    left, right = (probed(ENDS[name][0], labels=BRIGHT) for name in ("one logit", "one probability"))
    torch.testing.assert_close(left.tensor("js_divergence"), right.tensor("js_divergence"), rtol=1e-4, atol=1e-6)


def test_a_layer_that_can_not_give_probabilities_gives_logits_whatever_their_values():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(432, 1), nn.Flatten(0))
    with torch.no_grad():
        net[1].weight.mul_(1e-3)
        net[1].bias.fill_(0.1)
    # All lie between 0 and 1, and above 0: class 1 for a logit, class 0 for a probability.
    result = probe_model(net, IMAGES, plain_bank(), labels=torch.tensor([1, 1, 1, 0] * 10))
    assert result.metadata["output_kind"] == "logit"
    assert result.value("accuracy") == 0.75
    likely = nn.Sequential(*net, nn.Sigmoid())
    result = probe_model(likely, IMAGES, plain_bank(), labels=torch.tensor([1, 1, 1, 0] * 10))
    assert result.metadata["output_kind"] == "probability"
    assert result.value("accuracy") == 0.75


BINARY = (IMAGES[:, 0] > 0.5).long()


@pytest.mark.parametrize(
    ("end", "inputs", "labels"),
    [
        (lambda given: given[0][:, :1] - 0.5, IMAGES, BINARY),
        (lambda given: given[0][:, :1] - 0.5, IMAGES, BINARY[:, None]),
        (lambda given: given[0][:, 0] - 0.5, IMAGES, BINARY),
        (lambda given: given[0][:, :1], IMAGES, BINARY),
        (lambda given: given[0][:, :1] - 0.5, TensorDataset(IMAGES, BINARY[:, None].float()), None),
        (lambda given: given[0].clone(), IMAGES, IMAGES.argmax(1)),
    ],
    ids=["logits", "masks of one channel", "no channel", "probabilities", "float masks", "three classes of RGB"],
)
def test_masks_of_two_classes_and_of_as_many_as_an_image_has_channels_are_measured(end, inputs, labels):
    bank = AugmentationBank({"mirror": K.RandomHorizontalFlip(p=1.0)})
    result = probed(end, inputs, bank, labels=labels)
    # Each pixel decides for itself, so what it says moves along.
    assert result.value("pixel_flip_rate") == 0
    assert result.metadata["warnings"] == []


def test_three_classes_of_rgb_without_masks_are_one_warning():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 1, 1), nn.ReLU(), nn.Conv2d(4, 3, 1))
    with pytest.warns(UserWarning, match=r"so it is an image; if it is class scores all the same, labels= that fit"):
        result = probe_model(net, IMAGES, plain_bank())
    assert len(result.metadata["warnings"]) == 1
    assert "pixel_flip_rate" not in result.metrics


def test_an_image_that_comes_of_no_head_is_no_news():
    result = probed(lambda given: given[0] / 2)
    assert "an image" in result.metadata["left_out"]["output"]
    assert result.metadata["warnings"] == []


@pytest.mark.parametrize("given_apart", [True, False])
def test_features_beside_few_labels_are_one_warning_and_measured_where_they_are_asked_for(given_apart):
    labels = torch.arange(40) % 10
    inputs = IMAGES if given_apart else TensorDataset(IMAGES, labels)
    options = {"labels": labels} if given_apart else {}
    with pytest.warns(UserWarning, match="it has 128 entries and labels go up to 9 only"):
        result = probed(lambda given: given[1].repeat(1, 32), inputs, **options)
    assert len(result.metadata["warnings"]) == 1
    assert "accuracy" not in result.metrics
    named = probed(lambda given: given[1].repeat(1, 32), inputs, metrics=["accuracy", "flip_rate"], **options)
    assert named.metrics == ("accuracy", "flip_rate")


def test_detections_are_said_to_be_left_out_and_layers_measured():
    result = probed(lambda given: [{"boxes": row[None], "scores": row[:1]} for row in given[1]])
    reason = result.metadata["left_out"]["output"]
    assert reason.endswith(
        "it is one mapping for each image ('boxes', 'scores'), as of a detection: how far layers move is measured, "
        "what is detected is not"
    )
    assert result.tensor("sensitivity").isfinite().all()
    assert result.metadata["warnings"] == []


@pytest.mark.parametrize("batch_size", [7, 32])
def test_scores_of_all_pairs_are_no_class_scores_and_no_reason_to_raise(batch_size):
    result = probed(lambda given: given[1] @ given[1].T, batch_size=batch_size)
    assert "one number for each pair of images in a batch" in result.metadata["left_out"]["output"]
    assert result.metadata["warnings"] == []
    assert "flip_rate" not in result.metrics


def test_a_regression_of_several_numbers_stays_as_documented():
    result = probed(lambda given: given[1])
    assert result.metadata["output"] == "output"
    assert "flip_rate" in result.metrics
