"""Small pictures of the images that moved furthest: the very pixels, in the page, in probe.json, from files."""

import struct
import zlib
from base64 import b64decode
from dataclasses import replace

import pytest
import torch
from support.made_results import made_result
from support.reports import Page

from kornia_lightning_probe.reporting.html import Probed, Thumbnails, probes_text, read_probes, report_text
from kornia_lightning_probe.reporting.html.thumbnails import address_of, with_pictures
from kornia_lightning_probe.results.tables import ImageScores, WorstImages


def picture_of(value, height=2, width=3):
    return torch.full((height, width, 3), value, dtype=torch.uint8)


def kept_result():
    """Two images, of which the second has moved by 2 under view 3, rotation 30."""
    result = made_result(metadata={"embedding": "fc", "image_ids": [7, 12]})
    moved = torch.zeros(6, 1, 2)
    moved[3, 0] = torch.tensor([1.0, 4.0])
    clean = torch.stack([picture_of(10), picture_of(20)])
    worst = WorstImages("fc", 3, torch.tensor([1, 0]), clean, clean + 100)
    result.images = ImageScores(("fc",), moved, torch.ones(2, 1, 2), torch.tensor([-1, 5]), worst)
    return result


def decoded(address):
    """Height, width and pixels of a PNG of bytes in RGB without filters."""
    whole = b64decode(address.removeprefix("data:image/png;base64,"))
    assert whole[:8] == b"\x89PNG\r\n\x1a\n"
    place, parts = 8, {}
    while place < len(whole):
        (length,) = struct.unpack(">I", whole[place : place + 4])
        kind, content = whole[place + 4 : place + 8], whole[place + 8 : place + 8 + length]
        (check,) = struct.unpack(">I", whole[place + 8 + length : place + 12 + length])
        assert check == zlib.crc32(kind + content)
        parts[kind] = content
        place += 12 + length
    width, height, *rest = struct.unpack(">IIBBBBB", parts[b"IHDR"])
    assert rest == [8, 2, 0, 0, 0]
    rows = torch.frombuffer(bytearray(zlib.decompress(parts[b"IDAT"])), dtype=torch.uint8).view(height, 1 + 3 * width)
    assert not rows[:, 0].any()
    return rows[:, 1:].reshape(height, width, 3)


def test_an_address_holds_the_very_pixels():
    picture = torch.arange(5 * 7 * 3, dtype=torch.uint8).view(5, 7, 3)
    assert torch.equal(decoded(address_of(picture)), picture)
    # A view of other memory is written as it looks.
    turned = picture.transpose(0, 1)
    assert torch.equal(decoded(address_of(turned)), turned)


def test_what_the_latest_result_keeps_is_shown_furthest_first():
    probed = with_pictures(Probed("probe", [made_result(epoch=-1), kept_result()]))
    # The square roots of 4 and 1.
    assert [pair.caption for pair in probed.worst] == ["2.00, image 12, label 5", "1.00, image 7"]
    assert probed.worst_under == "under rotation 30, at fc"
    # The tables' place 1 comes first, and its pictures are the first ones.
    assert int(decoded(probed.worst[0].clean)[0, 0, 0]) == 10
    assert int(decoded(probed.worst[0].augmented)[0, 0, 0]) == 110
    page = Page(report_text([Probed("probe", [kept_result()])]))
    images = [attributes["src"] for tag, attributes in page.elements if tag == "img"]
    assert images == [address for pair in probed.worst for address in (pair.clean, pair.augmented)]
    assert "The images that moved furthest under rotation 30, at fc" in page.text


def test_what_was_given_is_not_replaced_and_nothing_is_shown_without_pictures():
    own = [Thumbnails(address_of(picture_of(1)), address_of(picture_of(2)), "mine")]
    given = Probed("probe", [kept_result()], worst=own)
    assert with_pictures(given) is given
    bare = Probed("probe", [made_result()])
    assert with_pictures(bare) is bare


def test_probe_json_holds_them(tmp_path):
    probed = with_pictures(Probed("probe", [kept_result()]))
    path = tmp_path / "probe.json"
    path.write_text(probes_text([probed]), encoding="utf-8")
    (read,) = read_probes(path)
    assert (list(read.worst), read.worst_under) == (list(probed.worst), probed.worst_under)


def test_the_file_beside_a_result_brings_them(tmp_path):
    kept_result().to_json(tmp_path / "run" / "fit-epoch=3-step=120.json")
    expected = with_pictures(Probed("probe", [kept_result()])).worst
    for place in (tmp_path, tmp_path / "run" / "fit-epoch=3-step=120.json"):
        (read,) = read_probes(place)
        assert list(with_pictures(read).worst) == list(expected)


def test_an_address_elsewhere_is_refused(tmp_path):
    good = address_of(picture_of(1))
    with pytest.raises(ValueError, match=r"address must begin with 'data:image/png;base64,', got 'https://there'"):
        Thumbnails("https://there", good, "")
    probed = replace(Probed("probe", [made_result()]), worst=[Thumbnails(good, good, "x")])
    path = tmp_path / "probe.json"
    path.write_text(probes_text([probed]).replace("data:image/png;base64,", "javascript:"), encoding="utf-8")
    with pytest.raises(ValueError, match="must begin with"):
        read_probes(path)
