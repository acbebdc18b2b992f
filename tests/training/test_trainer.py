"""The training loop: resume equals never stopped, accumulation equals a large batch, bad ends are good ends."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from runs import no_figures, stop_at
from stores import flip
from tiny_models import same_tensors, tiny_experiment, tiny_store, train_config
from torch import Tensor, nn

from vqvideo.data.store import Store
from vqvideo.errors import InputError
from vqvideo.experiment.config import Experiment, vqvae_folder, world_folder
from vqvideo.experiment.prior import train_prior
from vqvideo.experiment.tokenizer import train_vqvae
from vqvideo.models.prior import Prior
from vqvideo.models.quantizers import EMAVQ
from vqvideo.models.tokenizer.vqvae import VQVAE
from vqvideo.storage.checkpoint import load_training, training_checkpoints
from vqvideo.storage.records import read_yaml, typed
from vqvideo.training.config import TrainConfig
from vqvideo.training.finite import NonFiniteError
from vqvideo.training.launch import check_processes, make_accelerator
from vqvideo.training.optimizers import AveragedWeights, ParameterGroup, learning_rate, make_optimizer
from vqvideo.training.run_folder import RunFolder, prepare_run
from vqvideo.training.signals import InterruptedRunError
from vqvideo.training.trainer import Trainer, step_seed
from vqvideo.world import WorldModel

Train = Callable[..., dict[str, float]]
STAGES: dict[str, tuple[Train, type[nn.Module]]] = {"vqvae": (train_vqvae, VQVAE), "prior": (train_prior, Prior)}


# ---------------------------------------------------------------- a model that the loop can train


class ToyOutput(NamedTuple):
    loss: Tensor
    metrics: dict[str, Tensor]


class Toy(nn.Module):
    """A line to be fitted. It counts its `after_step`."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.line = nn.Linear(3, 2)
        self.steps = 0

    def forward(self, x: Tensor, y: Tensor) -> ToyOutput:
        error = (self.line(x) - y).square().mean()
        return ToyOutput(error, {"error": error.detach()})

    def after_step(self) -> None:
        self.steps += 1


def toy_batches(batch: int) -> Callable[[int, int], Iterator[dict[str, Tensor]]]:
    """Micro batch i is rows i * batch .. (i + 1) * batch - 1 of one endless table."""

    def batches(start: int, stop: int) -> Iterator[dict[str, Tensor]]:
        for micro in range(start, stop):
            first = micro * batch % 4096
            x = torch.randn(4096, 3, generator=torch.Generator().manual_seed(7))[first : first + batch]
            yield {"x": x, "y": x[:, :2] * 2 - 1}

    return batches


def toy_trainer(folder: Path, model: Toy | None = None, *, resume: bool = False, **changes: Any) -> Trainer:
    cfg = train_config(**({"learning_rate": 0.1, "steps": 6} | changes))
    accelerator = make_accelerator(cfg, folder)
    run = prepare_run(folder, resume=resume, settings=cfg, accelerator=accelerator)
    run.close()  # tests go on with one folder in one process
    return Trainer(model or Toy(), cfg, run, accelerator)


# ---------------------------------------------------------------- whole stages


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return tiny_store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, store: Store) -> Experiment:
    """Both stages, trained without a stop."""
    cfg = tiny_experiment(tmp_path_factory.mktemp("whole"))
    train_vqvae(cfg, store)
    train_prior(cfg, store)
    return cfg


def beside(cfg: Experiment, folder: Path, stage: str) -> Experiment:
    """The same experiment in another folder; for the prior with the same trained tokenizer."""
    other = tiny_experiment(folder)
    if stage == "prior":
        vqvae_folder(other).parent.mkdir(parents=True)
        VQVAE.from_pretrained(vqvae_folder(cfg)).save_pretrained(vqvae_folder(other))
    return other


def results(cfg: Experiment, stage: str) -> dict[str, Any]:
    """Weights, codebook, optimizer, averages and logged figures of a finished stage, but for the time it took."""
    state = load_training(training_checkpoints(cfg.folder / stage / "checkpoints")[-1])
    tensors = {f"{i}/{name}": value for i, part in enumerate(state[:3]) for name, value in part.items()}
    records = RunFolder(cfg.folder / stage).records()
    exported = vqvae_folder(cfg) if stage == "vqvae" else world_folder(cfg)
    return {
        "tensors": tensors,
        "step": state.progress["step"],
        "records": [{k: v for k, v in record.items() if k != "seconds"} for record in records],
        "exported": (exported / "model.safetensors").read_bytes(),
    }


