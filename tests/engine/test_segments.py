import pytest
from support.nets import SmallCNN
from support.probing import images_of, random_bank, run, run_on_all

from kornia_lightning_probe.engine.segments import Segment, count_passes, slices, view_groups
from kornia_lightning_probe.images.blocks import deal_blocks


@pytest.mark.parametrize("size", [1, 2, 5, 7])
def test_slices_cover_every_row_once_in_order_and_none_is_longer_than_asked(size):
    cut = slices(5, size)
    assert [row for rows in cut for row in range(5)[rows]] == list(range(5))
    assert max(rows.stop - rows.start for rows in cut) == min(size, 5)


def test_views_are_merged_as_far_as_they_fit_and_never_less_than_one_at_a_time():
    # 7 images fit twice into 20, once into 7 and not at all into 3.
    assert view_groups(5, 7, 20) == [range(2), range(2, 4), range(4, 5)]
    assert view_groups(2, 7, 7) == view_groups(2, 7, 3) == [range(1), range(1, 2)]
    assert view_groups(5, 7, 1000) == [range(5)]


def test_a_segment_is_as_long_as_its_rows_under_all_of_its_views():
    segment = Segment(range(4, 6), slice(3, 10))
    assert (len(segment), segment.num_images) == (14, 7)
    assert segment.by_view() == [Segment(range(4, 5), slice(3, 10)), Segment(range(5, 6), slice(3, 10))]


@pytest.mark.parametrize("batch_size", [1, 7, 32, 1000])
@pytest.mark.parametrize("num_images", [4, 33])
def test_the_count_is_that_of_the_forward_passes(num_images, batch_size):
    calls = []
    model, bank = SmallCNN(), random_bank()
    run(
        model,
        images_of(num_images),
        bank,
        batch_size=batch_size,
        forward=lambda x: (calls.append(1), model(x))[1],
    )
    expected = count_passes(deal_blocks(num_images), len(bank), batch_size, rank=0, world_size=1)
    assert len(calls) == expected


@pytest.mark.parametrize("num_images", [4, 80])
def test_where_passes_are_collective_every_process_runs_equally_many(num_images):
    model, bank, size = SmallCNN(), random_bank(), 3
    calls = []
    run_on_all(
        size, model, images_of(num_images), bank, lockstep=True, forward=lambda x: (calls.append(1), model(x))[1]
    )
    blocks = deal_blocks(num_images)
    most = max(count_passes(blocks, len(bank), 32, rank=rank, world_size=size) for rank in range(size))
    # Every process is simulated twice, once to send and once to receive.
    assert len(calls) == 2 * size * most


def test_an_idle_process_runs_the_scout_only():
    assert count_passes([range(4)], 10, 32, rank=1, world_size=2) == 3
