"""Verification: everything intact is ok, everything damaged is named, nothing is written, nothing hostile does harm."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays
from safetensors.torch import load as load_tensors
from stores import flip, make_episode, make_meta, make_store
from stub_envs import SamplePolicy, StubEnv
from tiny_models import tiny_experiment, tiny_store, tiny_vqvae, tiny_world

from vqvideo import verification
from vqvideo.data.clips import Clips
from vqvideo.data.collect import collect
from vqvideo.data.playing import episode_seeds
from vqvideo.data.store import Store, StoreWriter
from vqvideo.errors import InputError
from vqvideo.experiment.config import Experiment, vqvae_folder, world_folder
from vqvideo.experiment.prior import train_prior
from vqvideo.experiment.tokenizer import train_vqvae
from vqvideo.scripts.shipping import export_world, rounded
from vqvideo.storage import files
from vqvideo.storage.checkpoint import latest_training, model_tensors, save_model, tensor_bytes
from vqvideo.storage.locks import FolderLock
from vqvideo.verification import Report, Thing, lines_of, verify
from vqvideo.verification.memory import memory_limit

# ---------------------------------------------------------------- what is checked


STORE = "data"
TOKENIZER = "runs/tiny/vqvae/model"
WORLD = "runs/tiny/world"
STAGE = "runs/tiny/prior"
CHECKPOINT = "runs/tiny/prior/checkpoints/step-00000008"
SHIPPED = "shipped"


class Home(NamedTuple):
    """A folder in which everything is intact, and another run of the same kinds."""

    path: Path
    cfg: Experiment
    other: Path


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A trained experiment, a shipped world, an agent, the log of an improvement run, figures; and what has the same
    kinds and another content.
    """
    path, other = (tmp_path_factory.mktemp(name) for name in ("home", "other"))
    store, cfg = tiny_store(path / "data"), tiny_experiment(path)
    train_vqvae(cfg, store)
    train_prior(cfg, store)
    make_store(other / STORE, (24,) * 7)
    tiny_vqvae(stride=1).save_pretrained(other / TOKENIZER)
    tiny_world(stride=1).save_pretrained(other / WORLD)
    shutil.copytree(path / "runs/tiny/vqvae/checkpoints/step-00000006", other / CHECKPOINT)
    shutil.copytree(next((path / "data/codes").glob("*-held_out-*")), other / "data/codes/0-train-0")
    settings = (path / STAGE / "config.yaml").read_text()
    (other / STAGE / "config.yaml").write_text(settings.replace("window: 3", "window: 4"))
    (cfg.folder / "evaluation.json").write_text('{"psnr": 20.5}\n')
    world = rounded(tiny_world())
    starts = Clips(store, "held_out", world.vqvae.clip_length(3))
    export_world(world, path / "shipped", starts, starts.spread(2).tolist(), "# A world\n")
    save_model(path / "improved" / "round_0" / "agent" / "model", "toy", {}, {"weight": torch.ones(2)})
    digest = files.read_manifest(path / "improved" / "round_0" / "agent" / "model").digest
    rounds = [
        {"round": 0, "episodes": {"first": 0, "last": 3}},
        {"round": 1, "episodes": {"first": 4, "last": 5, "digest": digest}},
    ]
    (path / "improved" / "rounds.json").write_text(json.dumps({"settings": {}, "rounds": rounds}))
    return Home(path, cfg, other)


@pytest.fixture
def copy(home: Home, tmp_path: Path) -> Callable[[str], Path]:
    """Copies a part of the intact folder, by its path in there."""

    def copied(part: str) -> Path:
        shutil.copytree(home.path / part, tmp_path / part, dirs_exist_ok=True)
        return tmp_path / part

    return copied


def only(report: Report, kind: str) -> Thing:
    (thing,) = (thing for thing in report.things if thing.kind == kind)
    return thing


def damage_of(folder: Path, **options: bool) -> dict[str, str]:
    """What is damaged under a folder, by the path of the file from there."""
    found: dict[str, str] = {}
    for thing in verify([folder], **options).things:
        for remark in thing.damage:
            found.setdefault(str((thing.path / remark.where).relative_to(folder)), remark.what)
    return found


def notes_of(folder: Path) -> str:
    """All notes under a folder, as they are printed."""
    return "\n".join(line for line in lines_of(verify([folder])) if "note" in line or "->" in line)


def snapshot(folder: Path) -> dict[Path, Any]:
    """Everything below a folder that a writer could change, the times of all changes included."""
    found: dict[Path, Any] = {}
    for path in sorted([folder, *folder.rglob("*")]):
        stat = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else None
        found[path] = (stat.st_mode, stat.st_mtime_ns, stat.st_ino, content)
    return found


# ---------------------------------------------------------------- intact


def test_everything_that_is_intact_is_ok_and_nothing_is_written(home: Home) -> None:
    before = snapshot(home.path)
    for deep in (False, True):
        report = verify([home.path], deep=deep)
        assert report.damaged == ()
        kinds = sorted(thing.kind for thing in report.things)
        checkpoints, codes, stages = ["checkpoint"] * 4, ["codes"] * 2, ["training"] * 2
        models = ["model", "shipped world", "tokenizer", "world"]
        assert kinds == sorted([*checkpoints, *codes, *stages, *models, "report", "rounds", "store", "store"])
        notes = [remark.what for thing in report.things for remark in thing.notes]
        assert notes == ["a toy, which this version does not know: only its files were checked"]
        assert report.leftovers == ()
    assert snapshot(home.path) == before


def test_a_line_for_each_thing_and_a_summary_are_printed(home: Home) -> None:
    lines = list(lines_of(verify([home.path / "data", home.path / TOKENIZER])))
    assert lines[0] == f"ok        store          {home.path / 'data'}  (6 episodes, 150 frames)"
    assert lines[-1] == "4 things checked, 0 damaged, 0 notes"
    assert sum(line.startswith("ok ") for line in lines) == 4


def test_findings_are_plain_json(home: Home) -> None:
    report = verify([home.path])
    found = json.loads(json.dumps(report.to_json()))
    assert (found["checked"], found["damaged"]) == (len(report.things), 0)
    assert {"kind", "path", "about", "damage", "notes"} == found["things"][0].keys()


