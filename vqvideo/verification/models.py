"""Model folders: tokenizers, worlds and agents."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from torch import Tensor

from vqvideo.errors import InputError
from vqvideo.pretrained import STARTS
from vqvideo.storage import files
from vqvideo.storage.checkpoint import fingerprint, training_checkpoints
from vqvideo.storage.formats import FORMAT_VERSION, SavedModel, upgraded
from vqvideo.storage.records import typed
from vqvideo.verification.findings import Thing
from vqvideo.verification.memory import memory_limit
from vqvideo.verification.tensors import Layout, first_names, layouts, load_tensors, not_finite, outline
from vqvideo.verification.work import Work

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
KINDS = {"vqvae": "tokenizer", "world": "world", "agent": "agent"}
"""What the models of `config.json` are called here."""
_MAX_CONFIG = 2**20
_MAX_COMPARED = 2**31
"""Bytes of a tokenizer that are read at once to take its fingerprint."""
_ROOM = 2**31
"""Bytes that a model may take while it is built, beside eight times the size of its file."""


def check_model(path: Path, work: Work) -> Thing:
    """Checks the files of a model folder, that its numbers are finite, and that world and tokenizer belong together."""
    thing = Thing("model", path)
    manifest, intact = work.files(thing, editable=(CARD,))
    for name in {CONFIG, WEIGHTS} - set(manifest.files) if manifest else ():
        thing.damaged(name, "is not in the manifest")
    saved = layout = None
    if CONFIG in intact:
        with thing.trusting_nothing(CONFIG):
            saved = _read_config(thing, str(manifest.info.get("kind")) if manifest else "", work)
    if WEIGHTS in intact:
        with thing.trusting_nothing(WEIGHTS):
            layout = layouts(path / WEIGHTS)
    if saved and layout is not None:
        with thing.trusting_nothing(CONFIG):
            _check_content(thing, saved[0], saved[1], layout, work)
    thing.advise(_remedy(path))
    return thing


def _read_config(thing: Thing, kind: str, work: Work) -> tuple[dict[str, Any], int]:
    """What `config.json` says, and in which format."""
    file = thing.path / CONFIG
    work.refuse_large(file, _MAX_CONFIG)
    config = files.parse_json(files.read_small(file), str(file))
    if not isinstance(config, dict) or config.get("format") != f"vqvideo-{kind}":
        raise InputError(f"{file}: expected the settings of a {kind}, as the manifest says")
    thing.kind = KINDS.get(kind, "model")
    if (thing.path / STARTS).is_dir() and kind == "world":
        thing.kind = "shipped world"
    version = config.get("format_version")
    if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
        raise InputError(
            f"{file}: format {version!r}, this vqvideo reads 1 to {FORMAT_VERSION}: a newer vqvideo may read it"
        )
    if kind not in KINDS:
        thing.note(CONFIG, f"a {kind}, which this version does not know: only its files were checked")
    return {key: value for key, value in config.items() if key not in ("format", "format_version")}, version


def _check_content(thing: Thing, config: dict[str, Any], version: int, layout: dict[str, Layout], work: Work) -> None:
    file = thing.path / WEIGHTS
    thing.about = f"{sum(prod(tensor.shape) for tensor in layout.values()):,} numbers"
    outside = _outside_quantizer(config)
    # A module that vqvideo does not know may start a running minimum at infinity.
    own = {name: place for name, place in layout.items() if not (outside and "quantizer." in name)}
    if odd := not_finite(file, own):
        thing.damaged(WEIGHTS, f"the weights are not finite: {first_names(odd)}. They were so when they were written")
        return
    saved = upgraded(SavedModel(config, outline(layout)), version)
    if thing.kind == "tokenizer":
        _learn_tokenizer(thing, saved.config, file, list(layout))
    elif thing.kind in ("world", "shipped world"):
        _check_world(thing, saved.config, file, list(layout))
    if work.deep and outside:
        thing.note(WEIGHTS, f"not loaded: its quantizer {outside} is none of vqvideo's")
    elif work.deep and not thing.damage and thing.kind != "model":
        _load(thing)


def _outside_quantizer(config: dict[str, Any]) -> str:
    """Name of a quantizer that came from elsewhere; empty if it is one of vqvideo's."""
    quantizer = config.get("vqvae", config).get("model", {}).get("quantizer", {})
    return str(quantizer.get("name", "of another project")) if quantizer.get("kind") == "Outside" else ""


