"""Which images SensitivityProbe takes, from where, and what it does with models that need more than a tensor."""

import lightning.pytorch as pl
import pytest
import torch
from support.trainings import (
    QUIET,
    Headless,
    Net,
    assert_same_numbers,
    fit,
    images_of,
    loader,
    probe_of,
    trainer_of,
    validate,
)
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset

from kornia_lightning_probe.callbacks.images import ImageChoice
from kornia_lightning_probe.engine.processes import World

pytestmark = [pytest.mark.filterwarnings(line) for line in QUIET]


def validated(folder, probe, **options):
    validate(folder, probe, **options)
    return probe.result


def content(result):
    return result.metadata["content_hash"]


def test_the_default_draws_num_images_from_the_validation_dataset(tmp_path):
    result = validated(tmp_path, probe_of(num_images=20))
    ids = result.metadata["image_ids"]
    assert len(set(ids)) == result.metadata["num_images"] == 20
    # Drawn, not the first ones.
    assert sorted(ids) != list(range(20))


def test_another_seed_draws_other_images(tmp_path):
    assert content(validated(tmp_path, probe_of())) != content(validated(tmp_path, probe_of(seed=1)))


@pytest.mark.filterwarnings("ignore:Your `val_dataloader`'s sampler has shuffling enabled:UserWarning")
def test_shuffling_and_batch_size_of_the_loader_change_nothing(tmp_path):
    plain = validated(tmp_path, probe_of())
    shuffled = validated(tmp_path, probe_of(), val=loader(seed=1, batch_size=5, shuffle=True))
    assert_same_numbers(plain, shuffled)


@pytest.mark.parametrize("kind", ["dataset", "dataloader"])
def test_explicit_images_are_those_of_the_validation_loader_where_they_are_the_same(tmp_path, kind):
    given = loader(seed=1)
    images = given.dataset if kind == "dataset" else given
    explicit = validated(tmp_path, probe_of(images=images), val=loader(seed=5))
    assert_same_numbers(explicit, validated(tmp_path, probe_of()))


def test_an_explicit_tensor_is_used_whole(tmp_path):
    result = validated(tmp_path, probe_of(images=images_of(40), num_images=16))
    assert result.metadata["num_images"] == 40


def test_fewer_images_than_asked_are_all_used_and_counted(tmp_path, caplog):
    with caplog.at_level("INFO"):
        result = validated(tmp_path, probe_of(num_images=100))
    assert result.metadata["num_images"] == 64
    assert "probe: 100 images were asked for and 64 exist: all 64 are used" in caplog.messages


@pytest.mark.parametrize(("options", "expected"), [({}, 64), ({"fast_dev_run": True}, 32)])
def test_without_a_number_all_images_are_used_and_one_block_in_a_trial(tmp_path, options, expected):
    choice = ImageChoice(loader().dataset, None, 0, None, None, 0)
    assert choice.read(trainer_of(tmp_path, **options), World()).num_images == expected


class Stream(IterableDataset):
    def __iter__(self):
        yield from ((image, number % 2) for number, image in enumerate(images_of(64, seed=1)))


def test_the_first_images_of_an_iterable_dataset_are_used_and_it_says_so(tmp_path, caplog):
    with caplog.at_level("INFO"):
        result = validated(tmp_path, probe_of(), val=DataLoader(Stream(), 16))
    assert sorted(result.metadata["image_ids"]) == list(range(16))
    sentence = (
        "the DataLoader over Stream has no indices: its first images were read, so which ones depends on its order"
    )
    assert f"probe: {sentence}" in caplog.messages
    assert sentence in result.metadata["notes"]
    first = validated(tmp_path, probe_of(images=Subset(loader(seed=1).dataset, range(16)), num_images=16))
    assert content(result) == content(first)


def test_dataloader_idx_chooses_among_several(tmp_path):
    loaders = [loader(seed=1), loader(seed=2)]
    first = validated(tmp_path, probe_of(), val=loaders)
    second = validated(tmp_path, probe_of(dataloader_idx=1), val=loaders)
    assert_same_numbers(first, validated(tmp_path, probe_of(), val=loader(seed=1)))
    assert_same_numbers(second, validated(tmp_path, probe_of(), val=loader(seed=2)))


