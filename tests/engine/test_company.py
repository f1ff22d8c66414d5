import pytest
import torch
from support.nets import AlwaysDropout, SequenceFirst, SmallCNN
from support.probing import images_of, plain_bank, run, said
from support.scouting import subject_of
from torch import nn

from kornia_lightning_probe.engine.company import see_in_company
from kornia_lightning_probe.engine.passes import Forward
from kornia_lightning_probe.images.probe_images import ProbeImages
from kornia_lightning_probe.model.undisturbed import undisturbed

CPU = torch.device("cpu")


def company_of(model, count=20, size=12, **options):
    """What a second look shows, and how many images went through the model in each pass."""
    sizes, kept = [], {}

    def forward(x):
        sizes.append(len(x))
        return model(x)

    block = ProbeImages(images_of(count, size=size)).scout
    subject = subject_of(model, forward=forward, **options)
    with undisturbed(model, device=CPU), Forward(subject, seed=0) as passes:
        passes.run(block, block.images[0], lambda name, x: kept.__setitem__(name, x.clone()), draw="clean")
        return see_in_company(passes, block, kept), sizes[1:]


class Batched(nn.Module):
    """A BatchNorm that has no running statistics, so that images of a batch touch each other."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = (
            nn.Conv2d(3, 4, 3),
            nn.BatchNorm2d(4, track_running_stats=False),
            nn.Linear(4, 2),
        )

    def forward(self, x):
        return self.head(self.norm(self.conv(x)).relu().mean((2, 3)))


def test_a_forward_that_repeats_itself_on_images_that_do_not_touch_costs_one_pass():
    company, sizes = company_of(SmallCNN())
    assert company.noise == {}
    assert list(company.touching) == []
    assert sizes == [8]


@pytest.mark.parametrize(("count", "passed"), [(20, 8), (6, 3), (3, 2), (2, 2), (1, 1)])
def test_at_most_eight_images_pass_again_and_never_all_where_there_are_more_than_two(count, passed):
    _, sizes = company_of(SmallCNN(), count)
    assert sizes == [passed]


def test_a_forward_that_draws_has_a_floor_behind_the_draw_and_images_do_not_touch():
    company, sizes = company_of(AlwaysDropout(), layers=["conv", "head"])
    assert list(company.noise) == ["head"]
    assert company.noise["head"] > 0.1
    assert list(company.touching) == []
    assert sizes == [8, 8, 8]


def test_images_that_touch_each_other_are_told_from_noise():
    company, sizes = company_of(Batched(), layers=["conv", "norm", "head"])
    assert company.noise == {}
    assert list(company.touching) == ["norm", "head"]
    assert sizes == [8, 8, 8]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_roundings_of_another_dtype_are_neither(dtype):
    net = SmallCNN().to(dtype)

    class Cast(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            return self.net(x.to(dtype))

    company, _ = company_of(Cast(), layers=["net.block1", "net.block2", "net.head"])
    assert company.noise == {}
    assert list(company.touching) == []


@pytest.mark.parametrize("batch_size", [3, 32, 200])
def test_blocks_of_images_that_touch_pass_whole_whatever_the_batch_size(batch_size):
    options = {"layers": ["conv", "norm", "head"], "metrics": ["sensitivity", "spread"]}
    sizes = []
    net = Batched()

    def forward(x):
        sizes.append(len(x))
        return net(x)

    result = run(net, images_of(40), plain_bank(), batch_size=batch_size, forward=forward, **options)
    assert result.metadata["batch_dependent_layers"] == ["norm", "head"]
    assert "depends on the others in its batch at norm, head" in said(result)
    # Two blocks of 20, clean and under two views each, and the scout's again where the batch was smaller.
    assert sizes.count(20) in (6, 7)
    expected = run(Batched(), images_of(40), plain_bank(), batch_size=20, **options)
    assert result.metadata["batch_dependent_layers"] == expected.metadata["batch_dependent_layers"]


def test_what_is_as_long_as_the_block_by_chance_is_a_stranger():
    class Untold(SequenceFirst):
        def forward(self, x):
            tokens = self.conv(x).flatten(2).permute(2, 0, 1)
            return self.head(self.tokens(torch.from_numpy(tokens.numpy().copy())).mean(0))

    company, _ = company_of(Untold(), count=16, size=6, layers=["conv", "tokens", "head"])
    # 4 x 4 cells are 16 tokens in front of 16 images, and of 8.
    assert company.strangers == {"tokens": "its first axis has 16 entries where 8 images went in"}
