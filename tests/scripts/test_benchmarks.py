"""Benchmarks: turns are fair, memory is what a call takes, contestants do the same work. No test asserts a time."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import tiny_store, tiny_world

from vqvideo import cli
from vqvideo.errors import InputError
from vqvideo.experiment.config import Experiment
from vqvideo.scripts import benchmark
from vqvideo.scripts.benchmarks.bakeoff_options import TrialConfig
from vqvideo.scripts.benchmarks.env import BARE, CODES, ENV, EnvBenchmark, staggered
from vqvideo.scripts.benchmarks.export import OLD, TORCH
from vqvideo.scripts.benchmarks.imagine import ImagineBenchmark
from vqvideo.scripts.benchmarks.memory import peak_memory
from vqvideo.scripts.benchmarks.quantizer_contestants import PEER, WORKS, Problem, entries
from vqvideo.scripts.benchmarks.size_costs import facts_of, shape_for
from vqvideo.scripts.benchmarks.sizes import CONFIG, SizesBenchmark
from vqvideo.scripts.benchmarks.step_profile import FAMILIES, PYTHON, family_of
from vqvideo.scripts.benchmarks.steps import StepsBenchmark
from vqvideo.scripts.benchmarks.timing import Timing, Work, speed_ratio, take_turns
from vqvideo.scripts.benchmarks.tokenizer import TokenizerBenchmark
from vqvideo.storage.records import read_yaml, typed

CPU = torch.device("cpu")
TINY = Problem(vectors=200, codes=64, dim=4)


def test_contestants_take_turns_and_the_order_alternates() -> None:
    calls: list[str] = []
    timings = take_turns({name: lambda name=name: calls.append(name) for name in "ab"}, CPU, 4, round_seconds=0.0)
    assert "".join(calls) == "aabb" + "ab" + "ba" + "ab" + "ba"
    assert {name: len(found.rounds) for name, found in timings.items()} == {"a": 4, "b": 4}


def test_a_ratio_is_of_medians_and_its_spread_within_rounds() -> None:
    ours, peer = Timing((1.0, 1.0, 2.0, 1.0, 1.0), 1), Timing((3.0, 3.0, 6.0, 30.0, 3.0), 1)
    ratio = speed_ratio(ours, peer)
    assert (ratio.of_medians, ratio.low, ratio.high) == (3.0, 3.0, 3.0)
    assert speed_ratio(peer, ours).of_medians == pytest.approx(1 / 3)
    assert ours.median == 1.0


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


@pytest.mark.parametrize("work", WORKS)
def test_contestants_choose_the_same_codes(work: str) -> None:
    pytest.importorskip("vector_quantize_pytorch")
    codes = [entry.prepare(CPU)() for entry in entries(TINY, work, with_peer=True)]
    assert len(codes) > 1
    assert all(torch.equal(codes[0], other) for other in codes[1:])


@pytest.mark.parametrize("work", WORKS)
def test_without_the_peer_its_rows_are_left_out_and_a_training_step_of_ours_learns(work: str) -> None:
    first, *others = entries(TINY, work, with_peer=False)
    assert PEER not in [entry.name for entry in (first, *others)]
    call = first.prepare(CPU)
    before, after = torch.as_tensor(call()), [call() for _ in range(5)][-1]
    assert torch.equal(before, torch.as_tensor(after)) == ("training" not in work)


@pytest.mark.parametrize(
    ("options", "bad"),
    [
        *((TokenizerBenchmark, bad) for bad in ({"streaming_steps": 3}, {"rounds": 0}, {"streaming_size": 1})),
        *((ImagineBenchmark, bad) for bad in ({"steps": 3}, {"rounds": 0}, {"streams": ()}, {"streams": (0,)})),
        *((TrialConfig, {name: 0}) for name in ("horizon", "context", "clips", "code_clips")),
        *((SizesBenchmark, bad) for bad in ({"rounds": 0}, {"threads": 0}, {"streams": ()})),
        *((StepsBenchmark, bad) for bad in ({"rounds": 0}, {"threads": 0}, {"streams": (0,)})),
        *((EnvBenchmark, bad) for bad in ({"horizon": 0}, {"rounds": 0}, {"streams": ()}, {"streams": (0,)})),
    ],
    ids=str,
)
def test_impossible_options_are_refused(options: type, bad: dict[str, Any]) -> None:
    flag = next(iter(bad)).replace("_", "-")
    with pytest.raises(InputError, match=f"--{flag} is .*, expected"):
        options(**bad)


def measured(monkeypatch: pytest.MonkeyPatch, capsys: Any, figures: Path, *words: str) -> tuple[str, dict[str, Any]]:
    """What the script prints, and the figures that it writes."""
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *words, "--quick", "--json", str(figures)])
    benchmark.main()
    return capsys.readouterr().out, json.loads(figures.read_text())


def test_an_environment_is_measured_beside_its_bare_world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_world().save_pretrained(tmp_path / "world")
    tiny_store(tmp_path / "data")
    words = ("env", "--world", str(tmp_path / "world"), "--store", str(tmp_path / "data"))
    printed, record = measured(monkeypatch, capsys, tmp_path / "figures.json", *words)
    assert "steps/s" in printed
    assert record["settings"]["store"] == str(tmp_path / "data")
    bare, env, codes = record["results"]["cpu"]["steps"]
    assert (bare["contestant"], env["contestant"], codes["contestant"]) == (BARE, ENV, CODES)
    assert bare["time_over_bare"]["of_medians"] == 1
    assert env["time_over_bare"]["of_medians"] == pytest.approx(env["seconds"] / bare["seconds"])
    assert env["steps_per_s"] * env["seconds"] == pytest.approx(env["streams"])


def test_an_exported_world_is_measured_beside_torch_and_another_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnx")
    monkeypatch.setenv("VQVIDEO_WORLDS", str(tmp_path))
    tiny_world().save_pretrained(tmp_path / "tiny")
    tiny_store(tmp_path / "tiny" / "starts", steps=8)
    words = ("export", "--world", "tiny", "--other", str(Path(__file__).parents[2]))
    printed, record = measured(monkeypatch, capsys, tmp_path / "figures.json", *words)
    assert "x other tree" in printed
    torch_, other, exported = record["results"]["dreams"]
    assert [one["contestant"] for one in (torch_, other, exported)] == [TORCH, OLD, "onnxruntime int8"]
    assert exported["frames_per_s"] * exported["seconds"] == pytest.approx(2)
    assert exported["over_torch"]["of_medians"] == pytest.approx(torch_["seconds"] / exported["seconds"])


def test_the_costs_of_frame_sizes_stand_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    printed, record = measured(monkeypatch, capsys, tmp_path / "figures.json", "sizes")
    assert "tokens per latent step" in printed
    small, large = record["results"]["cpu"]["sizes"]
    assert (small["size"], small["tokens"], small["bits_per_latent_step"]) == ("16", 4, 40)
    assert (large["size"], large["tokens"], large["bits_per_latent_step"]) == ("32", 16, 160)
    for work in ("train tokenizer", "encode", "decode", "train prior", "imagine, 1 stream(s)"):
        assert small[work]["frames_per_s"] > 0
        assert large[work]["share_of_memory"] >= 0
    assert small["train tokenizer"]["frames_per_s"] * small["train tokenizer"]["seconds"] == pytest.approx(3)


@pytest.mark.parametrize(("as_named", "expected"), [(False, (256, (2, 16, 16))), (True, (1024, (2, 8, 8)))])
def test_a_size_is_measured_as_it_would_be_trained_or_as_it_is_named(
    *, as_named: bool, expected: tuple[int, tuple[int, int, int]]
) -> None:
    experiment = typed(Experiment, read_yaml(CONFIG))
    facts = facts_of(shape_for(experiment, (256, 256), as_named=as_named))
    assert (facts["tokens"], facts["strides"]) == expected


def test_the_parts_and_the_operations_of_a_step_add_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    printed, record = measured(monkeypatch, capsys, tmp_path / "figures.json", "steps")
    assert "convolutions" in printed
    tokenizer, prior, dream = record["results"]["cpu"]["steps"]
    for training in (tokenizer, prior):
        assert list(training["parts"]) == ["data", "forward", "backward", "optimizer"]
        assert sum(training["parts"].values()) == pytest.approx(training["seconds"])
    assert {"backbone", "head", "decoder"} < set(dream["parts"])
    for step in (tokenizer, prior, dream):
        assert list(step["families"]) == [*FAMILIES, PYTHON]
        assert 0.99 < sum(step["families"].values()) < 1.1
        assert 0 < sum(step["operators"].values()) < 1
    assert tokenizer["families"]["convolutions"] > prior["families"]["convolutions"] == 0
    assert prior["families"]["matrix products"] > 0


@pytest.mark.parametrize(
    ("operator", "family"),
    [
        *((name, "matrix products") for name in ("mm", "addmm", "bmm", "baddbmm", "linear")),
        *((name, "convolutions") for name in ("mkldnn_convolution", "convolution_backward", "slow_conv3d_forward")),
        *((name, "softmax, attention, cross-entropy") for name in ("_softmax", "_log_softmax_backward_data")),
        *((name, "norms") for name in ("native_layer_norm", "native_layer_norm_backward")),
        *((name, "optimizer") for name in ("_fused_adamw_", "linalg_vector_norm", "lerp_")),
        *((name, "sampling") for name in ("multinomial", "exponential_", "sort", "topk", "cumsum")),
        *((name, "copies") for name in ("copy_", "cat", "_to_copy", "index_select")),
        *((name, "element-wise and sums") for name in ("mul_", "silu", "sum", "add", "silu_backward")),
    ],
)
def test_operators_are_of_a_family(operator: str, family: str) -> None:
    assert family_of(operator) == family


@pytest.mark.parametrize("count", [1, 3, 6, 9])
def test_the_rows_of_a_measured_environment_end_one_after_the_other(count: int, tmp_path: Path) -> None:
    world, horizon = tiny_world(), 6
    torch.nn.init.zeros_(world.prior.termination.weight)
    torch.nn.init.constant_(world.prior.termination.bias, -100.0)  # no episode ends by itself
    envs = world.as_env(count, tiny_store(tmp_path / "data"), horizon=horizon, autoreset_mode="SameStep")
    step = staggered(envs, horizon)
    ended = [int(step()[3].sum()) for _ in range(horizon)]
    assert sum(ended) == count
    assert max(ended) == -(-count // horizon)


@pytest.mark.parametrize("name", ["benchmark", "bakeoff", "bakeoff_prior", "rate_distortion"])
def test_without_the_repository_a_benchmark_says_where_it_is(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in [name for name in sys.modules if name.startswith("vqvideo.scripts.benchmarks")]:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(sys, "argv", [name])
    with pytest.raises(SystemExit, match="2"):
        cli.run(import_module(f"vqvideo.scripts.{name}").main)
    assert "in the repository only: clone it" in capsys.readouterr().err
