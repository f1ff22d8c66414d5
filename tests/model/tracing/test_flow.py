from __future__ import annotations

from kornia_lightning_probe.model.tracing.flow import Flow, Flows, bits


def flows_of_two_layers() -> tuple[Flows, Flow, Flow]:
    """A product that layer 0 led to, and one behind it that layer 1 led to."""
    flows = Flows()
    first = flows.through("convolution", [flows.entered(flows.image(), 0), flows.weight()])
    second = flows.through("convolution", [flows.entered(first, 1), flows.weight()])
    return flows, first, second


def test_a_product_remembers_what_led_to_it():
    flows, first, second = flows_of_two_layers()
    assert (list(bits(first.heads)), list(bits(second.heads))) == ([0], [1])
    assert flows.fronts == [0b01, 0b11]
    assert list(bits(second.products)) == [0, 1]


def test_a_sum_of_a_product_and_of_what_led_to_it_is_no_head():
    flows, first, second = flows_of_two_layers()
    assert flows.through("add", [first, second]).heads == 0
    assert flows.through("cat", [first, second]).heads == 0
    # A mask is a product of queries and pixels, one of which may lead to the other.
    assert flows.through("bmm", [first, second]).heads == 0b11


def test_a_sum_of_heads_beside_one_another_is_a_head():
    flows, first, second = flows_of_two_layers()
    beside = flows.through("convolution", [flows.entered(first, 2), flows.weight()])
    assert list(bits(flows.through("add", [second, beside]).heads)) == [1, 2]


def test_a_weight_breaks_a_head_unless_it_is_a_bias_or_a_scale():
    flows, first, _ = flows_of_two_layers()
    assert flows.through("native_batch_norm", [first, flows.weight()]).heads == 0
    assert flows.through("mul", [first, flows.weight()]).heads == first.heads
    assert flows.through("relu", [first]).heads == first.heads
    # A constant without parameters is no weight.
    assert flows.through("atan2", [first, flows.through("arange", [])]).heads == first.heads


def test_what_the_image_reaches_is_passed_on_and_unknown_stays_unknown():
    flows = Flows()
    image, weight, stranger = flows.image(), flows.weight(), flows.untracked()
    assert flows.through("add", [image, stranger]).reached is True
    assert flows.through("add", [weight, stranger]).reached is None
    assert flows.through("add", [weight, weight]).reached is False
    assert flows.through("arange", []).reached is False
    assert flows.joined(weight, weight) == weight
    assert flows.joined(weight, flows.weight()).reached is False
    assert flows.joined(flows.through("zeros", []), image).reached is True


def test_an_unknown_activation_counts_as_moving_from_there_on():
    flows = Flows()
    stranger = flows.entered(flows.untracked(), 0)
    product = flows.through("mm", [stranger, flows.weight()])
    assert (product.reached, product.heads, product.layers) == (None, 1, 1)


def test_views_and_copies_hold_the_same_values():
    flows = Flows()
    image = flows.image()
    assert flows.through("view", [image], same=image).value == image.value
    assert flows.through("relu", [image]).value != image.value