def test_deep_loads_an_agent(tmp_path: Path) -> None:
    agents = pytest.importorskip("vqvideo.agents.agent")
    agents.Agent.untrained((36, 36), make_meta().action_space).save(tmp_path / "agent")
    assert only(verify([tmp_path], deep=True), "agent").damage == []
    config = json.loads((tmp_path / "agent" / "config.json").read_text()) | {"frame_size": [48, 48]}
    tensors = {"policy": torch.zeros(2)}
    save_model(tmp_path / "agent", "agent", {k: v for k, v in config.items() if "format" not in k}, tensors)
    assert "does not fit its config" in damage_of(tmp_path / "agent", deep=True)["config.json"]


# ---------------------------------------------------------------- damaged files


FILES = [
    (STORE, "meta.json"),
    (STORE, "manifest.jsonl"),
    (STORE, "episodes/000001.safetensors"),
    (TOKENIZER, "config.json"),
    (TOKENIZER, "model.safetensors"),
    (TOKENIZER, "manifest.json"),
    (WORLD, "config.json"),
    (WORLD, "model.safetensors"),
    (WORLD, "manifest.json"),
    (CHECKPOINT, "model.safetensors"),
    (CHECKPOINT, "optimizer.safetensors"),
    (CHECKPOINT, "average.safetensors"),
    (CHECKPOINT, "manifest.json"),
    ("data/codes/*-train-*", "codes.safetensors"),
    ("data/codes/*-train-*", "manifest.json"),
    (STAGE, "config.yaml"),
    (SHIPPED, "model.safetensors"),
    (SHIPPED, "starts/episodes/000000.safetensors"),
]


def truncate(file: Path, other: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def empty(file: Path, other: Path) -> None:
    os.truncate(file, 0)


def delete(file: Path, other: Path) -> None:
    file.unlink()


def exchange(file: Path, other: Path) -> None:
    shutil.copy(other, file)


def flip_a_bit(file: Path, other: Path) -> None:
    # Of the settings only those can be told to be wrong that the checkpoints know too.
    flip(file, file.read_bytes().index(b"window: 3") + 8 if file.suffix == ".yaml" else file.stat().st_size // 2)


@pytest.mark.parametrize("harm", [flip_a_bit, truncate, empty, delete, exchange], ids=lambda harm: harm.__name__)
@pytest.mark.parametrize(("part", "name"), FILES, ids=lambda value: value.replace("/", "-"))
def test_a_damaged_file_is_named(
    home: Home, copy: Callable[[str], Path], part: str, name: str, harm: Callable[[Path, Path], None]
) -> None:
    part, elsewhere = (
        next(str(p.relative_to(root)) for p in root.glob(pattern))
        for root, pattern in ((home.path, part), (home.other, WORLD if part == SHIPPED else part))
    )
    folder, other = copy(part), home.other / elsewhere / name.removeprefix("starts/")
    if "starts/" in name:
        other = home.other / STORE / name.removeprefix("starts/")
    assert damage_of(folder) == {}
    harm(folder / name, other)
    damage = {file.partition(" line ")[0] for file in damage_of(folder)}
    if harm is exchange and "manifest" in name:
        # One that is intact in itself: what it lists is not there.
        assert damage
    else:
        assert damage == {name}


def test_all_damage_is_listed_and_not_only_the_first(copy: Callable[[str], Path]) -> None:
    data = copy(STORE)
    flip(data / "episodes" / "000001.safetensors", -1)
    (data / "episodes" / "000004.safetensors").unlink()
    lines = (data / "manifest.jsonl").read_bytes().split(b"\n")
    (data / "manifest.jsonl").write_bytes(b"\n".join([*lines[:2], lines[2].replace(b"1", b"2"), *lines[3:]]))
    damage = damage_of(data)
    assert set(damage) == {
        "manifest.jsonl line 3",
        "episodes/000001.safetensors",
        "episodes/000004.safetensors",
    }
    assert "sha256 is" in damage["episodes/000001.safetensors"]
    assert "(episode 1, seed 2)" in damage["episodes/000001.safetensors"]
    assert damage["episodes/000004.safetensors"].startswith("is missing")
    assert "digest mismatch" in damage["manifest.jsonl line 3"]


def test_lost_lines_are_found(copy: Callable[[str], Path]) -> None:
    data = copy(STORE)
    lines = (data / "manifest.jsonl").read_bytes().splitlines(keepends=True)
    (data / "manifest.jsonl").write_bytes(b"".join(lines[:3]))
    assert damage_of(data) == {"manifest.jsonl": "names 3 episodes, but 3 more are in episodes: lines were lost"}


def test_an_episode_that_two_lines_name_is_found(copy: Callable[[str], Path]) -> None:
    data = copy(STORE)
    text = (data / "manifest.jsonl").read_bytes()
    (data / "manifest.jsonl").write_bytes(text + text.splitlines(keepends=True)[1])
    assert damage_of(data) == {"manifest.jsonl": "episode 1 is recorded twice"}


def test_an_episode_in_the_place_of_another_is_found_though_its_digest_fits(tmp_path: Path) -> None:
    make_store(tmp_path, (8, 9))
    one = (tmp_path / "episodes" / "000000.safetensors").read_bytes()
    (tmp_path / "episodes" / "000001.safetensors").write_bytes(one)
    lines = [json.loads(line) for line in (tmp_path / "manifest.jsonl").read_text().splitlines()]
    lines[1] |= {"sha256": lines[0]["sha256"], "bytes": lines[0]["bytes"]}
    sealed = [files.seal({k: v for k, v in line.items() if k != "digest"}, 16) for line in lines]
    (tmp_path / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in sealed))
    assert (
        "holds another episode than the store says: steps 8, expected 9; seed 0, expected 1"
        in (damage_of(tmp_path)["episodes/000001.safetensors"])
    )


def test_deep_finds_frames_that_cannot_be_decoded_though_the_digest_fits(tmp_path: Path) -> None:
    store = make_store(tmp_path, (20, 20))
    file = tmp_path / store.entries[1].file
    data = file.read_bytes()
    # The magic number of zstd; it begins the first chunk.
    file.write_bytes(data.replace(b"\x28\xb5\x2f\xfd", b"\x28\xb5\x2f\xfe", 1))
    record = {k: v for k, v in vars(store.entries[1]).items()} | {"sha256": files.sha256_file(file)}
    first = (tmp_path / "manifest.jsonl").read_text().splitlines()[0]
    (tmp_path / "manifest.jsonl").write_text(first + "\n" + json.dumps(files.seal(record, 16)) + "\n")
    assert damage_of(tmp_path) == {}
    assert "chunk" in damage_of(tmp_path, deep=True)["episodes/000001.safetensors"]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda lines: [*lines[:4], lines[4][:-9] + "\n", *lines[5:]], "line 5: not valid JSON"),
        (lambda lines: [*lines[:4], "[1]\n", *lines[5:]], "line 5: has no step or no split"),
        (lambda lines: [lines[5], *lines], "is of step 1 after one of step 5: one of the two is damaged"),
        (lambda lines: [lines[0], *lines], "is of step 1 after one of step 1"),
        (lambda lines: ["\0" * 3000 + "\n", *lines], "line 1: not valid JSON"),
    ],
)
def test_a_damaged_line_of_the_metrics_is_named(
    copy: Callable[[str], Path], change: Callable[[list[str]], list[str]], complaint: str
) -> None:
    stage = copy(STAGE)
    lines = (stage / "metrics.jsonl").read_text().splitlines(keepends=True)
    (stage / "metrics.jsonl").write_text("".join(change(lines)))
    assert complaint in "".join(f"{file}: {what}" for file, what in damage_of(stage).items())


