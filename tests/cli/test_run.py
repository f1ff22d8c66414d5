"""`run`: checkpoints become results, the same as `probe_model` gives; what can't be read is skipped by name."""

import json

import numpy as np
import pytest
import torch
from kornia.augmentation import RandomHorizontalFlip
from support.reports import Page
from torch import nn

from kornia_lightning_probe import AugmentationBank, ProbeResult, probe_model
from kornia_lightning_probe.cli.main import main

pytest.importorskip("jsonargparse")

BANK = """
views:
  hflip:
    class_path: kornia.augmentation.RandomHorizontalFlip
    init_args: {p: 1.0}
"""
NETS = """
from torch import nn
from torch.utils.data import TensorDataset
import torch

def net(width=4):
    small = nn.AdaptiveAvgPool2d(2)
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), small, nn.Flatten(), nn.Linear(4 * width, 3))

def no_net():
    return 3

def needs(what):
    return what

def fails():
    raise RuntimeError("no luck\\nat all")

def dataset():
    return TensorDataset(torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 3)

number = 3
"""


def net(width=4):
    return nn.Sequential(
        nn.Conv2d(3, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * width, 3)
    )


def images_of():
    return torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "nets_of_a_user", raising=False)
    (tmp_path / "nets_of_a_user.py").write_text(NETS)
    (tmp_path / "bank.yaml").write_text(BANK)
    (tmp_path / "runs").mkdir()
    torch.save(images_of(), "images.pt")
    return tmp_path


def run(*more, model="net", checkpoint="runs/**/*.ckpt", images="images.pt", bank="bank.yaml"):
    words = ["run", "--model", f"nets_of_a_user:{model}", "--checkpoint", checkpoint, "--images", images]
    return main([*words, "--bank", bank, "--output", "out", "--metrics", "sensitivity", *more])


def test_the_numbers_are_those_of_probe_model(folder):
    torch.manual_seed(1)
    model = net()
    torch.save(model.state_dict(), "runs/a.ckpt")
    assert run("--mean", "0.5", "--std", "0.25") == 0
    bank = AugmentationBank({"hflip": RandomHorizontalFlip(p=1.0)}, mean=0.5, std=0.25)
    expected = probe_model(model.eval(), (images_of() - 0.5) / 0.25, bank, metrics="sensitivity")
    found = ProbeResult.from_json("out/a.json")
    assert torch.equal(found.tables["sensitivity"].value, expected.tables["sensitivity"].value)
    assert found.metadata["content_hash"] == expected.metadata["content_hash"]


def test_lightnings_checkpoints_are_taken_in_natural_order_with_their_arguments_epochs_and_prefixes(folder, capsys):
    for epoch, width in ((9, 4), (10, 6)):
        state = {f"model.{name}": tensor for name, tensor in net(width).state_dict().items()}
        kept = {"width": width, "lr": 0.1}
        whole = {"state_dict": state | {"loss.weight": torch.ones(3)}, "hyper_parameters": kept}
        torch.save({**whole, "epoch": epoch, "global_step": 7 * epoch}, f"runs/epoch={epoch}.ckpt")
    assert run() == 0
    said = capsys.readouterr().out
    assert said.index("epoch=9.ckpt (epoch 9, step 63)") < said.index("epoch=10.ckpt (epoch 10, step 70)")
    assert "The first checkpoint is runs/epoch=9.ckpt" in said
    assert "paired image by image" in said
    assert ProbeResult.from_json("out/epoch=10.json").metadata["shapes"]["0"][0] == 6


class Evil:
    """What runs code when it is unpickled without care."""

    def __reduce__(self):
        return (open, ("was_run", "w"))