def test_a_dict_of_dataloaders_is_counted_in_its_order(tmp_path):
    probe = probe_of(dataloader_idx=1)
    fit(tmp_path, probe, val={"a": loader(seed=1), "b": loader(seed=2)}, max_epochs=1)
    assert content(probe.result) == content(validated(tmp_path, probe_of(), val=loader(seed=2)))


def test_images_come_from_a_datamodule(tmp_path):
    class Data(pl.LightningDataModule):
        def train_dataloader(self):
            return loader()

        def val_dataloader(self):
            return loader(seed=1)

    probe = probe_of()
    trainer_of(tmp_path, probe, max_epochs=1).fit(Net(), datamodule=Data())
    assert content(probe.result) == content(validated(tmp_path, probe_of()))


def test_batches_that_are_dicts_are_searched_for_images(tmp_path):
    class Named(Net):
        def validation_step(self, batch, batch_idx):
            self(batch["pixel_values"])

    items = [{"pixel_values": image, "label": number % 2} for number, image in enumerate(images_of(64, seed=1))]
    result = validated(tmp_path, probe_of(), model=Named, val=DataLoader(items, 16))
    assert_same_numbers(result, validated(tmp_path, probe_of()))


def test_to_inputs_gets_the_images_out_of_any_batch(tmp_path):
    class Swapped(Net):
        def validation_step(self, batch, batch_idx):
            self(batch[1])

    swapped = DataLoader(TensorDataset(torch.arange(64) % 2, images_of(64, seed=1)), 16)
    result = validated(tmp_path, probe_of(to_inputs=1), model=Swapped, val=swapped)
    assert_same_numbers(result, validated(tmp_path, probe_of()))


@pytest.mark.parametrize("forward", ["backbone", lambda module, images: module.backbone(images)])
def test_a_module_without_forward_is_probed_through_forward(tmp_path, forward):
    probe = probe_of(forward=forward, layers=["stem", "head"])
    fit(tmp_path, probe, model=Headless(), max_epochs=1)
    assert probe.result.layers == ("stem", "head")


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_batch_size_does_not_change_the_numbers(tmp_path, batch_size):
    reference = validated(tmp_path, probe_of(num_images=33))
    # Forward passes of other sizes round otherwise: relative 1e-6 in float32.
    assert_same_numbers(validated(tmp_path, probe_of(num_images=33, batch_size=batch_size)), reference, rtol=1e-5)


@pytest.mark.parametrize(
    ("precision", "dtype"), [("bf16-mixed", "bfloat16"), ("bf16-true", "bfloat16"), ("64-true", "float64")]
)
def test_the_model_runs_in_the_trainers_precision(tmp_path, precision, dtype):
    plain, probe = probe_of(), probe_of()
    # The untrained model is the same in all precisions but for rounding.
    fit(tmp_path, plain, max_epochs=1)
    fit(tmp_path, probe, max_epochs=1, precision=precision)
    assert dtype in probe.result.metadata["activation_dtypes"]
    assert torch.get_default_dtype() == torch.float32
    # bfloat16 has 8 bits, and puts a floor of 1e-3 to 1e-2 under a sensitivity.
    tolerance = 1e-5 if dtype == "float64" else 0.05
    for metric in ("sensitivity", "spread"):
        pair = (result.history[0].tensor(metric) for result in (probe, plain))
        torch.testing.assert_close(*pair, rtol=tolerance, atol=tolerance)


class Silent(Net):
    """torch.compile does not get through Lightning's log."""

    def training_step(self, batch, batch_idx):
        return torch.nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self(batch[0])


# While it traces, Dynamo looks at attributes that warn.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("whole", [True, False])
def test_a_compiled_module_is_probed_and_stays_compiled(tmp_path, whole):
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph

    plain, compiled = probe_of(), probe_of()
    fit(tmp_path, plain, model=Silent)
    pl.seed_everything(0, verbose=False)
    model = Silent()
    if whole:
        model = torch.compile(model, backend=backend)
    else:
        model.body = torch.compile(model.body, backend=backend)
    trainer_of(tmp_path, compiled).fit(model, loader(), loader(seed=1))
    assert graphs
    # A compiled training rounds otherwise.
    assert_same_numbers(compiled.history[0], plain.history[0])
    assert_same_numbers(compiled.history, plain.history, rtol=1e-3)


def test_the_bar_is_shown_on_request(tmp_path, capsys):
    validated(tmp_path, probe_of(progress=True))
    assert "probe" in capsys.readouterr().err
