# ruff: noqa: NPY002 - the global streams are what is tested

import random

import numpy as np
import pytest
import torch
from support.nets import Composed, CountsCalls, SmallCNN, hooks
from support.probing import CPU, Raising, images_of, random_bank, streams
from torch import nn

from kornia_lightning_probe import AugmentationBank, probe_model
from kornia_lightning_probe.model.undisturbed import undisturbed

IMAGES = images_of(20)

# Nets of four channels have a leading one.
pytestmark = [
    pytest.mark.filterwarnings("ignore:one channel holds more than half"),
]


def raising(x):
    msg = "this fails"
    raise RuntimeError(msg)


def failing_second_view(x, features):
    if float(x.mean()) < 0.3:
        raise RuntimeError("this fails")
    return features


OUTCOMES = {
    "success": {},
    "augmentation": {"bank": AugmentationBank({"raise": raising})},
    "metric": {"metrics": [Raising()]},
    "model": {"model": Composed(failing_second_view), "bank": AugmentationBank({"dark": lambda x: x / 4})},
    "callable": {"forward": lambda _model, x: raising(x)},
}


def probe(outcome, model=None):
    """Probe to the end, or to an exception in one of the parts that users bring."""
    options = dict(OUTCOMES[outcome])
    model = options.pop("model", None) or model or SmallCNN()
    if outcome == "success":
        return model, probe_model(model, IMAGES, random_bank())
    with pytest.raises(RuntimeError, match="fails"):
        probe_model(model, IMAGES, options.pop("bank", None) or random_bank(), **options)
    return model, None


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_the_global_random_streams_are_as_before(outcome):
    model = SmallCNN()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    before = streams()
    probe(outcome, model)
    assert streams() == before


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_every_modules_training_flag_is_as_before(outcome):
    model = OUTCOMES[outcome].get("model") or SmallCNN()
    model.train()
    frozen = next(model.children()).eval()
    probe(outcome, model)
    assert model.training
    assert all(module.training != (module in set(frozen.modules())) for module in model.modules())


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_no_hook_is_left_and_the_users_own_stay(outcome):
    model = OUTCOMES[outcome].get("model") or SmallCNN()
    own = model.head.register_forward_hook(lambda *_: None)
    probe(outcome, model)
    assert hooks(model) == 1
    own.remove()


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_grad_mode_and_default_dtype_are_as_before(outcome):
    torch.set_default_dtype(torch.float64)
    try:
        probe(outcome, SmallCNN())
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.is_grad_enabled()
    with torch.no_grad():
        probe(outcome)
        assert not torch.is_grad_enabled()
    with torch.inference_mode():
        probe(outcome)
        assert torch.is_inference_mode_enabled()


def test_weights_gradients_and_buffers_are_the_same_objects_with_the_same_values():
    model = SmallCNN().train()
    model(IMAGES).sum().backward()
    tensors = [*model.parameters(), *model.buffers(), *(parameter.grad for parameter in model.parameters())]
    before = [(id(tensor), tensor._version, tensor.detach().clone()) for tensor in tensors]
    probe_model(model, IMAGES, random_bank())
    after = [*model.parameters(), *model.buffers(), *(parameter.grad for parameter in model.parameters())]
    for tensor, (number, version, values) in zip(after, before, strict=True):
        assert (id(tensor), tensor._version) == (number, version)
        assert torch.equal(tensor, values)


def test_buffers_that_a_forward_counts_in_replaces_or_adds_are_as_before():
    model = CountsCalls()
    model.calls.fill_(5)
    before = dict(model._buffers)
    probe_model(model, IMAGES, random_bank(), layers="conv")
    assert list(model._buffers) == ["calls", "new_calls", "cache"]
    assert all(model._buffers[name] is buffer for name, buffer in before.items())
    assert (float(model.calls), float(model.new_calls), model.cache) == (5, 0, None)
    assert list(model.state_dict()) == ["calls", "new_calls", "conv.weight", "conv.bias"]


def test_buffers_are_put_back_after_an_exception_too():
    model = CountsCalls()
    with pytest.raises(RuntimeError, match="this metric fails"):
        probe_model(model, IMAGES, random_bank(), layers="conv", metrics=Raising())
    assert (float(model.calls), float(model.new_calls), model.cache) == (0, 0, None)
    assert "late" not in model._buffers


def test_a_buffer_that_is_shared_stays_shared():
    class Shares(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Linear(2, 2), nn.Linear(2, 2)
            self.left.register_buffer("count", torch.zeros(()))
            self.right.register_buffer("count", self.left.count)

        def forward(self, x):
            self.left.count += 1
            return self.right(self.left(x))

    model = Shares()
    with undisturbed(model, device=CPU):
        model(torch.ones(1, 2))
    assert model.left.count is model.right.count
    assert float(model.left.count) == 0


def test_a_buffer_that_a_forward_deletes_comes_back():
    model = nn.BatchNorm1d(2)
    with undisturbed(model, device=CPU):
        del model.running_mean
    assert model.running_mean.tolist() == [0, 0]


def test_a_training_step_after_a_probe_is_that_without_one():
    def trained(probed):
        torch.manual_seed(0)
        model = SmallCNN().train()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            # Dropout draws from the global stream and BatchNorm keeps statistics.
            model(IMAGES + 0.1 * torch.randn_like(IMAGES)).square().sum().backward()
            if probed:
                probe_model(model, IMAGES, random_bank())
            optimizer.step()
        return model.state_dict()

    without, probed = trained(probed=False), trained(probed=True)
    assert all(torch.equal(probed[name], tensor) for name, tensor in without.items())


def test_a_graph_that_waits_for_its_backward_is_not_broken():
    model = SmallCNN().train()
    loss = model(IMAGES).sum()
    probe_model(model, IMAGES, random_bank())
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_gradients_flow_in_an_autocast_region_in_which_a_probe_has_run():
    # Autocast keeps cast weights; those that a probe made would have no graph.
    model = SmallCNN()
    with torch.autocast("cpu", torch.bfloat16):
        probe_model(model, IMAGES, random_bank())
        model(IMAGES).float().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_users_images_and_augmentations_are_not_written_to():
    images, transform = IMAGES.clone(), nn.Hardtanh(0.2, 0.8, inplace=True).train()
    probe_model(SmallCNN(), images, AugmentationBank({"clamp": transform}))
    assert torch.equal(images, IMAGES)
    assert transform.training


def test_inside_a_model_evaluates_without_graph_and_makes_tensors_that_can_be_updated():
    model = SmallCNN().train()
    with torch.inference_mode(), undisturbed(model, device=CPU):
        assert not any(module.training for module in model.modules())
        assert not torch.is_grad_enabled()
        assert not torch.zeros(1).is_inference()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_mode_around_a_probe_changes_no_number(mode):
    model = SmallCNN()
    expected = probe_model(model, IMAGES, random_bank()).tensor("sensitivity")
    with mode():
        assert torch.equal(probe_model(model, IMAGES.clone(), random_bank()).tensor("sensitivity"), expected)
