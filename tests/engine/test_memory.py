"""An error of memory is known as one, and told what was held."""

import pytest
import torch
from support.nets import SmallCNN
from support.probing import images_of, plain_bank, run

from kornia_lightning_probe.engine.memory import clean_bytes_told, is_out_of_memory
from kornia_lightning_probe.engine.notes import Findings


def test_what_an_out_of_memory_error_has_caused_is_one_too():
    error = RuntimeError("view 'blur 2' raised MemoryError on images of shape (8, 3, 8, 8)")
    assert not is_out_of_memory(error)
    error.__cause__ = MemoryError()
    assert is_out_of_memory(error)
    assert not is_out_of_memory(ValueError("out of memory"))


def test_an_error_of_memory_is_told_what_the_clean_activations_took_and_others_are_not():
    findings = Findings(clean_bytes=3 * 2**20)
    with pytest.raises(MemoryError) as raised, clean_bytes_told(findings):
        raise MemoryError
    (note,) = raised.value.__notes__
    assert note == "when memory ran out, the clean activations of the first block took 3 MiB"
    with pytest.raises(ValueError, match="other") as raised, clean_bytes_told(findings):
        raise ValueError("other")
    assert not hasattr(raised.value, "__notes__")


def test_the_first_probe_says_how_much_its_clean_activations_took():
    class Full(SmallCNN):
        passes = 0

        def forward(self, x):
            output = super().forward(x)
            self.passes += len(x) == 32
            if self.passes == 3:
                raise torch.OutOfMemoryError("out of memory")
            return output

    with pytest.raises(torch.OutOfMemoryError) as raised:
        run(Full(), images_of(32), plain_bank(), layers=["block1", "head"])
    (note,) = raised.value.__notes__
    taken = float(note.split("took ")[1].removesuffix(" MiB"))
    assert taken > 0