def assert_same_results(one: Experiment, two: Experiment, stage: str) -> None:
    a, b = results(one, stage), results(two, stage)
    assert same_tensors(a.pop("tensors"), b.pop("tensors"))
    assert a == b


@pytest.mark.parametrize("stage", STAGES)
def test_equal_seeds_train_equal_models(tmp_path: Path, store: Store, whole: Experiment, stage: str) -> None:
    again = beside(whole, tmp_path, stage)
    STAGES[stage][0](again, store)
    assert_same_results(again, whole, stage)


@pytest.mark.parametrize("stop", [1, 4, 5])
@pytest.mark.parametrize("stage", STAGES)
def test_a_stopped_and_resumed_run_equals_one_that_never_stopped(
    tmp_path: Path, store: Store, whole: Experiment, stage: str, stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, model = STAGES[stage]
    cfg = beside(whole, tmp_path, stage)
    with monkeypatch.context() as patch:
        stop_at(patch, model, stop)
        with pytest.raises(InterruptedRunError, match=r"stopped by SIGTERM; go on with --resume") as stopped:
            train(cfg, store)
    assert stopped.value.exit_code == 143
    assert results_step(cfg, stage) == stop
    torch.manual_seed(stop)  # a resumed run must not depend on what happened before in the process
    train(cfg, store, resume=True)
    assert_same_results(cfg, whole, stage)


def results_step(cfg: Experiment, stage: str) -> int:
    return load_training(training_checkpoints(cfg.folder / stage / "checkpoints")[-1]).progress["step"]


def test_a_damaged_newest_checkpoint_costs_only_the_steps_since_the_one_before(
    tmp_path: Path, store: Store, whole: Experiment, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cfg = beside(whole, tmp_path, "prior")
    with monkeypatch.context() as patch:
        stop_at(patch, Prior, 5)
        with pytest.raises(InterruptedRunError):
            train_prior(cfg, store)
    flip(training_checkpoints(cfg.folder / "prior" / "checkpoints")[-1] / "model.safetensors", -1)
    with open(cfg.folder / "prior" / "metrics.jsonl", "a") as file:
        file.write('{"step": 5, "split": "tr')
    with caplog.at_level(logging.WARNING):
        train_prior(cfg, store, resume=True)
    assert "skipping a damaged checkpoint" in caplog.text
    assert_same_results(cfg, whole, "prior")


def test_resuming_a_finished_run_changes_nothing_and_returns_its_figures(
    tmp_path: Path, store: Store, whole: Experiment
) -> None:
    cfg = beside(whole, tmp_path, "prior")
    figures = train_prior(cfg, store)
    assert train_prior(cfg, store, resume=True) == pytest.approx(figures, abs=0, rel=0, nan_ok=True)
    assert_same_results(cfg, whole, "prior")


def test_resuming_where_nothing_was_saved_starts_anew(tmp_path: Path, store: Store, whole: Experiment) -> None:
    cfg = beside(whole, tmp_path, "prior")
    (cfg.folder / "prior").mkdir()
    (cfg.folder / "prior" / "metrics.jsonl").write_text('{"step": 1, "split": "train", "seconds": 1}\n{"st')
    train_prior(cfg, store, resume=True)
    assert_same_results(cfg, whole, "prior")


def test_a_run_that_exists_is_not_overwritten_without_resume(store: Store, whole: Experiment) -> None:
    files = {path: path.read_bytes() for path in whole.folder.rglob("*") if path.is_file()}
    for train, _ in STAGES.values():
        with pytest.raises(InputError, match="holds a run already: go on with --resume, or name a new one with --name"):
            train(whole, store)
    assert files == {path: path.read_bytes() for path in whole.folder.rglob("*") if path.is_file()}


def test_a_run_folder_holds_settings_figures_pictures_checkpoints_and_the_model(whole: Experiment) -> None:
    for stage, picture in (("vqvae", "reconstruction"), ("prior", "dream")):
        run = RunFolder(whole.folder / stage)
        assert (run.path / "config.yaml").read_text().startswith("name: tiny\n")
        assert {f"{picture}_{step:06d}.png" for step in (4, 8)} <= {path.name for path in run.media.iterdir()}
        assert [path.name for path in training_checkpoints(run.checkpoints)] == ["step-00000006", "step-00000008"]
        train = [record for record in run.records() if record["split"] == "train"]
        held_out = [record for record in run.records() if record["split"] == "held_out"]
        assert [record["step"] for record in train] == list(range(1, 9))
        assert [record["step"] for record in held_out] == [4, 8]
        assert {"loss", "learning_rate", "gradient_norm", "seconds"} <= train[0].keys()
    assert (
        VQVAE.from_pretrained(vqvae_folder(whole)).fingerprint()
        == WorldModel.from_pretrained(world_folder(whole)).prior.spec.tokenizer
    )


def test_the_exported_weights_are_the_averaged_ones_beside_the_live_codebook(whole: Experiment) -> None:
    state = load_training(training_checkpoints(whole.folder / "vqvae" / "checkpoints")[-1])
    exported = VQVAE.from_pretrained(vqvae_folder(whole)).state_dict()
    recorded = {f"vqvae.{name}": value for name, value in exported.items()}
    assert same_tensors(recorded, state.model | state.average)
    name = "vqvae.encoder.layers.0.project.weight"
    assert not torch.equal(state.average[name], state.model[name])


# ---------------------------------------------------------------- one step


def test_accumulated_micro_batches_equal_one_large_batch(tmp_path: Path) -> None:
    weights = []
    for name, changes, micro in (("one", {"batch": 8}, 8), ("two", {"batch": 8, "accumulate": 2}, 4)):
        trainer = toy_trainer(tmp_path / name, **changes)
        trainer.fit(toy_batches(micro), no_figures)
        weights.append(trainer.model.state_dict())
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], atol=1e-5, rtol=1e-5)


