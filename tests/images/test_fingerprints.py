import torch

from kornia_lightning_probe.images.fingerprints import content_hash, fingerprints_of

COUNTED = torch.arange(80.0).view(80, 1, 1, 1)


def test_a_fingerprint_is_exact_in_float64():
    numbers = fingerprints_of([torch.rand(50, 3, 4, 4)])
    assert numbers.dtype == torch.int64
    assert numbers.min() >= 0
    assert torch.equal(numbers.double().long(), numbers)


def test_the_content_hash_notices_one_pixel_the_order_and_the_dtype():
    changed = COUNTED.clone()
    changed[7] += 1e-3
    sources = [COUNTED, changed, COUNTED.flip(0), COUNTED.bfloat16()]
    hashes = [content_hash(fingerprints_of([source])) for source in sources]
    assert len(set(hashes)) == 4
    assert hashes[0] == content_hash(fingerprints_of([COUNTED]).double())


def test_every_entry_counts():
    alone, twice = fingerprints_of([COUNTED]), fingerprints_of([COUNTED, COUNTED])
    assert not (alone == twice).any()
