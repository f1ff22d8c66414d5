import pytest
import torch
from support.nets import ImageAndMask, LeftAndRight, SmallCNN
from support.probing import Labels, halved, images_of, mirrored, plain_bank, random_bank, same
from torch.utils.data import DataLoader, Dataset, IterableDataset

from kornia_lightning_probe import probe_model
from kornia_lightning_probe.metrics import LayerSensitivity

IMAGES = images_of(40)
VIEWS = {"halve": halved, "mirror": mirrored}

# Nets of four channels have a leading one.
pytestmark = [
    pytest.mark.filterwarnings("ignore:one channel holds more than half"),
]


class Items(Dataset):
    """Images whose first pixel is a hundredth of their label, as dictionaries or tuples."""

    def __init__(self, *, keyed):
        self.keyed = keyed
        self.images = IMAGES.clone()
        self.images[:, 0, 0, 0] = torch.arange(40) / 100

    def __len__(self):
        return 40

    def __getitem__(self, index):
        return {"image": self.images[index], "label": index} if self.keyed else (self.images[index], index)


@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize("loader", [False, True])
def test_images_and_labels_of_datasets_and_loaders_are_found_in_any_order(keyed, loader):
    data = Items(keyed=keyed)
    source = DataLoader(data, batch_size=7, shuffle=True) if loader else data
    model = SmallCNN()
    result = probe_model(model, source, plain_bank(), metrics=[LayerSensitivity(), Labels()])
    # The largest difference between an image's label and what its pixel says, over all images.
    assert result.value("labels", layer="input") == pytest.approx(0, abs=1e-4)
    expected = probe_model(model, data.images, plain_bank(), metrics=[LayerSensitivity(), Labels()], labels=range(40))
    same(result, expected)


@pytest.mark.parametrize("labels", [list(range(40)), torch.arange(40)])
def test_labels_follow_their_images_through_blocks_and_batches(labels):
    for batch_size in (7, 64):
        result = probe_model(
            SmallCNN(), Items(keyed=True).images, plain_bank(), metrics=Labels(), labels=labels, batch_size=batch_size
        )
        assert result.value("labels", layer="input") == pytest.approx(0, abs=1e-4)


def test_labels_of_another_number_are_refused():
    with pytest.raises(ValueError, match="39"):
        probe_model(SmallCNN(), IMAGES, plain_bank(), labels=range(39))


def test_to_inputs_finds_the_images_where_the_search_does_not():
    pairs = [{"left": image, "other": 0} for image in IMAGES]
    model = SmallCNN()
    with pytest.raises(ValueError, match=r"No image was found in the batch.*'left': float32.*to_inputs="):
        probe_model(model, pairs, plain_bank())
    expected = probe_model(model, IMAGES, plain_bank())
    for to_inputs in ("left", lambda batch: batch["left"]):
        same(probe_model(model, pairs, plain_bank(), to_inputs=to_inputs), expected)


def test_an_iterable_dataset_works_and_says_that_the_choice_depends_on_its_order():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(IMAGES)

    model = SmallCNN()
    with pytest.warns(UserWarning, match="has no indices: its first images were read"):
        result = probe_model(model, Stream(), plain_bank())
    same(result, probe_model(model, IMAGES, plain_bank()))


def test_a_dict_of_image_and_mask_is_passed_on_and_only_the_image_is_augmented():
    masks = torch.zeros(40, 1, 12, 12)
    masks[:, :, :, 6:] = 1
    model, inputs = ImageAndMask(), {"image": IMAGES, "mask": masks.bool()}
    result = probe_model(model, inputs, plain_bank(), layers="net.head")
    expected = probe_model(model.net, IMAGES, plain_bank(), layers="head", forward=lambda net, x: net(x * masks[:1]))
    assert torch.equal(result.tensor("sensitivity"), expected.tensor("sensitivity"))


def test_a_tuple_is_called_as_several_arguments_and_equal_entries_are_augmented_alike():
    model = LeftAndRight()
    both = probe_model(model, (IMAGES, IMAGES), random_bank(), image_keys=(0, 1), metrics="relative_change")
    # Same images, same parameters: left minus right stays zero, so its relative change is none.
    rows = both.table("relative_change")
    assert "net.head.call2" in rows.layers
    first, second = (rows.value[:, rows.layers.index(name)] for name in ("net.head", "net.head.call2"))
    torch.testing.assert_close(first, second, rtol=1e-5, atol=0)


def test_of_a_tuple_only_the_named_entry_is_augmented():
    result = probe_model(LeftAndRight(), (IMAGES, images_of(40, seed=1)), plain_bank(), image_keys=1)
    assert result.value("sensitivity", layer="net.head") == 0
    assert result.value("sensitivity", layer="net.head.call2") > 0


@pytest.mark.parametrize(
    ("inputs", "names"), [((IMAGES, IMAGES), "0, 1"), ({"left": IMAGES, "right": IMAGES}, "'left', 'right'")]
)
def test_several_possible_images_are_an_error_that_names_them(inputs, names):
    with pytest.raises(ValueError, match=f"Several entries could be the images: {names}.*image_keys="):
        probe_model(LeftAndRight(), inputs, plain_bank())


@pytest.mark.parametrize(
    ("inputs", "error", "text"),
    [
        (IMAGES[:0], ValueError, "no images to probe"),
        ((IMAGES * 255).byte(), ValueError, r"uint8 .* came, expected floats.*float\(\) / 255"),
        (IMAGES * 255, ValueError, r"outside value_range=\(0, 1\).*value_range=\(0, 255\)"),
        (IMAGES * 4 - 2, ValueError, "pass its mean= and std="),
        (IMAGES / 0, ValueError, "NaN or infinite pixels"),
        (3, TypeError, "int"),
    ],
)
def test_inputs_that_can_not_be_probed_are_refused_with_what_to_do(inputs, error, text):
    with pytest.raises(error, match=text):
        probe_model(SmallCNN(), inputs, plain_bank())


def test_float64_images_as_numpy_gives_them_are_probed_in_the_models_dtype():
    model = SmallCNN()
    result = probe_model(model, IMAGES.double(), plain_bank(), metrics="sensitivity")
    same(result, probe_model(model, IMAGES, plain_bank(), metrics="sensitivity"), rtol=1e-5, atol=0)
