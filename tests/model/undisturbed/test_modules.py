import pytest
import torch
import torchmetrics
from lightning.pytorch import LightningModule
from torch import nn

from kornia_lightning_probe.model.undisturbed.modules import every_module, has_base_in, is_scripted, is_sharded


def test_children_keep_their_names_and_come_once():
    net = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU()))
    net.append(net[0])
    assert every_module(net) == dict(net.named_modules())


def test_modules_hidden_in_lists_dicts_tuples_and_attributes_are_found_with_what_is_in_them():
    net = nn.Sequential(nn.ReLU())
    net[0].teachers = [nn.Sequential(nn.Tanh())]
    net.by_stage = {"val": (nn.Flatten(), {"deep": nn.Identity()})}
    net.__dict__["frozen"] = nn.GELU()
    net.names = ["a", "b"]
    assert set(every_module(net)) == {
        *("", "0", "0.teachers[0]", "0.teachers[0].0"),
        *("by_stage[val][0]", "by_stage[val][1][deep]", "frozen"),
    }


def test_a_hidden_module_that_hides_the_model_ends_the_search():
    net, other = nn.Sequential(), nn.Sequential()
    net.others, other.others = [other, net], [net]
    assert list(every_module(net)) == ["", "others[0]"]


def test_long_lists_and_deep_ones_are_taken_for_data():
    net = nn.Sequential()
    net.data = [nn.ReLU()] * 1001
    net.deep = [[[[nn.ReLU()]]]]
    net.itself = []
    net.itself.append(net.itself)
    assert list(every_module(net)) == [""]


@pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated:DeprecationWarning")
def test_scripted_and_traced_modules_are_told_apart():
    assert is_scripted(torch.jit.script(nn.Linear(2, 2)))
    assert is_scripted(torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)))
    assert not is_scripted(nn.Linear(2, 2))


def test_sharded_models_are_known_by_class_or_by_their_parameters():
    class FullyShardedDataParallel(nn.Linear): ...

    assert not is_sharded(every_module(nn.Sequential(nn.Linear(2, 2))))
    assert is_sharded(every_module(nn.Sequential(FullyShardedDataParallel(2, 2))))
    for mark in ("ds_id", "_fsdp_flattened"):
        net = nn.Linear(2, 2)
        setattr(net.weight, mark, 0)
        assert is_sharded(every_module(net))


def test_a_class_is_known_by_where_it_or_its_base_is_defined():
    class Own(LightningModule): ...

    assert has_base_in(Own(), "lightning", "pytorch_lightning")
    assert has_base_in(torchmetrics.MetricCollection([]), "torchmetrics")
    assert not has_base_in(nn.Linear(2, 2), "lightning", "torchmetrics")
