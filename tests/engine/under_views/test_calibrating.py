import pytest
import torch
from support.nets import SmallCNN
from support.probing import images_of
from support.readings import prepared_for
from support.scouting import scouting
from torch import nn

from kornia_lightning_probe.engine.under_views.calibrating import CALIBRATED, STRIPED, Calibration
from kornia_lightning_probe.metrics import InterpolationFloor, LayerSensitivity


class Asked(InterpolationFloor):
    """Notes what it is calibrated on; every metric of the kind gets the same."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def calibrate(self, site, clean, flipped, *, image_size, striped=None):
        self.asked.append((site.name, clean.clone(), flipped.clone(), None if striped is None else striped.clone()))


def run(net, images, metrics, *, batch_size=32):
    """What the prepared metrics were asked, the images of each pass, and the scouted activations."""
    passes_seen = []

    def forward(x):
        passes_seen.append(x.clone())
        return net(x)

    layers = ["0"] if isinstance(net, nn.Sequential) else "auto"
    with scouting(net, images, forward=forward, layers=layers, batch_size=batch_size) as (scouted, passes):
        prepared = prepared_for(metrics, *scouted.sites, num_images=len(images))
        before = len(passes_seen)
        Calibration(metrics).run(prepared, scouted, passes)
    asked = {name: metric.asked for name, metric in prepared.metrics.items() if isinstance(metric, Asked)}
    return asked, passes_seen[before:], scouted


def test_metrics_that_do_not_ask_cost_no_pass():
    metrics = [LayerSensitivity()]
    asked, seen, _ = run(SmallCNN().eval(), images_of(20), metrics)
    assert not asked
    assert not seen
    assert Calibration(metrics).num_passes(20, 32) == 0


@pytest.mark.parametrize(("batch_size", "passes"), [(32, 1), (7, 3)])
def test_the_first_images_are_mirrored_and_shown_beside_their_clean_activations(batch_size, passes):
    net, images = SmallCNN().eval(), images_of(20)
    metrics = [Asked()]
    asked, seen, scouted = run(net, images, metrics, batch_size=batch_size)
    shown = torch.cat(seen)
    assert torch.equal(shown, scouted.block.images[0][:CALIBRATED].flip(-1))
    assert len(seen) == Calibration(metrics).num_passes(20, batch_size) == passes
    first = asked["interpolation_floor"][0]
    assert first[0] == "input"
    for name, clean, flipped, striped in asked["interpolation_floor"]:
        assert torch.equal(clean, scouted.activations[name][:CALIBRATED])
        assert len(flipped) == CALIBRATED
        assert striped is None
    assert [name for name, *_ in asked["interpolation_floor"]] == ["input", "block1", "block2"]


def test_where_a_grid_may_be_one_without_padding_stripes_are_shown_too_to_whom_asks():
    # 12 pixels and 10 cells: a kernel of 3 without padding.
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    asked, seen, scouted = run(net, images_of(20), [Asked()])
    assert [len(images) for images in seen] == [CALIBRATED, STRIPED]
    assert not torch.equal(seen[1], scouted.block.images[0][:STRIPED])
    by_layer = {name: striped for name, _, _, striped in asked["interpolation_floor"]}
    assert by_layer["input"] is None
    with torch.no_grad():
        torch.testing.assert_close(by_layer["0"], net[0](seen[1]))


def test_few_images_are_all_that_there_is():
    _, seen, _ = run(SmallCNN().eval(), images_of(3), [Asked()])
    assert [len(images) for images in seen] == [3]
    assert Calibration([Asked()]).num_passes(3, 32) == 1
