"""The experiments with damaged, hostile and malformed files report failures: each finds what is broken on purpose."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from reliability import corruption, fuzz, hostile, lies
from reliability.children import in_child
from reliability.hostile import Case
from reliability.outcome import Outcome
from reliability.things import Things, make_things
from safetensors.torch import load as load_tensors

from vqvideo.data import index as manifest
from vqvideo.data import store
from vqvideo.data.episode import EpisodeReader
from vqvideo.errors import InputError
from vqvideo.experiment.config import Experiment
from vqvideo.spaces import ActionSpace
from vqvideo.storage import checkpoint, files


def count(outcome: Outcome, *words: str) -> int:
    """Failures that say all of `words`."""
    assert outcome.trials > 0
    return sum(all(word in failure for word in words) for failure in outcome.failures)


# ---------------------------------------------------------------- damage


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Experiment, Experiment]:
    work = tmp_path_factory.mktemp("trained")
    return corruption._trained(work, 0), corruption._trained(work, 1)


@pytest.fixture
def damaged_models(trained: tuple[Experiment, Experiment], monkeypatch: pytest.MonkeyPatch) -> Callable[[], Outcome]:
    monkeypatch.setattr(corruption, "_trained", lambda _, seed: trained[seed])
    return lambda: corruption.damaged_models(Path(), 220, 0)


def test_a_checkpoint_whose_digest_nobody_checks_is_reported(
    damaged_models: Callable[[], Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_check_digest", lambda *_: None)
    outcome = damaged_models()
    assert count(outcome, "step-00000008/optimizer.safetensors", "flipped", "was used without a word")
    assert count(outcome, "step-00000008/average.safetensors", "flipped", "resumed from 8, expected 6")
    assert count(outcome, "world/model.safetensors", "flipped", "was used without a word")


def test_a_silent_fallback_is_reported(damaged_models: Callable[[], Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint.log, "warning", lambda *_: None)
    assert count(damaged_models(), "fell back without a warning")


def test_an_error_without_the_name_of_the_file_is_reported(
    damaged_models: Callable[[], Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    def nameless(path: Path, actual: str, expected: files.FileRecord) -> None:
        if actual != expected.sha256:
            raise InputError("something is wrong somewhere")

    monkeypatch.setattr(files, "_check_digest", nameless)
    assert count(damaged_models(), "the error does not name the file: something is wrong somewhere")


@pytest.mark.parametrize(
    ("module", "name", "broken", "words"),
    [
        (store, "verify_file", lambda *_: None, ("000000.safetensors", "flipped", "without a word")),
        (store, "recorded_files", lambda _: set(), ("manifest.jsonl", "cut after line", "without a word")),
        (store, "check_entries", lambda *_: None, ("meta.json", "replaced", "without a word")),
        (store.logger, "warning", lambda *_: None, ("manifest.jsonl", "cut to", "without a word")),
        (files, "_check_digest", lambda *_: None, ("codes.safetensors", "flipped", "without a word")),
    ],
)
def test_a_store_that_is_not_checked_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, broken: Any, words: tuple[str, ...]
) -> None:
    monkeypatch.setattr(module, name, broken)
    assert count(corruption.damaged_stores(tmp_path, 160, 0), *words)


# ---------------------------------------------------------------- children


@pytest.mark.parametrize(
    ("action", "kind"),
    [
        (lambda: time.sleep(60), "hung"),
        (lambda: os._exit(3), "died"),
        (lambda: 1 // 0, "ZeroDivisionError"),
        (lambda: json.loads("{"), "JSONDecodeError"),
        (lambda: None, ""),
    ],
)
def test_how_a_child_ended_is_told(action: Callable[[], object], kind: str) -> None:
    ended = in_child(action, deadline=1)
    assert (ended.kind, ended.refused) == (kind, False)


def test_the_memory_of_a_child_is_measured() -> None:
    assert 200 < in_child(lambda: torch.ones(50 * 2**20)).growth < 300
    assert in_child(lambda: None).growth < 50


def test_an_error_of_ours_is_a_refusal() -> None:
    def refuse() -> None:
        raise InputError("no")

    assert in_child(refuse)[:2] == ("InputError", "no")


# ---------------------------------------------------------------- hostile files


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Leaves of an experiment the cases whose file and name hold some words."""

    def keep(module: ModuleType, cases: str, *words: str) -> None:
        every = getattr(module, cases)

        def some(things: Things) -> Iterator[Case]:
            chosen = [case for case in every(things) if all(word in f"{case.file} {case.name}" for word in words)]
            assert chosen
            yield from chosen

        monkeypatch.setattr(module, cases, some)

    return keep


def test_a_pickle_that_is_run_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, only: Callable[..., None]
) -> None:
    def careless(data: bytes, where: Path) -> Any:
        return pickle.loads(data) if data.startswith(b"\x80") else load_tensors(data)

    only(hostile, "pickles", "vqvae/model.safetensors", "pickled")
    monkeypatch.setattr(checkpoint, "parse_tensors", careless)
    assert count(hostile.planted_pickles(tmp_path, 100, 0), "digests that fit", "a pickle ran")


@pytest.mark.parametrize(
    ("bite", "unpickle"),
    [
        (hostile.pickled, lambda file: pickle.load(file)),
        (hostile.torch_file, lambda file: torch.load(file, weights_only=False)),
        (hostile.numpy_file, lambda file: np.load(file, allow_pickle=True)["codes"]),
        (hostile.yaml_file, lambda file: yaml.unsafe_load(file)),
    ],
)
def test_the_pickles_bite_who_unpickles_them(tmp_path: Path, bite: Callable[[Path], bytes], unpickle: Any) -> None:
    unpickle(io.BytesIO(bite(tmp_path)))
    assert hostile.marker(tmp_path).exists()


