"""The benchmark of the imagination: every head is a contestant, memory is what a dream holds. No times asserted."""

from __future__ import annotations

import json
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from tiny_models import SIZE, tiny_world, vqvae_config

from vqvideo.errors import InputError
from vqvideo.evaluation.speed import Dreaming
from vqvideo.models.prior import AutoregressiveHeadConfig, HeadConfig, MaskedHeadConfig, PriorConfig
from vqvideo.scripts import benchmark
from vqvideo.scripts.benchmarks.dream_parts import PARTS, parts_of
from vqvideo.scripts.benchmarks.dreams import BASELINE, Dreams, Untrained, chosen_heads, head_kinds, state_bytes
from vqvideo.scripts.benchmarks.imagine import ImagineBenchmark

CPU = torch.device("cpu")
TINY = Untrained(vqvae_config(), PriorConfig(dim=32, heads=2, layers=2, window=3), (SIZE, SIZE))


def dreams(head: str, **changes: Any) -> Dreams:
    return Dreams(TINY.with_head(head), head, **changes)


def test_every_head_of_the_prior_is_a_contestant_once_and_in_the_order_of_the_union() -> None:
    assert tuple(head_kinds().values()) == get_args(HeadConfig)
    assert chosen_heads(()) == list(head_kinds())
    assert chosen_heads((BASELINE, "parallel", BASELINE)) == ["parallel", BASELINE]
    with pytest.raises(InputError, match=r"no head 'paralel': did you mean parallel\?"):
        ImagineBenchmark(heads=("paralel",), quick=True).measure()
    with pytest.raises(InputError, match="one head"):
        ImagineBenchmark(world="somewhere", heads=("parallel",))


def test_another_head_leaves_the_backbone_as_it_is_and_the_own_one_keeps_its_settings() -> None:
    own = replace(TINY, prior=replace(TINY.prior, head=MaskedHeadConfig(passes=2)))
    assert own.with_head("masked") is own
    other = own.with_head(BASELINE).prior
    assert other.head == AutoregressiveHeadConfig()
    assert all(getattr(other, f.name) == getattr(own.prior, f.name) for f in fields(other) if f.name != "head")


def test_the_memory_of_a_dream_grows_with_the_streams_and_not_with_the_steps() -> None:
    sizes = {}
    for streams in (1, 4):
        dreaming = Dreaming(tiny_world(), streams)
        for _ in range(4):
            dreaming()
        sizes[streams] = state_bytes(dreaming.state)
        dreaming()
        assert state_bytes(dreaming.state) == sizes[streams]
    assert sizes[4] == 4 * sizes[1]
    whole = torch.zeros(10)
    assert state_bytes((whole, whole[:2], 7, (whole[5:],))) == 40, "what tensors share counts once"
    assert state_bytes((whole[:2],)) == 40, "so does the unseen part of a view"


@pytest.mark.parametrize("head", sorted(head_kinds()))
def test_the_parts_of_a_step_are_no_more_than_the_step_and_the_world_is_left_as_it_was(head: str) -> None:
    entry = dreams(head, streams=2)
    dreaming = entry.begin(CPU)
    found = parts_of(dreaming, dreaming, 3, CPU)
    whole = found.pop("whole")
    assert set(found) == set(PARTS)
    assert min(found.values()) > 0
    assert max(found.values()) < whole
    prior = dreaming.world.prior
    assert not {"step", "sample"} & (vars(prior).keys() | vars(prior.backbone).keys() | vars(prior.head).keys())


def test_the_script_prints_tables_and_writes_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["benchmark.py", "imagine", "--quick", "--json", str(tmp_path / "figures.json")]
    monkeypatch.setattr(sys, "argv", words)
    benchmark.main()
    assert "frames/s" in capsys.readouterr().out
    record = json.loads((tmp_path / "figures.json").read_text())
    assert record["subject"] == "imagine"
    assert record["settings"]["config"] == "car_racing.yaml"
    assert "top_p" in record["settings"]["sampling"]
    found = record["results"]["cpu"]
    rows = found["imagination"]
    assert {(row["head"], row["precision"]) for row in rows} == {(h, p) for h in head_kinds() for p in ("fp32", "bf16")}
    for row in rows:
        low, high = row["frames_per_s_quartiles"]
        assert 0 < low <= row["frames_per_s"] <= high
        assert row["frames_per_s"] * row["seconds"] == pytest.approx(2 * row["streams"])
        assert len(row["seconds_rounds"]) == record["settings"]["rounds"]
        assert set(row["shares"]) == set(PARTS)
        assert all(share > 0 for share in row["shares"].values())
        assert row["state_bytes_per_stream"] > 0
        assert row["peak_bytes"] >= 0
        assert row["times_faster_than_autoregressive"]["of_medians"] > 0
    ratios = [r["times_faster_than_autoregressive"]["of_medians"] for r in rows if r["head"] == BASELINE]
    assert set(ratios) == {1.0}
    assert {"steps", "window", "first_ms", "last_ms", "growth_bytes", "head"} <= set(found["long_dream"])
