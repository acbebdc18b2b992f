"""The files of runs that have no digest: settings, metrics, the log of an improvement run, reports of figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from vqvideo.errors import InputError
from vqvideo.storage import files
from vqvideo.storage.records import flat_settings, read_yaml, to_plain, typed
from vqvideo.training.config import MAY_CHANGE
from vqvideo.verification.checkpoints import newest
from vqvideo.verification.findings import Thing, reason
from vqvideo.verification.work import Work

CONFIG, METRICS, LOG = "config.yaml", "metrics.jsonl", "rounds.json"
_WRITE_AGAIN = "the same training command with --resume writes it again"
_MAX_LINE = 2**20
_MAX_REPORT = 2**24
_MOST_LINES = 100
"""Damaged lines that are listed; what has more is no file of ours."""


def check_stage(path: Path, work: Work) -> Thing:
    """Checks the settings and the metrics of one stage of a run; its checkpoints are things of their own."""
    thing = Thing("training", path)
    progress = newest(path / "checkpoints")
    settings = None
    if progress or (path / CONFIG).exists() or (path / CONFIG).is_symlink():
        with thing.trusting_nothing(CONFIG):
            work.refuse_large(path / CONFIG, _MAX_LINE)
            settings = _read_settings(path)
        thing.advise(_WRITE_AGAIN)
    if settings is not None and progress:
        _compare_settings(thing, settings, progress)
    log_every = (settings or {}).get("train.log_every", 0)
    written = progress.get("step", 0)
    steps = written if isinstance(written, int) else 0
    if (path / METRICS).exists() or (path / METRICS).is_symlink():
        with thing.trying(METRICS):
            _check_metrics(thing, steps, log_every)
    elif 0 < log_every <= steps:
        thing.damaged(METRICS, "is missing", "restore it from a copy; --resume goes on without it")
    return thing


def _read_settings(path: Path) -> dict[str, Any]:
    """The settings of this stage by dotted name; empty if the name of the folder is of none."""
    from vqvideo.experiment.config import Experiment

    file = path / CONFIG
    _refuse_aliases(file)
    plain = read_yaml(file)
    if not file.read_bytes().endswith(b"\n") or "sampling" not in plain:
        raise InputError(f"{file}: ends too early: it was cut off")
    cfg = typed(Experiment, plain, "config")
    return flat_settings(to_plain(getattr(cfg, path.name))) if path.name in ("vqvae", "prior") else {}


def _refuse_aliases(file: Path) -> None:
    """A few lines of aliases stand for billions of values, and no message about them would ever end."""
    try:
        events = yaml.parse(file.read_bytes(), Loader=yaml.SafeLoader)
        aliases = any(isinstance(event, yaml.AliasEvent) for event in events)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{file}: not valid YAML: {error}") from error
    if aliases:
        raise InputError(f"{file}: has aliases, which vqvideo does not write")


def _compare_settings(thing: Thing, settings: dict[str, Any], progress: dict[str, Any]) -> None:
    """The checkpoints record what shaped them, with a digest. Where the file says otherwise, it was changed."""
    trained = progress.get("settings")
    free = {f"train.{name}" for name in MAY_CHANGE} | {"init"}
    if not isinstance(trained, dict):
        return
    both = sorted(settings.keys() & trained.keys() - free)
    changed = [f"{n} is {settings[n]!r}, trained with {trained[n]!r}" for n in both if settings[n] != trained[n]]
    if changed:
        what = f"was edited or damaged, the checkpoints say otherwise: {'; '.join(changed)[:500]}"
        thing.damaged(CONFIG, what, _WRITE_AGAIN)


def _check_metrics(thing: Thing, steps: int, log_every: int) -> None:
    """Every line must be a record, and steps must not go back."""
    bad, lines, steps_seen = 0, 0, _Steps()
    remedy = "remove the line: nothing but the curves is lost"
    files.check_regular(thing.path / METRICS)
    with open(thing.path / METRICS, "rb") as file:
        while line := file.readline(_MAX_LINE):
            lines += 1
            if not line.endswith(b"\n") and len(line) < _MAX_LINE:
                thing.note(METRICS, "the last line is torn: its writer was interrupted", "--resume removes it")
                break
            if problem := _problem(line, steps_seen):
                bad += 1
                thing.damaged(f"{METRICS} line {lines}", problem, remedy)
            if bad == _MOST_LINES:
                thing.damaged(METRICS, "what follows was not looked at", remedy)
                break
    thing.about = f"{steps_seen.last} steps"
    if not bad and 0 < log_every <= steps - steps_seen.last:
        thing.note(METRICS, f"ends with step {steps_seen.last}, but there is a checkpoint of step {steps}")


@dataclass
class _Steps:
    """The step of the last line, and the splits that have a line of it."""

    last: int = 0
    splits: set[str] = field(default_factory=set)


def _problem(line: bytes, seen: _Steps) -> str:
    """What is wrong with a line."""
    try:
        record = files.parse_json(line, "")
    except InputError as error:
        return str(error).removeprefix(": ")
    step, split = (record.get("step"), record.get("split")) if isinstance(record, dict) else (None, None)
    if type(step) is not int or not isinstance(split, str):
        return "has no step or no split"
    before, again = seen.last, step == seen.last and split in seen.splits
    seen.splits = {*(seen.splits if step == before else ()), split}
    seen.last = step
    return f"is of step {step} after one of step {before}: one of the two is damaged" if step < before or again else ""


def check_rounds(path: Path, work: Work) -> Thing:
    """Checks the log of an improvement run, and that its agents are still those that played."""
    thing = Thing("rounds", path / LOG)
    with thing.trusting_nothing(""):
        work.refuse_large(path / LOG, _MAX_REPORT)
        found = files.parse_json(files.read_small(path / LOG), str(path / LOG))
        rounds = found["rounds"]
        if not isinstance(found["settings"], dict) or [one["round"] for one in rounds] != list(range(len(rounds))):
            raise InputError(f"{path / LOG}: settings are missing, or the rounds are not numbered 0, 1, ...")
        thing.about = f"{len(rounds)} rounds"
        for number, one in enumerate(rounds):
            if number and "episodes" in one:
                _compare_player(thing, path / f"round_{number - 1}" / "agent" / "model", one["episodes"].get("digest"))
    thing.advise("restore it from a copy: without it the improvement cannot go on")
    return thing


def _compare_player(thing: Thing, agent: Path, digest: object) -> None:
    try:
        same = files.read_manifest(agent).digest == digest
    except (InputError, OSError) as error:
        thing.note("", f"the agent that played is not there: {reason(error, agent)}")
        return
    if not same:
        thing.note("", f"{agent} is another agent than the one that played the next round's episodes")


def check_report(path: Path, work: Work) -> Thing:
    """Checks that a report of figures can be read."""
    thing = Thing("report", path)
    with thing.trying("", "the script that measured writes it again"):
        work.refuse_large(path, _MAX_REPORT)
        files.parse_json(files.read_small(path), str(path))
    return thing
