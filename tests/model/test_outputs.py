import warnings

import pytest
import torch
from support.nets import Returns, SmallCNN
from support.probing import images_of, plain_bank
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from kornia_lightning_probe import probe_model
from kornia_lightning_probe.images.labels import Targets
from kornia_lightning_probe.model.outputs import why_labels_do_not_fit, why_no_scores

IMAGE = (3, 12, 12)
NOTHING = Targets()
PREDICTIONS = {"flip_rate", "js_divergence"}
WITH_LABELS = PREDICTIONS | {"accuracy", "accuracy_drop"}


@pytest.mark.parametrize("shape", [(4, 2), (4, 1000), (4, 2, 6, 6), (4, 21, 12, 12)], ids=str)
def test_class_scores_are_vectors_or_maps_of_at_least_two_classes(shape):
    assert why_no_scores(torch.zeros(shape), image_shape=IMAGE, targets=NOTHING) == ""


@pytest.mark.parametrize(
    ("scores", "reason"),
    [
        (torch.zeros(4, 1), "one number for each image, so it is a regression or a single logit"),
        (torch.zeros(4), "one number for each image"),
        (torch.zeros(4, dtype=torch.long), "one number for each image"),
        (torch.zeros(4, 5, 7), r"it is float32 \(N, 5, 7\), expected floats \(N, classes\) or \(N, classes, H, W\)"),
        (torch.zeros(4, 5, dtype=torch.long), r"it is int64 \(N, 5\), expected floats"),
        (torch.zeros(()), r"it is float32 \(\), expected floats"),
        (torch.zeros(4, 3, 12, 12), "as many numbers as the image, so it is an image"),
        (torch.zeros(4, 432), "as many numbers as the image, so it is an image"),
    ],
    ids=str,
)
def test_what_is_no_class_scores_is_said(scores, reason):
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(why_no_scores(scores, image_shape=IMAGE, targets=NOTHING))


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ([0, 4], ""),
        ([0, 5], "labels go up to 5 and it has 5 entries"),
        # 255 is a class where there is one label for each image.
        ([0, 255], "labels go up to 255 and it has 5 entries"),
        ([-100, -1], ""),
        ([[[0, 255]], [[4, 255]]], ""),
        ([[[0, 255]], [[7, 255]]], "labels go up to 7 and it has 5 entries"),
        ([[[255, 255]], [[255, 255]]], ""),
    ],
    ids=str,
)
def test_labels_beyond_the_classes_tell_that_these_are_none(labels, reason):
    targets = Targets.of([torch.tensor(labels)])
    scores = torch.zeros(2, 5, 1, 2) if targets.shape else torch.zeros(2, 5)
    assert why_no_scores(scores, image_shape=IMAGE, targets=targets) == reason


# In a probe.


class Items(Dataset):
    """Images, each with a target of its own kind."""

    def __init__(self, targets, images=None):
        self.images, self.targets = images_of(len(targets)) if images is None else images, targets

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        return self.images[index], self.targets[index]


def probed(model, inputs, *, measures=WITH_LABELS, **options):
    return probe_model(model, inputs, plain_bank(), metrics=[*sorted(measures), "sensitivity"], **options)


def classes(result):
    return set(result.metrics) - {"sensitivity"}


LABELS = torch.arange(10) % 5


@pytest.mark.parametrize(
    ("inputs", "options"),
    [
        (images_of(10), {"labels": LABELS}),
        (images_of(10), {"labels": LABELS.tolist()}),
        (TensorDataset(images_of(10), LABELS), {}),
        (DataLoader(TensorDataset(images_of(10), LABELS), batch_size=4), {}),
        (DataLoader([{"image": x, "label": y} for x, y in zip(images_of(10), LABELS, strict=True)], batch_size=4), {}),
        (Items(LABELS.tolist()), {}),
        (TensorDataset(images_of(10), torch.rand(10, 3)), {"labels": LABELS}),
    ],
    ids=["labels=", "list", "dataset", "loader", "dicts", "numbers", "labels= over targets"],
)
def test_labels_come_from_where_they_are(inputs, options):
    torch.manual_seed(0)
    model = SmallCNN().eval()
    result = probed(model, inputs, **options)
    with torch.no_grad():
        right = [(model(x).argmax(1) == LABELS).double().mean().item() for x in (images_of(10), images_of(10) / 2)]
    assert classes(result) == WITH_LABELS
    assert result.value("accuracy", "output", "halve") == pytest.approx(right[1])
    assert result.value("accuracy_drop", "output", "halve") == pytest.approx(right[0] - right[1])


