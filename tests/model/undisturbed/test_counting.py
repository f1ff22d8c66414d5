from collections import deque
from importlib import import_module

import pytest
import torch
import torchmetrics
from lightning.pytorch import LightningModule
from support.probing import CPU
from torch import nn
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from kornia_lightning_probe.model.undisturbed import undisturbed

X = torch.rand(6, 3, generator=torch.Generator().manual_seed(0))


def alone():
    return torchmetrics.MeanMetric()


def listed():
    return torchmetrics.CatMetric()


def grouped():
    return torchmetrics.MetricCollection([MulticlassAccuracy(3), MulticlassF1Score(3)])


def extremes():
    return torchmetrics.MinMaxMetric(torchmetrics.MeanMetric())


def tracked():
    tracker = torchmetrics.MetricTracker(torchmetrics.MeanMetric(), maximize=True)
    tracker.increment()
    return tracker


def composed():
    return torchmetrics.MeanMetric() + torchmetrics.MaxMetric()


def running():
    return torchmetrics.RunningMean(window=2)


def booted():
    return torchmetrics.BootStrapper(torchmetrics.MeanMetric(), num_bootstraps=3)


KINDS = [alone, listed, grouped, extremes, tracked, composed, running, booted]
PLACES = {
    "child": lambda metric: {"metric": metric},
    "dict of modules": lambda metric: {"metrics": nn.ModuleDict({"val": nn.ModuleList([metric])})},
    "plain list": lambda metric: {"metrics": [metric]},
    "plain dict": lambda metric: {"metrics": {"val": [metric]}},
}


class Measures(nn.Module):
    """Updates a metric in its forward."""

    def __init__(self, metric, place="child"):
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.call = metric
        del self.call
        self.held = (metric,)
        for name, value in PLACES[place](metric).items():
            setattr(self, name, value)

    def forward(self, x):
        update(self.held[0], x)
        return self.linear(x)


def update(metric, x):
    """Count a batch by both ways that torchmetrics has."""
    if isinstance(metric, torchmetrics.MetricCollection):
        metric.update(x, x.argmax(1))
        metric(x, x.argmin(1))
    else:
        metric.update(x)
        metric(x.square())


def state_of(metric):
    """All that a metric and those in it hold, tensors as objects and values."""
    return [
        (name, key, id(value), value.tolist() if isinstance(value, torch.Tensor) else repr(value))
        for name, module in metric.named_modules()
        for key, value in vars(module).items()
        if not isinstance(value, dict) or key == "_groups"
    ]


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric:UserWarning")
def test_what_a_metric_has_counted_is_as_before(kind, used):
    torch.manual_seed(0)
    net = Measures(kind())
    if used:
        net(X)
        net.held[0].compute()
    before = state_of(net.metric)
    with undisturbed(net, device=CPU):
        net(2 * X)
        net(3 * X)
        assert state_of(net.metric) != before
    assert state_of(net.metric) == before


CONTAINERS = {
    "list": lambda tensor: [tensor],
    "dict": lambda tensor: {"count": tensor},
    "tuple": lambda tensor: (tensor,),
    "set": lambda tensor: {tensor},
    "deque": lambda tensor: deque([tensor], maxlen=3),
    "nested": lambda tensor: {"counts": [(tensor,)]},
}


class Counting(torchmetrics.Metric):
    """Counts in place in a tensor that it has in a container only."""

    def __init__(self, container, tensor):
        super().__init__()
        self.counts = container(tensor)
        self.count = lambda number: tensor.add_(number)

    def update(self, x):
        self.count(len(x))

    def compute(self):
        return None


@pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)
def test_tensors_in_containers_of_a_metric_are_put_back_in_value(container):
    tensor = torch.zeros(())
    net = Measures(Counting(container, tensor))
    net(X)
    before = float(tensor)
    with undisturbed(net, device=CPU):
        net(X)
        assert float(tensor) > before
    assert float(tensor) == before > 0


@pytest.mark.parametrize("container", [list, set, deque])
def test_what_is_put_into_a_container_of_a_metric_is_out_of_it_again(container):
    net = Measures(torchmetrics.SumMetric())
    net.metric.seen = container(["first"])
    add = getattr(net.metric.seen, "add", None) or net.metric.seen.append
    with undisturbed(net, device=CPU):
        add("second")
    assert list(net.metric.seen) == ["first"]


def test_long_lists_of_a_metric_are_not_copied_and_a_write_to_one_is_named():
    net = Measures(torchmetrics.CatMetric())
    net.metric.value.extend(torch.zeros(1) for _ in range(1001))
    with undisturbed(net, device=CPU):
        net(X)
    assert len(net.metric.value) == 1001
    with (
        pytest.raises(RuntimeError, match=r"metric\.value \(1 of its 1001 tensors were written to.*not in forward"),
        undisturbed(net, device=CPU),
    ):
        net.metric.value[7].add_(1)


@pytest.mark.parametrize("place", PLACES)
def test_a_metric_is_found_wherever_a_module_keeps_it(place):
    net = Measures(torchmetrics.SumMetric(), place)
    net(torch.ones(2, 3))
    with pytest.raises(ZeroDivisionError), undisturbed(net, device=CPU):
        len(net(torch.ones(2, 3))) / 0
    # 6 ones, by update and by forward.
    assert float(net.held[0].compute()) == 12


def test_a_collection_counts_the_same_with_a_probe_in_between():
    def counted(probed):
        torch.manual_seed(0)
        net = Measures(grouped())
        for scale in (1, -1):
            net(scale * X)
            if probed:
                with undisturbed(net, device=CPU):
                    net(X.square())
        return {name: value.tolist() for name, value in net.metric.compute().items()}

    assert counted(probed=True) == counted(probed=False)


def logging(base):
    class Logs(base):
        """Logs in its forward; counts how often."""

        def __init__(self):
            super().__init__()
            self.seen = []
            self.net = nn.Linear(3, 3)

        def log(self, name, value, **kwargs):
            self.seen.append(name)

        def forward(self, x):
            self.log("mean", x.mean(), on_epoch=True)
            self.log_dict({"max": x.max()})
            return self.net(x)

    return Logs()


@pytest.mark.parametrize("base", ["lightning.pytorch", "pytorch_lightning"])
@pytest.mark.parametrize("nest", [lambda module: module, lambda module: nn.ModuleDict({"module": module})])
def test_a_lightning_module_logs_nothing_meanwhile_and_all_afterwards(base, nest):
    module = logging(import_module(base).LightningModule)
    before = list(vars(module))
    with pytest.raises(ZeroDivisionError), undisturbed(nest(module), device=CPU):
        len(module(X)) / 0
    assert module.seen == []
    assert list(vars(module)) == before
    module(X)
    # log_dict of Lightning calls log.
    assert module.seen == ["mean", "max"]


def test_a_log_of_the_instances_own_is_there_again_afterwards():
    module, seen = logging(LightningModule), []
    module.log = own = lambda name, *_, **__: seen.append(name)
    with undisturbed(module, device=CPU):
        module(X)
    assert module.log is own
    module(X)
    assert seen == ["mean", "max"]


def test_a_log_of_a_plain_module_is_its_own_business():
    class Logarithm(nn.Module):
        def log(self, x):
            return x.log()

        def forward(self, x):
            return self.log(x)

    net = Logarithm()
    with undisturbed(net, device=CPU):
        assert torch.equal(net(X), X.log())