def test_metrics_that_are_missing_are_named(copy: Callable[[str], Path]) -> None:
    stage = copy(STAGE)
    (stage / "metrics.jsonl").unlink()
    assert damage_of(stage) == {"metrics.jsonl": "is missing"}


def test_weights_that_are_not_finite_are_damage_though_their_digests_fit(tmp_path: Path, home: Home) -> None:
    for number, value in enumerate((torch.nan, torch.inf, -torch.inf)):
        vqvae = tiny_vqvae()
        vqvae.encoder.layers[0].project.weight[0, 0] = value  # type: ignore[index,union-attr]
        vqvae.save_pretrained(tmp_path / f"model_{number}")
        damage = damage_of(tmp_path / f"model_{number}")
        assert "the weights are not finite: encoder.layers.0.project.weight" in damage["model.safetensors"]
    manifest = files.read_manifest(home.path / CHECKPOINT)
    contents: dict[str, Any] = {name: (home.path / CHECKPOINT / name).read_bytes() for name in manifest.files}
    for part in ("model", "optimizer", "average"):
        tensors = load_tensors(contents[f"{part}.safetensors"])
        next(t for t in tensors.values() if t.is_floating_point() and t.ndim > 1)[-1, -1] = torch.nan
        own = contents | {f"{part}.safetensors": tensor_bytes(tensors)}
        files.commit_folder(tmp_path / "step-00000008", own, manifest.info, replace=True)
        assert set(damage_of(tmp_path / "step-00000008")) == {f"{part}.safetensors"}
    shutil.copytree(home.path / CHECKPOINT, tmp_path / "checkpoints" / "step-00000008")
    files.commit_folder(tmp_path / "checkpoints" / "step-00000009", own, manifest.info | {"step": 9})
    remedy = verify([tmp_path / "checkpoints"]).damaged[0].damage[0].remedy
    assert remedy == "remove the folder; --resume then goes on from step-00000008"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_float_type_is_looked_at(tmp_path: Path, dtype: torch.dtype) -> None:
    largest = torch.full((3, 5), torch.finfo(dtype).max, dtype=dtype)
    smallest = torch.full((2,), torch.finfo(dtype).smallest_normal, dtype=dtype) / 2
    fine = {"large": largest, "small": smallest, "negative": -largest, "counts": torch.full((4,), -1)}
    save_model(tmp_path / "fine", "agent", {}, fine)
    assert damage_of(tmp_path / "fine") == {}
    for number, value in enumerate((torch.nan, torch.inf, -torch.inf)):
        odd = largest.clone()
        odd[2, 4] = value
        save_model(tmp_path / f"{number}", "agent", {}, fine | {"large": odd})
        assert "not finite: large." in damage_of(tmp_path / f"{number}")["model.safetensors"]


def test_a_quantizer_from_elsewhere_may_hold_infinities(tmp_path: Path) -> None:
    config = {"model": {"quantizer": {"kind": "Outside", "name": "their.VQ", "codebook_size": 16, "dim": 4}}}
    plain = tiny_vqvae().config()["model"] | config["model"]
    tensors = {"quantizer.least": torch.tensor(torch.inf), "encoder.weight": torch.ones(2)}
    save_model(tmp_path / "model", "vqvae", {"model": plain, "frame_size": [16, 16]}, tensors)
    report = verify([tmp_path], deep=True)
    assert report.damaged == ()
    assert "not loaded: its quantizer their.VQ is none of vqvideo's" in notes_of_report(report)
    tensors["encoder.weight"][0] = torch.inf
    save_model(tmp_path / "model", "vqvae", {"model": plain, "frame_size": [16, 16]}, tensors)
    assert "encoder.weight" in damage_of(tmp_path / "model")["model.safetensors"]


def notes_of_report(report: Report) -> str:
    return "\n".join(remark.what for thing in report.things for remark in thing.notes)


def test_a_world_whose_tokenizer_is_another_is_damage(tmp_path: Path) -> None:
    world, other = tiny_world(), tiny_vqvae(seed=5)
    tensors = model_tensors(world) | {f"vqvae.{name}": value for name, value in model_tensors(other).items()}
    save_model(tmp_path / "world", "world", world.config(), tensors)
    damage = damage_of(tmp_path / "world")
    assert f"the one inside is {other.fingerprint()[:16]}" in damage["model.safetensors"]
    save_model(tmp_path / "world", "world", world.config(), model_tensors(world))
    assert damage_of(tmp_path / "world", deep=True) == {}


def test_tensors_that_do_not_fit_the_config_are_found_by_deep(tmp_path: Path) -> None:
    vqvae = tiny_vqvae()
    tensors = {name: value for name, value in model_tensors(vqvae).items() if name != "variance"}
    save_model(tmp_path / "model", "vqvae", vqvae.config(), tensors)
    assert damage_of(tmp_path / "model") == {}
    assert "missing variance" in damage_of(tmp_path / "model", deep=True)["model.safetensors"]


