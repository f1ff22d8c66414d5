"""What a probe asks of strategies that do not run here: told by their names, as they need devices or packages."""

from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.plugins.precision import Precision
from support.trainings import Net, images_of
from torch import nn

from kornia_lightning_probe.callbacks.trainer import forward_in, world_of


class Wrapped(nn.Module):
    """Stands for what FSDP or DeepSpeed make of a model: it gathers parameters, then calls it."""

    def __init__(self, model):
        super().__init__()
        self.model, self.calls = model, 0

    def forward(self, *inputs):
        self.calls += 1
        return self.model(*inputs)


def trainer_under(name, model, **options):
    strategy = type(name, (), {"model": Wrapped(model), **options})()
    return SimpleNamespace(strategy=strategy, precision_plugin=Precision(), world_size=2, global_rank=1)


@pytest.mark.parametrize(("name", "calls"), [("FSDPStrategy", 1), ("DeepSpeedStrategy", 1), ("DDPStrategy", 0)])
def test_a_model_whose_parameters_are_elsewhere_is_called_through_its_wrapper(name, calls):
    model, images = Net().eval(), images_of(2)
    trainer = trainer_under(name, model)
    assert torch.equal(forward_in(trainer, model, None)(images), model(images))
    assert trainer.strategy.model.calls == calls


def test_a_forward_of_ones_own_is_called_on_the_module():
    model, images = Net().eval(), images_of(2)
    trainer = trainer_under("FSDPStrategy", model)
    assert torch.equal(forward_in(trainer, model, "stem")(images), model.stem(images))
    assert trainer.strategy.model.calls == 0


@pytest.mark.parametrize(
    ("name", "lockstep"), [("FSDPStrategy", True), ("DeepSpeedStrategy", True), ("DDPStrategy", False)]
)
def test_processes_keep_step_where_a_forward_is_collective(name, lockstep):
    world = world_of(trainer_under(name, Net(), distributed_sampler_kwargs={"num_replicas": 2, "rank": 1}))
    assert (world.rank, world.size, world.lockstep) == (1, 2, lockstep)


def test_without_torch_distributed_the_strategy_itself_sums():
    def reduce(self, tensor, reduce_op):
        assert reduce_op == "sum"
        return tensor * 2

    world = world_of(trainer_under("XLAStrategy", Net(), reduce=reduce))
    assert torch.equal(world.add(torch.ones(3)), torch.full((3,), 2.0))