def test_accumulated_micro_batches_equal_one_large_batch_in_the_codebook_too(tmp_path: Path, store: Store) -> None:
    states = []
    for name, accumulate in (("one", 1), ("two", 2)):
        cfg = tiny_experiment(tmp_path / name, batch=8, accumulate=accumulate)
        train_vqvae(cfg, store)
        states.append(load_training(training_checkpoints(cfg.folder / "vqvae" / "checkpoints")[-1]))
    for name, value in states[0].model.items():
        torch.testing.assert_close(value, states[1].model[name], atol=1e-5, rtol=1e-5)


class Poisoned(Toy):
    """Turns one of its tensors into NaN in step 4, and counts a statistic that `after_step` would use."""

    total: Tensor

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where
        self.register_buffer("total", torch.zeros(2), persistent=False)

    def forward(self, x: Tensor, y: Tensor) -> ToyOutput:
        output = super().forward(x, y)
        self.total += x.detach().sum()
        if self.steps == 4:
            if self.where == "statistic":
                self.total[1] = torch.inf
            elif self.where == "gradient":
                self.line.bias.register_hook(lambda gradient: gradient * torch.nan)
            else:
                return ToyOutput(output.loss * torch.nan, {"error": output.loss.detach() * torch.nan})
        return output


@pytest.mark.parametrize(
    ("where", "named"),
    [
        ("loss", "loss terms loss = nan, error = nan"),
        ("gradient", "gradient of line.bias"),
        ("statistic", "statistics total"),
    ],
)
def test_a_value_that_is_not_finite_ends_the_run_before_the_update_and_is_named(
    tmp_path: Path, where: str, named: str
) -> None:
    model = Poisoned(where)
    trainer = toy_trainer(tmp_path, model, checkpoint_every=2)
    with pytest.raises(NonFiniteError, match=f"^step 4: not finite: {named}; nothing was updated$") as e:
        trainer.fit(toy_batches(4), no_figures)
    assert e.value.exit_code == 3
    assert model.steps == 4
    newest = load_training(training_checkpoints(trainer.run.checkpoints)[-1])
    assert newest.progress["step"] == 4
    assert same_tensors(newest.model, model.state_dict())
    assert same_tensors(newest.average, trainer.average.values)


