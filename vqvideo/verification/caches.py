"""Caches of codes beside a store."""

from __future__ import annotations

from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vqvideo.data import code_cache
from vqvideo.data.codes import CodeArrays
from vqvideo.errors import InputError
from vqvideo.verification.findings import Thing
from vqvideo.verification.tensors import Layout, first_names, layouts, not_finite, tensor_values
from vqvideo.verification.work import Work

FILE = "codes.safetensors"
_TYPES = CodeArrays("I32", "F32", "F32", "BOOL", "I64", "I64")  # type: ignore[arg-type]
_AXES = CodeArrays(3, 3, 1, 1, 1, 1)  # type: ignore[arg-type]


def check_cache(path: Path, work: Work) -> Thing:
    """Checks the file of a cache, that its arrays fit each other, and that its numbers are possible."""
    thing = Thing("codes", path)
    manifest, intact = work.files(thing)
    if manifest and FILE not in manifest.files:
        thing.damaged(FILE, "is not in the manifest")
    if manifest:
        info = {name: manifest.info.get(name) for name in ("tokenizer", "store", "split")}
        if all(isinstance(value, str) for value in info.values()):
            thing.facts.tokenizer, thing.facts.store = info["tokenizer"], info["store"]
            thing.about = str(info["split"])
        else:
            thing.damaged("manifest.json", "does not say which tokenizer and which store it was made from")
    if FILE in intact:
        with thing.trusting_nothing(FILE):
            _check_arrays(thing)
    thing.advise("it is only a cache: remove the folder, and the next training makes it again")
    return thing


def _check_arrays(thing: Thing) -> None:
    file = thing.path / FILE
    found = layouts(file)
    if set(found) != set(CodeArrays._fields) and not thing.path.name.endswith(f"-v{code_cache._FORMAT}"):
        thing.note("", "of a format that is not read any more", "nothing uses it: remove the folder when you like")
        return
    if set(found) != set(CodeArrays._fields):
        raise InputError(f"{file}: holds {sorted(found)[:8]}, expected {sorted(CodeArrays._fields)}")
    arrays = CodeArrays(**found)  # type: ignore[arg-type]
    for name, layout, dtype, axes in zip(CodeArrays._fields, arrays, _TYPES, _AXES, strict=True):
        assert isinstance(layout, Layout)
        if layout.dtype != dtype or len(layout.shape) != axes:
            raise InputError(f"{file}: {name} is {layout.dtype} {layout.shape}, expected {dtype} with {axes} axes")
    _check_lengths(file, found)
    if odd := not_finite(file, found):
        raise InputError(f"{file}: not finite: {first_names(odd)}")
    thing.facts.highest_code = _highest_code(file, found["codes"])
    thing.about += f", {found['codes'].shape[0]:,} latent steps"


def _check_lengths(file: Path, found: dict[str, Layout]) -> None:
    steps = {name: found[name].shape[0] for name in ("codes", "actions", "rewards", "terminated")}
    starts, firsts = (_whole(file, found[name]) for name in ("starts", "firsts"))
    if len(set(steps.values())) > 1 or len(starts) != len(firsts) + 1:
        raise InputError(f"{file}: the arrays do not agree in length: {steps}, {len(starts)} starts, {len(firsts)}")
    if starts[0] != 0 or starts[-1] != steps["codes"] or (np.diff(starts) <= 0).any() or (firsts < 0).any():
        raise InputError(f"{file}: the starts of the segments do not cover the {steps['codes']} latent steps")


def _whole(file: Path, layout: Layout) -> NDArray:
    return np.concatenate([np.zeros(0, np.int64), *tensor_values(file, layout)])


def _highest_code(file: Path, layout: Layout) -> int:
    if not prod(layout.shape):
        return 0
    bounds = [(int(part.min()), int(part.max())) for part in tensor_values(file, layout)]
    if min(low for low, _ in bounds) < 0:
        raise InputError(f"{file}: a code is {min(low for low, _ in bounds)}, expected 0 or more")
    return max(high for _, high in bounds)
