"""One exported graph in ONNX Runtime, and the state that it carries from call to call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vqvideo.errors import InputError, MissingExtraError
from vqvideo.export.manifest import GraphFacts

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Tensors = dict[str, NDArray[Any]]
"""Arrays (b, ...) by name."""


class Session:
    """A session of ONNX Runtime and the state that it carries."""

    def __init__(self, content: bytes, facts: GraphFacts, threads: int, where: str) -> None:
        self.facts, self.session = facts, _loaded(content, threads, where)
        self.outputs = [name for name in facts.outputs if name != "logits"]

    def fresh(self, batch: int) -> Tensors:
        """The state of `batch` rows that have seen nothing yet."""
        return {
            name: np.full((batch, *state.shape), state.start, np.dtype(state.dtype))
            for name, state in self.facts.state.items()
        }

    def run(self, inputs: Tensors, state: Tensors) -> tuple[Tensors, Tensors]:
        """Outputs, and the next state."""
        found = dict(zip(self.outputs, self.session.run(self.outputs, inputs | state), strict=True))
        return found, {name: found.pop(f"next.{name}") for name in state}


def _loaded(content: bytes, threads: int, where: str) -> InferenceSession:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError(error, "onnx") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its classes have no common base, and are not public
        version = onnxruntime.__version__
        raise InputError(f"{where}: ONNX Runtime {version} does not take it ({error!s:.300})") from error
