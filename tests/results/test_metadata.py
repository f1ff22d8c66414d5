import dataclasses
import json

import pytest
from support.nets import SmallCNN
from support.probing import images_of, plain_bank, run

from kornia_lightning_probe.results.metadata import ProbeMetadata


def test_as_a_mapping_it_holds_what_is_known_and_what_is_always_there():
    metadata = ProbeMetadata(num_images=3, non_finite={"fc": [1]})
    assert dict(metadata) == {
        "num_images": 3,
        "non_finite": {"fc": [1]},
        "left_out": {},
        "warnings": [],
        "notes": [],
    }
    assert len(metadata) == 5
    assert "device" not in metadata
    assert metadata.get("device", "cpu") == "cpu"
    assert metadata.num_images == metadata["num_images"] == 3


@pytest.mark.parametrize("name", ["device", "unheard_of", "others", "state", "of"])
def test_a_fact_that_is_not_known_is_a_key_error(name):
    with pytest.raises(KeyError, match=name):
        ProbeMetadata(num_images=3)[name]


def test_a_fact_that_is_false_or_zero_is_known():
    metadata = ProbeMetadata(noise_floor=0.0, seed=0, embedding="")
    assert (metadata["noise_floor"], metadata["seed"], metadata["embedding"]) == (0.0, 0, "")


def test_what_has_no_field_is_kept_beside_the_others_and_may_not_hide_one():
    metadata = ProbeMetadata.of({"num_images": 3, "run": "a", "epochs": [1, 2]})
    assert metadata.others == {"run": "a", "epochs": [1, 2]}
    assert (metadata["run"], metadata["num_images"]) == ("a", 3)
    assert list(metadata)[-2:] == ["run", "epochs"]


def test_its_state_brings_it_back_through_a_file():
    metadata = ProbeMetadata(num_images=3, image_ids=[2, 0, 1], left_out={"ids": "integers"}, others={"run": "a"})
    assert ProbeMetadata.of(json.loads(json.dumps(metadata.state()))) == metadata
    assert ProbeMetadata.of(metadata) is metadata


def test_an_older_file_that_holds_nothing_where_a_list_is_expected_is_read():
    metadata = ProbeMetadata.of({"warnings": None, "left_out": None, "num_images": 4})
    assert metadata["warnings"] == metadata["notes"] == []
    assert metadata["left_out"] == {}


def test_it_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ProbeMetadata().num_images = 3


def test_every_field_says_what_it_is():
    documented = ProbeMetadata.__doc__
    assert [field.name for field in dataclasses.fields(ProbeMetadata) if f"{field.name}: " not in documented] == []


def test_a_probes_facts_are_plain_data():
    metadata = run(SmallCNN(), images_of(8), plain_bank(), metrics=None).metadata
    assert isinstance(metadata, ProbeMetadata)
    assert metadata.others == {}
    assert json.loads(json.dumps(metadata.state())) == metadata.state()
