"""Training checkpoints: whether `--resume` can go on from them, and from which one if not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vqvideo.errors import InputError
from vqvideo.verification.findings import Thing
from vqvideo.verification.kinds import STEP
from vqvideo.verification.tensors import Layout, first_names, layouts, not_finite
from vqvideo.verification.work import Work

NEEDED = ("model", "optimizer", "average")
"""Parts of every checkpoint; newer ones have more."""


def check_checkpoint(path: Path, work: Work) -> Thing:
    """Checks the files of a checkpoint, that its numbers are finite, and that its parts belong together."""
    thing = Thing("checkpoint", path)
    manifest, intact = work.files(thing)
    thing.facts.refused = manifest is None or intact != set(manifest.files)
    if manifest:
        _check_progress(thing, manifest.info)
        for part in NEEDED:
            if f"{part}.safetensors" not in manifest.files:
                thing.damaged(f"{part}.safetensors", "is not in the manifest")
    parts: dict[str, dict[str, Layout]] = {}
    for name in sorted(intact):
        if name.endswith(".safetensors"):
            with thing.trusting_nothing(name):
                parts[name.removesuffix(".safetensors")] = _check_tensors(thing, name)
    if parts.keys() >= set(NEEDED):
        _check_parts(thing, parts)
    return thing


def _check_progress(thing: Thing, info: dict[str, Any]) -> None:
    step, settings = info.get("step"), info.get("settings")
    if type(step) is not int or not isinstance(settings, dict):
        thing.damaged("manifest.json", "records no step or no settings: not a checkpoint of ours")
        return
    thing.about = f"step {step}"
    if STEP.fullmatch(thing.path.name) and thing.path.name != f"step-{step:08d}":
        thing.damaged("manifest.json", f"is of step {step}: the folder was renamed or exchanged")


def _check_tensors(thing: Thing, name: str) -> dict[str, Layout]:
    found = layouts(thing.path / name)
    if odd := not_finite(thing.path / name, found):
        thing.damaged(name, f"the weights are not finite: {first_names(odd)}. They were so when they were written")
    return found


def _check_parts(thing: Thing, parts: dict[str, dict[str, Layout]]) -> None:
    """Averages and optimizer state must be those of the model's parameters."""
    shapes = {name: layout.shape for name, layout in parts["model"].items()}
    average = [name for name, layout in parts["average"].items() if shapes.get(name) != layout.shape]
    optimizer = [
        name
        for name, layout in parts["optimizer"].items()
        if layout.shape not in ((), shapes.get(name.rpartition("/")[0])) or name.rpartition("/")[0] not in shapes
    ]
    for part, strange in (("average", average), ("optimizer", optimizer)):
        if strange:
            thing.damaged(f"{part}.safetensors", f"does not belong to the model: {first_names(strange)}")


def advise(checkpoints: list[Thing]) -> None:
    """Says of damaged checkpoints of one run what `--resume` does about them."""
    intact = [thing.path.name for thing in checkpoints if not thing.damage]
    for thing in checkpoints:
        if not thing.damage:
            continue
        newer = [name for name in intact if name > thing.path.name]
        if newer:
            thing.advise(f"--resume does not need it, {newer[-1]} is newer and intact: remove the folder")
        elif intact and thing.facts.refused:
            thing.advise(f"--resume skips it and goes on from {intact[-1]}")
        elif intact:
            thing.advise(f"remove the folder; --resume then goes on from {intact[-1]}")
        else:
            thing.advise("no checkpoint of this run is intact: copy one from elsewhere, or remove them to start anew")


def newest(path: Path) -> dict[str, Any]:
    """What the newest checkpoint with a readable manifest in a folder records; empty if there is none."""
    from vqvideo.storage import files
    from vqvideo.storage.checkpoint import training_checkpoints

    for folder in reversed(training_checkpoints(path)):
        try:
            return files.read_manifest(folder).info
        except (InputError, OSError):
            continue
    return {}