def test_without_labels_accuracy_is_left_out_and_said():
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match="the metric 'accuracy(_drop)?' is not in the result"):
        result = probed(SmallCNN(), images_of(10))
    assert classes(result) == PREDICTIONS
    assert set(result.metadata["left_out"]) == {"accuracy", "accuracy_drop"}
    needs = "needs class scores (B, classes) and labels (B,), one integer for each image"
    assert len(result.metadata["warnings"]) == 2
    for name, sentence in zip(("accuracy", "accuracy_drop"), result.metadata["warnings"], strict=True):
        assert sentence == f"the metric {name!r} is not in the result: {result.metadata['left_out'][name]}"
        assert sentence.endswith(f"'output']; it {needs}; here are class scores (N, 5) and no labels")


def test_pixels_that_a_classifier_does_not_have_are_said():
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match="the metric 'pixel_flip_rate' is not in the result"):
        result = probed(SmallCNN(), images_of(10), labels=LABELS, measures={"pixel_flip_rate"})
    assert classes(result) == set()
    (sentence,) = result.metadata["warnings"]
    needs = "or (B, classes, D, H, W) and views that move no pixel"
    assert sentence.endswith(f"{needs}; here are class scores (N, 5) and labels (N,)")


def test_a_metric_of_the_default_set_that_applies_nowhere_is_no_news():
    torch.manual_seed(0)
    result = probe_model(SmallCNN(), images_of(10), plain_bank())
    assert result.metadata["warnings"] == []
    assert {"accuracy", "accuracy_drop", "pixel_flip_rate"} <= set(result.metadata["metrics_left_out"])
    assert result.metadata["left_out"] == {}


def detections(x):
    return [{"boxes": torch.zeros(1, 4), "scores": torch.ones(1), "labels": torch.ones(1)} for _ in x]


def of_shape(*shape):
    return lambda x: x.flatten(1).sum(1).view(-1, *[1] * len(shape)).expand(-1, *shape)


class Ending(nn.Module):
    """A layer, and what `end` makes of its features for an output."""

    def __init__(self, end):
        super().__init__()
        self.layer, self.end = nn.Conv2d(3, 4, 3, 1, 1), Returns(end)

    def forward(self, x):
        return self.end(self.layer(x))


OTHERS = {
    "multi-label floats": (of_shape(5), Items(torch.rand(10, 5).round()), "targets are float32 (10, 5)"),
    "multi-hot integers": (of_shape(5), Items((torch.rand(10, 5) > 0.5).long()), "targets are int64 (10, 5)"),
    "multi-hot booleans": (of_shape(5), Items(torch.rand(10, 5) > 0.5), "targets are bool (10, 5)"),
    "regression": (of_shape(2), Items(torch.rand(10)), "targets are float32 (10,)"),
    "one number, three labels": (of_shape(1), Items([0, 1, 2, 0, 1] * 2), "one number for each image"),
    "one number, no labels": (of_shape(), images_of(10), "one number for each image"),
    "one number, float targets": (of_shape(), Items(torch.rand(10)), "one number for each image"),
    "detection": (detections, images_of(10), "no tensor of class scores"),
    "queries": (lambda x: {"logits": of_shape(20, 5)(x)}, images_of(10), "it is float32 (N, 20, 5)"),
    "autoencoder": (lambda x: x[:, :3], images_of(10), "it is an image"),
    "flat autoencoder": (lambda x: x[:, :3].flatten(1), images_of(10), "it is an image"),
    "too few classes": (of_shape(4), Items([0, 4] * 5), "labels go up to 4 and it has 4 entries"),
    "nothing": (lambda _: None, images_of(10), "no tensor of class scores"),
}


