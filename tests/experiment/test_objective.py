"""What the tokenizer's stage trains: nothing more than the tokenizer by default, and each further term by itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import BIN, ROOT, SCRIPTS, launch, run
from runs import no_figures, stop_at
from tiny_models import noise_frames, same_tensors, shake, tiny_experiment, tiny_store, train_config, vqvae_config
from tiny_tokenizers import moving_squares
from torch import Tensor

from vqvideo.data.store import Store
from vqvideo.errors import InputError
from vqvideo.experiment.config import Experiment, vqvae_folder
from vqvideo.experiment.objective import TokenizerObjective
from vqvideo.experiment.tokenizer import train_vqvae
from vqvideo.models.pixels import to_signed
from vqvideo.models.tokenizer import NoAdversary, PatchDiscriminator3D
from vqvideo.models.tokenizer.discriminator import AdversarialTerm, hinge, lecam
from vqvideo.models.tokenizer.features import FeatureNet
from vqvideo.models.tokenizer.perceptual import PerceptualTerm
from vqvideo.models.tokenizer.vqvae import VQVAE
from vqvideo.storage.checkpoint import TrainingState, load_training, training_checkpoints
from vqvideo.storage.records import write_yaml
from vqvideo.training.launch import make_accelerator
from vqvideo.training.optimizers import MAIN, parameter_groups
from vqvideo.training.run_folder import RunFolder, prepare_run
from vqvideo.training.signals import InterruptedRunError
from vqvideo.training.trainer import Trainer

ADVERSARY = PatchDiscriminator3D(width=4, start_step=2, learning_rate=1e-2)


class Edges(FeatureNet):
    """Differences between neighbouring pixels, in place of a trained network."""

    multiple = 8

    def stages(self, frames: Tensor) -> list[Tensor]:
        return [frames.diff(dim=-1)]


def tokenizer() -> VQVAE:
    torch.manual_seed(0)
    vqvae = vqvae_config().build((16, 16))
    shake(vqvae, scale=0.1)
    vqvae.initialize(noise_frames(8, 5))
    return vqvae.train()


def objective(**terms: Any) -> TokenizerObjective:
    return TokenizerObjective(tokenizer(), **terms).train()


def gradients(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def edges(**settings: Any) -> TokenizerObjective:
    """With the perceptual term on features that need no weights."""
    own = objective()
    own.perceptual = PerceptualTerm(Edges(), **{"weight": 0.5, "frames_per_step": 100, "side": 16, **settings})
    return own


# ---------------------------------------------------------------- without further terms


def trained(folder: Path, model: VQVAE | TokenizerObjective) -> Trainer:
    cfg = train_config(accumulate=2)
    accelerator = make_accelerator(cfg, folder)
    run = prepare_run(folder, resume=False, settings=cfg, accelerator=accelerator)
    trainer = Trainer(model, cfg, run, accelerator)
    trainer.fit(lambda start, stop: ({"frames": noise_frames(2, 5, seed)} for seed in range(start, stop)), no_figures)
    return trainer


def test_without_further_terms_it_trains_bit_by_bit_as_the_tokenizer_alone(tmp_path: Path) -> None:
    alone, wrapped = trained(tmp_path / "alone", tokenizer()), trained(tmp_path / "wrapped", objective())
    assert same_tensors(alone.model.state_dict(), wrapped.model.vqvae.state_dict())
    expected = {f"vqvae.{name}": value for name, value in alone.average.values.items()}
    assert same_tensors(expected, wrapped.average.values)
    assert wrapped.model.state_dict().keys() == {f"vqvae.{name}" for name in alone.model.state_dict()}


def test_the_log_has_the_usage_of_the_codes(tmp_path: Path) -> None:
    records = trained(tmp_path, objective()).run.records()
    train = [record for record in records if record["split"] == "train"]
    assert all(0 < record["codes_used"] <= 1 and 1 <= record["perplexity"] <= 16 for record in train)


def test_further_terms_judge_the_clips_and_the_stills_go_to_the_tokenizer_alone() -> None:
    clips, stills = noise_frames(2, 5), noise_frames(3, 1, seed=1)
    model = edges()
    bare = tokenizer()(frames=clips, stills=stills)
    output = model(frames=clips, stills=stills)
    assert output.metrics.keys() == bare.metrics.keys() | {"perceptual"}
    distance = model.perceptual.distance(bare.reconstruction.flatten(0, 1), to_signed(clips).flatten(0, 1)).mean()
    torch.testing.assert_close(output.loss, bare.loss + 0.5 * distance)
    torch.testing.assert_close(output.metrics["perceptual"], distance)


def test_the_perceptual_term_reaches_encoder_and_decoder() -> None:
    clips = noise_frames(2, 5)
    plain, judged = objective(), edges(weight=10.0)
    for model in (plain, judged):
        model(frames=clips).loss.backward()
    for name, gradient in gradients(judged).items():
        if name.endswith("weight"):
            assert not torch.equal(gradient, gradients(plain)[name]), name
    assert judged.state_dict().keys() == plain.state_dict().keys()


# ---------------------------------------------------------------- the adversary


def test_one_backward_pass_gives_each_side_exactly_its_own_gradient() -> None:
    clips = noise_frames(2, 5)
    both = objective(adversarial=replace(ADVERSARY, start_step=0, weight=0.7))
    both(frames=clips).loss.backward()
    found = gradients(both)

    # Two separate passes, as they would be written with two optimizers.
    apart = objective()
    apart.adversary = both.adversary
    both.zero_grad()
    judge = both.adversary.discriminator
    output = apart.vqvae(frames=clips)
    (output.loss - 0.7 * judge(output.reconstruction).mean()).backward()
    generator = {name: value for name, value in gradients(apart).items() if name.startswith("vqvae.")}
    judge.zero_grad()
    real, fake = judge(to_signed(clips)), judge(output.reconstruction.detach())
    level = torch.zeros(())
    (hinge(real, fake) + ADVERSARY.lecam_weight * lecam(real, fake, level, level)).backward()
    own = {f"adversary.discriminator.{name}": value for name, value in gradients(judge).items()}

    assert found.keys() == generator.keys() | own.keys() == set(dict(both.named_parameters()))
    for name, value in {**generator, **own}.items():
        torch.testing.assert_close(found[name], value, atol=1e-6, rtol=1e-4, msg=name)
    assert all(value.any() for value in own.values())


def test_before_the_start_step_the_tokenizer_learns_as_without_an_adversary(tmp_path: Path) -> None:
    without = trained(tmp_path / "without", objective())
    waiting = trained(tmp_path / "waiting", objective(adversarial=replace(ADVERSARY, start_step=100)))
    started = trained(tmp_path / "started", objective(adversarial=replace(ADVERSARY, start_step=7)))
    tokens = [trainer.model.vqvae.state_dict() for trainer in (without, waiting, started)]
    assert same_tensors(tokens[0], tokens[1])
    assert not same_tensors(tokens[0], tokens[2])
    first = objective(adversarial=ADVERSARY).adversary.discriminator.state_dict()
    assert not same_tensors(first, waiting.model.adversary.discriminator.state_dict())


def test_the_discriminator_learns_to_tell_blurred_clips_from_real_ones() -> None:
    torch.manual_seed(0)
    term = AdversarialTerm(replace(ADVERSARY, width=8))
    optimizer = torch.optim.AdamW(term.parameters(), lr=3e-3, betas=(0.5, 0.9))
    for step in range(60):
        output = term(*blurred_and_real(step))
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        term.after_step()
    with torch.no_grad():
        output = term.eval()(*blurred_and_real(1000))
    assert output.metrics["told_apart"] > 0.9
    assert output.metrics["discriminator"] < 0.5
    assert term.level_real > 0 > term.level_fake


def blurred_and_real(seed: int) -> tuple[Tensor, Tensor]:
    real = to_signed(moving_squares(8, 5, seed))
    fake = torch.nn.functional.avg_pool2d(real.flatten(0, 1), 3, stride=1, padding=1).reshape(real.shape)
    return fake.requires_grad_(), real


def test_the_levels_are_averages_over_micro_batches_and_steps() -> None:
    term = AdversarialTerm(replace(ADVERSARY, lecam_decay=0.75)).train()
    expected, logits = None, []
    for seed in range(4):
        fake, real = blurred_and_real(seed)
        term(fake, real)
        logits.append(term.discriminator(real).mean().item())
        if seed % 2:
            term.after_step()
            mean = sum(logits) / 2
            expected = mean if expected is None else 0.75 * expected + 0.25 * mean
            logits.clear()
    assert term.level_real.item() == pytest.approx(expected, rel=1e-4)
    assert int(term.steps) == 2


def test_the_losses_are_their_formulas() -> None:
    real, fake = torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.0])
    assert hinge(real, fake).item() == pytest.approx((0.25 + 0.5) / 2)
    assert lecam(real, fake, torch.tensor(1.0), torch.tensor(-1.0)).item() == pytest.approx((9 + 2.25 + 16 + 1) / 2)


def test_the_discriminator_is_a_team_without_averages() -> None:
    model = objective(adversarial=ADVERSARY)
    teams = parameter_groups(model)
    assert list(teams) == [MAIN, "discriminator"]
    assert all(name.startswith("vqvae.") for name in teams[MAIN].parameters)
    own = teams["discriminator"]
    assert (own.learning_rate, own.betas, own.averaged) == (1e-2, (0.5, 0.9), False)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight": -1.0}, "adversarial.weight is -1"),
        ({"start_step": -1}, "adversarial.start_step is -1"),
        ({"lecam_decay": 1.0}, "0 <= decay < 1"),
    ],
)
def test_settings_without_sense_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PatchDiscriminator3D(**settings)


# ---------------------------------------------------------------- the whole stage


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return tiny_store(tmp_path_factory.mktemp("store"))


def adversarial_experiment(folder: Path, **train: Any) -> Experiment:
    cfg = tiny_experiment(folder, **train)
    return replace(cfg, vqvae=replace(cfg.vqvae, adversarial=ADVERSARY))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, store: Store) -> Experiment:
    """Trained with the adversary, without a stop."""
    cfg = adversarial_experiment(tmp_path_factory.mktemp("whole"))
    train_vqvae(cfg, store)
    return cfg


def last_state(cfg: Experiment) -> TrainingState:
    return load_training(training_checkpoints(cfg.folder / "vqvae" / "checkpoints")[-1])


@pytest.mark.parametrize("stop", [1, 4])
def test_a_run_with_an_adversary_resumes_bit_by_bit(
    tmp_path: Path, store: Store, whole: Experiment, stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = adversarial_experiment(tmp_path)
    with monkeypatch.context() as patch:
        stop_at(patch, VQVAE, stop)
        with pytest.raises(InterruptedRunError):
            train_vqvae(cfg, store)
    torch.manual_seed(stop)
    train_vqvae(cfg, store, resume=True)
    for ours, theirs in zip(last_state(cfg)[:3], last_state(whole)[:3], strict=True):
        assert same_tensors(ours, theirs)


def test_checkpoints_keep_both_optimizers_and_the_exported_model_is_the_tokenizer(whole: Experiment) -> None:
    state = last_state(whole)
    judge = {name for name in state.model if name.startswith("adversary.discriminator.")}
    assert len(judge) == 8
    assert {f"{name}/exp_avg_sq" for name in judge} <= state.optimizer.keys()
    assert not judge & state.average.keys()
    exported = VQVAE.from_pretrained(vqvae_folder(whole)).state_dict()
    assert {f"vqvae.{name}" for name in exported} == {name for name in state.model if name.startswith("vqvae.")}
    line = RunFolder(whole.folder / "vqvae").records()[0]
    assert {"generator", "discriminator", "told_apart", "learning_rate_discriminator"} <= line.keys()


def test_a_run_is_not_resumed_with_another_adversary_or_without_it(whole: Experiment, store: Store) -> None:
    for other, message in ((NoAdversary(), "adversarial.kind"), (replace(ADVERSARY, weight=0.5), "weight 0.01 -> 0.5")):
        with pytest.raises(InputError, match=message):
            train_vqvae(replace(whole, vqvae=replace(whole.vqvae, adversarial=other)), store, resume=True)


# ---------------------------------------------------------------- two processes


def test_two_ranks_train_the_same_discriminator_as_one(tmp_path: Path, store: Store) -> None:
    settings = {"steps": 6, "batch": 8}
    alone, together = (adversarial_experiment(tmp_path / name, **settings) for name in ("one", "two"))
    train_vqvae(alone, store)
    together = replace(together, record=replace(together.record, out=store.path))
    config = tmp_path / "two.yaml"
    config.write_text(write_yaml(together))
    options = ("--multi_gpu", "--num_processes", 2)
    ended = launch(
        *options, SCRIPTS / "train_vqvae.py", "--config", config,
        cwd=tmp_path, ACCELERATE_USE_CPU="true", CUDA_VISIBLE_DEVICES="",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    one, two = last_state(alone).model, last_state(together).model
    assert one.keys() == two.keys()
    assert int(two["adversary.steps"]) == 6
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=1e-4, rtol=1e-4, msg=name)


def test_all_ranks_stop_where_one_meets_a_value_that_is_not_finite(tmp_path: Path) -> None:
    script = ROOT / "tests" / "two_rank_nan.py"
    ended = run(BIN / "torchrun", "--standalone", "--nproc_per_node", 2, script, cwd=tmp_path, CUDA_VISIBLE_DEVICES="")
    assert ended.code == 0, ended.err
    ranks = sorted(line for line in ended.out.splitlines() if line.startswith("rank"))
    assert [line.partition(":")[0] for line in ranks] == ["rank 0 after 2 steps", "rank 1 after 2 steps"]
    assert "step 2: not finite: a value on another rank (it began on rank 1); nothing was updated" in ranks[0]
    assert "step 2: not finite: statistics total (it began on rank 1); nothing was updated" in ranks[1]