def test_what_is_broken_foreign_or_would_run_code_is_skipped_by_name(folder, capsys):
    torch.save(net().state_dict(), "runs/good.ckpt")
    whole = (folder / "runs/good.ckpt").read_bytes()
    (folder / "runs/torn.ckpt").write_bytes(whole[: len(whole) // 2])
    (folder / "runs/text.ckpt").write_text("no checkpoint")
    torch.save(net(width=5).state_dict(), "runs/other.ckpt")
    torch.save({"state_dict": net().state_dict(), "extra": Evil()}, "runs/evil.ckpt")
    torch.save([1], "runs/list.ckpt")
    torch.save({"a": 1}, "runs/empty.ckpt")
    assert run() == 0
    output = capsys.readouterr()
    assert "skipped: 6 of 7 checkpoints" in output.out
    reasons = {
        "torn": "it is broken, or no checkpoint",
        "text": "it is broken, or no checkpoint",
        "other": "its weights are not those of the model",
        "evil": "it holds more than weights",
        "list": "it holds a list, and a state dict was expected",
        "empty": "it holds no weights",
    }
    for name, reason in reasons.items():
        assert f"skipped runs/{name}.ckpt: {reason}" in output.err
    assert not (folder / "was_run").exists()
    assert [path.name for path in (folder / "out").glob("*.json")] == ["good.json"]


def test_where_none_is_left_it_is_an_error(folder, capsys):
    (folder / "runs/text.ckpt").write_text("no checkpoint")
    assert run() == 2
    assert "1 checkpoint given, none could be probed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"checkpoint": "other/*.ckpt"}, "--checkpoint other/*.ckpt: no such file"),
        ({"model": "nte"}, "there is no 'nte' in it; did you mean 'net'?"),
        ({"model": "number"}, "a class or function was expected, got an int"),
        ({"model": "no_net"}, "an nn.Module was expected of --model, got an int"),
        ({"model": "fails"}, "the model can't be made: RuntimeError: no luck at all"),
        ({"model": "needs"}, "the model can't be made: needs() missing 1 required positional argument"),
        ({"images": "none.pt"}, "there is no such folder or file"),
        ({"images": "bank.yaml"}, "a folder, a .pt or a .npy file was expected"),
        ({"images": "runs"}, "no image in this folder"),
        ({"bank": "defalt"}, "did you mean 'default'?"),
        ({"bank": "none.yaml"}, "there is no such file"),
    ],
)
def test_what_is_asked_for_and_is_not_there_is_said_in_a_sentence(folder, capsys, options, text):
    torch.save(net().state_dict(), "runs/a.ckpt")
    assert run(**options) == 2
    said = capsys.readouterr().err
    assert text in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (["--mean", "0.1", "0.2"], "--mean takes one number or 3"),
        (["--std", "0"], "--std must be positive"),
        (["--size", "8", "8", "8"], "--size takes a side, or height and width"),
        (["--num-images", "0"], "--num-images must be at least 1"),
        (["--metrics", "sensitivty"], "no metric is named 'sensitivty'"),
        (["--size", "wide"], "--size takes whole numbers, got 'wide'; see kornia-lightning-probe run --help"),
        (["--device", "toaster"], "--device toaster: "),
        (["--output", "images.pt"], "--output images.pt is no folder, nor can one be made there: File exists"),
    ],
)
def test_numbers_that_do_not_fit_are_said_in_a_sentence(folder, capsys, more, text):
    torch.save(net().state_dict(), "runs/a.ckpt")
    assert run(*more) == 2
    assert text in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("views: [1", "it describes no bank: ParserError: "),
        ("- 1", "class_path and init_args were expected, got a list"),
        ("", "class_path and init_args were expected, got nothing"),
        ("vews: {}", "the following arguments are required: views"),
        (BANK.replace("RandomHorizontalFlip", "NoSuch"), "NoSuch: module 'kornia.augmentation' has no attribute"),
        (BANK.replace("p: 1.0", "pp: 1.0"), "RandomHorizontalFlip: Option 'pp' is not accepted"),
    ],
)
def test_a_mistake_in_a_banks_file_is_said_in_a_sentence(folder, capsys, content, text):
    torch.save(net().state_dict(), "runs/a.ckpt")
    (folder / "bank.yaml").write_text(content)
    assert run() == 2
    said = capsys.readouterr().err
    assert text in said
    assert len(said.splitlines()) == 1


def test_of_all_checkpoints_there_is_one_page(folder, capsys):
    for step in (9, 10):
        torch.save(net().state_dict(), f"runs/step={step}.ckpt")
    assert run() == 0
    assert "wrote out/report.html" in capsys.readouterr().out
    (data,) = Page((folder / "out" / "report.html").read_text()).data
    # Plain weights know no epoch, and go by their names.
    assert data["choices"]["when"] == ["step=9", "step=10"]


def test_one_image_set_in_every_form_gives_the_same_numbers(folder):
    torch.save(net().state_dict(), "runs/a.ckpt")
    by_byte = (images_of() * 255).to(torch.uint8)
    torch.save({"images": by_byte, "labels": torch.arange(40) % 3}, "bytes.pt")
    np.save("bytes.npy", by_byte.permute(0, 2, 3, 1).numpy())
    (folder / "many").mkdir()
    for number, image in enumerate(by_byte):
        np.save(f"many/{number}.npy", image.numpy())
    hashes = set()
    for source in ("bytes.pt", "bytes.npy", "many"):
        assert run(images=source) == 0
        hashes.add(json.loads((folder / "out/a.json").read_text())["metadata"]["content_hash"])
    assert len(hashes) == 1


def test_a_dataset_brings_its_labels_and_pictures_are_resized(folder):
    torch.save(net().state_dict(), "runs/a.ckpt")
    assert run("accuracy", images="nets_of_a_user:dataset") == 0
    assert "accuracy" in ProbeResult.from_json("out/a.json").metrics
    assert run("--size", "12", "10") == 0
    assert ProbeResult.from_json("out/a.json").metadata["shapes"]["0"] == [4, 10, 8]


def test_images_that_were_normalised_already_are_refused(folder, capsys):
    torch.save(net().state_dict(), "runs/a.ckpt")
    torch.save(images_of() * 4 - 2, "normalised.pt")
    assert run(images="normalised.pt") == 2
    assert "images in [0, 1] were expected" in capsys.readouterr().err


def test_pictures_of_two_sizes_need_a_size(folder, capsys):
    image_module = pytest.importorskip("PIL.Image")
    torch.save(net().state_dict(), "runs/a.ckpt")
    (folder / "pictures").mkdir()
    generator = np.random.default_rng(0)
    for number in range(8):
        pixels = generator.integers(0, 256, (9 + number % 2, 8, 3), dtype=np.uint8)
        image_module.fromarray(pixels).save(f"pictures/{number}.png")
    assert run(images="pictures") == 2
    assert "--size 224 resizes all of them" in capsys.readouterr().err
    assert run("--size", "8", images="pictures") == 0
