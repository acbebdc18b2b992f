"""Models and training states on disk: safetensors and JSON in folders with a digest manifest; nothing pickled."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from vqvideo.errors import InputError
from vqvideo.storage import files
from vqvideo.storage.formats import MODEL_FORMAT, SavedModel, upgraded

log = logging.getLogger(__name__)
M = TypeVar("M", bound=nn.Module)
T = TypeVar("T")


CONFIG, WEIGHTS = "config.json", "model.safetensors"
"""Files of a model folder, beside the manifest and what else the writer adds."""
_PARTS = ("model", "optimizer", "average")
"""Of a training checkpoint: a safetensors file each."""
_STEP = re.compile(r"step-(\d{8})")


def tensor_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors as the bytes of a safetensors file."""
    return save_tensors({name: value.detach().cpu().contiguous() for name, value in tensors.items()})


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers of a model by name."""
    return dict(model.state_dict())


def fingerprint(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of a model: two models with one fingerprint compute the same in the same precision. Its tensors count by
    their values in single precision, in which a model is loaded that was saved in another one.
    """
    digest = hashlib.sha256(files.canonical_json(json.loads(json.dumps(config))))
    digest.update(tensor_bytes({name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}))
    return digest.hexdigest()


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
    files.make_folder(folder.parent)
    files.clean_temporaries(folder.parent, of=folder.name)
    header = {"format": f"vqvideo-{kind}", "format_version": MODEL_FORMAT, **config}
    contents: dict[str, files.Content] = {CONFIG: (json.dumps(header, indent=2) + "\n").encode(), **(extra or {})}
    contents[WEIGHTS] = partial(tensor_bytes, tensors)
    files.commit_folder(folder, contents, {"kind": kind}, replace=folder.exists())


def _may_replace(folder: Path) -> bool:
    if not folder.is_dir():
        return not folder.exists()
    # Caches and training checkpoints have a manifest too, but no config.json.
    return not any(folder.iterdir()) or all((folder / name).is_file() for name in (files.MANIFEST, CONFIG))


