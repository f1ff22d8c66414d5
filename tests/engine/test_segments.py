import pytest

from kornia_lightning_probe.engine.segments import Segment, slices, view_groups


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
