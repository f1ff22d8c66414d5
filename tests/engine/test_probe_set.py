import pytest
import torch
from support.probing import images_of, plain_bank, run_on_all, said
from torch import nn

from kornia_lightning_probe import probe_model
from kornia_lightning_probe.engine.notes import Findings
from kornia_lightning_probe.engine.probe_set import ProbeSet
from kornia_lightning_probe.images.probe_images import ProbeImages


def told(inputs, **options):
    """What is said of images, and of what kind each sentence is."""
    findings = Findings()
    ProbeSet(ProbeImages(inputs, **options)).note(findings)
    return dict(zip(findings.kinds, findings.warnings, strict=True))


def test_nothing_is_said_of_images_that_differ():
    assert told(images_of(40), labels=list(range(4)) * 10) == {}
    assert told(images_of(1)) == {}


def test_copies_are_named_by_their_numbers():
    inputs = images_of(40)
    inputs[7] = inputs[3]
    inputs[[20, 30]] = inputs[[10, 10]]
    sentence = told(inputs)["copies among the images"]
    assert sentence.startswith("3 of 40 probe images are copies of others (images ")
    assert "3 = 7" in sentence
    assert "10 = 20 = 30" in sentence


@pytest.mark.parametrize(
    ("labels", "share"),
    [([5] * 33 + [0] * 7, "82%"), ([5] * 32 + [0] * 8, None), ([-100] * 36 + [5] * 4, "100%"), ([5] * 40, "100%")],
    ids=["above", "just 80 %", "those with a label", "all"],
)
def test_one_class_above_four_fifths_is_named(labels, share):
    found = told(images_of(40), labels=labels)
    if share is None:
        assert not found
    else:
        assert f"with a label are of class 5 ({share})" in found["one class among the images"]


def test_of_three_labels_one_class_is_no_news():
    assert not told(images_of(3), labels=[1, 1, 1])


@pytest.mark.parametrize("shape", [(3, 12, 12), (1, 4, 12, 12)], ids=["images", "volumes"])
@pytest.mark.parametrize(("own", "is_alike"), [(0.05, True), (0.2, False)])
def test_images_nearly_alike_are_told_by_how_far_their_own_pixels_differ(shape, own, is_alike):
    # One picture of deviation 1 in all of them, and a part of its own in each: two differ by sqrt(2) own of what their
    # pixels do by sqrt(2).
    draws = torch.Generator().manual_seed(0)
    inputs = torch.randn(*shape, generator=draws) + own * torch.randn(40, *shape, generator=draws)
    found = told(inputs, layout="image" if len(shape) == 3 else "volume")
    assert ("images nearly alike" in found) is is_alike
    if is_alike:
        share = found["images nearly alike"].partition("differ by ")[2].partition("%")[0]
        # 432 pixels of one picture know their deviation to 1/sqrt(864) = 3.4 %.
        assert float(share) == pytest.approx(5, rel=0.1)


def test_plain_colours_are_not_alike():
    # Their own pixels do not differ at all.
    assert not told(torch.rand(20, 3, 1, 1).expand(20, 3, 8, 8).contiguous())


def test_each_process_says_the_same_of_all_images():
    inputs = images_of(80)
    inputs[79] = inputs[0]
    model = nn.Sequential(nn.Flatten(), nn.Linear(432, 5))
    (alone,) = run_on_all(1, model, inputs, plain_bank())
    for result in run_on_all(3, model, inputs, plain_bank()):
        assert result.metadata["warnings"] == alone.metadata["warnings"]
    assert "images 0 = 79 of the source" in said(alone)


def test_probing_says_it_aloud():
    inputs = images_of(8)
    inputs[1] = inputs[0]
    with pytest.warns(UserWarning, match="1 of 8 probe images are copies"):
        probe_model(nn.Sequential(nn.Flatten(), nn.Linear(432, 5)), inputs, plain_bank(), metrics="sensitivity")