def load_model(folder: Path, kind: str) -> SavedModel:
    """The content of a model folder, every file checked against its digest first.

    Raises:
        InputError: no such folder, another kind of folder, a damaged file, an unknown format.
    """
    folder = files.standing(folder)
    if not (folder / files.MANIFEST).is_file():
        found = "a folder without a manifest" if folder.is_dir() else "no such folder"
        raise InputError(f"{folder}: {found}, expected a saved {kind} (config.json, model.safetensors, manifest.json)")
    manifest = files.read_manifest(folder)
    # Not the model card: people edit it, on the Hub too.
    config_text, weights = files.read_members(folder, manifest, CONFIG, WEIGHTS)
    config = files.parse_json(config_text, str(folder / CONFIG))
    if config.get("format") != f"vqvideo-{kind}":
        raise InputError(f"{folder / CONFIG}: {folder} holds a {config.get('format')}, expected a vqvideo-{kind}")
    version = config["format_version"]
    if version > MODEL_FORMAT:
        raise InputError(f"{folder}: format {version}, this vqvideo reads up to {MODEL_FORMAT}: install a newer one")
    own = {key: value for key, value in config.items() if key not in ("format", "format_version")}
    return upgraded(SavedModel(own, parse_tensors(weights, folder / WEIGHTS)), version)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file that no manifest lists."""
    files.check_regular(path)
    return parse_tensors(path.read_bytes(), path)


def parse_tensors(data: bytes, where: Path) -> dict[str, Tensor]:
    """All tensors of the bytes of a safetensors file; InputError, which names `where`, if they are something else."""
    try:
        return load_tensors(data)
    except (SafetensorError, KeyError, ValueError, RuntimeError, OverflowError) as error:
        raise InputError(f"{where}: not a readable safetensors file ({error})") from error


def build_and_load(build: Callable[[], M], tensors: Mapping[str, Tensor], source: Path | str) -> M:
    """The model that `build` makes, with tensors from a file that may be a stranger's.

    It is built twice. First on the meta device, where no size takes memory, to see whether its settings ask for the
    tensors that the file holds. Then for real, because buffers that are computed and not saved would lack values.

    Raises:
        InputError: lists what is missing, left over or of another shape.
    """
    made, most = itertools.count(1), 2 * len(tensors) + 64

    def counted(*_: object) -> None:
        # A thousand million layers, each of no size, fill the memory too.
        if next(made) > most:
            raise InputError(f"{source}: does not fit its config: that asks for many more tensors than the file holds")

    with torch.device("meta"), register_module_parameter_registration_hook(counted):
        sketch = build()
    # Taken over, not copied: a sketch has no room for values.
    load_into(sketch, tensors, source, assign=True)
    model = build()
    model.load_state_dict(dict(tensors))
    return model


@contextmanager
def config_errors(folder: Path) -> Iterator[None]:
    """Around the making of what a folder's config describes: whatever a strange config leads to is an InputError."""
    try:
        yield
    except InputError:
        raise
    except (MemoryError, RuntimeError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(f"{folder / CONFIG}: nothing can be built from it ({reason})") from error


def load_into(model: nn.Module, tensors: Mapping[str, Tensor], source: Path | str, *, assign: bool = False) -> None:
    """Copies tensors into a model, or has it take them as its own; names and shapes must match exactly.

    Raises:
        InputError: lists what is missing, left over or of another shape.
    """
    try:
        model.load_state_dict(dict(tensors), assign=assign)
    except RuntimeError as error:
        raise InputError(f"{source}: does not fit its config: {error!s:.1000}") from error


class TrainingState(NamedTuple):
    """All that a training run needs to go on as if it had never stopped."""

    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    average: dict[str, Tensor]
    progress: dict[str, Any]
    """JSON: step, seconds, world size, configuration, scale of the loss in fp16."""


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
        parameter, _, key = name.rpartition("/")
        # Step counters stay where the optimizer expects them: on the CPU.
        device = "cpu" if key == "step" else parameters[parameter].device
        optimizer.state[parameters[parameter]][key] = value.to(device)


def save_training(folder: Path, step: int, state: TrainingState, keep: int) -> Path:
    """Commits `folder`/step-..., then removes all but the newest `keep` (at least 2) checkpoints.

    Raises:
        DiskError: the disk is full, read-only or gone; the checkpoints that were there are untouched.
    """
    path = folder / f"step-{step:08d}"
    contents = {f"{part}.safetensors": partial(tensor_bytes, getattr(state, part)) for part in _PARTS}
    files.commit_folder(path, contents, state.progress, replace=path.exists())
    for old in training_checkpoints(folder)[: -max(2, keep)]:
        files.remove_folder(old)
    return path


def training_checkpoints(folder: Path) -> list[Path]:
    """All that is called a checkpoint, be it damaged, oldest first."""
    return sorted(p for p in folder.iterdir() if _STEP.fullmatch(p.name)) if folder.is_dir() else []


def load_training(path: Path) -> TrainingState:
    """A checkpoint, every file checked against its digest first.

    Raises:
        InputError: a file is missing or damaged; names it.
    """
    manifest = files.read_manifest(path)
    # Not all that is there: older checkpoints also kept what was counted since the last log line.
    names = [f"{part}.safetensors" for part in _PARTS]
    data = files.read_members(path, manifest, *names)
    tensors = {part: parse_tensors(b, path / n) for part, b, n in zip(_PARTS, data, names, strict=True)}
    return TrainingState(**tensors, progress=manifest.info)


def newest_progress(folder: Path) -> dict[str, Any]:
    """The progress that the newest checkpoint with a readable manifest records; empty if there is none."""
    return _newest(folder, lambda path: files.read_manifest(path).info) or {}


def latest_training(folder: Path) -> TrainingState | None:
    """The newest undamaged checkpoint, or None if there is none at all. A damaged one is skipped with a warning.

    Raises:
        InputError: there are checkpoints, and every one is damaged.
    """
    state, there = _newest(folder, load_training), len(training_checkpoints(folder))
    if state is None and there:
        raise InputError(f"{folder}: none of its {there} checkpoints can be read. Remove the folder to start anew")
    return state


def _newest(folder: Path, read: Callable[[Path], T]) -> T | None:
    for path in reversed(training_checkpoints(folder)):
        try:
            return read(path)
        except InputError as error:
            log.warning("skipping a damaged checkpoint: %s", error)
    return None


def set_aside_after(folder: Path, step: int) -> None:
    """Renames checkpoints after `step`, which could not be read: they must not count among those that are kept."""
    for path in training_checkpoints(folder):
        if int(path.name.removeprefix("step-")) > step:
            aside = path.with_name(f"damaged-{path.name}")
            if aside.exists():
                files.remove_folder(aside)
            path.rename(aside)