@pytest.mark.parametrize("version", [0, 4, True, "3", None])
def test_a_format_that_this_version_does_not_read_is_named(tmp_path: Path, version: Any) -> None:
    config = {"format": "vqvideo-vqvae", "format_version": version, **tiny_vqvae().config()}
    contents = {"config.json": json.dumps(config).encode(), "model.safetensors": tensor_bytes({"a": torch.ones(1)})}
    files.commit_folder(tmp_path / "model", contents, {"kind": "vqvae"})
    assert "format" in damage_of(tmp_path / "model")["config.json"]


def test_start_clips_of_another_environment_are_damage(home: Home, tmp_path: Path) -> None:
    shutil.copytree(home.path / SHIPPED, tmp_path / "world")
    shutil.rmtree(tmp_path / "world" / "starts")
    make_store(tmp_path / "world" / "starts", (8,), "held_out")
    assert damage_of(tmp_path / "world") == {
        "starts": "the world's frame size is (16, 16), that of its start clips is (4, 6)"
    }


def test_codes_outside_the_codebook_are_damage_where_the_tokenizer_is_known(home: Home, tmp_path: Path) -> None:
    shutil.copytree(home.path / "data", tmp_path / "data")
    cache = next((tmp_path / "data" / "codes").glob("*-train-*"))
    arrays = read_arrays(cache / "codes.safetensors")
    arrays["codes"][3, 1, 1] = 16
    recommit(cache, arrays)
    assert damage_of(tmp_path / "data") == {}
    shutil.copytree(home.path / TOKENIZER, tmp_path / "model")
    (what,) = damage_of(tmp_path).values()
    assert what == "holds code 16, but its tokenizer has codes 0 .. 15"


def read_arrays(file: Path) -> dict[str, Any]:
    return {name: array.copy() for name, array in load_arrays(file.read_bytes()).items()}


def recommit(cache: Path, arrays: dict[str, Any]) -> None:
    info = files.read_manifest(cache).info
    files.commit_folder(cache, {"codes.safetensors": save_arrays(arrays)}, info, replace=True)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda a: a | {"codes": a["codes"] - 20}, "a code is -"),
        (lambda a: a | {"rewards": a["rewards"][1:]}, "do not agree in length"),
        (lambda a: a | {"starts": a["starts"][:-1]}, "do not agree in length"),
        (lambda a: a | {"starts": a["starts"] + 1}, "do not cover"),
        (lambda a: a | {"starts": a["starts"][::-1].copy()}, "do not cover"),
        (lambda a: a | {"actions": a["actions"] * np.float32(np.nan)}, "not finite: actions"),
        (lambda a: a | {"codes": a["codes"].astype(np.int64)}, "codes is I64"),
        (lambda a: {name: a[name] for name in a if name != "firsts"}, "expected"),
    ],
)
def test_arrays_of_a_cache_that_do_not_fit_each_other_are_damage(
    copy: Callable[[str], Path], change: Callable[[dict[str, Any]], dict[str, Any]], complaint: str
) -> None:
    cache = next((copy(STORE) / "codes").glob("*-train-*"))
    recommit(cache, change(read_arrays(cache / "codes.safetensors")))
    thing = only(verify([cache]), "codes")
    assert complaint in thing.damage[0].what
    assert "remove the folder, and the next training makes it again" in thing.damage[0].remedy


def test_parts_of_a_checkpoint_that_belong_to_another_model_are_damage(home: Home, tmp_path: Path) -> None:
    contents: dict[str, Any] = {
        path.name: path.read_bytes()
        for path in (home.path / CHECKPOINT).iterdir()
        if path.name != "manifest.json"
    }  # fmt: skip
    info = files.read_manifest(home.path / CHECKPOINT).info
    strange = home.path / "runs" / "tiny" / "vqvae" / "checkpoints" / "step-00000008"
    for part in ("average", "optimizer"):
        own = contents | {f"{part}.safetensors": (strange / f"{part}.safetensors").read_bytes()}
        files.commit_folder(tmp_path / "step-00000008", own, info, replace=True)
        assert "does not belong to the model" in damage_of(tmp_path / "step-00000008")[f"{part}.safetensors"]
    files.commit_folder(tmp_path / "step-00000009", contents, info)
    assert "is of step 8" in damage_of(tmp_path / "step-00000009")["manifest.json"]


def test_the_log_of_an_improvement_run_is_checked(copy: Callable[[str], Path]) -> None:
    improved = copy("improved")
    save_model(improved / "round_0" / "agent" / "model", "toy", {}, {"weight": torch.zeros(2)})
    assert "is another agent than the one that played" in notes_of(improved)
    log = json.loads((improved / "rounds.json").read_text())
    (improved / "rounds.json").write_text(json.dumps(log | {"rounds": log["rounds"][1:]}))
    assert "the rounds are not numbered" in damage_of(improved)["rounds.json"]
    (improved / "rounds.json").write_text('{"settings": {}, "rounds"')
    assert "not valid JSON" in damage_of(improved)["rounds.json"]


def test_a_report_that_cannot_be_read_is_damage_beside_a_run_only(home: Home, tmp_path: Path) -> None:
    shutil.copytree(home.path / "runs", tmp_path / "runs")
    (tmp_path / "runs" / "tiny" / "evaluation.json").write_text('{"psnr": ')
    assert "not valid JSON" in damage_of(tmp_path)["runs/tiny/evaluation.json"]
    make_store(tmp_path / "elsewhere" / "data", (8,))
    (tmp_path / "elsewhere" / "results.json").write_text("somebody's own notes")
    assert damage_of(tmp_path / "elsewhere") == {}


# ---------------------------------------------------------------- what to do


def test_a_damaged_newest_checkpoint_says_where_resume_goes_on(copy: Callable[[str], Path]) -> None:
    checkpoints = copy(STAGE) / "checkpoints"
    flip(checkpoints / "step-00000008" / "average.safetensors", -1)
    thing = verify([checkpoints]).damaged[0]
    assert thing.damage[0].remedy == "--resume skips it and goes on from step-00000006"
    state = latest_training(checkpoints)
    assert state
    assert state.progress["step"] == 6
    flip(checkpoints / "step-00000006" / "average.safetensors", -1)
    remedies = {remark.remedy for thing in verify([checkpoints]).damaged for remark in thing.damage}
    assert remedies == {"no checkpoint of this run is intact: copy one from elsewhere, or remove them to start anew"}


