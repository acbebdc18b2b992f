"""Benchmarks: turns are fair, memory is what a call takes, contestants do the same work. No test asserts a time."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from processes import SCRIPTS, script

sys.path.insert(0, str(SCRIPTS))

from vqvideo.errors import InputError
from vqvideo.scripts import benchmark
from vqvideo.scripts.benchmarks.memory import peak_memory
from vqvideo.scripts.benchmarks.quantizer_contestants import PEER, Part, Problem, parts
from vqvideo.scripts.benchmarks.timing import Timing, Work, speed_ratio, take_turns, threads
from vqvideo.scripts.benchmarks.tokenizer import TokenizerBenchmark
from vqvideo.scripts.benchmarks.tokenizer_speed import KINDS, NoiseClips, Pass, cases

CPU = torch.device("cpu")
TINY = Problem(vectors=200, codes=64, dim=4)


def test_contestants_take_turns_and_the_order_alternates() -> None:
    calls: list[str] = []
    timings = take_turns({name: lambda name=name: calls.append(name) for name in "ab"}, CPU, 4, round_seconds=0.0)
    assert "".join(calls) == "aabb" + "ab" + "ba" + "ab" + "ba"
    assert {name: len(timing.rounds) for name, timing in timings.items()} == {"a": 4, "b": 4}


def test_short_calls_are_repeated_within_a_turn() -> None:
    calls: list[int] = []
    timing = take_turns({"a": lambda: calls.append(1)}, CPU, 1, round_seconds=0.01)["a"]
    assert timing.calls > 10
    assert len(calls) == 2 + timing.calls


def test_a_ratio_is_of_medians_and_its_spread_within_rounds() -> None:
    ours, peer = Timing((1.0, 1.0, 2.0, 1.0, 1.0), 1), Timing((3.0, 3.0, 6.0, 30.0, 3.0), 1)
    ratio = speed_ratio(ours, peer)
    assert (ratio.of_medians, ratio.low, ratio.high) == (3.0, 3.0, 3.0)
    assert speed_ratio(peer, ours).of_medians == pytest.approx(1 / 3)
    assert ours.median == 1.0


def test_the_number_of_threads_is_put_back() -> None:
    before = torch.get_num_threads()
    with threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


@dataclass(frozen=True)
class Allocates:
    """Holds `megabytes` at once, in `pieces` of which the results are dropped at the end."""

    megabytes: int
    name: str = "allocates"

    def prepare(self, device: torch.device) -> Work:
        return lambda: [torch.ones(250_000, device=device) for _ in range(self.megabytes)]


@pytest.mark.parametrize("megabytes", [1, 40])
def test_peak_memory_is_what_the_call_holds_at_once(megabytes: int) -> None:
    found = peak_memory(Allocates(megabytes), CPU, 1) / 1e6
    assert megabytes * 0.9 < found < megabytes * 1.1 + 2


@pytest.mark.parametrize("part", parts(TINY, with_peer=True), ids=lambda part: part.title)
def test_contestants_choose_the_same_codes(part: Part) -> None:
    pytest.importorskip("vector_quantize_pytorch")
    codes = [entry.prepare(CPU)() for entry in part.entries]
    assert len(codes) > 1
    assert all(torch.equal(codes[0], other) for other in codes[1:])


def test_without_the_peer_its_rows_are_left_out_and_ours_stay() -> None:
    kept = parts(TINY, with_peer=False)
    assert [part.title for part in kept] == [part.title for part in parts(TINY, with_peer=True)]
    assert all(part.entries and PEER not in [entry.name for entry in part.entries] for part in kept)


def test_a_step_learns_and_an_encoding_does_not() -> None:
    for part in parts(TINY, with_peer=False):
        work = part.entries[0].prepare(CPU)
        first, again = torch.as_tensor(work()), [work() for _ in range(5)][-1]
        assert torch.equal(first, torch.as_tensor(again)) == ("training" not in part.title)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stride", [1, 2])
def test_every_kind_of_work_of_the_tokenizer_runs_again_and_again(kind: str, stride: int) -> None:
    work = Pass(kind, "bf16", NoiseClips(size=16, frames=3, stride=stride)).prepare(CPU)
    work()
    work()


def test_streams_are_single_and_whole_clips_come_in_all_batches() -> None:
    listed = [(kind, clips.stride, clips.batch) for kind, clips in cases(NoiseClips(), (2, 1), (1, 8))]
    assert {batch for kind, _, batch in listed if kind == "encode"} == {1, 8}
    assert {batch for kind, _, batch in listed if kind == "encode_step"} == {1}
    assert Pass("encode_step", "fp32", NoiseClips(stride=2)).frames_per_call == 2
    assert Pass("train", "fp32", NoiseClips(frames=9, batch=8)).frames_per_call == 72


@pytest.mark.parametrize("bad", [{"streaming_steps": 3}, {"rounds": 0}, {"streaming_size": 1}])
def test_impossible_options_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(InputError, match="expected at least"):
        TokenizerBenchmark(**bad)


def test_the_script_prints_tables_and_writes_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["benchmark.py", "tokenizer", "--quick", "--json", str(tmp_path / "figures.json")]
    monkeypatch.setattr(sys, "argv", words)
    benchmark.main()
    assert "vectors/s" in capsys.readouterr().out
    record = json.loads((tmp_path / "figures.json").read_text())
    assert set(record) == {"subject", "hardware", "versions", "settings", "notes", "results"}
    assert {"rounds", "seed", "quick"} <= set(record["settings"])
    assert torch.__version__.startswith(record["versions"]["torch"])
    found = record["results"]["cpu"]
    for row in found["quantizer"]:
        assert {"work", "contestant", "threads", "vectors_per_s", "first_is_times_faster", "peak_bytes"} <= set(row)
        assert len(row["seconds_rounds"]) == record["settings"]["rounds"]
    assert {row["work"] for row in found["tokenizer"]} == set(KINDS)
    assert {row["precision"] for row in found["tokenizer"]} == {"fp32", "bf16"}
    assert all(row["frames_per_s"] > 0 and row["peak_bytes"] >= 0 for row in found["tokenizer"])
    assert {"steps", "window", "first_ms", "last_ms", "growth_bytes"} <= set(found["streaming"])


def test_an_unknown_subject_ends_with_the_list_of_known_ones(tmp_path: Path) -> None:
    run = script("benchmark", "weather", cwd=tmp_path)
    assert run.code == 2
    assert "tokenizer" in run.out + run.err
