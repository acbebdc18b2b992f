"""The experiments on load and memory can fail: each reports the leak that is planted here."""

from __future__ import annotations

import os
import threading
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from reliability import load_data, load_dreams, load_runs, load_shared_memory
from reliability.load_dreams import Played
from reliability.outcome import NotPossibleHereError, Outcome
from reliability.usage import Watch

from vqvideo.data.clips import Clips
from vqvideo.data.episode import EpisodeReader
from vqvideo.data.store import StoreWriter
from vqvideo.errors import InputError
from vqvideo.experiment.tokenizer import train_vqvae
from vqvideo.imagined_env import ImaginedVectorEnv
from vqvideo.models.prior import Prior
from vqvideo.models.tokenizer.vqvae import VQVAE
from vqvideo.scripts.benchmarks.memory import in_fresh_process
from vqvideo.world import WorldModel


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Everything but what shared memory is taken from goes on in this process, where it can be broken."""
    before = torch.get_num_threads()
    for module in (load_dreams, load_runs, load_data):
        monkeypatch.setattr(module, "in_fresh_process", lambda function, *arguments: function(*arguments))
    yield
    torch.set_num_threads(before)


@pytest.fixture
def leaking(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Makes a method keep something at each call: by default a MB."""
    kept: list[object] = []

    def plant(cls: type, name: str, leak: Callable[[], object] = lambda: os.urandom(1_000_000)) -> None:
        original = getattr(cls, name)

        def leaky(self: object, *arguments: Any, **options: Any) -> Any:
            kept.append(leak())
            return original(self, *arguments, **options)

        monkeypatch.setattr(cls, name, leaky)

    yield plant
    for file in kept:
        if isinstance(file, int):
            os.close(file)


def open_file() -> int:
    """A file descriptor."""
    return os.open(os.devnull, os.O_RDONLY)


def told(outcome: Outcome, *words: str) -> bool:
    """Whether one of the failures has all these words."""
    assert not outcome.kept
    return any(all(word in line for word in words) for line in outcome.failures)


# ---------------------------------------------------------------- dreams


def test_a_dream_that_keeps_its_past_is_reported(tmp_path: Path, leaking: Callable[..., None]) -> None:
    leaking(WorldModel, "step")
    assert told(load_dreams.long_dream(tmp_path, 20, 0), "memory grew by", "from round 1 to 20", "at most 8.0")


def test_a_dream_that_does_not_follow_its_seed_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step, chance = WorldModel.step, torch.Generator()
    chance.seed()
    monkeypatch.setattr(
        WorldModel, "step", lambda self, *arguments, generator: step(self, *arguments, generator=chance)
    )
    assert told(load_dreams.long_dream(tmp_path, 20, 0), "different things")


def test_a_code_that_is_not_in_the_codebook_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = WorldModel.step

    def wrong(self: WorldModel, *arguments: Any, **options: Any) -> Any:
        result, state = step(self, *arguments, **options)
        return result._replace(codes=result.codes + 1000), state

    monkeypatch.setattr(WorldModel, "step", wrong)
    assert told(load_dreams.long_dream(tmp_path, 5, 0), "5 of 5 steps have codes that are not in the codebook")


def test_a_dream_that_becomes_slower_is_reported_if_it_was_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_dreams, "_dream", slower)
    assert told(load_dreams.long_dream(tmp_path, load_dreams.TIMED, 0), "4.00 times as long")
    assert load_dreams.long_dream(tmp_path, 1_000, 0).kept


