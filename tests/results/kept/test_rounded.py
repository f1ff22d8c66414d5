import pytest
import torch
from support.made_results import SENSITIVITY, table_of

from kornia_lightning_probe.quantity import Quantity
from kornia_lightning_probe.result import MetricTable
from kornia_lightning_probe.results.kept.rounded import rounded

NAN, INF = float("nan"), float("inf")


def table(value, error, quantity=Quantity()):  # noqa: B008 - frozen
    value, error = (torch.as_tensor(numbers, dtype=torch.float64)[:, None] for numbers in (value, error))
    return MetricTable(("fc",), value, error, torch.full(value.shape, 256), quantity=quantity)


def many(seed=0):
    """Positive numbers from about 1e-13 to 1e13."""
    generator = torch.Generator().manual_seed(seed)
    return (10 * torch.randn(4096, generator=generator, dtype=torch.float64)).clamp(-30, 30).exp()


@pytest.mark.parametrize("name", ["own", "sensitivity"])
def test_values_have_the_digits_of_float32(name):
    kept = rounded(name, table(many(), many(1)))
    # Half a step of 24 binary digits.
    assert ((kept.value.flatten() - many()).abs() <= 2.0**-24 * many()).all()
    assert kept.value.dtype == torch.float64


@pytest.mark.parametrize(
    ("name", "quantity", "digits"), [("own", Quantity(), 6), ("own", SENSITIVITY, 24), ("sensitivity", Quantity(), 24)]
)
def test_errors_have_six_digits_but_for_those_of_curves(name, quantity, digits):
    kept = rounded(name, table(many(), many(1), quantity))
    moved = (kept.std_error.flatten() - many(1)).abs() / many(1)
    # Half a step of so many binary digits, and of thousands of numbers some come close to it.
    assert 2.0 ** -(digits + 1) < moved.max() <= 2.0**-digits


@pytest.mark.parametrize("name", ["own", "sensitivity"])
def test_what_is_rounded_stays_as_it_is_when_it_is_rounded_again(name):
    once = rounded(name, table([*many(), NAN, INF, -INF, 0.0], [*many(1), NAN, INF, 0.0, NAN]))
    again = rounded(name, once)
    for column in ("value", "std_error", "num_images", "attempted"):
        torch.testing.assert_close(getattr(again, column), getattr(once, column), rtol=0, atol=0, equal_nan=True)


def test_each_images_own_part_is_let_go_and_all_else_is_kept():
    influence = torch.ones(1, 1, 4)
    full = MetricTable(("fc",), *torch.ones(3, 1, 1), torch.tensor(False), influence, SENSITIVITY)
    kept = rounded("own", full)
    assert kept.influence is None
    assert (kept.layers, kept.quantity, kept.attempted.tolist()) == (("fc",), SENSITIVITY, [[False]])
    assert rounded("own", table_of(("fc",), [[0.5]])).num_images.item() == 32
