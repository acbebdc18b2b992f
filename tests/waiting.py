"""A device that is not there, to count how often the host waits for it: what stalls on a GPU, counted on any machine.

Tensors of the device lie in the memory of the host and only say that they are elsewhere. Whatever needs their values
on the host, or brings values to them, is a wait: on a GPU each stalls until all that was asked for before is done.

    with waits() as waited:
        world.to(DEVICE)
        ...
        waited.clear()
        envs.step(actions)
    assert len(waited) <= 2, waited
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map

DEVICE = torch.device("meta")
"""The one device besides the CPU that every build of torch knows; its own code is never run."""
_aten = torch.ops.aten
_ASKING = {
    _aten._local_scalar_dense.default,
    _aten.bincount.default,
    _aten.equal.default,
    _aten.is_nonzero.default,
    _aten.masked_select.default,
    _aten.nonzero.default,
    _aten.repeat_interleave.Tensor,
    _aten._unique2.default,
}
"""Operations with a result, or the size of one, that the host has to know."""
_INDEXING = {_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default, _aten._index_put_impl_.default}
"""Operations that wait if they are given a mask, or an index that lies on the host."""
_COPYING = {_aten._to_copy.default, _aten.copy_.default}
_TO_HOST = {Tensor.tolist, Tensor.numpy, Tensor.__array__}
_FROM_HOST = {torch.tensor, torch.as_tensor}


class Elsewhere(Tensor):
    """A tensor of the device."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> Elsewhere:
        layout = {"strides": here.stride(), "storage_offset": here.storage_offset(), "dtype": here.dtype}
        made = Tensor._make_wrapper_subclass(cls, here.size(), device=DEVICE, **layout)
        made.here = here
        return made

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"Elsewhere({self.here})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {}, [])


class _Operations(TorchDispatchMode):
    def __init__(self, waited: list[str]) -> None:
        super().__init__()
        self.waited = waited

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {}, self.waited)


class _Calls(TorchFunctionMode):
    """Calls that torch does not hand to `_Operations`: tensors made of numbers, and numbers made of tensors."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _TO_HOST and isinstance(args[0], Elsewhere):
            return func(args[0].cpu(), *args[1:], **kwargs)
        if func in _FROM_HOST and kwargs.get("device") is not None and torch.device(kwargs["device"]) == DEVICE:
            value = args[0] if isinstance(args[0], Tensor) else func(*args, **{**kwargs, "device": "cpu"})
            return value.to(DEVICE, kwargs.get("dtype") or value.dtype)
        return func(*args, **kwargs)


@contextmanager
def waits() -> Iterator[list[str]]:
    """Makes the device usable, and gives a list that grows by a line with every wait: what waited, and where."""
    waited: list[str] = []
    with _Operations(waited), _Calls():
        yield waited


def _run(func: Any, args: Any, kwargs: dict[str, Any], waited: list[str]) -> Any:
    tensors = [value for value in tree_iter((args, kwargs)) if isinstance(value, Tensor)]
    there = [value for value in tensors if isinstance(value, Elsewhere)]
    goes_to = kwargs.get("device") or (DEVICE if there else None)
    if not there and goes_to != DEVICE:
        return func(*args, **kwargs)
    on_host = [value for value in tensors if not isinstance(value, Elsewhere) and value.ndim]
    crosses = func in _COPYING and (bool(on_host) or goes_to != DEVICE) and not kwargs.get("non_blocking")
    masks = func in _INDEXING and (bool(on_host) or any(index.dtype == torch.bool for index in _tensors(args[1])))
    if func in _ASKING or crosses or masks:
        waited.append(f"{func} {_place()}")
    assert not on_host or func in _COPYING | _INDEXING, f"{func} mixes tensors of the device and of the host {_place()}"
    here_kwargs = tree_map(_here, {**kwargs, **({"device": torch.device("cpu")} if "device" in kwargs else {})})
    result = func(*tree_map(_here, args), **here_kwargs)
    if func is _aten.copy_.default and not isinstance(args[0], Elsewhere):
        return args[0]
    return tree_map(_there, result) if goes_to == DEVICE else result


def _tensors(values: Any) -> Iterator[Tensor]:
    return (value for value in tree_iter(values) if isinstance(value, Tensor))


def _here(value: Any) -> Any:
    return value.here if isinstance(value, Elsewhere) else value


def _there(value: Any) -> Any:
    return Elsewhere(value) if isinstance(value, Tensor) and not isinstance(value, Elsewhere) else value


def _place() -> str:
    """The innermost line of the library that is being run."""
    frame = sys._getframe()
    while frame.f_back is not None and "/vqvideo/" not in frame.f_code.co_filename:
        frame = frame.f_back
    return f"at {frame.f_code.co_filename.rpartition('/vqvideo/')[2]}:{frame.f_lineno}"