def test_a_gradient_too_large_for_its_norm_is_named_as_such(tmp_path: Path) -> None:
    model = Toy()
    model.line.bias.register_hook(lambda gradient: gradient * 1e30)
    with pytest.raises(NonFiniteError, match="step 0: not finite: the norm of the gradient, too large"):
        toy_trainer(tmp_path, model).fit(toy_batches(4), no_figures)


def test_a_codebook_is_not_updated_from_statistics_that_are_not_finite(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = tiny_experiment(tmp_path)
    train_vqvae(cfg, store)
    observe = EMAVQ._observe

    def poisoned(self: EMAVQ, z: Tensor, indices: Tensor) -> None:
        observe(self, z, indices)
        self._sum[3, 1] = torch.nan

    monkeypatch.setattr(EMAVQ, "_observe", poisoned)
    updates: list[int] = []
    monkeypatch.setattr(EMAVQ, "update", lambda self: updates.append(1))
    with pytest.raises(NonFiniteError, match=r"step 0: not finite: statistics vqvae\.quantizer\._sum; nothing was"):
        train_vqvae(replace(cfg, name="poisoned"), store)
    assert not updates


class Rivals(Toy):
    """Two lines, of which the second is a team of its own."""

    def __init__(self, **team: Any) -> None:
        super().__init__()
        self.other, self.team = nn.Linear(3, 2), team

    def forward(self, x: Tensor, y: Tensor) -> ToyOutput:
        output = super().forward(x, y)
        return output._replace(loss=output.loss + 100 * (self.other(x) + y).square().mean())

    def parameter_groups(self) -> dict[str, ParameterGroup]:
        return {"other": ParameterGroup({f"other.{name}": p for name, p in self.other.named_parameters()}, **self.team)}


class OnlyOther(Toy):
    """The second line of `Rivals` alone."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(3, 2)

    def forward(self, x: Tensor, y: Tensor) -> ToyOutput:
        return ToyOutput(100 * (self.line(x) + y).square().mean(), {})


def test_two_teams_learn_as_each_would_alone(tmp_path: Path) -> None:
    together = toy_trainer(tmp_path / "both", Rivals(learning_rate=0.03, betas=(0.5, 0.8)))
    alone = toy_trainer(tmp_path / "one")
    other = toy_trainer(tmp_path / "other", OnlyOther(), learning_rate=0.03, betas=(0.5, 0.8))
    for trainer in (together, alone, other):
        trainer.fit(toy_batches(4), no_figures)
    for name, value in alone.model.line.state_dict().items():
        assert torch.equal(together.model.line.state_dict()[name], value)
    for name, value in other.model.line.state_dict().items():
        assert torch.equal(together.model.other.state_dict()[name], value)
    line = together.run.records()[0]
    assert line["learning_rate_other"] == pytest.approx(0.3 * line["learning_rate"])
    assert line["gradient_norm_other"] > 10 * line["gradient_norm"]


def test_a_team_may_do_without_averaged_weights(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path, Rivals(averaged=False))
    trainer.fit(toy_batches(4), no_figures)
    assert set(trainer.average.values) == {"line.weight", "line.bias"}


def test_a_run_with_two_teams_resumes_bit_by_bit(tmp_path: Path) -> None:
    whole = toy_trainer(tmp_path / "whole", Rivals(learning_rate=0.03, averaged=False))
    whole.fit(toy_batches(4), no_figures)
    resumed = toy_trainer(tmp_path / "whole", Rivals(learning_rate=0.03, averaged=False), resume=True)
    shutil.rmtree(training_checkpoints(whole.run.checkpoints)[-1])
    assert resumed.resume()
    assert resumed.step == 3
    resumed.fit(toy_batches(4), no_figures)
    assert same_tensors(resumed.model.state_dict(), whole.model.state_dict())
    assert same_tensors(resumed.average.values, whole.average.values)


def as_fp16(trainer: Trainer, scale: float) -> None:
    """Puts a trainer on a CPU through the motions of fp16: its loss scaler, from a first scale on."""
    trainer.accelerator.state._mixed_precision = "fp16"
    trainer.accelerator.native_amp = True
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale)


def test_a_step_that_overflows_in_fp16_is_left_out_by_all_teams(tmp_path: Path) -> None:
    class Watched(Rivals):
        def after_step(self) -> None:
            super().after_step()
            states.append({name: value.clone() for name, value in self.state_dict().items()})

    states: list[dict[str, Tensor]] = []
    trainer = toy_trainer(tmp_path, Watched(), steps=12)
    as_fp16(trainer, scale=2.0**16)
    start = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.fit(toy_batches(4), no_figures)
    norms = [r["gradient_norm_other"] for r in trainer.run.records() if r["split"] == "train"]
    skipped = norms.index(next(filter(None, norms)))
    assert 1 <= skipped <= 10
    # The other team's gradient alone overflowed at last.
    assert trainer.run.records()[skipped - 1]["gradient_norm"] is not None
    assert all(same_tensors(state, start) for state in states[:skipped])
    for before, after in zip([start, *states[skipped:]], states[skipped:], strict=False):
        assert not any(torch.equal(after[name], value) for name, value in before.items())


def test_a_resumed_run_in_fp16_has_the_scale_that_was_found(tmp_path: Path) -> None:
    first = toy_trainer(tmp_path, Rivals(), steps=12)
    as_fp16(first, scale=2.0**16)
    first.fit(toy_batches(4), no_figures)
    second = toy_trainer(tmp_path, Rivals(), steps=12, resume=True)
    as_fp16(second, scale=2.0**20)
    assert second.resume()
    assert second.accelerator.scaler.state_dict() == first.accelerator.scaler.state_dict()
    assert second.accelerator.scaler.get_scale() < 2.0**16


def test_statistics_that_are_not_finite_end_a_run_in_fp16_too(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path, Poisoned("statistic"))
    as_fp16(trainer, scale=1.0)
    with pytest.raises(NonFiniteError, match=r"^step 4: not finite: statistics total"):
        trainer.fit(toy_batches(4), no_figures)


def test_fp16_gives_up_when_no_scale_is_small_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Poisoned("loss")
    monkeypatch.setattr(model, "after_step", lambda: None)
    model.steps = 4
    monkeypatch.setattr("vqvideo.training.trainer.MOST_SKIPS", 3)
    trainer = toy_trainer(tmp_path, model)
    as_fp16(trainer, scale=1.0)
    with pytest.raises(NonFiniteError, match=r"^step 3: not finite: loss terms loss = nan"):
        trainer.fit(toy_batches(4), no_figures)


def test_the_log_has_what_the_model_counted_since_the_last_line(tmp_path: Path) -> None:
    class Counting(Toy):
        seen = 0

        def forward(self, x: Tensor, y: Tensor) -> ToyOutput:
            self.seen += len(x)
            return super().forward(x, y)

        def interval_metrics(self) -> dict[str, float]:
            seen, self.seen = self.seen, 0
            return {"rows": seen}

    trainer = toy_trainer(tmp_path, Counting(), log_every=4)
    trainer.fit(toy_batches(4), no_figures)
    train = [(r["step"], r["rows"]) for r in trainer.run.records() if r["split"] == "train"]
    assert train == [(4, 16), (6, 8)]


def test_max_seconds_ends_a_run_in_good_order(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path, steps=10**6, max_seconds=0.2)
    figures = trainer.fit(toy_batches(1), lambda model, step: {"at": step})
    assert 0 < trainer.step < 10**6
    assert figures == {"at": trainer.step}
    assert load_training(training_checkpoints(trainer.run.checkpoints)[-1]).progress["step"] == trainer.step
    assert trainer.run.records()[-2]["learning_rate"] < 0.05


def test_validation_sees_the_averaged_weights_and_training_goes_on_with_its_own(tmp_path: Path) -> None:
    seen: dict[int, dict[str, Tensor]] = {}

    def remember(model: nn.Module, step: int) -> dict[str, float]:
        assert not model.training
        seen[step] = {name: value.clone() for name, value in model.state_dict().items()}
        return {}

    trainer = toy_trainer(tmp_path, validate_every=2)
    trainer.fit(toy_batches(4), remember)
    assert list(seen) == [2, 4, 6]
    assert same_tensors(seen[6], trainer.average.values)
    assert not same_tensors(seen[6], trainer.model.state_dict())


def test_all_ranks_and_steps_have_randomness_of_their_own() -> None:
    seeds = {step_seed(0, step, micro, rank) for step in range(20) for micro in range(3) for rank in range(3)}
    assert len(seeds | {step_seed(1, 0, 0, 0)}) == 181
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_an_average_follows_its_definition_and_leaves_buffers_alone() -> None:
    model = nn.BatchNorm1d(1)
    average = AveragedWeights(dict(model.named_parameters()), decay=0.5)
    expected = 1.0
    for step in range(20):
        with torch.no_grad():
            model.weight.fill_(float(step))
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    assert average.values["weight"].item() == pytest.approx(expected, rel=1e-5)
    assert set(average.values) == {"weight", "bias"}
    with average.applied():
        assert model.weight.item() == pytest.approx(expected, rel=1e-5)
        assert average.values["weight"].item() == 19
    assert model.weight.item() == 19


def test_the_learning_rate_warms_up_and_decays_to_its_last_share() -> None:
    cfg = TrainConfig(steps=1000, learning_rate=1.0, warmup=10, final_rate=0.1)
    assert learning_rate(cfg, 0, 0.0) == pytest.approx(0.1)
    assert learning_rate(cfg, 9, 0.0) == pytest.approx(1.0)
    assert learning_rate(cfg, 500, 0.5) == pytest.approx(0.55)
    assert learning_rate(cfg, 1000, 1.0) == pytest.approx(0.1)
    assert learning_rate(cfg, 1000, 7.0) == pytest.approx(0.1)
    rates = [learning_rate(cfg, step, step / 1000) for step in range(10, 1001)]
    assert rates == sorted(rates, reverse=True)


def test_weight_decay_falls_on_matrices_only_and_frozen_weights_are_left_out() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2), nn.Linear(2, 2).requires_grad_(False))
    optimizer = make_optimizer(model, TrainConfig(weight_decay=0.3))
    decayed, plain = optimizer.param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.3, 0.0)
    assert [p is model[0].weight for p in decayed["params"]] == [True]
    assert len(plain["params"]) == 3


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(("batch", "accumulate", "world", "micro"), [(8, 2, 2, 4), (8, 1, 4, 8), (6, 3, 2, 2)])
def test_a_batch_is_split_over_micro_batches(batch: int, accumulate: int, world: int, micro: int) -> None:
    assert TrainConfig(batch=batch, accumulate=accumulate).micro_batch(world) == micro


def test_a_batch_that_cannot_be_split_is_refused() -> None:
    with pytest.raises(InputError, match=r"batch of 8 clips cannot be split over 3 process\(es\) x 2 .* multiple of 6"):
        TrainConfig(batch=8, accumulate=2).micro_batch(3)


def test_a_checkpoint_of_another_number_of_processes_is_refused(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path)
    trainer.fit(toy_batches(4), no_figures)
    (path,) = [p for p in trainer.run.checkpoints.iterdir() if p.name.endswith("6")]
    state = load_training(path)
    from vqvideo.storage.checkpoint import save_training

    save_training(trainer.run.checkpoints, 6, state._replace(progress=state.progress | {"world": 4}), keep=2)
    with pytest.raises(
        InputError, match=r"was trained by 4 process\(es\), now there are 1: resume with the same number"
    ):
        trainer.resume()
    assert trainer.resume(any_world_size=True)


def test_a_run_is_not_resumed_with_settings_that_shape_other_weights(tmp_path: Path) -> None:
    toy_trainer(tmp_path).fit(toy_batches(4), no_figures)
    trainer = toy_trainer(tmp_path, resume=True, learning_rate=0.5, seed=7, log_every=3)
    with pytest.raises(InputError, match=r"learning_rate .* -> 0.5, train.seed 0 -> 7. Resume") as refused:
        trainer.resume()
    assert "log_every" not in str(refused.value)
    assert trainer.step == 0


def test_a_prior_is_not_resumed_on_another_tokenizer_nor_with_another_model(tmp_path: Path, store: Store) -> None:
    cfg = tiny_experiment(tmp_path)
    train_vqvae(cfg, store)
    train_prior(cfg, store)
    world = WorldModel.from_pretrained(world_folder(cfg)).fingerprint()
    other = replace(cfg, prior=replace(cfg.prior, model=replace(cfg.prior.model, window=2)))
    with pytest.raises(InputError, match=r"model.window \d -> 2"):
        train_prior(other, store, resume=True)
    longer = replace(cfg.vqvae.train, steps=cfg.vqvae.train.steps + 2)
    train_vqvae(replace(cfg, vqvae=replace(cfg.vqvae, train=longer)), store, resume=True)
    with pytest.raises(InputError, match=r"tokenizer '[0-9a-f]{64}' -> .* or remove .*prior"):
        train_prior(cfg, store, resume=True)
    assert WorldModel.from_pretrained(world_folder(cfg)).fingerprint() == world


def test_a_refused_resume_leaves_the_recorded_settings_and_they_can_be_given_to_any_script(
    tmp_path: Path, store: Store
) -> None:
    cfg = tiny_experiment(tmp_path)
    train_vqvae(cfg, store)
    recorded = cfg.folder / "vqvae" / "config.yaml"
    before = recorded.read_bytes()
    wrong = replace(cfg.vqvae.train, batch=2 * cfg.vqvae.train.batch)
    with pytest.raises(InputError, match=r"other settings: train\.batch"):
        train_vqvae(replace(cfg, vqvae=replace(cfg.vqvae, train=wrong)), store, resume=True)
    assert recorded.read_bytes() == before
    assert typed(Experiment, read_yaml(recorded)) == cfg


def test_stages_may_have_different_precisions(tmp_path: Path, store: Store) -> None:
    cfg = tiny_experiment(tmp_path)
    half = replace(cfg.prior, train=replace(cfg.prior.train, precision="bf16"))
    train_vqvae(cfg, store)
    train_prior(replace(cfg, prior=half), store)
    newest = training_checkpoints(cfg.folder / "prior" / "checkpoints")[-1]
    assert load_training(newest).progress["precision"] == "bf16"


def test_damaged_checkpoints_do_not_push_out_good_ones(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path, checkpoint_every=2)
    trainer.fit(toy_batches(4), no_figures)
    older, newest = training_checkpoints(trainer.run.checkpoints)
    (newest / "model.safetensors").write_bytes(b"damaged")
    again = toy_trainer(tmp_path, resume=True, checkpoint_every=2)
    assert again.resume()
    assert again.step == 4
    assert [p.name for p in training_checkpoints(again.run.checkpoints)] == [older.name]
    assert (again.run.checkpoints / f"damaged-{newest.name}").is_dir()
    (older / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"none of its 1 checkpoints can be read\. Remove the folder"):
        toy_trainer(tmp_path, resume=True).resume()


def test_a_resumed_run_keeps_the_precision_and_the_threads_that_were_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = toy_trainer(tmp_path)
    trainer.fit(toy_batches(4), no_figures)
    (newest,) = [p for p in trainer.run.checkpoints.iterdir() if p.name.endswith("6")]
    recorded = load_training(newest).progress
    assert (recorded["precision"], recorded["threads"]) == ("no", torch.get_num_threads())
    monkeypatch.setattr("vqvideo.training.launch.best_precision", lambda: pytest.fail("measured again"))
    cfg = TrainConfig(precision="auto")
    assert make_accelerator(cfg, tmp_path, resume=True).mixed_precision == "no"


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"WORLD_SIZE": "2"}, "2 processes were asked for"),
        ({"ACCELERATE_MIXED_PRECISION": "no", "MASTER_PORT": "29500"}, "several processes were asked for"),
    ],
)
def test_processes_that_do_not_work_together_are_refused(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], message: str
) -> None:
    for name in ("WORLD_SIZE", "ACCELERATE_MIXED_PRECISION", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    check_processes(1)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    check_processes(2)
    with pytest.raises(InputError, match=message + ".*ACCELERATE_USE_CPU=true accelerate launch --multi_gpu"):
        check_processes(1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"validate_every": 0}, "train.validate_every is 0, expected at least 1"),
        ({"checkpoint_every": 0}, "train.checkpoint_every is 0"),
        ({"seed": -1}, "train.seed is -1, expected at least 0"),
        ({"max_seconds": 0.0}, "train.max_seconds is 0.0, expected more than 0"),
        ({"steps": 0}, "at least 1"),
        ({"batch": 0}, "at least 1"),
        ({"accumulate": 0}, "at least 1"),
        ({"keep": 1}, "train.keep is 1, expected at least 2: the newest one may be damaged"),
        ({"average_decay": 1.0}, "train.average_decay is 1.0"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainConfig(**settings)