def _learn_tokenizer(thing: Thing, config: dict[str, Any], file: Path, names: list[str]) -> None:
    thing.facts.codebook_size = codebook_size(config)
    thing.facts.tokenizer = _fingerprint(thing, config, file, names, "")


def _check_world(thing: Thing, config: dict[str, Any], file: Path, names: list[str]) -> None:
    from vqvideo.models.prior import PriorConfig, PriorSpec
    from vqvideo.world import EnvFacts

    spec = typed(PriorSpec, config["spec"], "spec")
    typed(PriorConfig, config["prior"], "prior")
    typed(EnvFacts, config["env"], "env")
    thing.facts.codebook_size = spec.codebook_size
    thing.facts.action_space = spec.action_space
    h, w = config["vqvae"]["frame_size"]
    thing.facts.frame_size = (int(h), int(w))
    found = _fingerprint(thing, config["vqvae"], file, [name for name in names if name.startswith("vqvae.")], "vqvae.")
    thing.facts.tokenizer = found
    if found is not None and found != spec.tokenizer:
        thing.damaged(
            WEIGHTS, f"the prior speaks the codes of tokenizer {spec.tokenizer[:16]}, the one inside is {found[:16]}"
        )


def _fingerprint(thing: Thing, config: dict[str, Any], file: Path, names: list[str], prefix: str) -> str | None:
    """The fingerprint that the tokenizer would have, without building it: a stranger's settings may be huge."""
    from vqvideo.models.tokenizer.vqvae import VQVAE, VQVAEConfig

    if file.stat().st_size > _MAX_COMPARED:
        thing.note(WEIGHTS, f"larger than {_MAX_COMPARED} bytes: tokenizer and prior were not compared")
        return None
    h, w = config["frame_size"]
    outline = SimpleNamespace(cfg=typed(VQVAEConfig, config["model"], "model"), frame_size=(int(h), int(w)))
    loaded: Mapping[str, Tensor] = load_tensors(file, names)
    return fingerprint(
        VQVAE.identity(cast(VQVAE, outline)), {name.removeprefix(prefix): value for name, value in loaded.items()}
    )


def codebook_size(config: dict[str, Any]) -> int | None:
    """Codes of a tokenizer by its settings; None for a kind of quantizer that is not known here."""
    from vqvideo.models.tokenizer.vqvae import VQVAEConfig

    quantizer: Any = typed(VQVAEConfig, config["model"], "model").quantizer
    if hasattr(quantizer, "levels"):
        return prod(quantizer.levels)
    if hasattr(quantizer, "bits_per_token"):
        return int(2**quantizer.bits_per_token)
    if hasattr(quantizer, "stages"):
        return int(quantizer.stage.codebook_size**quantizer.stages)
    return getattr(quantizer, "codebook_size", None)


def _load(thing: Thing) -> None:
    """Builds the whole model as a user would, in limited memory."""
    try:
        load = _loader(thing.kind)
    except ModuleNotFoundError as error:
        thing.note(WEIGHTS, f"not loaded: {error.name} is not installed")
        return
    with memory_limit(_ROOM + 8 * (thing.path / WEIGHTS).stat().st_size):
        load(thing.path)


def _loader(kind: str) -> Callable[[Path], object]:
    if kind == "agent":
        from vqvideo.agents.agent import Agent

        return Agent.load
    from vqvideo.models.tokenizer.vqvae import VQVAE
    from vqvideo.world import WorldModel

    return VQVAE.from_pretrained if kind == "tokenizer" else WorldModel.from_pretrained


def _remedy(path: Path) -> str:
    """How to come by the model again."""
    stage, script = (path.parent, "train_vqvae") if path.name == "model" else (path.parent / "prior", "train_prior")
    if (stage / "config.yaml").is_file() and training_checkpoints(stage / "checkpoints"):
        command = f"accelerate launch scripts/{script}.py --config {shlex.quote(str(stage / 'config.yaml'))} --resume"
        return f"remove the folder; `{command}` exports it again from the newest checkpoint"
    return "copy it again from where it came, or train it again"
