"""Models and training states on disk: safetensors and JSON in folders with a digest manifest; nothing pickled."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from vqvideo import durable
from vqvideo.errors import InputError
from vqvideo.formats import FORMAT_VERSION, SavedModel, upgraded

log = logging.getLogger(__name__)


_STEP = re.compile(r"step-(\d{8})")


def tensor_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors as the bytes of a safetensors file."""
    return save_tensors({name: value.detach().cpu().contiguous() for name, value in tensors.items()})


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers of a model by name."""
    return dict(model.state_dict())


def fingerprint(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of a model: two models with one fingerprint compute the same."""
    digest = hashlib.sha256(durable.canonical_json(json.loads(json.dumps(config))))
    digest.update(tensor_bytes(tensors))
    return digest.hexdigest()


def _model_files(kind: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, bytes]:
    header = {"format": f"vqvideo-{kind}", "format_version": FORMAT_VERSION, **config}
    return {
        "config.json": (json.dumps(header, indent=2) + "\n").encode(),
        "model.safetensors": tensor_bytes(tensors),
    }


def save_model(
    folder: Path,
    kind: str,
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    extra: Mapping[str, bytes] | None = None,
) -> None:
    """Puts a model folder (config.json, model.safetensors, manifest.json) at `folder`, whole or not at all.

    Args:
        folder: replaced if it is a model folder already; any other existing folder must be empty.
        kind: what it is, for example "vqvae".
        config: JSON that rebuilds the model.
        tensors: its parameters and buffers.
        extra: further files by name, such as a model card.
    """
    if not _may_replace(folder):
        raise InputError(f"{folder} exists and is not a model folder: name another folder, nothing was written")
    folder.parent.mkdir(parents=True, exist_ok=True)
    files = {**_model_files(kind, config, tensors), **(extra or {})}
    durable.commit_folder(folder, files, {"kind": kind}, replace=folder.exists())


def _may_replace(folder: Path) -> bool:
    if not folder.is_dir():
        return not folder.exists()
    # Caches and training checkpoints have a manifest too, but no config.json.
    return not any(folder.iterdir()) or all((folder / name).is_file() for name in (durable.MANIFEST, "config.json"))


def load_model(folder: Path, kind: str) -> SavedModel:
    """The content of a model folder, every file checked against its digest first.

    Raises:
        InputError: no such folder, another kind of folder, a damaged file, an unknown format.
    """
    if not (folder / durable.MANIFEST).is_file():
        found = "a folder without a manifest" if folder.is_dir() else "no such folder"
        raise InputError(f"{folder}: {found}, expected a saved {kind} (config.json, model.safetensors, manifest.json)")
    manifest = durable.read_manifest(folder)
    for name in ("config.json", "model.safetensors"):
        # Not the model card: people edit it, on the Hub too.
        if name not in manifest.files:
            raise InputError(f"{folder}: its manifest lists no {name}")
        durable.verify_file(folder / name, manifest.files[name])
    config = durable.parse_json(durable.read_small(folder / "config.json"), str(folder / "config.json"))
    if config.get("format") != f"vqvideo-{kind}":
        raise InputError(f"{folder} holds a {config.get('format')}, expected a vqvideo-{kind}")
    version = config.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise InputError(f"{folder}: format {version}, this vqvideo reads up to {FORMAT_VERSION}: install a newer one")
    own = {key: value for key, value in config.items() if key not in ("format", "format_version")}
    return upgraded(SavedModel(own, read_tensors(folder / "model.safetensors")), version)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file."""
    try:
        return load_tensors(path.read_bytes())
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error})") from error


def load_into(model: nn.Module, tensors: Mapping[str, Tensor], source: Path | str) -> None:
    """Copies tensors into a model; names and shapes must match exactly.

    Raises:
        InputError: lists what is missing, left over or of another shape.
    """
    own = model_tensors(model)
    problems = [f"missing {name}" for name in own.keys() - tensors.keys()]
    problems += [f"unexpected {name}" for name in tensors.keys() - own.keys()]
    problems += [
        f"{name} is {tuple(tensors[name].shape)}, expected {tuple(own[name].shape)}"
        for name in own.keys() & tensors.keys()
        if own[name].shape != tensors[name].shape
    ]
    if problems:
        raise InputError(f"{source} does not fit its config: {'; '.join(sorted(problems)[:8])}")
    model.load_state_dict(dict(tensors))


class TrainingState(NamedTuple):
    """All that a training run needs to go on as if it had never stopped."""

    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    average: dict[str, Tensor]
    progress: dict[str, Any]
    """JSON: step, seconds, world size, configuration."""


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimizer's state by parameter name, such as `encoder.weight/exp_avg`."""
    state = optimizer.state
    return {
        f"{name}/{key}": torch.as_tensor(value)
        for name, parameter in model.named_parameters()
        for key, value in state.get(parameter, {}).items()
    }


def load_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Puts back what `optimizer_tensors` saved."""
    parameters = dict(model.named_parameters())
    for name, value in tensors.items():
        parameter, key = name.rsplit("/", 1)
        # Step counters stay where the optimizer expects them: on the CPU.
        device = "cpu" if key == "step" else parameters[parameter].device
        optimizer.state[parameters[parameter]][key] = value.to(device)


def save_training(folder: Path, step: int, state: TrainingState, keep: int) -> Path:
    """Commits `folder`/step-..., then removes all but the newest `keep` (at least 2) checkpoints."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:08d}"
    files = {
        "model.safetensors": tensor_bytes(state.model),
        "optimizer.safetensors": tensor_bytes(state.optimizer),
        "average.safetensors": tensor_bytes(state.average),
    }
    durable.commit_folder(path, files, state.progress, replace=path.exists())
    for old in training_checkpoints(folder)[: -max(2, keep)]:
        durable.remove_folder(old)
    return path


def training_checkpoints(folder: Path) -> list[Path]:
    """Checkpoint folders with a manifest, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if _STEP.fullmatch(p.name) and (p / durable.MANIFEST).is_file())


def load_training(path: Path) -> TrainingState:
    """A checkpoint, every file checked against its digest first."""
    manifest = durable.verify_folder(path)
    model, optimizer, average = (
        read_tensors(path / f"{part}.safetensors") for part in ("model", "optimizer", "average")
    )
    return TrainingState(model, optimizer, average, manifest.info)


def newest_progress(folder: Path) -> dict[str, Any]:
    """The progress that the newest checkpoint with a readable manifest records; empty if there is none."""
    for path in reversed(training_checkpoints(folder)):
        try:
            return durable.read_manifest(path).info
        except InputError as error:
            log.warning("skipping a damaged checkpoint: %s", error)
    return {}


def latest_training(folder: Path) -> TrainingState | None:
    """The newest undamaged checkpoint, or None if there is none at all. A damaged one is skipped with a warning.

    Raises:
        InputError: there are checkpoints, and every one is damaged.
    """
    paths = training_checkpoints(folder)
    for path in reversed(paths):
        try:
            return load_training(path)
        except InputError as error:
            log.warning("skipping a damaged checkpoint: %s", error)
    if paths:
        raise InputError(f"{folder}: none of its {len(paths)} checkpoints can be read. Remove the folder to start anew")
    return None


def set_aside_after(folder: Path, step: int) -> None:
    """Renames checkpoints after `step`, which could not be read: they must not count among those that are kept."""
    for path in training_checkpoints(folder):
        if int(path.name.removeprefix("step-")) > step:
            aside = path.with_name(f"damaged-{path.name}")
            if aside.exists():
                durable.remove_folder(aside)
            path.rename(aside)
