import pytest
import torch
from support.readings import STILL, Sees, SeesBlocks, prepared_for, readings_of, site_of

from kornia_lightning_probe.activations.about import Shown
from kornia_lightning_probe.engine.segments import Segment
from kornia_lightning_probe.engine.under_views import feeding
from kornia_lightning_probe.engine.under_views.feeding import Feed, Slots
from kornia_lightning_probe.engine.under_views.readings import Rows

# Image i of 4 under view v is 10 v + i, at a layer of one feature.
CLEAN = torch.arange(4.0).unsqueeze(1)


def under(view, rows=slice(0, 4)):
    return CLEAN[rows] + 10 * view


class Fed:
    """A feed of one layer's block, whose metrics see whole blocks, views, or distances."""

    def __init__(self, *metrics, num_views=3, at_once=1):
        self.prepared = prepared_for(list(metrics), site_of("fc", (1,)), views=(STILL,) * num_views)
        readings = readings_of(self.prepared, {"fc": CLEAN})
        kept = [reading for reading in readings["fc"] if reading.reader.kind != "view"]
        slots = Slots({reading.number: reading.templates() for reading in kept}, num_views, at_once)
        self.rows = Rows()
        self.feed = Feed(readings, Shown((0, 4), slice(0, 4)), slots=slots, rows=self.rows)

    def come(self, *views, start=0, stop=4, fires=True):
        """One pass: these rows under views that follow each other."""
        rows = slice(start, stop)
        shown = [Shown((start, stop), rows, views=range(view, view + 1)) for view in views]
        sink = self.feed.sink(Segment(range(views[0], views[-1] + 1), rows), shown)
        if fires:
            sink("fc", torch.cat([under(view, rows) for view in views]))

    def table(self, name, statistic=0):
        self.rows.write(self.prepared.metrics)
        return self.prepared.metrics[name].table[statistic, :, 0]

    def filled(self, name):
        return self.prepared.metrics[name].filled[:, 0]


@pytest.mark.parametrize(
    "passes",
    [
        [((0,), 0, 4), ((1,), 0, 4), ((2,), 0, 4)],
        [((0,), 0, 3), ((0,), 3, 4), ((1,), 0, 2), ((1,), 2, 4), ((2,), 0, 4)],
        [((0, 1), 0, 4), ((2,), 0, 4)],
        [((0, 1, 2), 0, 4)],
    ],
    ids=["whole", "cut", "merged", "all at once"],
)
def test_however_passes_are_cut_or_merged_each_metric_sees_all_of_it(passes):
    fed = Fed(Sees(), SeesBlocks(), "sensitivity_flat", at_once=max(len(views) for views, _, _ in passes))
    for views, start, stop in passes:
        fed.come(*views, start=start, stop=stop)
    fed.feed.finish()
    expected = [[10 * view + image for image in range(4)] for view in range(3)]
    assert fed.table("sees").tolist() == fed.table("sees_blocks").tolist() == expected
    # Every image moves by 10 v.
    assert fed.table("sensitivity_flat").tolist() == [[(10.0 * view) ** 2] * 4 for view in range(3)]
    assert fed.filled("sees").tolist() == [[1] * 4] * 3


def test_whole_blocks_are_seen_under_as_many_views_as_are_kept():
    fed = Fed(SeesBlocks())
    for view in range(3):
        assert not fed.feed.is_full
        fed.come(view)
    assert fed.feed.is_full
    fed.feed.finish()
    assert fed.table("sees_blocks", 1).tolist() == [[3.0] * 4] * 3
    assert not fed.feed.is_full


def test_memory_for_fewer_views_is_full_earlier_and_used_again(monkeypatch):
    # 4 images of one float32 are 16 bytes a view, and so are the norms that the ledger keeps.
    monkeypatch.setattr(feeding, "MOST_KEPT_BYTES", 64)
    fed = Fed(SeesBlocks())
    for view in range(3):
        fed.come(view)
        if fed.feed.is_full:
            fed.feed.finish()
    fed.feed.finish()
    assert fed.table("sees_blocks", 1)[:, 0].tolist() == [2.0, 2.0, 1.0]
    assert fed.table("sees_blocks").tolist() == [[10 * view + image for image in range(4)] for view in range(3)]


def test_what_does_not_come_whole_is_left_out_and_splits_the_views():
    fed = Fed(SeesBlocks())
    fed.come(0)
    fed.come(1, stop=2)
    fed.come(2)
    fed.feed.finish()
    assert fed.table("sees_blocks", 1)[:, 0].tolist() == [1.0, 0.0, 1.0]
    assert fed.filled("sees_blocks").tolist() == [[1] * 4, [0] * 4, [1] * 4]


def test_a_layer_that_does_not_run_under_a_view_has_no_cells_there():
    fed = Fed(SeesBlocks(), Sees(), "sensitivity_flat")
    fed.come(0)
    fed.come(1, fires=False)
    fed.come(2)
    fed.feed.finish()
    for name in ("sees", "sees_blocks", "sensitivity_flat"):
        fed.table(name)
        assert fed.filled(name).tolist() == [[1] * 4, [0] * 4, [1] * 4]


def test_nothing_that_came_is_nothing_to_finish():
    fed = Fed(SeesBlocks())
    fed.feed.finish()
    assert not fed.feed.is_full
    fed.table("sees_blocks")
    assert not fed.filled("sees_blocks").any()


def test_slots_of_a_whole_block_are_memory_of_their_own_and_those_of_rows_lie_in_it():
    slots = Slots({0: [torch.empty(4, 2), torch.empty(4, 3)]}, num_views=3, at_once=1)
    first, second = slots.of(0, 1, Segment(range(1, 2), slice(0, 4)))
    assert (first.shape, second.shape) == ((4, 2), (4, 3))
    (part, _) = slots.of(0, 1, Segment(range(1, 2), slice(2, 4)))
    part.fill_(7.0)
    assert (first[2:] == 7).all()
    several, _ = slots.of(0, 0, Segment(range(2), slice(0, 4)))
    assert several.shape == (8, 2)
    assert (several[6:] == 7).all()