@pytest.mark.parametrize(("end", "inputs", "reason"), OTHERS.values(), ids=OTHERS)
def test_outputs_that_are_no_class_scores_are_left_out_with_the_reason(end, inputs, reason):
    with pytest.warns(UserWarning, match="is not in the result"):
        result = probed(Ending(end), inputs, layers=["layer"])
    assert classes(result) == set()
    assert reason in result.metadata["left_out"]["output"]
    assert set(result.metadata["left_out"]) == WITH_LABELS | {"output"}
    assert result.tensor("sensitivity").isfinite().all()
    ending = f"; the output is left out, as {result.metadata['left_out']['output']}"
    assert len(result.metadata["warnings"]) == len(WITH_LABELS)
    assert all(sentence.endswith(ending) for sentence in result.metadata["warnings"])


# Labels that are of no use.


def segmenting(stride=1):
    """Scores of 5 classes for each pixel, or each patch."""
    return lambda x: nn.functional.avg_pool2d(of_shape(5)(x)[..., None, None] + x[:, :1], stride)


def masks(*size):
    return torch.zeros(10, *size, dtype=torch.long)


@pytest.mark.parametrize(
    ("label_shape", "scores_shape"),
    [((), (5,)), ((12, 12), (5, 12, 12)), ((12, 12), (5, 4, 4)), ((4, 4), (5, 4, 4))],
    ids=str,
)
def test_labels_fit_scores_of_images_and_masks_those_of_pixels_as_large_as_these_or_the_images(
    label_shape, scores_shape
):
    assert why_labels_do_not_fit(label_shape, scores_shape=scores_shape, image_size=(12, 12)) == ""


UNFIT = {
    "masks of a classifier": (of_shape(5), masks(12, 12), "(N, 12, 12)", "(N, 5)", "(N,), one integer for each image"),
    "masks of another size": (
        segmenting(),
        masks(7, 9),
        "(N, 7, 9)",
        "(N, 5, 12, 12)",
        "(N, 12, 12), masks of integers",
    ),
    "integers of a segmentation": (
        segmenting(3),
        LABELS,
        "(N,)",
        "(N, 5, 4, 4)",
        "(N, 4, 4) or (N, 12, 12), masks of integers",
    ),
}


@pytest.mark.parametrize(("end", "labels", "came", "scores", "expected"), UNFIT.values(), ids=UNFIT)
def test_labels_that_fit_no_class_scores_are_said(end, labels, came, scores, expected):
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match="labels= is not used for measures of the output"):
        result = probe_model(Ending(end), images_of(10), plain_bank(), layers=["layer"], labels=labels)
    start = "labels= is not used for measures of the output"
    sentence = f"{start}: labels {came} came, and class scores {scores} go with labels {expected}"
    assert result.metadata["warnings"] == [sentence]
    assert "accuracy" in result.metadata["metrics_left_out"]


@pytest.mark.parametrize(
    ("end", "labels", "reason"),
    [
        (of_shape(1), [0, 1, 2, 0, 1] * 2, "it has one number for each image, so it is a regression or a single logit"),
        (lambda _: None, [0, 1] * 5, "no tensor of class scores was found in it"),
        (of_shape(4), [0, 4] * 5, "labels go up to 4 and it has 4 entries"),
    ],
    ids=["regression", "nothing", "too few classes"],
)
def test_labels_of_a_model_without_class_scores_are_said_with_the_reason(end, labels, reason):
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match="labels= is not used for measures of the output"):
        result = probe_model(Ending(end), images_of(10), plain_bank(), layers=["layer"], labels=labels)
    (sentence,) = result.metadata["warnings"]
    assert sentence.startswith(f"labels= is not used for measures of the output: the output is left out, as {reason}")


