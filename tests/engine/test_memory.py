"""What memory allows goes into a pass; an error of memory is known as one, and told what was held."""

from itertools import count

import pytest
import torch
from support.nets import SmallCNN
from support.probing import (
    BOTH,
    CPU,
    images_of,
    marked_images,
    plain_bank,
    random_bank,
    run,
    said,
    same,
    where_marked,
)

from kornia_lightning_probe.engine.memory import PassSize, clean_bytes_told, is_out_of_memory
from kornia_lightning_probe.engine.notes import Findings
from kornia_lightning_probe.engine.processes import World
from kornia_lightning_probe.engine.under_views import Plan, run_probe
from kornia_lightning_probe.images.probe_images import ProbeImages
from kornia_lightning_probe.metrics import resolve_metrics
from kornia_lightning_probe.model.subject import choose_subject
from kornia_lightning_probe.result import ProbeResult


def test_what_an_out_of_memory_error_has_caused_is_one_too():
    error = RuntimeError("view 'blur 2' raised MemoryError on images of shape (8, 3, 8, 8)")
    assert not is_out_of_memory(error)
    error.__cause__ = MemoryError()
    assert is_out_of_memory(error)
    assert not is_out_of_memory(ValueError("out of memory"))


def test_an_error_of_memory_is_told_what_the_clean_activations_took_and_others_are_not():
    findings = Findings(clean_bytes=3 * 2**20)
    with pytest.raises(MemoryError) as raised, clean_bytes_told(findings):
        raise MemoryError
    (note,) = raised.value.__notes__
    assert note == "when memory ran out, the clean activations of the first block took 3 MiB"
    with pytest.raises(ValueError, match="other") as raised, clean_bytes_told(findings):
        raise ValueError("other")
    assert not hasattr(raised.value, "__notes__")


def test_the_first_probe_says_how_much_its_clean_activations_took():
    class Full(SmallCNN):
        passes = 0

        def forward(self, x):
            output = super().forward(x)
            self.passes += len(x) == 32
            if self.passes == 3:
                raise torch.OutOfMemoryError("out of memory")
            return output

    with pytest.raises(torch.OutOfMemoryError) as raised:
        run(Full(), images_of(32), plain_bank(), layers=["block1", "head"])
    (note,) = raised.value.__notes__
    taken = float(note.split("took ")[1].removesuffix(" MiB"))
    assert taken > 0


class Card:
    """A device with so much memory: what it is asked for, and how many images at once a model can take."""

    def __init__(self, monkeypatch, *, free, bytes_per_image):
        self.free, self.reserved, self.bytes_per_image = free, 0, bytes_per_image
        self.tried = []
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (self.free - self.reserved, 2**40))
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: self.reserved)
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: setattr(self, "reserved", 0))

    def run(self, views):
        self.tried.append(views)
        needed = 32 * views * self.bytes_per_image
        if needed > self.free:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.reserved = max(self.reserved, needed)

    def settle(self, size, findings=None, **options):
        device = torch.device("cuda", 0)
        known = {"lockstep": False, "views": 19, "findings": findings or Findings()} | options
        return size.settle(self.run, 32, device=device, **known)


@pytest.mark.parametrize(
    ("bytes_per_image", "expected", "tried"),
    [
        # Of 1000 free bytes a pass may take 500: eight views of 32 images take 256 times as much as an image.
        (1.9, 256, [8]),
        # Four views take 384, eight took 768 and were too many.
        (3.0, 128, [8, 4]),
        # Two views take 384 after eight ran out and four took 768.
        (6.0, 64, [8, 4, 2]),
        # Nothing but single views: the last is not tried, since blocks have been passed already.
        (15.0, 32, [8, 4, 2]),
    ],
)
def test_auto_takes_as_many_views_as_fit_into_half_of_the_free_memory(monkeypatch, bytes_per_image, expected, tried):
    card = Card(monkeypatch, free=1000, bytes_per_image=bytes_per_image)
    size = PassSize("auto")
    assert size.now == 32
    assert card.settle(size) == size.now == expected
    assert card.tried == tried


def test_auto_is_settled_once(monkeypatch):
    card, size = Card(monkeypatch, free=1000, bytes_per_image=3.0), PassSize("auto")
    card.settle(size)
    card.tried.clear()
    assert card.settle(size) == 128
    assert card.tried == []


def test_auto_tries_nothing_where_processes_must_run_equally_many_passes(monkeypatch):
    card = Card(monkeypatch, free=1000, bytes_per_image=0.1)
    assert card.settle(PassSize("auto"), lockstep=True) == 32
    assert card.tried == []


def test_a_number_is_taken_as_it_is(monkeypatch):
    card = Card(monkeypatch, free=1000, bytes_per_image=3.0)
    assert card.settle(PassSize(7)) == 7
    assert card.tried == []


def test_it_is_said_where_less_goes_into_a_pass_than_was_tried(monkeypatch):
    for bytes_per_image, sentences in ((1.0, []), (3.0, ["256 images at once take more than half"])):
        findings = Findings()
        Card(monkeypatch, free=1000, bytes_per_image=bytes_per_image).settle(PassSize("auto"), findings)
        warnings = findings.metadata()["warnings"]
        assert [part in text for part, text in zip(sentences, warnings, strict=True)] == [True] * len(sentences)


