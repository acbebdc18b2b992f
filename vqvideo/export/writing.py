"""A trained world as a folder of ONNX graphs. Needs torch and onnx; what reads it needs neither."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from vqvideo.errors import InputError, MissingExtraError
from vqvideo.export.manifest import KIND, START_ACTIONS, START_CODES, VERSION
from vqvideo.export.weights import Weights, narrow, rounded
from vqvideo.models.imagination import Imaginer
from vqvideo.models.quantizers import OutsideConfig
from vqvideo.spaces import ActionSpace
from vqvideo.storage import files
from vqvideo.storage.records import kind_of, without_nan

if TYPE_CHECKING:
    from vqvideo.storage.files import Manifest


def export_world(
    world: Imaginer,
    folder: str | Path,
    *,
    weights: Weights = "fp32",
    starts: tuple[Tensor, Tensor] | None = None,
    fingerprint: str = "",
    replace: bool = False,
) -> Manifest:
    """Writes a world as ONNX graphs, for `vqvideo.export.OnnxWorld` and for browsers.

    Args:
        world: the model, on the CPU in single precision.
        folder: where it goes; complete, or not at all.
        weights: how they are kept.
        starts: clips to start from: frames (r, 1 + s c, 3, h, w), and the flat actions (r, s c, a) between them.
        fingerprint: that of the world, to know it by.
        replace: whether a folder that is already there gives way.

    Raises:
        InputError: the folder is there already, the quantizer is one from outside, or the world is not on the CPU in
            single precision.
        MissingExtraError: onnx is not installed.
    """
    check_exportable(world)
    world = rounded(world, weights)
    models, graphs = _graphs(world, weights)
    contents: dict[str, files.Content] = dict(models)
    info = _facts(world) | {"weights": weights, "fingerprint": fingerprint, "graphs": graphs}
    if starts is not None:
        codes = torch.cat([world.vqvae.encode(part) for part in starts[0].split(8)])
        contents |= {START_CODES: _plain(codes, "<i4"), START_ACTIONS: _plain(starts[1], "<f4")}
        info["starts"] = list(codes.shape[:2])
    return files.commit_folder(folder, contents, info, replace=replace)


def check_exportable(world: Imaginer) -> None:
    """Raises InputError if a world cannot be written as graphs, or nothing could write them."""
    if isinstance(world.vqvae.cfg.quantizer, OutsideConfig):
        raise InputError(
            f"this world has a quantizer from outside ({world.vqvae.cfg.quantizer.name}), whose operations are not "
            "known to the export: only the quantizers of vqvideo can be exported"
        )
    found = world.vqvae.variance
    if found.dtype != torch.float32 or found.device.type != "cpu":
        raise InputError(f"this world is in {found.dtype} on {found.device}, expected world.float().cpu()")
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(error, "onnx") from error


def _graphs(world: Imaginer, weights: Weights) -> tuple[dict[str, Callable[[], bytes] | bytes], dict[str, Any]]:
    """The bytes of each graph's file, and what the manifest says of it."""
    from vqvideo.export.graphs import DecoderGraph, EncoderGraph, StepGraph
    from vqvideo.export.onnx_files import to_onnx

    makers = {
        "step": lambda: StepGraph(world.prior),
        "decoder": lambda: DecoderGraph(world.vqvae),
        "encoder": lambda: EncoderGraph(world.vqvae),
    }
    contents, facts = {}, {}
    for name, make in makers.items():
        model, facts[name] = to_onnx(make().eval())
        narrow(model, weights)
        contents[f"{name}.onnx"] = model.SerializeToString(deterministic=True)
    return contents, facts


def _facts(world: Imaginer) -> dict[str, Any]:
    spec, cfg = world.prior.spec, world.prior.cfg
    return {
        "kind": KIND,
        "version": VERSION,
        "env": asdict(world.env),
        "frame_size": list(world.vqvae.frame_size),
        "stride": world.stride,
        "grid": list(spec.grid),
        "codebook_size": spec.codebook_size,
        "window": cfg.window,
        "head": kind_of(type(cfg.head)),
        "action_space": spec.action_space.to_json(),
        "action_columns": _columns(spec.action_space),
        "can_guide": world.prior.can_guide,
        "knows_rewards": spec.knows_rewards,
        "knows_ends": spec.knows_ends,
        "rewarded": not spec.stats.unrewarded,
        "noise": _numbers(world),
        "sampling": asdict(world.sampling),
    }


def _numbers(world: Imaginer) -> int:
    from vqvideo.export.graphs import StepGraph

    return StepGraph(world.prior).numbers


def _columns(space: ActionSpace) -> list[dict[str, Any]]:
    least, most, whole = (limit.tolist() for limit in space.limits)
    return [
        without_nan(column._asdict()) | {"least": least[i], "most": most[i], "whole": whole[i]}
        for i, column in enumerate(space.columns)
    ]


def _plain(values: Tensor, dtype: str) -> bytes:
    return np.ascontiguousarray(values.numpy()).astype(dtype).tobytes()