def test_a_damaged_old_checkpoint_is_not_needed(copy: Callable[[str], Path]) -> None:
    checkpoints = copy(STAGE) / "checkpoints"
    flip(checkpoints / "step-00000006" / "model.safetensors", -1)
    remedy = verify([checkpoints]).damaged[0].damage[0].remedy
    assert remedy == "--resume does not need it, step-00000008 is newer and intact: remove the folder"


def test_what_is_said_about_a_damaged_model_of_a_run_works(home: Home, tmp_path: Path) -> None:
    shutil.copytree(home.path, tmp_path / "home", symlinks=True)
    cfg = replace(home.cfg, runs=tmp_path / "home" / "runs")
    store = Store.open(home.path / "data")
    for folder, train, stage in (
        (vqvae_folder(cfg), train_vqvae, "vqvae"),
        (world_folder(cfg), train_prior, "prior"),
    ):
        intact = (folder / "model.safetensors").read_bytes()
        flip(folder / "model.safetensors", -1)
        remedy = verify([folder]).damaged[0].damage[0].remedy
        assert f"scripts/train_{stage}.py --config {cfg.folder / stage / 'config.yaml'} --resume" in remedy
        shutil.rmtree(folder)
        train(cfg, store, resume=True)
        assert (folder / "model.safetensors").read_bytes() == intact
        assert verify([folder]).damaged == ()


def test_the_settings_of_a_run_come_back_with_resume(home: Home, tmp_path: Path) -> None:
    shutil.copytree(home.path / "runs", tmp_path / "runs")
    cfg = replace(home.cfg, runs=tmp_path / "runs")
    (cfg.folder / "vqvae" / "config.yaml").unlink()
    (thing,) = verify([tmp_path]).damaged
    assert thing.damage[0].remedy == "the same training command with --resume writes it again"
    train_vqvae(cfg, Store.open(home.path / "data"), resume=True)
    assert verify([tmp_path]).damaged == ()


def test_what_is_said_about_a_lost_meta_works(tmp_path: Path) -> None:
    record(tmp_path / "data", 3)
    (tmp_path / "data" / "meta.json").unlink()
    assert "record one episode with the same command" in verify([tmp_path]).damaged[0].damage[0].remedy
    record(tmp_path / "again", 1)
    shutil.copy(tmp_path / "again" / "meta.json", tmp_path / "data")
    assert verify([tmp_path]).damaged == ()


# ---------------------------------------------------------------- notes


def test_harmless_leftovers_are_notes(copy: Callable[[str], Path], tmp_path: Path) -> None:
    data, stage, model = copy(STORE), copy(STAGE), copy(TOKENIZER)
    (data / "episodes" / ".tmp-12345678-000006.safetensors").write_bytes(b"half")
    (data / "episodes" / "000006.safetensors").write_bytes(b"no line names it")
    (data / "episodes" / "mine.txt").write_text("mine")
    (data / ".lock").write_text('{"pid": 1, "host": "elsewhere", "process_start": "1", "since": "yesterday"}')
    with open(data / "manifest.jsonl", "ab") as file:
        file.write(b'{"index": 6, "fi')
    (stage / "checkpoints" / "damaged-step-00000005").mkdir()
    shutil.copytree(stage / "checkpoints" / "step-00000006", stage / "checkpoints" / ".tmp-old-12ab-step-00000007")
    with open(stage / "metrics.jsonl", "a") as file:
        file.write('{"step": 9, "sp')
    (model / "README.md").write_text("# Mine\n")
    (model / "samples.zip").write_bytes(b"zip")
    (tmp_path / "runs" / "latest").symlink_to(tmp_path / "runs" / "tiny")
    (tmp_path / "runs" / "results.json").symlink_to(model / "README.md")
    report = verify([tmp_path])
    assert report.damaged == ()
    notes = "\n".join(lines_of(report))
    for expected in (
        ".tmp-12345678-000006.safetensors: the work of a writer that was interrupted",
        f"{data / '.lock'}: a lock: {data} is being written by process 1 on elsewhere since yesterday",
        "note: episodes/mine.txt: is no episode",
        "damaged-step-00000005: a damaged checkpoint that was set aside",
        ".tmp-old-12ab-step-00000007: step-00000007 as it was before its replacement was interrupted",
        "note: metrics.jsonl: the last line is torn",
        "note: README.md: is not as it was written: somebody edited it",
        "note: samples.zip: is not in the manifest",
        "runs/latest: a link, a pipe or a device: not followed",
        "runs/results.json: a link, a pipe or a device: not followed",
    ):
        assert expected in notes
    # Whoever holds the lock may just be writing them.
    assert "000006.safetensors: no line" not in notes
    (data / ".lock").unlink()
    notes = notes_of(data)
    assert "episodes/000006.safetensors: no line names it" in notes
    assert "manifest.jsonl: the last line is torn" in notes


def test_a_lock_says_whether_its_writer_lives(copy: Callable[[str], Path]) -> None:
    data = copy(STORE)
    with FolderLock(data):
        before = snapshot(data)
        assert f"is being written by process {os.getpid()}" in notes_of(data)
        assert snapshot(data) == before
        held = json.loads((data / ".lock").read_bytes())
    (data / ".lock").write_text(json.dumps(held | {"process_start": "long ago"}))
    assert "a lock that nobody holds any more" in notes_of(data)
    for text in ("[" * 4000, "{}", '{"pid": 1e999, "host": "", "process_start": ""}', "x" * 10_000):
        (data / ".lock").write_text(text)
        os.utime(data / ".lock", (0, 0))
        assert "a lock that nobody holds any more" in notes_of(data)