def test_another_error_of_a_trial_is_no_matter_of_memory(monkeypatch):
    card = Card(monkeypatch, free=1000, bytes_per_image=1.0)

    def fail(views):
        raise ZeroDivisionError

    card.run = fail
    with pytest.raises(ZeroDivisionError):
        card.settle(PassSize("auto"))


def test_on_the_cpu_auto_is_32():
    net, images = SmallCNN(), images_of(40)
    result = run(net, images, plain_bank(), batch_size="auto")
    assert result.metadata["batch_size"] == 32
    same(result, run(net, images, plain_bank(), batch_size=32), rtol=0, atol=0)


@pytest.mark.parametrize(("views", "expected", "tried"), [(0, 32, []), (1, 32, []), (3, 96, [3])])
def test_no_more_views_are_tried_than_there_are(monkeypatch, views, expected, tried):
    card = Card(monkeypatch, free=1000, bytes_per_image=0.1)
    assert card.settle(PassSize("auto"), views=views) == expected
    assert card.tried == tried


def test_what_runs_out_of_memory_later_takes_half_from_then_on(monkeypatch):
    card, size = Card(monkeypatch, free=1000, bytes_per_image=1.0), PassSize("auto")
    card.settle(size)
    assert [(size.halve(), size.now) for _ in range(4)] == [(True, 128), (True, 64), (True, 32), (False, 32)]
    assert (PassSize(64).halve(), PassSize(64).now) == (False, 64)


class Narrow(SmallCNN):
    """Has memory for passes of at most 64 images."""

    def forward(self, x):
        if len(x) > 64:
            raise torch.OutOfMemoryError(f"CUDA out of memory with {len(x)} images")
        return super().forward(x)


def settled_on(now):
    size = PassSize("auto")
    size.now, size._is_settled = now, True
    return size


def probed(model, size, *, inputs=None, metrics=BOTH, **options):
    images = ProbeImages(images_of(40) if inputs is None else inputs)
    subject = choose_subject(model, model, layers="auto", embedding=None, device=CPU)
    plan = Plan(images, random_bank(), resolve_metrics(metrics), size=size, **options)
    return ProbeResult.of(run_probe(subject, plan))


def test_what_runs_out_of_memory_begins_anew_with_half_and_gives_the_same():
    model, size = Narrow().eval(), settled_on(256)
    result = probed(model, size)
    assert size.now == result.metadata["batch_size"] == 64
    same(result, run(model, images_of(40), random_bank()))
    assert said(result).count("memory ran out") == 1
    assert "memory ran out with 128 images in a pass, so that 64 go into one" in said(result)


class OutWithin(SmallCNN):
    """Runs out of memory in its last layer, with all others measured, from some pass of more than so many images on."""

    def __init__(self, at, most):
        super().__init__()
        # No number of its own: a model whose settings change is looked at anew.
        self.most, self.passes, self.at = most, count(1), at
        self.head.register_forward_pre_hook(self.run_out)

    def run_out(self, _module, inputs):
        if len(inputs[0]) > self.most and next(self.passes) >= self.at:
            raise torch.OutOfMemoryError("CUDA out of memory")


# Each of the two blocks, of 20 images, goes through under all four views at once; of 64 images there are three.
@pytest.mark.parametrize("at", [1, 2])
@pytest.mark.parametrize("inputs", [images_of(40), marked_images()], ids=["finite", "one is not"])
def test_what_was_measured_when_memory_ran_out_is_not_measured_twice(at, inputs):
    torch.manual_seed(0)
    model = OutWithin(at, most=40).eval()
    model.block1[0].register_forward_hook(lambda _module, x, maps: where_marked(torch.nan)(x[0], maps))
    result = probed(model, settled_on(128), inputs=inputs, metrics=None)
    assert result.metadata["batch_size"] == 32
    model.most = 40 * 4
    same(result, run(model, inputs, random_bank(), metrics=None))
    assert said(result).count("memory ran out") == 1


def test_where_halves_do_not_help_the_error_names_what_was_tried():
    # Behind the look, over two images, comes the scout, over twenty.
    with pytest.raises(torch.OutOfMemoryError) as raised:
        probed(OutWithin(1, most=10).eval(), settled_on(128))
    assert "batch_size='auto': with 128, 64 images in a pass it had run out before" in raised.value.__notes__


def test_a_first_look_of_two_images_that_runs_out_is_no_matter_of_the_pass():
    size = settled_on(128)
    with pytest.raises(torch.OutOfMemoryError):
        probed(OutWithin(1, most=0).eval(), size)
    assert size.now == 128


def test_a_number_that_does_not_fit_is_its_users_to_change():
    with pytest.raises(torch.OutOfMemoryError, match="with 80 images"):
        probed(Narrow().eval(), PassSize(80))


def test_of_several_processes_none_begins_anew_alone():
    size = settled_on(256)
    with pytest.raises(torch.OutOfMemoryError):
        probed(Narrow().eval(), size, world=World(rank=0, size=2, gather=lambda text: [text] * 2))
    assert size.now == 256
