"""What would be refused in the midst of a run is refused before its first second."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from gymnasium import spaces
from stores import make_meta
from tiny_models import FIVE, SIZE, tiny_episode, tiny_experiment, tiny_store, tiny_vqvae, tiny_world

from vqvideo.agents.config import AgentStage, PPOConfig
from vqvideo.data.config import RecordConfig
from vqvideo.data.store import Store, StoreWriter
from vqvideo.errors import InputError
from vqvideo.experiment import checks, prior, tokenizer
from vqvideo.experiment.checks import check_settings, check_store
from vqvideo.experiment.config import Experiment, vqvae_folder
from vqvideo.scripts import train_vqvae
from vqvideo.scripts.benchmarks.suites import changed
from vqvideo.spaces import ActionSpace
from vqvideo.storage.files import DiskError, check_writable
from vqvideo.training.config import TrainConfig


def settings(folder: Path, changes: dict[str, Any]) -> Experiment:
    """A tiny experiment whose episodes are still to be recorded, with some settings changed."""
    cfg = tiny_experiment(folder)
    record = replace(cfg.record, episodes=6, steps=24, frame_size=SIZE, held_out_every=3, workers=0)
    return changed(replace(cfg, record=record), changes, "changes")


def short_store(path: Path, *, train: int, held_out: int, held_out_every: int = 3) -> Store:
    """Episodes of as many steps each: two to train on, one held out, none where there are 0 steps."""
    meta = make_meta(env_id="TinyWorld", frame_size=(SIZE, SIZE), held_out_every=held_out_every)
    with StoreWriter.open(path, meta) as writer:
        for index, (split, steps) in enumerate([("train", train), ("train", train), ("held_out", held_out)]):
            if steps:
                episodes = (tiny_episode(steps, seed) for seed in range(1000))
                writer.add(index, next(e for e in episodes if e.length == steps), split)
    return Store.open(path)


def test_settings_that_fit_are_accepted_and_leave_nothing(tmp_path: Path) -> None:
    check_settings(settings(tmp_path, {}), "vqvae", "prior", "agent", dreams=(2, 8))
    assert list(tmp_path.iterdir()) == []
    check_store(tiny_experiment(tmp_path), tiny_store(tmp_path / "data"), "vqvae", "prior", "agent", resume=False)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


MISFITS: list[tuple[dict[str, Any], str]] = [
    # Frames, tokens and patches.
    (
        {"record": {"frame_size": 20}},
        "--record.frame-size 20: .* cells of 8x8: .* --frame-size 16 or 24",
    ),
    ({"record": {"frame_size": 7}}, "--record.frame-size 7: .* --frame-size 8, or change backbone.strides"),
    (
        {"record": {"frame_size": 24}, "prior": {"model": {"patch": 2}}},
        "--record.frame-size 24: .* grid of 3x3 tokens .* --prior.model.patch 2 does not divide: "
        "record with --frame-size 16 or 32, or take --prior.model.patch 1$",
    ),
    (
        {
            "record": {"frame_size": 4},
            "vqvae": {
                "model": {"backbone": {"patch": 2, "strides": [2, 2, 2], "widths": [8]}},
                "adversarial": {"kind": "PatchDiscriminator3D"},
            },
        },
        "--record.frame-size 4: vqvae.adversarial takes frames of 8x8 or more",
    ),
    # How many episodes, and how long they are.
    (
        {"record": {"steps": 3}},
        "--record.steps 3: .* 4 frames, and --vqvae.latent-steps 3 .* 4 steps, or .* 2",
    ),
    (
        {"record": {"steps": 5}},
        "6 frames, and --prior.latent-steps 4 .* of 7: .* at least 6 steps, or lower .* to 3",
    ),
    (
        {"record": {"held_out_every": 0}},
        "held-out-every 0 of .*episodes 6 holds no episode out.*: take 2 to 6",
    ),
    (
        {"record": {"held_out_every": 7}},
        "held-out-every 7 of .*episodes 6 holds no episode out.*: take 2 to 6",
    ),
    ({"record": {"held_out_every": 1}}, "holds every episode out and leaves none to train on: take 2 to 6"),
    ({"record": {"episodes": 1}}, "of --record.episodes 1 holds no episode out.*: record at least 2 episodes"),
    (
        {"prior": {"segments": {"latent_steps": 3}}},
        "--prior.segments.latent-steps 3 .* take at least 4",
    ),
    (
        {"vqvae": {"model": {"quantizer": {"codebook_size": 4096}}}},
        "4 training episodes give 1008 latents to start the 4096 codes .*: record more, or take at most 1008 codes",
    ),
    # Batches, stages that come later, and what they name.
    (
        {"vqvae": {"train": {"accumulate": 3}}},
        "--vqvae.train.batch: a batch of 4 .* multiple of 3",
    ),
    (
        {"prior": {"train": {"accumulate": 3}}},
        "--prior.train.batch: a batch of 4 .* multiple of 3",
    ),
    (
        {"vqvae": {"train": {"accumulate": 2}, "stills": {"per_batch": 3}}},
        "--vqvae.stills.per-batch: a batch of 3 clips cannot be split",
    ),
    (
        {"sampling": {"guidance": 2.0}, "prior": {"model": {"action_dropout": 0.0}}},
        "--sampling.guidance: .* 2.0",
    ),
    ({"agent": {"context": 4}}, "--agent.context: a context of 4 latent steps, the prior looks back over 3"),
    ({"vqvae": {"stills": {"per_batch": 4, "folder": "nowhere"}}}, "nowhere: no such folder"),
    ({"vqvae": {"perceptual": {"kind": "VGG16", "weights": "nowhere"}}}, "no VGG16 weights nowhere"),
    ({"vqvae": {"init": "nowhere"}}, "nowhere: .*expected a saved vqvae"),
    ({"prior": {"init": "nowhere"}}, "nowhere: .*expected a saved"),
    (
        {"vqvae": {"model": {"quantizer": {"kind": "Outside", "name": "x", "codebook_size": 8, "dim": 2}}}},
        "pass the module",
    ),
]


@pytest.mark.parametrize(("changes", "message"), MISFITS, ids=[str(changes) for changes, _ in MISFITS])
def test_settings_that_do_not_fit_are_refused_before_anything_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    pytest.importorskip("torchvision")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as refused:
        train_vqvae.open_store(settings(tmp_path, changes), "vqvae", "prior")
    assert re.search(message, str(refused.value)), refused.value
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("lengths", "stage", "message"),
    [
        (
            {"train": 3, "held_out": 24},
            "vqvae",
            "data: the longest train episode has 4 frames, .* or .* 2",
        ),
        ({"train": 24, "held_out": 3}, "vqvae", "data: the longest held_out episode has 4 frames"),
        (
            {"train": 24, "held_out": 5},
            "prior",
            "held_out episode has 6 frames, .* lower --prior.latent-steps to 3",
        ),
        (
            {"train": 24, "held_out": 0},
            "prior",
            "data: of its 2 episodes none is held out, .* record 3 or more",
        ),
        (
            {"train": 0, "held_out": 24},
            "vqvae",
            "data: of its 1 episodes all are held out, .* record 3 or more",
        ),
        ({"train": 24, "held_out": 0, "held_out_every": 0}, "vqvae", "into another folder with --held-out-every 6"),
    ],
)
def test_episodes_that_a_training_cannot_use_are_refused_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lengths: dict[str, int], stage: str, message: str
) -> None:
    cfg, store = tiny_experiment(tmp_path), short_store(tmp_path / "data", **lengths)
    tiny_vqvae().save_pretrained(vqvae_folder(cfg))
    for module in (tokenizer, prior):
        monkeypatch.setattr(module, "make_accelerator", lambda *_, **__: pytest.fail("began"))
    train = {"vqvae": tokenizer.train_vqvae, "prior": prior.train_prior}[stage]
    with pytest.raises(InputError) as refused:
        train(cfg, store)
    assert re.search(message, str(refused.value)), refused.value


def test_a_tokenizer_of_other_frames_is_refused_before_anything_is_encoded(tmp_path: Path) -> None:
    cfg, store = tiny_experiment(tmp_path), tiny_store(tmp_path / "data")
    cfg.vqvae.model.build((24, 24)).save_pretrained(vqvae_folder(cfg))
    with pytest.raises(InputError, match=r"data: frames of 16, but the tokenizer takes 24: name the store"):
        prior.train_prior(cfg, store)
    assert not (tmp_path / "data" / "codes").exists()


def test_a_run_that_is_there_is_refused_before_episodes_are_recorded(tmp_path: Path) -> None:
    cfg = settings(tmp_path, {})
    (cfg.folder / "vqvae" / "checkpoints" / "step-00000003").mkdir(parents=True)
    with pytest.raises(InputError, match=r"tiny/vqvae holds a run already: go on with --resume"):
        train_vqvae.open_store(cfg, "vqvae", "prior", resume=False)
    assert not (tmp_path / "data").exists()


def test_a_prior_that_the_tokenizer_to_come_does_not_fit_is_refused_before_that_is_trained(tmp_path: Path) -> None:
    world = tiny_world(dim=16, layers=2)
    world.save_pretrained(tmp_path / "other")
    cfg = settings(tmp_path, {"prior": {"init": str(tmp_path / "other")}})
    with pytest.raises(InputError, match=r"speaks the codes of .*, this one those of one that is yet to be trained"):
        check_settings(cfg, "vqvae", "prior")
    world.vqvae.save_pretrained(tmp_path / "tokenizer")
    goes_on = replace(cfg, vqvae=replace(cfg.vqvae, init=tmp_path / "tokenizer"))
    check_settings(goes_on, "vqvae", "prior")
    wider = replace(goes_on, prior=replace(cfg.prior, model=replace(cfg.prior.model, dim=32)))
    with pytest.raises(InputError, match=r"prior.init: no matrix of the prior"):
        check_settings(wider, "vqvae", "prior")


def test_checks_leave_no_weights_in_memory_and_draw_no_random_numbers(tmp_path: Path) -> None:
    cfg = settings(tmp_path, {})
    before = torch.get_rng_state()
    assert all(p.is_meta for p in checks._check_vqvae(cfg, checks.planned(cfg.record)).parameters())
    assert all(p.is_meta for p in checks._check_prior(cfg, checks.planned(cfg.record), None, None).parameters())
    assert torch.equal(torch.get_rng_state(), before)


def test_the_checkpoints_of_all_stages_must_fit_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = settings(tmp_path, {})
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 500_000}))
    check_settings(cfg, "vqvae")
    with pytest.raises(DiskError, match=r"checkpoints of vqvae and prior need 0.\d MiB, 0.5 MiB are free: make room"):
        check_settings(cfg, "vqvae", "prior")


# ---------------------------------------------------------------- agents


def test_an_agent_needs_actions_that_it_can_choose_and_rewards_and_a_context_that_fits(tmp_path: Path) -> None:
    cfg, store = tiny_experiment(tmp_path), tiny_store(tmp_path / "data")
    nested = ActionSpace.from_json({"kind": "tuple", "spaces": [FIVE.to_json(), FIVE.to_json()]})
    nested_store = Store(store.path, replace(store.meta, action_space=nested), store.entries)
    check_store(cfg, nested_store, "vqvae", "prior")
    with pytest.raises(InputError, match=r"agents choose from Box, Discrete, MultiDiscrete or MultiBinary"):
        check_store(cfg, nested_store, "vqvae", "prior", "agent")
    no_actions = ActionSpace.from_gymnasium(spaces.Box(0, 1, (0,)))
    with pytest.raises(InputError, match=r"there are no actions, so nothing that an agent could choose"):
        check_store(cfg, Store(store.path, replace(store.meta, action_space=no_actions), store.entries), "agent")
    longer = replace(cfg, agent=replace(cfg.agent, context=13))
    with pytest.raises(InputError, match=r"longest train episode has 25 frames, and --agent.context 13 needs 26"):
        check_store(longer, store, "agent")
    with StoreWriter.open(tmp_path / "none", store.meta) as writer:
        silent = replace(tiny_episode(24, 1), rewards=tiny_episode(24, 1).rewards * 0)
        writer.add(0, silent, "train")
    with pytest.raises(InputError, match=r"no reward in the 1 training episodes of .*none: nothing to learn"):
        check_store(cfg, Store.open(tmp_path / "none"), "agent")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PPOConfig(batch=1), r"agent.ppo.batch is 1, expected at least 2"),
        (lambda: PPOConfig(rollout=0), r"agent.ppo.rollout is 0, expected at least 1"),
        (lambda: PPOConfig(discount=1.5), r"agent.ppo.discount is 1.5, expected 0 .. 1"),
        (lambda: PPOConfig(clip=0.0), r"agent.ppo.clip is 0.0, expected more than 0"),
        (lambda: AgentStage(num_envs=1, ppo=PPOConfig(rollout=1)), r"at least 2 steps"),
        (lambda: TrainConfig(learning_rate=-1.0), r"train.learning_rate is -1.0, expected at least 0"),
        (lambda: TrainConfig(betas=(0.9, 1.0)), r"train.betas are \(0.9, 1.0\), expected 0 <= beta < 1"),
    ],
)
def test_settings_of_learning_that_torch_or_sb3_would_refuse_are_refused_as_they_are_read(
    make: Callable[[], object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        make()


# ---------------------------------------------------------------- names and folders


@pytest.mark.parametrize("name", ["", ".", "/elsewhere", "../elsewhere", "a/../../b", "a\0b", "a\nb"])
def test_a_name_that_leads_out_of_the_runs_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"is no folder inside of runs: take a name such as car_racing"):
        Experiment(name=name)


def test_a_name_may_be_a_folder_in_a_folder() -> None:
    assert Experiment(name="pong/seed1").folder == Path("runs/pong/seed1")


def test_a_folder_that_cannot_be_written_is_known_before_and_nothing_is_left_in_one_that_can(tmp_path: Path) -> None:
    check_writable(tmp_path / "runs" / "mine")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "runs").touch()
    with pytest.raises(DiskError, match=r"runs/mine: cannot be written \(Not a directory\)"):
        check_writable(tmp_path / "runs" / "mine")
    cfg = replace(settings(tmp_path, {}), runs=tmp_path / "runs")
    with pytest.raises(DiskError, match=r"runs/tiny/vqvae: cannot be written"):
        check_settings(cfg, "vqvae", "prior")


def test_a_record_config_of_its_own_is_not_looked_at_where_there_is_a_store(tmp_path: Path) -> None:
    cfg = tiny_experiment(tmp_path)
    store = tiny_store(tmp_path / "data")
    strange = replace(cfg, record=RecordConfig(env="TinyWorld", out=store.path, frame_size=70, steps=1, episodes=6))
    assert train_vqvae.open_store(strange, "vqvae", "prior").digest == store.digest
