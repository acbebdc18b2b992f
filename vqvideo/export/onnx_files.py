"""Graphs of torch as ONNX models."""

from __future__ import annotations

import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from vqvideo.export.graphs import Graph

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

OPSET = 18
_ROWS = 11
"""Rows of the traced batch. What is a multiple of it in front of a shape is the batch: hardly another size is one."""


def to_onnx(graph: Graph) -> tuple[ModelProto, dict[str, Any]]:
    """The graph for batches of any size, and what a manifest says of it."""
    import onnx

    inputs, state = graph.example(_ROWS)
    flat = _Flat(graph, inputs, state)
    given = {**inputs, **state}
    _, names = flat.named(tuple(given.values()))
    rows = {name: {0: "b"} for name, value in given.items() if value.ndim} | {name: {0: "b"} for name in names}
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        path = Path(folder) / "graph.onnx"
        # Of decisions by sizes, which are the same in every call, and of the exporter's age.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            flat,
            tuple(given.values()),
            path,
            input_names=list(given),
            output_names=names,
            dynamic_axes=rows,
            opset_version=OPSET,
            dynamo=False,
        )
        model = onnx.load(path)
    _set_free(model.graph)
    facts = {
        "inputs": [value.name for value in model.graph.input],
        "outputs": names,
        "state": {name: _described(value) for name, value in state.items()},
    }
    return model, facts


def _described(value: Tensor) -> dict[str, Any]:
    return {
        "shape": list(value.shape[1:]),
        "dtype": str(value.dtype).removeprefix("torch."),
        "start": int(value.max()) if value.numel() else 0,
    }


class _Flat(nn.Module):
    """A graph whose inputs and outputs stand in a row, as the exporter wants them."""

    def __init__(self, graph: Graph, inputs: dict[str, Tensor], state: dict[str, Tensor]) -> None:
        super().__init__()
        self.graph, self.inputs, self.state = graph, list(inputs), list(state)

    def named(self, given: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], list[str]]:
        """Outputs and their names."""
        count = len(self.inputs)
        inputs, state = dict(zip(self.inputs, given, strict=False)), dict(zip(self.state, given[count:], strict=True))
        outputs, after = self.graph.compute(inputs, state)
        together = {**outputs, **after}
        return tuple(together.values()), list(together)

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        return self.named(given)[0]


def _set_free(graph: Any) -> None:
    """Frees the batch, which tracing has written into the shapes that tensors are brought to, and counts axes from the
    front, as ONNX wants it.
    """
    made_by = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        if node.op_type == "Transpose":
            _count_from_the_front(node)
        if node.op_type == "Reshape":
            for constant in _constants(made_by.get(node.input[1]), made_by):
                _free_first(constant)


def _count_from_the_front(transpose: NodeProto) -> None:
    order = transpose.attribute[0].ints
    order[:] = [axis % len(order) for axis in order]


def _constants(node: NodeProto | None, made_by: dict[str, NodeProto]) -> list[NodeProto]:
    """The constants that a shape is made of."""
    if node is None:
        return []
    nodes = [made_by.get(name) for name in node.input] if node.op_type == "Concat" else [node]
    return [each for each in nodes if each is not None and each.op_type == "Constant"]


def _free_first(constant: NodeProto) -> None:
    from onnx import numpy_helper

    shape = np.atleast_1d(numpy_helper.to_array(constant.attribute[0].t)).copy()
    if shape.size and shape[0] and shape[0] % _ROWS == 0:
        shape[0] = -1
        constant.attribute[0].t.CopyFrom(numpy_helper.from_array(shape))
