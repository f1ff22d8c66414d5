import pytest
import torch
from support.nets import Failing, SmallCNN
from support.probing import halved, images_of, plain_bank, random_bank, run, run_on_all, unchanged
from support.scouting import subject_of
from torch import nn

from kornia_lightning_probe.bank.bank import AugmentationBank
from kornia_lightning_probe.engine.loop import Route, count_passes, run_loop
from kornia_lightning_probe.engine.notes import Findings
from kornia_lightning_probe.engine.processes import OtherRankError, World
from kornia_lightning_probe.functional.distances import squared_distance
from kornia_lightning_probe.images.blocks import deal_blocks
from kornia_lightning_probe.images.probe_images import ProbeImages

IMAGES = images_of(40)


# The scout: layers that do not fire, or whose first axis is not the images.


# Errors that stop a probe before it has cost much.


@pytest.mark.parametrize("batch_size", [0, -3])
def test_a_batch_has_at_least_one_image(batch_size):
    with pytest.raises(ValueError, match=f"batch_size must be at least 1, got {batch_size}"):
        run(SmallCNN(), IMAGES, plain_bank(), batch_size=batch_size)


def test_an_error_in_the_model_comes_out_as_it_is():
    with pytest.raises(RuntimeError, match=r"^this layer fails\nthe probe's first forward called") as caught:
        run(nn.Sequential(Failing()), IMAGES, plain_bank(), layers="0")
    assert str(caught.value) == "this layer fails"


# Metrics and other processes.


def test_a_process_that_fails_tells_the_others_why():
    texts = []
    world = World(size=2, gather=lambda text: (texts.append(text), [text, text])[1], add=unchanged)
    with pytest.raises(RuntimeError, match="this layer fails"):
        run(nn.Sequential(Failing()), IMAGES, plain_bank(), layers="0", world=world)
    assert texts == ["failed: RuntimeError: this layer fails"]


def test_a_process_that_hears_of_a_failure_stops_and_says_nothing_more():
    texts = []
    world = World(
        size=2, gather=lambda text: (texts.append(text), [text, "failed: ValueError: no image"])[1], add=unchanged
    )
    with pytest.raises(OtherRankError, match="the probe failed on rank 1: ValueError: no image"):
        run(SmallCNN(), IMAGES, plain_bank(), world=world)
    assert len(texts) == 1


def test_processes_that_see_other_layers_stop():
    world = World(size=2, gather=lambda text: [text, "7 for 2 layers"], add=unchanged)
    with pytest.raises(OtherRankError, match=r"differ in the layers that run; by rank: .* for . layers \| 7 for 2"):
        run(SmallCNN(), IMAGES, plain_bank(), world=world)


def test_processes_whose_cells_lie_elsewhere_stop():
    # The same layers and shapes, but the second process pads on the other side.
    class Padded(nn.Sequential):
        def forward(self, x):
            return super().forward(nn.functional.pad(x, self.sides))

    def told(sides, other):
        net = Padded(nn.Conv2d(3, 4, 3))
        net.sides = sides
        texts = []

        def gather(text):
            texts.append(text)
            return [text, other if other and text.endswith("layers") else text]

        run(net, IMAGES, plain_bank(), layers="0", metrics="sensitivity", world=World(gather=gather))
        return next(text for text in texts if text.endswith("layers"))

    first = told((2, 0, 2, 0), None)
    assert told((2, 0, 2, 0), first) == first
    with pytest.raises(OtherRankError, match="the processes differ in the layers that run"):
        told((0, 2, 0, 2), first)


# A visitor.


class Visits:
    """Keeps what the loop shows it; each image's row gets the number of its block, from one."""

    wants_scores = False

    def __init__(self, count=40, opening=0, each=0):
        self.calls = []
        self.opening, self.each = opening, each
        self.table = torch.zeros(count, dtype=torch.float64)
        self.clean = {}

    def opening_passes(self, num_images, size):
        return self.opening

    def block_passes(self, num_images, size):
        return self.each

    def drop(self, layers):
        self.calls += layers

    def let_go(self):
        self.calls.append("let go")

    def check(self):
        self.calls.append("check")

    def open(self, scouted, passes):
        self.calls.append("open")

    def see(self, block, clean, passes):
        self.calls.append(block.index)
        self.table[block.ids.start : block.ids.stop] = block.index + 1
        for name, activation in clean.items():
            self.clean.setdefault(name, []).append(activation.clone())

    def tables(self):
        return [self.table]


def visit(model, visitor, images=IMAGES, layers="auto", **options):
    findings = Findings()
    world = options.get("world") or World()
    route = Route(ProbeImages(images, rank=world.rank, world_size=world.size), **options)
    run_loop(subject_of(model, layers=layers), route, visitor, findings)
    return findings


def test_a_visitor_is_opened_once_and_sees_each_block_with_its_clean_activations():
    net, visitor = SmallCNN(), Visits()
    findings = visit(net, visitor)
    assert visitor.calls == ["check", "open", 0, 1]
    assert visitor.table.tolist() == [1.0] * 20 + [2.0] * 20
    ids = torch.tensor(findings.facts["image_ids"])
    with torch.no_grad():
        expected = net.eval().block1(IMAGES[ids])
    torch.testing.assert_close(torch.cat(visitor.clean["block1"]), expected, rtol=1e-5, atol=1e-6)
    assert findings.facts["num_blocks"] == 2
    assert findings.facts["world_size"] == 1


