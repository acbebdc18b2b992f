"""Everything that is parsed, and how a malformed input for it is made, with digests that fit."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, get_args

import yaml
from gymnasium import spaces as native

from reliability.lies import with_header
from reliability.mutations import as_json, as_sealed_json, deep, mutated, scrambled
from reliability.things import Load, Things, loaded, reseal
from vqvideo.experiment.config import Experiment
from vqvideo.models.prior import ConditioningConfig, HeadConfig, PoolingConfig
from vqvideo.models.quantizers import BuiltInConfig
from vqvideo.models.tokenizer import BackboneConfig
from vqvideo.spaces import ActionSpace
from vqvideo.storage import files
from vqvideo.storage.records import kind_of, to_plain


class Input(NamedTuple):
    """Something to be parsed."""

    shown: str
    """What it is, for a report."""
    load: Callable[[], object]
    """Parses it."""
    touched: tuple[Path, ...] = ()
    """Files that are not as they were."""


Target = Callable[[random.Random], Input]
"""Makes an input."""


def targets(things: Things) -> dict[str, Target]:
    """Everything that is parsed, by name."""
    found: dict[str, Target] = {"action space": action_space, "action": action}
    for file, load in loaded(things).items():
        path, name = things.root / file, f"{file.parent.name}/{file.name}"
        if file.name == "manifest.json" or file.name == "meta.json":
            found[name] = _file(things, path, load, _changed_record)
        elif file.name in ("manifest.jsonl", "metrics.jsonl"):
            found[name] = _file(things, path, load, _changed_line)
        elif file.suffix == ".json":
            found[name] = _file(things, path, load, _changed_config)
        elif file.suffix == ".yaml":
            found[name] = _file(things, path, load, _changed_settings)
        elif file.suffix == ".safetensors":
            found[name] = _file(things, path, load, _changed_header)
        found[f"{name}, scrambled"] = _file(things, path, load, _scrambled)
    return found


def _file(things: Things, path: Path, load: Load, change: Callable[[Path, random.Random], str]) -> Target:
    beside = (path.parent / files.MANIFEST, path.parents[1] / "manifest.jsonl")

    def make(rng: random.Random) -> Input:
        with deep():
            shown = change(path, rng)
        return Input(shown, lambda: load(things), (path, *(other for other in beside if other.is_file())))

    return make


def _changed_record(path: Path, rng: random.Random) -> str:
    record = json.loads(path.read_bytes())
    text = as_sealed_json(mutated(record, rng))
    path.write_text(text)
    return text


def _changed_line(path: Path, rng: random.Random) -> str:
    lines = path.read_text().splitlines()
    number = rng.randrange(len(lines))
    lines[number] = as_json(mutated(json.loads(lines[number]), rng))
    path.write_text("\n".join([*lines, ""]))
    return lines[number]


def _changed_config(path: Path, rng: random.Random) -> str:
    config = json.loads(path.read_bytes())
    model = config.get("vqvae", config)["model"]
    # Of another kind than was saved, so that every kind is tried.
    for name, kinds in (("quantizer", BuiltInConfig), ("backbone", BackboneConfig)):
        model[name] = _kind(kinds, rng, model[name])
    if "prior" in config:
        for name, kinds in (("head", HeadConfig), ("conditioning", ConditioningConfig), ("pooling", PoolingConfig)):
            config["prior"][name] = _kind(kinds, rng, config["prior"][name])
    text = as_json(mutated(config, rng))
    path.write_text(text)
    reseal(path)
    return text


def _kind(kinds: Any, rng: random.Random, saved: Any) -> Any:
    """One of several kinds of settings with its defaults; half of the time what was saved."""
    if rng.random() < 0.5:
        return saved
    kind = rng.choice(get_args(kinds))
    return {"kind": kind_of(kind), **to_plain(kind())}


def _changed_settings(path: Path, rng: random.Random) -> str:
    plain = to_plain(Experiment())
    value = mutated({name: plain[name] for name in rng.sample(sorted(plain), 2)}, rng)
    try:
        text = yaml.safe_dump(value, allow_unicode=True)
    except (yaml.YAMLError, ValueError):
        text = as_json(value)
    path.write_bytes(text.encode(errors="surrogatepass"))
    return text


def _changed_header(path: Path, rng: random.Random) -> str:
    shown = ""

    def change(header: dict[str, Any]) -> dict[str, Any]:
        nonlocal shown
        own = header.get("__metadata__", {}).get("vqvideo")
        if own is not None and rng.random() < 0.6:
            changed = header | {"__metadata__": {"vqvideo": as_json(mutated(json.loads(own), rng))}}
        else:
            changed = mutated(header, rng)
        shown = as_json(changed)
        return changed

    with_header(path, change)
    return shown


def _scrambled(path: Path, rng: random.Random) -> str:
    data = path.read_bytes()
    # Of tensors the header matters, of a record what it says.
    head = data[:2000] if path.suffix == ".safetensors" else data
    changed = scrambled(head, rng)
    path.write_bytes(changed + data[len(head) :])
    reseal(path)
    return repr(changed)


SPACES: tuple[native.Space, ...] = (
    native.Discrete(5, start=-2),
    native.MultiDiscrete([3, 2]),
    native.MultiBinary(3),
    native.Box(-1, 1, (2, 2)),
    native.Box(0, 255, (2,), "uint8"),
    native.Dict({"arm": native.Tuple([native.Box(-1, 1, (2,)), native.Discrete(2)]), "z": native.MultiBinary(3)}),
)


def action_space(rng: random.Random) -> Input:
    """The description of a space, and what is done with it."""
    with deep():
        value = mutated(ActionSpace.from_gymnasium(rng.choice(SPACES)).to_json(), rng)
        shown = as_json(value)

    def use() -> None:
        space = ActionSpace.from_json(value)
        again = ActionSpace.from_json(json.loads(json.dumps(space.to_json(), allow_nan=False)))
        assert (again, str(again), hash(again)) == (space, str(space), hash(space))
        made = space.native()
        # (Equal but for bounds that are no numbers of its type: 1e-300 in float32.)
        assert ActionSpace.from_gymnasium(made).size == space.size
        made.seed(0)
        sample = made.sample()
        assert made.contains(space.unflatten(space.flatten(sample)))

    return Input(shown, use)


def action(rng: random.Random) -> Input:
    """An action that a policy chose."""
    space = ActionSpace.from_gymnasium(rng.choice(SPACES))
    good = _plain(space.native().sample())
    with deep():
        changed = mutated({"action": good}, rng)
        value = changed.get("action") if isinstance(changed, dict) else changed
        shown = f"{value!r:.400} in {space}"
    return Input(shown, lambda: space.unflatten(space.flatten(value)))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value.tolist() if hasattr(value, "tolist") else value