def test_links_that_are_followed_and_pipes_that_are_waited_for_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, only: Callable[..., None]
) -> None:
    only(hostile, "names", "store/meta.json")
    monkeypatch.setattr(hostile, "in_child", lambda action: in_child(action, 1.0))
    for module in (files, manifest):
        monkeypatch.setattr(module, "check_regular", os.stat)
    outcome = hostile.names_elsewhere(tmp_path, 100, 0)
    assert count(outcome, "meta.json is a link to a good copy elsewhere: was loaded")
    assert count(outcome, "meta.json is a pipe: hung")


def test_names_that_are_not_checked_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, only: Callable[..., None]
) -> None:
    only(hostile, "names", "vqvae/manifest.json", "names")
    monkeypatch.setattr(files, "check_name", lambda name, where: name)
    assert count(hostile.names_elsewhere(tmp_path, 100, 0), "'../outside': was loaded")


def test_errors_of_the_reader_of_tensors_that_come_through_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, only: Callable[..., None]
) -> None:
    only(lies, "headers", "vqvae/model.safetensors", "says")
    monkeypatch.setattr(checkpoint, "parse_tensors", lambda data, where: load_tensors(data))
    assert count(lies.lying_headers(tmp_path, 100, 0), "SafetensorError")


def test_headers_that_take_much_memory_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, only: Callable[..., None]
) -> None:
    only(lies, "headers", "episodes/000000.safetensors", "300 000 tensors")
    monkeypatch.setattr(hostile, "MOST_GROWTH", 40)
    monkeypatch.setattr(EpisodeReader, "_read_header", lambda *_: b"{}")
    assert count(lies.lying_headers(tmp_path, 100, 0), "000000.safetensors", "took")


def test_a_manifest_that_is_believed_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, only: Callable[..., None]
) -> None:
    only(lies, "sizes", "store/manifest.jsonl", "all steps that a line can")
    monkeypatch.setattr(store, "check_entries", lambda *_: None)
    monkeypatch.setattr(store.Store, "check_sizes", lambda *_: None)
    monkeypatch.setattr(hostile, "MOST_GROWTH", 100)
    # On a busy machine, sixteen million random numbers take longer than a child is given.
    outcome = lies.lying_sizes(tmp_path, 100, 0)
    assert count(outcome, "took") or count(outcome, "hung")


def test_large_files_that_are_parsed_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, only: Callable[..., None]
) -> None:
    only(lies, "sizes", "store/meta.json", "60 MB of one number")
    monkeypatch.setattr(manifest, "_MAX_META_BYTES", 2**40)
    monkeypatch.setattr(hostile, "MOST_GROWTH", 100)
    monkeypatch.setattr(files, "MAX_JSON_BYTES", 2**40)
    assert count(lies.lying_sizes(tmp_path, 100, 0), "store/meta.json", "took")


# ---------------------------------------------------------------- malformed files


@pytest.fixture
def spaces_only(monkeypatch: pytest.MonkeyPatch) -> None:
    every = fuzz.targets
    names = ("action space",)
    monkeypatch.setattr(fuzz, "targets", lambda things: {name: every(things)[name] for name in names})
    monkeypatch.setattr(fuzz, "PATIENCE", 1)


def sleep_for_ever(value: Any) -> None:
    while True:
        pass


def take_memory(value: Any) -> None:
    torch.ones(100 * 2**20)
    raise InputError("but first, some memory")


def take_far_too_much_memory(value: Any) -> None:
    torch.ones(2**36)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (lambda value: value["kind"] + 1, "Error"),
        (lambda value: os._exit(3), "the process died with code 3"),
        (sleep_for_ever, "took more than 1 s"),
        (take_memory, "took 4"),
        (take_far_too_much_memory, "RuntimeError"),
    ],
)
def test_what_is_not_an_error_of_ours_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spaces_only: None, broken: Callable[[Any], Any], words: str
) -> None:
    good = ActionSpace.from_json

    def sometimes(value: Any) -> ActionSpace:
        return good(value) if isinstance(value, dict) and "kind" in value else broken(value)

    monkeypatch.setattr(ActionSpace, "from_json", sometimes)
    outcome = fuzz.fuzzed(tmp_path, 60, 0)
    assert count(outcome, "action space, trial", words)
    assert outcome.trials == 60
    assert outcome.figures["accepted"] > 0


def test_unparsed_json_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    every = fuzz.targets
    monkeypatch.setattr(
        fuzz, "targets", lambda things: {n: t for n, t in every(things).items() if n == "vqvae/config.json, scrambled"}
    )
    monkeypatch.setattr(files, "parse_json", lambda text, where: json.loads(text))
    assert count(fuzz.fuzzed(tmp_path, 40, 0), "vqvae/config.json, scrambled", "JSONDecodeError")


def test_equal_seeds_make_equal_inputs(tmp_path: Path) -> None:
    things = make_things(tmp_path / "things")
    contents = {path: path.read_bytes() for path in things.root.rglob("*") if path.is_file()}

    def shown() -> list[str]:
        made = []
        for number, target in enumerate(fuzz.targets(things).values()):
            made.append(target(random.Random(number)).shown)
            for path, data in contents.items():
                path.write_bytes(data)
        return made

    assert shown() == shown()