def test_tables_are_summed_over_processes_in_place():
    visitor = Visits()
    visit(SmallCNN(), visitor, world=World(size=2, gather=lambda text: [text] * 2, add=lambda tensor: 3 * tensor))
    # Of two processes the first owns block 0, and the sum is thrice what it has.
    assert visitor.table.tolist() == [3.0] * 20 + [0.0] * 20


def test_a_check_that_fails_costs_no_pass():
    class Refuses(Visits):
        def check(self):
            raise ValueError("not these images")

    with pytest.raises(ValueError, match="not these images"):
        visit(nn.Sequential(Failing()), Refuses())


# How many passes.


def test_the_count_is_made_of_the_visitors_passes_and_those_over_blocks():
    # Blocks of 17 and 16 in passes of 10: 5 to open; 4 in each block, and 2 clean ones in the second, since the scout
    # has seen the first.
    visitor = Visits(opening=5, each=4)

    def tens(_num_images):
        return 10

    assert count_passes(deal_blocks(33), visitor, tens) == 5 + 4 + (2 + 4)
    assert count_passes(deal_blocks(33), visitor, tens, rank=0, world_size=2) == 5 + 4
    assert count_passes(deal_blocks(33), visitor, tens, rank=1, world_size=2) == 5 + (2 + 4)
    assert count_passes(deal_blocks(33), visitor, tens, rank=2, world_size=3) == 5


@pytest.mark.parametrize("batch_size", [1, 7, 32, 1000])
@pytest.mark.parametrize("num_images", [4, 33])
def test_the_bar_of_a_probe_is_as_long_as_its_passes(num_images, batch_size, capfd):
    calls = []
    model = SmallCNN()

    def forward(x):
        calls.append(1)
        return model(x)

    options = {"batch_size": batch_size, "forward": forward, "progress": True, "metrics": None}
    run(model, images_of(num_images), random_bank(), **options)
    # But for the first look, which is none of the passes that are watched.
    said = capfd.readouterr().err
    assert f"/{len(calls) - 1} [" in said
    assert f"/{len(calls)} [" not in said


@pytest.mark.parametrize("num_images", [4, 80])
@pytest.mark.parametrize("metrics", [("sensitivity",), None])
def test_where_passes_are_collective_every_process_runs_equally_many(num_images, metrics):
    model, size = SmallCNN(), 3
    calls = []

    def forward(x):
        calls.append(1)
        return model(x)

    options = {"forward": forward, "metrics": metrics, "batch_size": 20}
    run_on_all(size, model, images_of(num_images), random_bank(), lockstep=True, **options)
    together = len(calls)
    calls.clear()
    run(model, images_of(num_images), random_bank(), **options)
    # Every process is simulated three times, to send numbers, to send pictures and to receive them; the first one has
    # the scout and most blocks.
    assert together % (3 * size) == 0
    assert together // (3 * size) <= len(calls)


# Gradients.


class Gradients(Visits):
    """Takes the gradient of a layer's squared distance, once from the pixels of the view and once from both sides."""

    def __init__(self, bank, layer):
        super().__init__()
        self.bank, self.layer = bank, layer
        self.from_view, self.from_both, self.scores = [], [], []

    def see(self, block, clean, passes):
        (images,) = block.images
        unit = self.bank.to_unit(images).requires_grad_()
        view = self.bank[0]
        (augmented,) = self.bank.draw(view, [images], [unit], block=block.index, graph=True).images
        moved = self._activation(block, augmented, passes)
        assert not clean[self.layer].requires_grad
        distance = squared_distance(moved, clean[self.layer])
        self.from_view.append(torch.autograd.grad(distance.sum(), unit, retain_graph=True)[0])
        both = squared_distance(moved, self._activation(block, unit, passes))
        self.from_both.append(torch.autograd.grad(both.sum(), unit)[0])

    def _activation(self, block, inputs, passes):
        kept = {}
        passes.run(block, inputs, kept.__setitem__, draw="view", num_rows=len(block))
        return kept[self.layer]


@pytest.mark.parametrize("layer", ["0", "1"])
def test_with_a_graph_a_layers_distance_has_a_gradient_back_to_the_images_through_the_bank(layer):
    net = nn.Sequential(nn.Flatten(), nn.Linear(432, 5, bias=False))
    weight = torch.eye(432) if layer == "0" else net[1].weight.detach()
    visitor = Gradients(AugmentationBank({"halve": halved}), layer)
    before = [parameter.grad for parameter in net.parameters()]
    findings = visit(net, visitor, graph=True, layers=[layer])
    images = IMAGES[torch.tensor(findings.facts["image_ids"])].flatten(1)
    # d |W x/2 - c|^2 / dx at c = W x is 2 (1/2) W'(W x/2 - W x) = -W'W x / 2; of |W x/2 - W x|^2 = |W x|^2 / 4 it is
    # W'W x / 2.
    expected = images @ weight.T @ weight / 2
    torch.testing.assert_close(torch.cat(visitor.from_view).flatten(1), -expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.cat(visitor.from_both).flatten(1), expected, rtol=1e-4, atol=1e-5)
    # Nothing is left in the model.
    assert [parameter.grad for parameter in net.parameters()] == before


def test_without_a_graph_there_is_none():
    class Looks(Visits):
        def see(self, block, clean, passes):
            inputs = block.images[0].clone().requires_grad_()
            passes.run(block, inputs, self.look, draw="view", num_rows=len(block))

        def look(self, name, activation):
            self.calls.append((name, activation.requires_grad))

    visitor = Looks()
    visit(nn.Sequential(nn.Flatten(), nn.Linear(432, 5)), visitor)
    assert {called for called in visitor.calls if isinstance(called, tuple)} >= {("1", False)}
