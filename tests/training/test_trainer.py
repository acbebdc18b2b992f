"""The training loop: accumulation equals a large batch, what is not finite ends a run, and what is logged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from runs import Toy, ToyOutput, as_fp16, no_figures, toy_batches, toy_trainer
from tiny_models import same_tensors, tiny_experiment, tiny_store
from torch import Tensor, nn

from vqvideo.data.store import Store
from vqvideo.experiment.tokenizer import train_vqvae
from vqvideo.models.quantizers import EMAVQ
from vqvideo.storage.checkpoint import load_training, training_checkpoints
from vqvideo.training.finite import NonFiniteError
from vqvideo.training.trainer import step_seed

# ---------------------------------------------------------------- one step


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return tiny_store(tmp_path_factory.mktemp("store"))


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


def test_min_seconds_lets_a_run_take_more_than_its_steps(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path, steps=3, min_seconds=0.3)
    figures = trainer.fit(toy_batches(1), lambda model, step: {"at": step})
    assert trainer.step > 3
    assert trainer.seconds >= 0.3
    assert figures == {"at": trainer.step}
    assert trainer.run.records()[-2]["learning_rate"] < 0.1


def test_a_run_that_has_its_time_already_takes_its_steps(tmp_path: Path) -> None:
    trainer = toy_trainer(tmp_path, steps=20, min_seconds=1e-6)
    trainer.fit(toy_batches(1), no_figures)
    assert trainer.step == 20


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
