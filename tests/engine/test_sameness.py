import kornia.augmentation as K  # noqa: N812 - the name that Kornia's own documentation uses
import pytest
import torch
from support.nets import AlwaysDropout, ResNet, SmallCNN
from support.probing import halved, images_of, mirrored, random_bank, run_on_all, same
from torch.utils.data import Dataset

from kornia_lightning_probe import AugmentationBank, ProbeImages, probe_model
from kornia_lightning_probe.randomness import isolated_rng

EVERYTHING = 10**6

# Nets of four channels have a leading one.
pytestmark = pytest.mark.filterwarnings("ignore:one channel holds more than half")


def net(kind=SmallCNN):
    with isolated_rng(3):
        return kind()


def close(result, expected):
    """Sensitivities to relative 1e-5; measures that are small differences of larger numbers to 1e-5 of one."""
    values = (each.tensor("sensitivity") for each in (result, expected))
    torch.testing.assert_close(*values, rtol=1e-5, atol=0)
    same(result, expected, rtol=1e-5, atol=1e-5)


def seen_by(model, inputs, bank, batch_size):
    """A result, and all images of all passes behind one another."""
    passes = []

    def forward(called, x):
        passes.append(x.clone())
        return called(x)

    return probe_model(model, inputs, bank, batch_size=batch_size, forward=forward), torch.cat(passes)


@pytest.mark.parametrize("num_images", [4, 31, 33, 80])
def test_the_batch_size_changes_no_image_and_no_number(num_images):
    model, bank, inputs = net(), random_bank(), images_of(num_images)
    expected, images = seen_by(model, inputs, bank, 32)
    # Cuts and merges keep the order: block by block, clean before views, rows in a row.
    for batch_size in (1, 7, EVERYTHING):
        result, cut = seen_by(model, inputs, bank, batch_size)
        assert torch.equal(cut, images)
        close(result, expected)


def test_the_batch_size_splits_and_merges_passes():
    sizes = {}
    for batch_size in (7, 32, EVERYTHING):
        calls = sizes.setdefault(batch_size, [])
        probe_model(
            net(),
            images_of(33),
            random_bank(),
            batch_size=batch_size,
            forward=lambda model, x, calls=calls: (calls.append(len(x)), model(x))[1],
        )
    # Blocks of 17 and 16: a first look at two images, the scout, eight images in other company, 4 views; then the
    # second block and its 4 views.
    assert sizes[7] == [2] + [7, 7, 3] + [8] + [7, 7, 3] * 4 + [7, 7, 2] * 5
    assert sizes[32] == [2, 17, 8] + [17] * 4 + [16] + [32, 32]
    assert sizes[EVERYTHING] == [2, 17, 8, 4 * 17, 16, 4 * 16]


def test_residual_stages_give_the_same_numbers_at_any_batch_size():
    model, bank, inputs = net(ResNet), random_bank(), images_of(20, size=16)
    close(probe_model(model, inputs, bank, batch_size=3), probe_model(model, inputs, bank, batch_size=64))


@pytest.mark.parametrize("kind", [SmallCNN, AlwaysDropout])
@pytest.mark.filterwarnings("ignore:the model's forward does not repeat itself")
def test_two_probes_in_a_row_are_bitwise_equal_whatever_was_drawn_between(kind):
    model, bank, inputs = net(kind), random_bank(), images_of(33)
    first = probe_model(model, inputs, bank)
    torch.rand(3), bank.augment(bank[0], inputs, block=5)
    same(probe_model(model, inputs, bank), first)


def test_a_random_dataset_gives_the_same_images_every_time():
    class Noisy(Dataset):
        def __len__(self):
            return 40

        def __getitem__(self, index):
            return torch.rand(3, 12, 12), index

    model, bank = net(), random_bank()
    first, second = (probe_model(model, Noisy(), bank) for _ in range(2))
    same(first, second)
    assert first.metadata["content_hash"] == second.metadata["content_hash"]


def test_the_seeds_choose_order_and_draw():
    model, inputs = net(), images_of(40)
    first = probe_model(model, inputs, random_bank())
    assert probe_model(model, inputs, random_bank(), seed=1).metadata["image_ids"] != first.metadata["image_ids"]
    other = probe_model(model, inputs, random_bank(seed=1))
    assert other.metadata["image_ids"] == first.metadata["image_ids"]
    assert not torch.equal(other.tensor("sensitivity"), first.tensor("sensitivity"))


@pytest.mark.parametrize("size", [2, 3, 7])
@pytest.mark.parametrize("num_images", [4, 80])
def test_any_number_of_processes_gives_the_numbers_of_one(size, num_images):
    # 4 images are 1 block and 80 are 3: of 7 processes at least 4 are idle.
    model, bank, inputs = net(), random_bank(), images_of(num_images)
    (alone,) = run_on_all(1, model, inputs, bank, metrics=None)
    for result in run_on_all(size, model, inputs, bank, metrics=None):
        same(result, alone)
        for key in ("content_hash", "content_hash_by_number"):
            assert result.metadata[key] == alone.metadata[key]
        assert result.metadata["image_ids"] == alone.metadata["image_ids"]
        assert result.metadata["warnings"] == alone.metadata["warnings"]
        assert result.metadata["world_size"] == size


def test_processes_at_another_batch_size_give_the_same_numbers():
    model, bank, inputs = net(), random_bank(), images_of(80)
    (alone,) = run_on_all(1, model, inputs, bank, metrics=None)
    for result in run_on_all(2, model, inputs, bank, metrics=None, batch_size=7):
        close(result, alone)


def test_a_view_that_changes_images_of_one_process_only_is_no_no_op():
    # Only the last of 80 images is marked, so all but one process see a view that does nothing.
    inputs = images_of(80) * 0.9
    inputs[79, :, 0, 0] = 1.0
    bank = AugmentationBank({"mark": lambda x: torch.where(x > 0.95, 0.5, x)})
    for result in run_on_all(3, net(), inputs, bank):
        assert result.metadata["warnings"] == []


def test_reference_images_are_those_of_every_process():
    model, bank, inputs = net(), random_bank(), images_of(40)
    reference = ProbeImages(images_of(10, seed=1))
    (alone,) = run_on_all(1, model, inputs, bank, reference=reference)
    for result in run_on_all(2, model, inputs, bank, reference=reference):
        same(result, alone)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_gives_the_numbers_of_the_cpu():
    # Without noise, which a device draws from a stream of its own, and without TensorFloat-32.
    bank = AugmentationBank({"rotation": K.RandomRotation((-20.0, 20.0), p=1.0), "halve": halved, "mirror": mirrored})
    model, inputs = net(), images_of(40)
    expected = probe_model(model, inputs, bank)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        moved = probe_model(model, inputs, bank, device="cuda")
        assert next(model.parameters()).device.type == "cpu"
        there = probe_model(model.cuda(), inputs.cuda(), bank)
    assert moved.metadata["device"].startswith("cuda")
    same(moved, expected, rtol=1e-4, atol=1e-6)
    same(there, expected, rtol=1e-4, atol=1e-6)