def test_a_store_that_is_being_recorded_is_no_damage(tmp_path: Path) -> None:
    with StoreWriter.open(tmp_path, make_meta()) as writer:
        assert "no episode was recorded yet" in notes_of(tmp_path)
        for index in range(3):
            writer.add(index, make_episode(8, index), "train")
        # Episodes that arrive between a look at the lines and a look at the contents.
        for name in ("000003", "000004"):
            shutil.copy(tmp_path / "episodes" / "000000.safetensors", tmp_path / "episodes" / f"{name}.safetensors")
        assert damage_of(tmp_path) == {}
    assert set(damage_of(tmp_path)) == {"manifest.jsonl"}


def test_caches_of_what_is_gone_are_notes(home: Home, tmp_path: Path) -> None:
    shutil.copytree(home.path / "data", tmp_path / "data")
    cache = next((tmp_path / "data" / "codes").iterdir())
    assert "is not in the folders that were checked" in notes_of(tmp_path / "data")
    assert "the store that it belongs to is not beside it" in notes_of(cache)
    with StoreWriter.open(tmp_path / "data", Store.open(tmp_path / "data").meta) as writer:
        writer.add(6, Store.open(home.path / "data").episode(Store.open(home.path / "data").entries[0]), "train")
    assert "the store has another content now" in notes_of(tmp_path / "data")


def test_a_cache_of_a_retired_format_is_a_note(copy: Callable[[str], Path]) -> None:
    cache = next((copy(STORE) / "codes").glob("*-train-*"))
    recommit(
        cache, {name: array for name, array in read_arrays(cache / "codes.safetensors").items() if name != "firsts"}
    )
    cache = cache.rename(cache.with_name(cache.name.removesuffix("-v2")))
    assert damage_of(cache) == {}
    assert "of a format that is not read any more" in notes_of(cache)
    flip(cache / "codes.safetensors", -1)
    assert set(damage_of(cache)) == {"codes.safetensors"}


def test_a_world_of_another_tokenizer_than_the_one_beside_it_is_a_note(home: Home, tmp_path: Path) -> None:
    shutil.copytree(home.path / "runs", tmp_path / "runs")
    shutil.rmtree(tmp_path / TOKENIZER)
    shutil.copytree(home.other / TOKENIZER, tmp_path / TOKENIZER)
    assert "train the prior again" in notes_of(tmp_path)
    assert verify([tmp_path]).damaged == ()


def test_metrics_that_end_before_the_checkpoints_are_a_note(copy: Callable[[str], Path]) -> None:
    stage = copy(STAGE)
    lines = (stage / "metrics.jsonl").read_text().splitlines(keepends=True)
    (stage / "metrics.jsonl").write_text("".join(lines[:5]))
    assert "ends with step 4, but there is a checkpoint of step 8" in notes_of(stage)