def slower(steps: int, seed: int) -> Played:
    """A dream whose second half takes four times as long."""
    watch = Watch(1, 2)
    watch.after(1)
    watch.after(2)
    return Played(watch, "", 0, array("d", [1.0] * (steps // 2) + [4.0] * (steps // 2)))


def test_an_imagined_environment_that_keeps_its_past_is_reported(tmp_path: Path, leaking: Callable[..., None]) -> None:
    leaking(ImaginedVectorEnv, "step")
    assert told(load_dreams.long_play(tmp_path, 16 * 20, 0), "memory grew by")


# ---------------------------------------------------------------- recording and training


def test_a_recording_that_keeps_its_episodes_is_reported(tmp_path: Path, leaking: Callable[..., None]) -> None:
    leaking(StoreWriter, "add")
    assert told(load_runs.recording(tmp_path, 20, 0), "memory grew by", "at most 1.0")


def test_a_recording_that_leaves_files_open_is_reported(tmp_path: Path, leaking: Callable[..., None]) -> None:
    leaking(StoreWriter, "add", open_file)
    assert told(load_runs.recording(tmp_path, 20, 0), "files became")


def test_a_training_that_grows_is_reported(tmp_path: Path, leaking: Callable[..., None]) -> None:
    for model in (VQVAE, Prior):
        leaking(model, "after_step", lambda: os.urandom(6_000_000))
    outcome = load_runs.training(tmp_path, 12, 0)
    assert told(outcome, "tokenizer: memory grew by", "at most 16.0")
    assert told(outcome, "prior: memory grew by", "at most 16.0")


def test_a_training_that_leaves_threads_and_files_is_reported(tmp_path: Path, leaking: Callable[..., None]) -> None:
    over = threading.Event()

    def leave() -> object:
        threading.Thread(target=over.wait, daemon=True).start()
        return open_file()

    leaking(VQVAE, "after_step", leave)
    outcome = load_runs.training(tmp_path, 8, 0)
    over.set()
    assert told(outcome, "tokenizer: ", "files became")
    assert told(outcome, "tokenizer: ", "threads became")


def test_a_training_that_ends_early_is_reported() -> None:
    watch = Watch(1, 4)
    watch.after(1)
    assert watch.failures(16.0, "prior: ") == ["prior: it ended after 1 of 4 rounds"]


# ---------------------------------------------------------------- data


def test_loader_workers_that_grow_are_reported(tmp_path: Path, leaking: Callable[..., None]) -> None:
    leaking(Clips, "__getitem__", lambda: os.urandom(100_000))
    outcome = load_data.large_store(tmp_path, 20, 0)
    assert told(outcome, "2 workers grew by")
    assert told(outcome, "4 workers grew by")


def test_a_large_store_that_opens_slowly_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_data, "OPEN_SECONDS", 0.0)
    monkeypatch.setattr(load_data, "_load", lambda *_: 0)
    assert load_data.large_store(tmp_path / "small", 20, 0).kept
    monkeypatch.setattr(load_data, "LARGE", 20)
    assert told(load_data.large_store(tmp_path / "large", 20, 0), "opening 20 episodes took")


def test_a_reader_that_leaves_its_file_open_is_reported(tmp_path: Path, leaking: Callable[..., None]) -> None:
    leaking(EpisodeReader, "__init__", open_file)
    assert told(load_data.few_files(tmp_path, 60, 0), "0 workers: ", "files became")


def test_a_pass_that_cannot_open_enough_files_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_data, "in_fresh_process", in_fresh_process)  # which does not outlive it well
    outcome = load_data.few_files(tmp_path, 20, 0, most=3)
    for workers in (0, 2):
        assert told(outcome, f"{workers} workers: ", "Error", "Too many open files")


# ---------------------------------------------------------------- shared memory


def without_preflight(*arguments: Any) -> object:
    """A training that begins without looking at the shared memory."""
    with patch("vqvideo.experiment.stage.check_shared_memory"):
        return train_vqvae(*arguments)


def refusing(*_: object) -> None:
    """A training that finds no shared memory enough."""
    raise InputError("/dev/shm --shm-size workers 0")


def tried(work: Path, trials: int, *arguments: Any) -> Outcome:
    try:
        return load_shared_memory.small_shared_memory(work, trials, 0, *arguments)
    except NotPossibleHereError as reason:
        pytest.skip(f"this machine does not give {reason}")


def test_a_training_that_hangs_for_want_of_shared_memory_is_reported(tmp_path: Path) -> None:
    assert told(tried(tmp_path, 1, without_preflight, 4.0), "lacks")


def test_a_training_that_refuses_enough_shared_memory_is_reported(tmp_path: Path) -> None:
    outcome = tried(tmp_path, 2, refusing)
    assert told(outcome, "with stills: refused, though only")
    assert len(outcome.failures) == 1


def test_what_cannot_be_mounted_is_not_counted_as_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_shared_memory, "in_fresh_process", lambda *_: None)
    with pytest.raises(NotPossibleHereError, match="/dev/shm"):
        load_shared_memory.small_shared_memory(tmp_path, 2, 0)


@pytest.mark.parametrize(
    ("error", "logged"),
    [
        (InputError("too little in /dev/shm: use --shm-size or --vqvae.train.workers 0"), 3),
        (InputError("too little in /dev/shm"), 0),
        (RuntimeError("/dev/shm --shm-size workers 0"), 0),
    ],
)
def test_only_a_helpful_message_before_the_first_step_is_a_refusal(error: Exception, logged: int) -> None:
    assert load_shared_memory.judged(error, logged) != load_shared_memory.REFUSED
    assert load_shared_memory.judged(InputError("/dev/shm --shm-size workers 0"), 0) == load_shared_memory.REFUSED
