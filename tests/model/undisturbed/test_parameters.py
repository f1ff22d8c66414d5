import pytest
import torch
from support.nets import SmallCNN
from support.probing import CPU, images_of
from torch import nn
from torch.distributed.fsdp import fully_shard

from kornia_lightning_probe.model.undisturbed import guarded_parameters, undisturbed
from kornia_lightning_probe.model.undisturbed.parameters import own_parameters

IMAGES = images_of(2)


class Momentum(nn.Module):
    """Its teacher follows its student in every forward, in eval mode too."""

    def __init__(self, follow, *, hidden=False):
        super().__init__()
        torch.manual_seed(0)
        self.follow = follow
        self.student, teacher = SmallCNN(), SmallCNN()
        self.teachers = [teacher] if hidden else nn.ModuleList([teacher])

    @torch.no_grad()
    def forward(self, x):
        for own, other in zip(self.teachers[0].parameters(), self.student.parameters(), strict=True):
            self.follow(own, other)
        return self.student(x) - self.teachers[0](x)


def set_data(own, other):
    own.data = 0.9 * own.data + 0.1 * other.data


FOLLOW = {
    "data in place": lambda own, other: own.data.mul_(0.9).add_(other.data, alpha=0.1),
    "data replaced": set_data,
    "in place": lambda own, other: own.lerp_(other, 0.1),
}


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("follow", FOLLOW)
def test_weights_that_a_forward_updates_are_put_back_and_named(follow, hidden):
    net = Momentum(FOLLOW[follow], hidden=hidden)
    weights = [*net.student.parameters(), *net.teachers[0].parameters()]
    before = [(id(weight), weight.data_ptr(), weight.tolist()) for weight in weights]
    first = "teachers[0].block1.0.weight" if hidden else "teachers.0.block1.0.weight"
    with pytest.raises(RuntimeError) as raised, undisturbed(net, device=CPU, check_parameters=True):
        net(IMAGES)
    text = str(raised.value)
    assert text.startswith(f"running Momentum in eval mode has changed its parameters '{first}', ")
    assert "student" not in text
    assert "if self.training:" in text
    assert "forward=" in text
    assert [(id(weight), weight.data_ptr(), weight.tolist()) for weight in weights] == before


def test_a_parameter_that_a_forward_replaces_by_another_is_put_back_and_named():
    class Replacing(nn.Linear):
        def forward(self, x):
            self.bias = nn.Parameter(0.9 * self.bias)
            return super().forward(x)

    net = Replacing(2, 2)
    bias, before = net.bias, net.bias.tolist()
    with (
        pytest.raises(RuntimeError, match="has changed its parameters 'bias'"),
        undisturbed(net, device=CPU, check_parameters=True),
    ):
        net(torch.ones(1, 2))
    assert net.bias is bias
    assert net.bias.tolist() == before


def test_an_error_from_inside_comes_as_it_is_with_a_note_and_the_weights_are_put_back():
    net = Momentum(FOLLOW["data in place"])
    before = [weight.tolist() for weight in net.parameters()]
    with pytest.raises(ZeroDivisionError) as raised, guarded_parameters(net):
        len(net(IMAGES)) / 0
    assert raised.value.__notes__[0].startswith("running Momentum in eval mode has changed its parameters")
    assert [weight.tolist() for weight in net.parameters()] == before
    with pytest.raises(KeyError, match="inside") as raised, guarded_parameters(net):
        raise KeyError("inside")
    assert not hasattr(raised.value, "__notes__")


def test_weights_that_stay_raise_nothing_not_even_nan_and_are_not_written_to():
    net = SmallCNN()
    net.head.bias.data.fill_(torch.nan)
    versions = [weight._version for weight in net.parameters()]
    with undisturbed(net, device=CPU, check_parameters=True):
        net(IMAGES)
    assert [weight._version for weight in net.parameters()] == versions


def test_without_being_asked_for_weights_are_not_compared():
    net = Momentum(FOLLOW["data in place"])
    before = [weight.detach().clone() for weight in net.parameters()]
    with undisturbed(net, device=CPU):
        net(IMAGES)
    # Nobody has put them back, nor refused it.
    assert not all(torch.equal(*pair) for pair in zip(before, net.parameters(), strict=True))


def test_the_copies_are_freed_also_while_the_error_lives():
    net = Momentum(FOLLOW["data in place"])
    guard = guarded_parameters(net)
    guard.__enter__()
    net(IMAGES)
    with pytest.raises(RuntimeError, match="has changed") as raised:
        guard.__exit__(None, None, None)
    frames = [frame for frame in _frames(raised.value.__traceback__) if "kept" in frame.f_locals]
    assert [frame.f_locals["kept"] for frame in frames] == [{}]


def _frames(trace):
    while trace is not None:
        yield trace.tb_frame
        trace = trace.tb_next


def test_a_weight_with_two_names_is_kept_once_under_the_first():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[1].weight = net[0].weight
    assert list(own_parameters(dict(net.named_modules()))) == ["0.weight", "0.bias", "1.bias"]
    assert list(own_parameters({"": nn.Linear(2, 2)})) == ["weight", "bias"]


class Sharded(nn.Module):
    """Two layers under FSDP2, the whole among all ranks."""

    def __init__(self, change=lambda _: None):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.change = nn.Linear(3, 4), nn.Linear(4, 2), change
        mesh = torch.distributed.init_device_mesh("cpu", (torch.distributed.get_world_size(),))
        fully_shard(self.first, mesh=mesh)
        fully_shard(self, mesh=mesh)

    def forward(self, x):
        self.change(self)
        return self.last(self.first(x))


def whole(net):
    # FSDP leaves the root's parameters whole after a forward.
    net.reshard()
    return {name: weight.full_tensor().tolist() for name, weight in net.named_parameters()}


def trained_on_rank(probed_at):
    net = Sharded()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for step in range(2):
        if step == probed_at:
            with undisturbed(net, device=CPU, check_parameters=True):
                net(torch.ones(2, 3))
        optimizer.zero_grad()
        net(torch.ones(2, 3)).square().sum().backward()
        optimizer.step()
    return whole(net)


def updated_on_rank():
    """The error of a forward that writes to a shard, and whether weights are as before."""
    shards = []
    net = Sharded(lambda _: shards[0].to_local().mul_(2))
    shards += [net.first.weight]
    before = whole(net)
    with pytest.raises(RuntimeError) as raised, undisturbed(net, device=CPU, check_parameters=True):
        net(torch.ones(2, 3))
    return str(raised.value), whole(net) == before


def test_fsdp_moves_its_weights_as_it_likes_and_trains_on_as_without_a_probe(gloo):
    without = gloo(2)(trained_on_rank, None)
    assert gloo(2)(trained_on_rank, 0) == without
    assert gloo(2)(trained_on_rank, 1) == without


def test_of_a_sharded_model_each_rank_sees_its_own_shards(gloo):
    for text, as_before in gloo(2)(updated_on_rank):
        assert "has changed its parameters 'first.weight'; " in text
        assert as_before