def test_what_a_writer_replaces_meanwhile_is_checked_again(
    copy: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = copy(CHECKPOINT)
    check, tries = verification._CHECKS["checkpoint"], iter(range(10))

    def replaced_once(path: Path, work: Any) -> Thing:
        if next(tries):
            return check(path, work)
        shutil.copytree(path, path.with_name("new"))
        shutil.rmtree(path)
        thing = check(path, work)
        path.with_name("new").rename(path)
        return thing

    monkeypatch.setitem(verification._CHECKS, "checkpoint", replaced_once)
    assert only(verify([checkpoint]), "checkpoint").notes == []

    def pruned(path: Path, work: Any) -> Thing:
        shutil.rmtree(path)
        return check(path, work)

    monkeypatch.setitem(verification._CHECKS, "checkpoint", pruned)
    report = verify([checkpoint])
    assert report.damaged == ()
    assert "was replaced or removed while it was checked" in notes_of_report(report)


def test_a_disk_that_cannot_be_read_is_damage(copy: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model, sha256 = copy(TOKENIZER), files.sha256_file

    def bad_sector(path: files.AnyPath) -> str:
        if Path(path).name == "model.safetensors":
            raise OSError(5, "Input/output error", str(path))
        return sha256(path)

    monkeypatch.setattr(files, "sha256_file", bad_sector)
    assert damage_of(model) == {"model.safetensors": "cannot be read (Input/output error)"}


# ---------------------------------------------------------------- repair


def record(path: Path, episodes: int) -> None:
    """What `scripts/record.py` does, of a stub."""
    meta = make_meta(frame_size=(8, 8), env_spec=None, seed=3, held_out_every=3)
    with StoreWriter.open(path, meta) as writer:
        collect(
            partial(StubEnv, length=6), SamplePolicy, writer, episodes=episodes, max_steps=5, frame_size=(8, 8), seed=3,
            held_out_every=3, workers=0, progress=False,
        )  # fmt: skip


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    record(tmp_path / "data", 6)
    return tmp_path / "data"


def harm_episodes(data: Path) -> None:
    flip(data / "episodes" / "000001.safetensors", -1)
    (data / "episodes" / "000005.safetensors").unlink()


def harm_lines(data: Path) -> None:
    text = (data / "manifest.jsonl").read_bytes()
    (data / "manifest.jsonl").write_bytes(text.replace(b'"seed"', b'"seex"', 1).replace(b'"train"', b'"trail"', 2))


def harm_by_losing_lines(data: Path) -> None:
    lines = (data / "manifest.jsonl").read_bytes().splitlines(keepends=True)
    (data / "manifest.jsonl").write_bytes(b"".join(lines[1:4]))


def harm_by_doubling(data: Path) -> None:
    text = (data / "manifest.jsonl").read_bytes()
    (data / "manifest.jsonl").write_bytes(text + text.splitlines(keepends=True)[2] + b'{"torn')


HARMS = [harm_episodes, harm_lines, harm_by_losing_lines, harm_by_doubling]


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
def test_recording_again_after_a_repair_gives_the_same_store(recorded: Path, harm: Callable[[Path], None]) -> None:
    digest = Store.open(recorded).digest
    contents = {path.name: path.read_bytes() for path in (recorded / "episodes").iterdir()}
    harm(recorded)
    assert verify([recorded]).damaged
    report = verify([recorded], repair=True)
    assert report.damaged == ()
    assert "repaired: " in notes_of_report(report)
    assert not (recorded / ".lock").exists()
    record(recorded, 6)
    assert Store.open(recorded).digest == digest
    assert {name: (recorded / "episodes" / name).read_bytes() for name in contents} == contents
    assert verify([recorded], deep=True).damaged == ()


def test_a_repair_keeps_what_was_damaged_and_does_not_touch_what_is_intact(recorded: Path) -> None:
    harm_episodes(recorded)
    damaged = (recorded / "episodes" / "000001.safetensors").read_bytes()
    before = snapshot(recorded / "episodes")
    verify([recorded], repair=True)
    assert (recorded / "episodes" / "damaged-000001.safetensors").read_bytes() == damaged
    after = snapshot(recorded / "episodes")
    assert all(after[path] == before[path] for path in after if path.name.startswith("0"))
    notes = notes_of(recorded)
    assert "no episode 1 of 0 .. 4" in notes
    assert "python scripts/record.py --env Tiny-v0" in notes
    assert "damaged-000001.safetensors: was set aside as damaged" in notes


def test_nothing_is_repaired_where_nothing_is_damaged_or_unasked(recorded: Path) -> None:
    before = snapshot(recorded)
    verify([recorded], repair=True)
    assert snapshot(recorded) == before
    harm_episodes(recorded)
    before = snapshot(recorded)
    verify([recorded])
    assert snapshot(recorded) == before


def test_a_store_that_is_being_written_or_has_no_meta_is_not_repaired(recorded: Path) -> None:
    harm_episodes(recorded)
    with FolderLock(recorded):
        before = snapshot(recorded)
        report = verify([recorded], repair=True)
        assert snapshot(recorded) == before
    assert len(report.damaged) == 1
    assert f"not repaired: {recorded} is being written by process" in notes_of_report(report)
    (recorded / "meta.json").unlink()
    report = verify([recorded], repair=True)
    assert "not repaired" in notes_of_report(report)
    assert (recorded / "episodes" / "000001.safetensors").exists()


def test_a_repair_that_is_interrupted_can_be_repeated(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = Store.open(recorded).digest
    harm_episodes(recorded)
    with monkeypatch.context() as patch:
        patch.setattr(files, "write_file", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            verify([recorded], repair=True)
    assert len(verify([recorded]).damaged) == 1
    assert verify([recorded], repair=True).damaged == ()
    record(recorded, 6)
    assert Store.open(recorded).digest == digest


def test_a_command_that_a_store_suggests_cannot_carry_a_second_one(tmp_path: Path) -> None:
    with StoreWriter.open(tmp_path, make_meta(env_id="Tiny-v0; rm -rf ~", frame_size=(4, 4))) as writer:
        frames = make_episode(8).frames[:, :, :4]
        writer.add(0, make_episode(8, episode_seeds(0, 0).env, frames=frames), "train")
    flip(tmp_path / "episodes" / "000000.safetensors", -1)
    assert "--env 'Tiny-v0; rm -rf ~' --out" in verify([tmp_path]).damaged[0].damage[0].remedy


def test_episodes_that_no_command_records_again_are_named(tmp_path: Path, recorded: Path) -> None:
    make_store(tmp_path / "cut", (8, 8, 8))
    flip(tmp_path / "cut" / "episodes" / "000001.safetensors", -1)
    remedy = verify([tmp_path / "cut"]).damaged[0].damage[0].remedy
    assert "restore it from a copy, no command records episode 1 again" in remedy
    rounds = [{"round": 0}, {"round": 1, "episodes": {"first": 4, "last": 5}}]
    (recorded.parent / "rounds.json").write_text(json.dumps({"settings": {}, "rounds": rounds}))
    for number, again in ((2, True), (5, False)):
        flip(recorded / "episodes" / f"00000{number}.safetensors", -1)
        remedy = verify([recorded]).damaged[0].damage[0].remedy
        assert ("then records them again" in remedy) == again


def test_the_command_that_records_again_says_what_the_store_remembers(recorded: Path) -> None:
    flip(recorded / "episodes" / "000002.safetensors", -1)
    remedy = verify([recorded]).damaged[0].damage[0].remedy
    assert f"python scripts/verify.py {recorded} --repair" in remedy
    assert (
        f"python scripts/record.py --env Tiny-v0 --out {recorded} --episodes 6 --steps 5 --frame-size 8 "
        "--held-out-every 3 --policy random --action-repeat 2 --skip-first 0 --seed 3"
    ) in remedy
    assert episode_seeds(3, 2).env == Store.open(recorded).entries[2].seed


# ---------------------------------------------------------------- hostile folders


@pytest.fixture
def bounded() -> Iterator[None]:
    """Half a gigabyte more than there is now, and no more."""
    with memory_limit(2**29):
        yield


def test_the_memory_limit_limits() -> None:
    with memory_limit(2**29), pytest.raises((MemoryError, RuntimeError)):
        torch.zeros(2**30)
    assert len(torch.zeros(2**28)) == 2**28


@pytest.mark.usefixtures("bounded")
def test_links_and_pipes_are_neither_followed_nor_opened(copy: Callable[[str], Path], tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    data, stage, model = copy(STORE), copy(STAGE), copy(TOKENIZER)
    for file in (data / "episodes" / "000001.safetensors", model / "config.json"):
        (secret / file.name).write_bytes(file.read_bytes())
        file.unlink()
        file.symlink_to(secret / file.name)
    for file in (data / "manifest.jsonl", stage / "metrics.jsonl", stage / "config.yaml", model / "manifest.json"):
        file.unlink()
        os.mkfifo(file)
    os.mkfifo(data / ".lock")
    os.mkfifo(tmp_path / "runs" / "tiny" / "rounds.json")
    (tmp_path / "runs" / "loop").symlink_to(tmp_path)
    damage = damage_of(tmp_path)
    regular = "expected a regular file, found a link, a folder or a device"
    for name in ("data/manifest.jsonl", f"{STAGE}/metrics.jsonl", f"{STAGE}/config.yaml", f"{TOKENIZER}/manifest.json"):
        assert regular in damage[name]
    (data / "manifest.jsonl").unlink()
    make_store(tmp_path / "linked", (8, 8))
    shutil.move(tmp_path / "linked" / "episodes", secret / "episodes")
    (tmp_path / "linked" / "episodes").symlink_to(secret / "episodes")
    assert damage_of(tmp_path / "linked")["episodes"] == "expected a folder"


def test_a_link_in_the_place_of_a_file_is_damage_though_its_content_fits(home: Home, tmp_path: Path) -> None:
    for part, name in ((STORE, "episodes/000001.safetensors"), (TOKENIZER, "config.json"), (WORLD, "manifest.json")):
        folder = tmp_path / Path(part).name
        shutil.copytree(home.path / part, folder)
        (folder / name).unlink()
        (folder / name).symlink_to(home.path / part / name)
        assert "found a link" in damage_of(folder)[name]


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize(
    ("part", "name"),
    [
        (STORE, "meta.json"),
        (STORE, "manifest.jsonl"),
        (TOKENIZER, "config.json"),
        (TOKENIZER, "manifest.json"),
        (CHECKPOINT, "manifest.json"),
        (STAGE, "config.yaml"),
        (STAGE, "metrics.jsonl"),
        ("improved", "rounds.json"),
    ],
)
def test_huge_files_are_refused_before_they_are_read(copy: Callable[[str], Path], part: str, name: str) -> None:
    folder = copy(part)
    os.truncate(folder / name, 2**34)
    damage = damage_of(folder)
    assert [file for file in damage if file.startswith(name)]
    assert "MemoryError" not in str(damage)


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("text", ["[" * 10**6, '{"a":' * 10**5, '{"a": 1e999999, "b": NaN}', "9" * 10**5, "\udcff"])
def test_hostile_json_is_damage(copy: Callable[[str], Path], text: str) -> None:
    for part, name in ((STORE, "meta.json"), (STORE, "manifest.jsonl"), (TOKENIZER, "manifest.json")):
        folder = copy(part)
        (folder / name).write_bytes(text.encode(errors="surrogateescape") + b"\n")
        assert [file for file in damage_of(folder) if file.startswith(name)]


@pytest.mark.usefixtures("bounded")
def test_aliases_that_stand_for_billions_of_values_are_refused(copy: Callable[[str], Path]) -> None:
    stage = copy(STAGE)
    bomb = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    bomb += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    (stage / "config.yaml").write_text("\n".join([*bomb, "name: *a11", "vqvae: {}", "sampling: {}", ""]))
    assert damage_of(stage)["config.yaml"] == "has aliases, which vqvideo does not write"


@pytest.mark.usefixtures("bounded")
def test_a_header_that_lies_about_its_size_is_damage(tmp_path: Path) -> None:
    for number, head in enumerate((2**63, 2**27, 10**6, 2)):
        data = head.to_bytes(8, "little") + b'{"a": 1}'
        contents = {"config.json": json.dumps({"format": "vqvideo-agent", "format_version": 3}).encode()}
        files.commit_folder(tmp_path / f"{number}", {**contents, "model.safetensors": data}, {"kind": "agent"})
        assert "model.safetensors" in damage_of(tmp_path / f"{number}")


def test_a_config_that_asks_for_more_memory_than_there_is_is_damage_and_no_crash(tmp_path: Path) -> None:
    config = tiny_vqvae().config()
    config["model"]["backbone"]["widths"] = [200_000, 200_000]
    save_model(tmp_path / "model", "vqvae", config, model_tensors(tiny_vqvae()))
    assert damage_of(tmp_path / "model") == {}
    assert "widths is 200000, expected at most" in damage_of(tmp_path / "model", deep=True)["config.json"]


@pytest.mark.parametrize(
    "config", [[], {}, {"model": 3}, {"model": {"quantizer": []}}, {"model": {}, "frame_size": "ab"}, {"vqvae": 1}]
)
def test_settings_of_any_shape_are_damage_and_no_crash(tmp_path: Path, config: Any) -> None:
    for kind in ("vqvae", "world"):
        header = {"format": f"vqvideo-{kind}", "format_version": 1}
        text = json.dumps(header | config if isinstance(config, dict) else config)
        contents = {"config.json": text.encode(), "model.safetensors": tensor_bytes({"a": torch.ones(1)})}
        files.commit_folder(tmp_path / kind, contents, {"kind": kind})
        assert "config.json" in damage_of(tmp_path / kind)


def test_folders_deep_inside_each_other_end_the_search(tmp_path: Path) -> None:
    make_store(tmp_path / "data", (8,))
    (tmp_path / "/".join(["d"] * 200)).mkdir(parents=True)
    report = verify([tmp_path])
    assert report.damaged == ()
    assert "more than 64 folders deep" in report.leftovers[0][1].what


def test_names_cannot_steer_the_terminal(tmp_path: Path) -> None:
    strange = tmp_path / "a\x1b[2J\nb"
    make_store(strange, (8,))
    (strange / "episodes" / os.fsdecode(b"\xff\x1b]0;x\x07")).write_bytes(b"")
    text = "\n".join(lines_of(verify([tmp_path])))
    assert "\x1b" not in text
    assert "\\x1b[2J\\nb" in text
    text.encode()


def test_a_manifest_cannot_name_files_elsewhere(copy: Callable[[str], Path]) -> None:
    model = copy(TOKENIZER)
    text = (model / "manifest.json").read_text().replace('"model.safetensors"', '"../model.safetensors"')
    record = {key: value for key, value in json.loads(text).items() if key != "digest"}
    (model / "manifest.json").write_text(json.dumps(files.seal(record)))
    assert "is not a plain file name" in damage_of(model)["manifest.json"]


# ---------------------------------------------------------------- what cannot be checked


def test_a_folder_that_does_not_exist_or_holds_nothing_of_ours_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder; expected a store"):
        verify([tmp_path / "nowhere"])
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "results.json").write_text("{}")
    (tmp_path / "notes" / "manifest.json").write_text('{"name": "somebody\'s app"}')
    (tmp_path / "notes" / "config.json").write_text('{"model_type": "other"}')
    (tmp_path / "notes" / "model.bin").write_bytes(b"x")
    with pytest.raises(InputError, match="nothing of vqvideo's is in it; expected a store"):
        verify([tmp_path / "notes"])
    with pytest.raises(InputError, match="no folder to check"):
        verify([])


def test_a_folder_that_is_named_may_be_a_link(home: Home, tmp_path: Path) -> None:
    (tmp_path / "data").symlink_to(home.path / "data")
    assert verify([tmp_path / "data"]).summary() == "3 things checked, 0 damaged, 2 notes"
