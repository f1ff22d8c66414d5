import pytest
import torch
from torch import nn

from kornia_lightning_probe.model.undisturbed.tensors import KeptTensor, same_bits, take_all

DTYPES = [
    torch.bool,
    torch.uint8,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.complex64,
    torch.complex128,
    torch.float8_e4m3fn,
]


def failing():
    raise OSError("no such place")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3)])
def test_what_was_written_to_gets_its_bits_back_in_every_dtype(dtype, shape):
    tensor = torch.ones(shape).to(dtype)
    kept = KeptTensor(tensor)
    assert not kept.put_back()
    tensor.copy_(torch.zeros(shape).to(dtype))
    assert kept.put_back() == (tensor.numel() > 0)
    assert torch.equal(tensor.to(torch.complex128), torch.ones(shape, dtype=torch.complex128))


def test_what_has_not_changed_is_not_written_to_not_even_nan():
    tensor = torch.tensor([torch.nan, 1.0])
    kept, version = KeptTensor(tensor), tensor._version
    assert not kept.put_back()
    assert tensor._version == version


def test_another_shape_or_dtype_is_another_tensor():
    assert not same_bits(torch.zeros(2), torch.zeros(2, 1))
    assert not same_bits(torch.zeros(2), torch.zeros(2, dtype=torch.int32))


def test_bits_tell_what_values_do_not():
    # IEEE 754: 0 == -0 by value and nan != nan, while the bits differ and agree.
    assert same_bits(torch.tensor(torch.nan), torch.tensor(torch.nan))
    assert not same_bits(torch.zeros(()), -torch.zeros(()))
    conjugate = torch.tensor([1.0 + 2.0j]).conj()
    assert same_bits(conjugate, torch.tensor([1.0 - 2.0j]))
    assert same_bits(conjugate.imag, torch.tensor([-2.0]))


@pytest.mark.parametrize(("before", "after"), [(3, 9), (9, 3), (0, 4), (4, 0)])
def test_a_resized_tensor_is_the_same_object_with_its_size_memory_and_values(before, after):
    tensor = torch.arange(float(before))
    storage = tensor.untyped_storage()._cdata
    kept = KeptTensor(tensor)
    tensor.resize_(after).fill_(7.0)
    assert kept.put_back()
    assert tensor.tolist() == list(range(before))
    assert tensor.untyped_storage()._cdata == storage


def test_memory_that_others_see_is_given_back_to_a_tensor_that_got_other_data():
    parameter = nn.Parameter(torch.ones(2))
    view = parameter.data
    kept = KeptTensor(parameter)
    parameter.data = torch.zeros(5)
    assert kept.put_back()
    parameter.data = torch.ones(2)
    assert not kept.put_back(), "its values are what they were"
    view.fill_(3.0)
    assert parameter.tolist() == [3, 3]


def test_one_that_a_strategy_moves_is_left_where_it_is():
    tensor = torch.ones(2)
    kept = KeptTensor(tensor, may_move=False)
    tensor.data = torch.zeros(5)
    assert not kept.put_back()
    assert tensor.tolist() == [0] * 5


def test_memory_that_a_strategy_has_freed_says_nothing():
    tensor = torch.ones(2)
    kept = KeptTensor(tensor)
    tensor.untyped_storage().resize_(0)
    assert not kept.put_back()


def test_a_tensor_made_under_inference_mode_is_put_back_outside_of_it():
    with torch.inference_mode():
        tensor = torch.ones(2)
        kept = KeptTensor(tensor)
        tensor.zero_()
    assert kept.put_back()
    assert tensor.tolist() == [1, 1]


def test_a_graph_that_waits_for_its_backward_is_not_broken_by_putting_back():
    weight = nn.Parameter(torch.ones(2))
    kept = KeptTensor(weight)
    loss = weight.square().sum()
    weight.data.mul_(3)
    kept.put_back()
    loss.backward()
    # d(w^2)/dw = 2 w, at w = 1.
    assert weight.grad.tolist() == [2, 2]


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_sparse_quantised_meta_and_lazy_tensors_are_kept_as_far_as_they_have_memory():
    sparse = torch.eye(2).to_sparse()
    kept = KeptTensor(sparse)
    sparse.mul_(2)
    assert kept.put_back()
    assert torch.equal(sparse.to_dense(), torch.eye(2))
    quantised = torch.quantize_per_tensor(torch.ones(2), 0.5, 0, torch.qint8)
    kept = KeptTensor(quantised)
    quantised.copy_(torch.zeros(2))
    assert kept.put_back()
    assert quantised.dequantize().tolist() == [1, 1]
    assert not KeptTensor(torch.ones(2, device="meta")).put_back()
    assert not KeptTensor(nn.LazyLinear(2).weight).put_back()


def test_of_a_sharded_tensor_the_own_shard_is_kept(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        mesh = torch.distributed.init_device_mesh("cpu", (1,))
        shards = torch.distributed.tensor.distribute_tensor(torch.ones(4), mesh)
        kept = KeptTensor(shards, on_host=True)
        shards.to_local().zero_()
        assert kept.put_back()
        assert shards.full_tensor().tolist() == [1] * 4
    finally:
        torch.distributed.destroy_process_group()


def test_all_steps_are_taken_and_what_failed_is_named():
    done = []
    steps = [
        ("first", failing),
        ("second", lambda: done.append(2)),
        ("third", failing),
        ("last", lambda: done.append(4)),
    ]
    with pytest.raises(
        RuntimeError, match=r"not as it was .*: first \(no such place\); third \(no such place\)"
    ) as error:
        take_all(steps)
    assert done == [2, 4]
    assert len(error.value.__cause__.exceptions) == 2
    with pytest.raises(RuntimeError, match="first") as error:
        take_all(steps[:2])
    assert isinstance(error.value.__cause__, OSError)