@pytest.mark.parametrize(
    ("end", "inputs", "labels"),
    [
        (of_shape(5), images_of(10), LABELS),
        (segmenting(), images_of(10), masks(12, 12)),
        (segmenting(3), images_of(10), masks(12, 12)),
        # They were of use: the output is left out for them.
        (of_shape(5), images_of(10), torch.eye(5).repeat(2, 1)),
        # Nobody has asked for anything of the labels that come with a dataset.
        (of_shape(1), TensorDataset(images_of(10), LABELS), None),
        (of_shape(5), TensorDataset(images_of(10), masks(12, 12)), None),
    ],
    ids=["classes", "masks", "masks of larger images", "multi-label", "a regression's dataset", "masks of a dataset"],
)
def test_labels_that_fit_or_come_along_are_no_news(end, inputs, labels):
    torch.manual_seed(0)
    result = probe_model(Ending(end), inputs, plain_bank(), layers=["layer"], labels=labels)
    assert result.metadata["warnings"] == []


def test_labels_are_no_news_to_metrics_that_were_asked_for_and_need_none():
    torch.manual_seed(0)
    result = probed(SmallCNN(), images_of(10), labels=masks(12, 12), measures=PREDICTIONS)
    assert result.metadata["warnings"] == []


TARGETS = {
    "floats": torch.eye(5).repeat(2, 1),
    "integers": torch.eye(5).repeat(2, 1).long(),
    "booleans": torch.eye(5).repeat(2, 1).bool(),
    "lists": torch.eye(5).repeat(2, 1).long().tolist(),
}


@pytest.mark.parametrize("targets", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("inputs", [images_of(10), TensorDataset(images_of(10), LABELS)], ids=["tensor", "dataset"])
def test_targets_of_several_labels_leave_the_output_out_as_those_of_a_dataset_do(inputs, targets):
    torch.manual_seed(0)
    dataset = TensorDataset(images_of(10), torch.as_tensor(targets))
    with pytest.warns(UserWarning, match="is not in the result"):
        expected, result = probed(SmallCNN(), dataset), probed(SmallCNN(), inputs, labels=targets)
    assert "targets are" in result.metadata["left_out"]["output"]
    assert result.metadata["left_out"] == expected.metadata["left_out"]
    assert classes(result) == set()


# Probabilities in a probe.


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_a_model_that_ends_in_softmax_diverges_as_its_logits_do(batch_size):
    torch.manual_seed(0)
    net = SmallCNN()
    with_logits = probed(net, images_of(10), measures=PREDICTIONS, batch_size=batch_size)
    with_softmax = nn.Sequential(net, nn.Softmax(1))
    with_probabilities = probed(with_softmax, images_of(10), measures=PREDICTIONS, batch_size=batch_size)
    torch.testing.assert_close(
        with_probabilities.tensor("js_divergence"), with_logits.tensor("js_divergence"), rtol=1e-4, atol=1e-9
    )


class Breaks(nn.Module):
    """Probabilities, not finite for bright images."""

    def __init__(self):
        super().__init__()
        self.net = SmallCNN()

    def forward(self, x):
        found = self.net(x).softmax(1)
        return torch.where((x.mean((1, 2, 3)) > 0.9)[:, None], torch.nan, found)


def test_one_image_without_a_prediction_leaves_the_others_probabilities():
    torch.manual_seed(0)
    model, images = Breaks(), images_of(10)
    whole = probed(model, images, layers=["net.head"], measures=PREDICTIONS)
    images[4] = 1.0
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "activations that are not finite")
        result = probed(model, images, layers=["net.head"], measures=PREDICTIONS)
    assert result.table("js_divergence").num_images.flatten().tolist() == [9, 9]
    # Softmax of softmax would be nearly flat, and so nearly without divergence.
    assert result.value("js_divergence") > 0.3 * whole.value("js_divergence")
