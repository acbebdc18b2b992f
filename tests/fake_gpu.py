"""A GPU that has no float64, such as Apple's: its tensors say that they are elsewhere, and live on the CPU."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

GPU = torch.device("meta")
"""Where the tensors say they are: a device that needs no hardware."""


class OnGpu(Tensor):
    """A tensor of the GPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> OnGpu:
        if held.dtype == torch.float64:
            raise TypeError("the GPU has no float64")
        alike = {"strides": held.stride(), "dtype": held.dtype}
        found = Tensor._make_wrapper_subclass(cls, held.shape, device=GPU, **alike)  # type: ignore[attr-defined]
        found.held = held
        return found

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})

    def tolist(self) -> Any:
        return self.held.tolist()


class HostGenerator(torch.Generator):
    """The randomness of the CPU, whatever the device."""

    def __new__(cls, device: Any = None) -> HostGenerator:
        return super().__new__(cls)


class FakeGpu(TorchDispatchMode):
    """While it is entered, tensors and models can be moved to `GPU`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        monkeypatch.setattr(torch, "Generator", HostGenerator)
        monkeypatch.setattr(torch, "autocast", lambda **_: nullcontext())
        # Modules cannot take their parameters to the GPU in place.
        monkeypatch.setattr(torch.__future__, "_overwrite_module_params_on_conversion", True)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


def computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The operation, done on the CPU; what it returns is on the GPU if that was asked for, or one of its inputs is."""
    asked = kwargs.get("device")
    there = asked == GPU if asked else any(isinstance(x, OnGpu) for x in tree_leaves((args, kwargs)))
    if asked:
        kwargs = kwargs | {"device": torch.device("cpu")}
    args, kwargs = tree_map_only(OnGpu, lambda x: x.held, (args, kwargs))
    found = func(*args, **kwargs)
    return tree_map_only(Tensor, OnGpu, found) if there else found
