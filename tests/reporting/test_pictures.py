"""Loggers that take pictures are told by what they can do: each kind as a fake, called as its package calls it."""

import pytest

pytest.importorskip("matplotlib")
from matplotlib.figure import Figure

from kornia_lightning_probe.reporting.pictures import taker_of


class Kept:
    """Keeps what it is called with."""

    def __init__(self):
        self.calls = []


class ImageLogger(Kept):
    """As Lightning's WandbLogger."""

    def log_image(self, key, images, step=None):
        self.calls.append((key, [image.shape for image in images], step))


class Client(Kept):
    """As MLflow's client."""

    def log_figure(self, run_id, figure, artifact_file):
        self.calls.append((run_id, figure, artifact_file))


class Comet(Kept):
    """As Comet's experiment."""

    def log_figure(self, figure_name=None, figure=None, overwrite=False, step=None):
        self.calls.append((figure_name, figure, step))


class Writer(Kept):
    """As TensorBoard's writer."""

    def add_custom_scalars(self, layout):
        raise AssertionError(layout)

    def add_image(self, tag, pixels, global_step, dataformats):
        self.calls.append((tag, pixels.shape, global_step, dataformats))


class Logger:
    """Any logger with an experiment."""

    run_id = "run 1"

    def __init__(self, experiment):
        self.experiment = experiment


def small_figure():
    return Figure(figsize=(2, 1), dpi=100)


def test_a_logger_with_log_image_gets_pixels():
    logger = ImageLogger()
    taker = taker_of(logger)
    taker.take("probe/history [1]", small_figure(), 7)
    # 2 x 1 inches of 100 pixels.
    assert logger.calls == [("probe/history [1]", [(100, 200, 3)], 7)]
    assert not taker.wants_cards


def test_mlflows_client_gets_a_file_for_each_step_whose_name_it_takes():
    client, figure = Client(), small_figure()
    taker_of(Logger(client)).take("probe/history [1]: a", figure, 40)
    assert client.calls == [("run 1", figure, "probe/history 1 a/step=000040.png")]


def test_comets_experiment_gets_the_figure_at_its_step():
    comet, figure = Comet(), small_figure()
    taker_of(Logger(comet)).take("probe/history", figure, 40)
    assert comet.calls == [("probe/history", figure, 40)]


def test_tensorboard_gets_an_image_and_shows_cards():
    writer = Writer()
    taker = taker_of(Logger(writer))
    taker.take("probe/history", small_figure(), 3)
    assert writer.calls == [("probe/history", (100, 200, 3), 3, "HWC")]
    assert taker.wants_cards


@pytest.mark.parametrize("experiment", [None, object(), Kept()])
def test_a_logger_that_can_do_none_of_this_takes_no_pictures(experiment):
    assert taker_of(Logger(experiment)) is None


def test_a_log_figure_of_unknown_arguments_is_left_alone():
    class Other:
        def log_figure(self, something):
            raise AssertionError(something)

    assert taker_of(Logger(Other())) is None
