"""Weights in fewer bytes. Arithmetic stays in single precision: a runtime widens them once, when it loads the model.

Weights are rounded in the model of torch, where what that costs can be measured, and what was rounded is then kept
without loss.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

Weights = Literal["fp32", "fp16", "int8"]
"""How weights are kept."""
Model = TypeVar("Model", bound=nn.Module)

_LAYERS = (nn.Linear, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.Embedding)
_STEPS = 127
"""Of int8 on each side of 0."""


def rounded(model: Model, weights: Weights) -> Model:
    """The same model, or a copy whose matrices and kernels hold only what fp16 or int8 can hold. With int8, every
    output has a scale of its own.
    """
    if weights == "fp32":
        return model
    model = deepcopy(model)
    for layer in model.modules():
        if isinstance(layer, _LAYERS):
            with torch.no_grad():
                layer.weight.copy_(_rounded(layer.weight, weights, 1 if isinstance(layer, nn.ConvTranspose2d) else 0))
    return model


def _rounded(values: Tensor, weights: Weights, axis: int) -> Tensor:
    if weights == "fp16":
        return values.clamp(-65504, 65504).half().float()
    others = [i for i in range(values.ndim) if i != axis]
    scale = values.abs().amax(dim=others, keepdim=True).clamp(min=1e-12) / _STEPS
    return (values / scale).round() * scale


def narrow(model: ModelProto, weights: Weights) -> None:
    """Keeps rounded weights of an ONNX model as fp16 or int8, in place; what is not rounded stays as it is."""
    from onnx import numpy_helper

    graph = model.graph
    for tensor in list(graph.initializer) if weights != "fp32" else ():
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.ndim < 2:
            continue
        for narrowed, scale in _fp16(values) if weights == "fp16" else _int8(values):
            graph.initializer.remove(tensor)
            _widen(graph, tensor.name, narrowed, scale)
            break


def _fp16(values: NDArray[np.float32]) -> Iterator[tuple[NDArray[Any], None]]:
    """Values that fp16 holds."""
    with np.errstate(over="ignore"):
        narrowed = values.astype(np.float16)
    if np.array_equal(narrowed.astype(np.float32), values):
        yield narrowed, None


def _int8(values: NDArray[np.float32]) -> Iterator[tuple[NDArray[np.int8], NDArray[np.float32]]]:
    """Values that int8 holds, with a scale for each place of some axis: tracing may have transposed weights."""
    for axis in range(values.ndim):
        others = tuple(i for i in range(values.ndim) if i != axis)
        scale = (np.abs(values).max(axis=others, keepdims=True).clip(1e-12) / _STEPS).astype(np.float32)
        steps = np.round(values / scale)
        if np.allclose(steps * scale, values, rtol=1e-6, atol=0):
            yield steps.astype(np.int8), scale


def _widen(graph: GraphProto, name: str, values: NDArray[Any], scale: NDArray[np.float32] | None) -> None:
    """Puts nodes in front of the graph that make the weights of this name."""
    from onnx import TensorProto, helper, numpy_helper

    graph.initializer.append(numpy_helper.from_array(values, f"{name}.narrow"))
    wide = name if scale is None else f"{name}.wide"
    graph.node.insert(0, helper.make_node("Cast", [f"{name}.narrow"], [wide], to=TensorProto.FLOAT))
    if scale is not None:
        graph.initializer.append(numpy_helper.from_array(scale, f"{name}.scale"))
        graph.node.insert(1, helper.make_node("Mul", [wide, f"{name}.scale"], [name]))
