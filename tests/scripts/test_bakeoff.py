"""Suites of variants, and the script that trains and compares them."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import get_args

import pytest
from tiny_models import tiny_experiment, tiny_store

from vqvideo.errors import InputError
from vqvideo.experiment.config import Experiment
from vqvideo.models.quantizers import OutsideConfig, QuantizerConfig
from vqvideo.models.tokenizer import FullConv
from vqvideo.scripts import bakeoff
from vqvideo.scripts.benchmarks.results import Results
from vqvideo.scripts.benchmarks.suites import Suite, changed
from vqvideo.storage.records import read_yaml, to_plain, typed

ROOT = Path(__file__).parents[2]
SUITES = [path for path in sorted((ROOT / "configs" / "bakeoff").glob("*.yaml")) if not path.stem.startswith("prior_")]


def shipped_experiment() -> Experiment:
    return typed(Experiment, read_yaml(ROOT / "configs" / "bakeoff.yaml"))


def cells(line: str) -> list[str]:
    """Of a line of a Markdown table."""
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_every_variant_of_a_shipped_suite_is_a_valid_tokenizer_of_its_own(path: Path) -> None:
    suite, cfg = Suite.read(path), shipped_experiment()
    variants = {name: suite.experiment(cfg, name).vqvae for name in suite.variants}
    assert len(set(map(str, variants.values()))) == len(variants)
    assert all(stage.model.build((64, 64)).tokens >= 16 for stage in variants.values())


def test_every_quantizer_takes_part_at_about_ten_bits() -> None:
    suite, cfg = Suite.read(ROOT / "configs" / "bakeoff" / "quantizers.yaml"), shipped_experiment()
    everyone = [suite.experiment(cfg, name).vqvae.model.quantizer for name in suite.variants]
    assert {type(config) for config in everyone} == set(get_args(QuantizerConfig)) - {OutsideConfig}
    assert all(config.build().bits == pytest.approx(10, abs=0.05) for config in everyone)


def test_a_change_reaches_its_setting_and_leaves_the_others() -> None:
    cfg = Experiment(vqvae=replace(Experiment().vqvae, latent_steps=7))
    new = changed(cfg, {"vqvae": {"train": {"batch": 4}, "model": {"backbone": {"strides": [1, 8, 8]}}}}, "here")
    assert (new.vqvae.train.batch, new.vqvae.latent_steps) == (4, 7)
    assert new.vqvae.model.backbone == replace(cfg.vqvae.model.backbone, strides=(1, 8, 8))
    assert changed(cfg, {}, "here") == cfg


def test_another_kind_starts_from_its_own_defaults() -> None:
    cfg = changed(Experiment(), {"vqvae": {"model": {"backbone": {"widths": [8, 16]}}}}, "here")
    full = changed(cfg, {"vqvae": {"model": {"backbone": {"kind": "FullConv"}}}}, "here")
    assert full.vqvae.model.backbone == FullConv()


def test_what_is_wrong_with_a_suite_is_explained(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("plain: {}\nwide: {vqvae: {latent_step: 3}}\n")
    suite = Suite.read(tmp_path / "mine.yaml")
    with pytest.raises(InputError, match=r"mine\.wide\.vqvae\.latent_step is not a setting: did you mean latent_steps"):
        suite.experiment(Experiment(), "wide")
    with pytest.raises(InputError, match="suite mine has no variant 'wid': did you mean wide"):
        suite.chosen(("wid",))
    assert (suite.chosen(("wide",)), suite.chosen(())) == (["wide"], ["plain", "wide"])
    for text, message in (("", "no variants"), ("plain: 3", "variant 'plain' is 3")):
        (tmp_path / "mine.yaml").write_text(text)
        with pytest.raises(InputError, match=message):
            Suite.read(tmp_path / "mine.yaml")


def test_each_variant_is_trained_and_measured_and_a_second_call_takes_the_run_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = tiny_experiment(tmp_path, steps=3)
    plain = to_plain(replace(cfg, record=replace(cfg.record, out=tiny_store(tmp_path / "data").path)))
    (tmp_path / "own.yaml").write_text(json.dumps(plain))
    quantizers = {"ema": "kind: EMAVQ, codebook_size: 16, dim: 4", "fsq": "kind: FSQ, levels: [4, 4]"}
    lines = [f"{name}: {{vqvae: {{model: {{quantizer: {{{q}}}}}}}}}\n" for name, q in quantizers.items()]
    (tmp_path / "pair.yaml").write_text("".join(lines))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        sys, "argv", ["bakeoff.py", "--config", "own.yaml", "--suite", "pair.yaml", "--seeds", "0", "1"]
    )
    measured = []
    for _ in range(2):
        bakeoff.main()
        measured.append(Results(cfg.folder / "pair" / "results.json").rows)
        head, _, *rows = map(cells, capsys.readouterr().out.splitlines()[-4:])
        assert (head[2:], [row[:2] for row in rows]) == (list(bakeoff.COLUMNS), [["ema", "2"], ["fsq", "2"]])
    for name, seed in product(quantizers, (0, 1)):
        row, again = (found[name][seed] for found in measured)
        assert row["steps"] == 3
        assert all(again[key] == value for key, value in row.items() if "per_s" not in key)


def test_seeds_are_averaged_and_their_spread_is_shown(tmp_path: Path) -> None:
    results = Results(tmp_path / "results.json")
    measured = json.loads((ROOT / "configs" / "results" / "bakeoff_tokenizer.json").read_text())
    columns = measured["variants"]["default"]["0"]
    for seed, psnr in enumerate((30.0, 31.0, 33.0)):
        results.add("default", seed, {**columns, "psnr_db": psnr})
    shown = cells(bakeoff.table(results.rows).splitlines()[-1])
    assert shown[:2] == ["default", "3"]
    assert "31.33 ± 1.50" in shown


RESULTS = sorted((ROOT / "configs" / "results").glob("bakeoff_*.json"))


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_the_results_page_shows_what_was_measured(path: Path) -> None:
    shown = list(map(cells, (ROOT / "configs" / "results" / "README.md").read_text().splitlines()))
    head, _, *rows = map(cells, bakeoff.table(Results(path).rows).splitlines())
    assert [line for line in (head, *rows) if line not in shown] == []
