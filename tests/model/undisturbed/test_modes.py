import pytest
import torch
from support.probing import CPU
from torch import nn

from kornia_lightning_probe.model.undisturbed import default_dtype, undisturbed


class Frozen(nn.Sequential):
    """Keeps its first layer in eval mode, as people do with a pretrained stem."""

    def train(self, mode=True):
        super().train(mode)
        self[0].eval()
        return self


class Merging(nn.Linear):
    """Adds a second weight to its first in eval mode and takes it off in train mode, as low-rank adapters do."""

    def __init__(self):
        super().__init__(3, 3)
        self.extra = nn.Parameter(torch.rand(3, 3, generator=torch.Generator().manual_seed(0)) / 3)
        self.merged = False

    def train(self, mode=True):
        super().train(mode)
        if self.merged == mode:
            self.weight.data.add_(self.extra, alpha=-1 if mode else 1)
            self.merged = not mode
        return self

    def forward(self, x):
        return super().forward(x) if self.merged else super().forward(x) + x @ self.extra.T


def flags(net):
    return [module.training for module in net.modules()]


@pytest.mark.parametrize("training", [True, False])
def test_a_class_with_a_train_of_its_own_comes_back_in_every_flag(training):
    net = nn.Sequential(Frozen(nn.BatchNorm1d(3), nn.Dropout(), nn.Dropout())).train(training)
    net[0][2].train(not training)
    before = flags(net)
    with undisturbed(net, device=CPU):
        assert not any(flags(net))
        net[0].train()
    assert flags(net) == before


@pytest.mark.parametrize("training", [[True, True], [True, False], [False, True]])
@pytest.mark.parametrize("raises", [False, True])
def test_weights_that_eval_mode_merges_are_parted_again_to_the_bit(training, raises):
    torch.manual_seed(0)
    net = nn.Sequential(Merging(), nn.Sequential(Merging()))
    for layer, mode in zip((net[0], net[1][0]), training, strict=True):
        layer.train(mode)
    before = [*net.state_dict().items()]
    before = [(name, value.tolist()) for name, value in before]
    merged = [net[0].merged, net[1][0].merged]
    try:
        with undisturbed(net, device=CPU, check_parameters=True):
            assert net[0].merged
            assert net[1][0].merged
            net(torch.ones(1, 3))
            if raises:
                raise KeyError("inside")
    except KeyError:
        assert raises
    assert [net[0].merged, net[1][0].merged] == merged
    assert [(name, value.tolist()) for name, value in net.state_dict().items()] == before
    assert [net[0].training, net[1][0].training] == training


def test_flags_come_back_where_eval_itself_raises():
    class Stubborn(nn.Linear):
        def train(self, mode=True):
            if not mode:
                raise RuntimeError("this module stays in train mode")
            return super().train(mode)

    net = nn.Sequential(nn.Dropout(), Stubborn(2, 2))
    with pytest.raises(RuntimeError, match="stays in train mode"), undisturbed(net, device=CPU):
        pytest.fail("nothing is run in train mode")
    assert all(flags(net))


def test_a_module_in_a_list_keeps_its_flag_and_its_statistics():
    net = nn.Sequential(nn.Linear(2, 2))
    net.teachers = [nn.BatchNorm1d(2)]
    with undisturbed(net, device=CPU):
        net.teachers[0](torch.rand(4, 2))
        net.teachers[0].eval()
    assert net.teachers[0].training
    assert net.teachers[0].running_mean.tolist() == [0, 0]


def test_an_exported_program_has_no_modes_and_runs_all_the_same():
    program = torch.export.export(nn.Sequential(nn.Linear(2, 2)).eval(), (torch.ones(3, 2),))
    net = nn.Sequential(nn.Dropout(), program.module())
    with undisturbed(net, device=CPU):
        assert net(torch.ones(3, 2)).shape == (3, 2)
    assert net.training


def test_the_default_dtype_lasts_as_long_as_its_block():
    def fail_in_double():
        assert torch.zeros(1).dtype == torch.float64
        raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"), default_dtype(torch.float64):
        fail_in_double()
    assert torch.zeros(1).dtype == torch.float32
