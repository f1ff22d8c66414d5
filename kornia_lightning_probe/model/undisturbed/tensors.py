"""One tensor as it was: the object, its memory, its bits; and steps that are all taken, whatever fails on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

Step = tuple[str, Callable[[], object]]
"""What is put back, in words, and how."""

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def take_all(steps: Iterable[Step]) -> None:
    """Take every step, also those behind one that fails.

    Raises:
        RuntimeError: names what could not be put back; its cause is the error, or the group of all errors.

    Example:
        >>> done = []
        >>> take_all([("a", lambda: done.append("a")), ("b", lambda: done.append("b"))])
        >>> done
        ['a', 'b']
    """
    failed: dict[str, Exception] = {}
    for what, put_back in steps:
        try:
            put_back()
        except Exception as error:
            failed[what] = error
    if not failed:
        return
    errors = list(failed.values())
    texts = [f"{what} ({error})" for what, error in failed.items()]
    cause = errors[0] if len(errors) == 1 else ExceptionGroup("putting the model back as it was", errors)
    raise RuntimeError(f"the model is not as it was before it was probed: {'; '.join(texts)}") from cause


class KeptTensor:
    """A tensor as it is now, to be put back by :meth:`put_back`.

    The tensor stays the same object with the same memory, whatever has been done to it: written to, resized, given
    other data. What has not changed is not written to, so that its version, which autograd checks, stays.

    Args:
        tensor: any tensor; of a wrapper (a DTensor, a quantised weight) the tensors inside, so a rank's own shard.
        on_host: whether the copy of its values is held by the host.
        may_move: whether to give it back memory that it has been taken away. A sharded strategy moves its tensors
            between shards and wholes itself: they are compared where they have not moved, and left alone elsewhere.

    Example:
        >>> count = torch.zeros(2)
        >>> kept = KeptTensor(count)
        >>> count.resize_(3).fill_(7.0)
        tensor([7., 7., 7.])
        >>> kept.put_back(), count
        (True, tensor([0., 0.]))
    """

    def __init__(self, tensor: Tensor, *, on_host: bool = False, may_move: bool = True) -> None:
        self._may_move = may_move
        self._kept = [(part, _memory(part), _copied(part, on_host=on_host)) for part in _parts(tensor)]

    def put_back(self) -> bool:
        """Put memory and values back.

        Returns:
            Whether values had changed.
        """
        changed = False
        for part, memory, values in self._kept:
            if self._may_move or not _moved(part, memory):
                changed |= _put_back(part, memory, values)
        return changed


def same_bits(left: Tensor, right: Tensor) -> bool:
    """Whether two tensors have the same shape, dtype and bits: NaN equals itself, and 0 is not -0.

    Example:
        >>> same_bits(torch.tensor(torch.nan), torch.tensor(torch.nan)), same_bits(torch.zeros(1), -torch.zeros(1))
        (True, False)
    """
    if left.is_meta or _is_freed(left):
        return True
    if (left.shape, left.dtype) != (right.shape, right.dtype):
        return False
    return torch.equal(_as_integers(left), _as_integers(right.to(left.device)))


def _parts(tensor: Tensor) -> list[Tensor]:
    """The plain tensors that a tensor is made of; none where it has no memory yet."""
    if is_lazy(tensor):
        return []
    if not is_traceable_wrapper_subclass(tensor):
        return [tensor]
    names, _ = tensor.__tensor_flatten__()
    parts: list[Tensor] = []
    for name in names:
        part = getattr(tensor, name)
        # A DTensor names its mesh of devices among its parts.
        if isinstance(part, Tensor):
            parts += _parts(part)
    return parts


def _memory(part: Tensor) -> Tensor:
    # What `.data` gives has a version of its own, so writing to it breaks no graph that waits for its backward.
    return part.data if part.layout == torch.strided else part


def _copied(part: Tensor, *, on_host: bool) -> Tensor:
    place = torch.device("cpu") if on_host and not part.is_meta else part.device
    return part.detach().to(place, copy=True)


def _moved(part: Tensor, memory: Tensor) -> bool:
    if part.layout != torch.strided or part.is_meta:
        return part.shape != memory.shape
    return _place(part) != _place(memory)


def _place(tensor: Tensor) -> tuple[object, ...]:
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype, tensor.device


def _is_freed(tensor: Tensor) -> bool:
    if tensor.layout != torch.strided:
        return False
    return tensor.numel() > 0 and tensor.untyped_storage().size() == 0


def _as_integers(tensor: Tensor) -> Tensor:
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    if tensor.is_quantized:
        return tensor.int_repr()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    return tensor.detach().resolve_neg().view(_INTEGERS[tensor.dtype.itemsize])


def _put_back(part: Tensor, memory: Tensor, values: Tensor) -> bool:
    changed, moved = not same_bits(part, values), _moved(part, memory)
    if not (changed or moved):
        return False
    # A tensor that was made under inference_mode can only be written to there.
    with torch.inference_mode(part.is_inference()), torch.no_grad():
        if moved:
            part.data = memory
        if not same_bits(memory, values):
            memory.copy_(values)
    return changed
