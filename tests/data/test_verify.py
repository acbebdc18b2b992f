"""Verification: everything intact is ok, everything damaged is named, nothing is written, nothing hostile does harm."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import in_fork
from stores import flip, make_meta, make_store
from tiny_models import tiny_experiment, tiny_store, tiny_world

from vqvideo.data import verify as verifying
from vqvideo.data.store import StoreWriter
from vqvideo.data.verify import verify
from vqvideo.errors import InputError
from vqvideo.experiment.prior import train_prior
from vqvideo.experiment.tokenizer import train_vqvae
from vqvideo.storage import files
from vqvideo.storage.checkpoint import save_model, tensor_bytes

STORE = "data"
CACHE = "data/codes/*-train-*"
TOKENIZER = "runs/tiny/vqvae/model"
WORLD = "runs/tiny/world"
STAGE = "runs/tiny/prior"
CHECKPOINT = "runs/tiny/prior/checkpoints/step-00000008"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained experiment, a world with start clips, an agent's folder and the log of an improvement run."""
    path = tmp_path_factory.mktemp("home")
    store, cfg = tiny_store(path / "data"), tiny_experiment(path)
    train_vqvae(cfg, store)
    train_prior(cfg, store)
    tiny_world().save_pretrained(path / "shipped")
    make_store(path / "shipped" / "starts", (8,), "held_out")
    save_model(path / "improved" / "round_0" / "agent" / "model", "agent", {}, {"weight": torch.ones(2)})
    (path / "improved" / "rounds.json").write_text(json.dumps({"settings": {}, "rounds": []}))
    return path


@pytest.fixture
def copy(home: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Copies a part of the intact folder, by its path in there."""

    def copied(part: str) -> Path:
        shutil.copytree(home / part, tmp_path / part, dirs_exist_ok=True)
        return tmp_path / part

    return copied


def damage_of(folder: Path, **options: bool) -> str:
    """Everything that is said about damage under a folder."""
    return "\n".join(complaint for found in verify([folder], **options) for complaint in found.damage)


def snapshot(folder: Path) -> dict[Path, Any]:
    """Everything below a folder that a writer could change."""
    found = {}
    for path in sorted([folder, *folder.rglob("*")]):
        state = path.lstat()
        found[path] = (state.st_mode, state.st_mtime_ns, state.st_ino, path.read_bytes() if path.is_file() else None)
    return found


@pytest.mark.parametrize("deep", [False, True])
def test_everything_that_is_intact_is_ok_and_nothing_is_written(home: Path, deep: bool) -> None:
    before = snapshot(home)
    found = verify([home], deep=deep)
    assert [complaint for each in found for complaint in each.damage] == []
    kinds = [*["checkpoint"] * 4, *["codes"] * 2, *["model"] * 4, *["run"] * 3, *["store"] * 2]
    assert sorted(each.kind for each in found) == kinds
    assert snapshot(home) == before


def test_what_people_edit_and_interrupted_writers_leave_is_no_damage(copy: Callable[[str], Path]) -> None:
    data, stage, model = copy(STORE), copy(STAGE), copy(TOKENIZER)
    (model / "README.md").write_text("# Mine\n")
    (data / "episodes" / "000006.safetensors").write_bytes(b"no line names it")
    for file, torn in ((data / "manifest.jsonl", b'{"index": 6, "fi'), (stage / "metrics.jsonl", b'{"step": 9, "sp')):
        with open(file, "ab") as lines:
            lines.write(torn)
    for name in ("damaged-step-00000005", ".tmp-12345678-step-00000009"):
        (stage / "checkpoints" / name).mkdir()
        (stage / "checkpoints" / name / "optimizer.safetensors").write_bytes(b"half")
        (stage / "checkpoints" / name / "manifest.json").touch()
    for folder in (data, stage, model):
        assert damage_of(folder) == ""


def test_a_store_in_its_first_episode_and_folders_that_are_replaced_meanwhile_are_no_damage(
    tmp_path: Path, copy: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with StoreWriter.open(tmp_path / "new", make_meta()):
        assert damage_of(tmp_path / "new") == ""
    checkpoint, load, tries = copy(CHECKPOINT), verifying.load_training, iter(range(9))

    def replaced_once(path: Path) -> object:
        if not next(tries):
            raise InputError("half of it is gone")
        return load(path)

    monkeypatch.setattr(verifying, "load_training", replaced_once)
    assert damage_of(checkpoint) == ""

    def pruned(path: Path) -> object:
        shutil.rmtree(path, ignore_errors=True)
        raise InputError("all of it is gone")

    monkeypatch.setattr(verifying, "load_training", pruned)
    assert verify([checkpoint]) == []


FILES = {
    STORE: ("meta.json", "manifest.jsonl", "episodes/000001.safetensors"),
    TOKENIZER: ("config.json", "model.safetensors", "manifest.json"),
    WORLD: ("config.json", "model.safetensors", "manifest.json"),
    CHECKPOINT: ("model.safetensors", "optimizer.safetensors", "average.safetensors", "manifest.json"),
    CACHE: ("codes.safetensors", "manifest.json"),
    STAGE: ("config.yaml",),
}


def flip_a_bit(file: Path) -> None:
    # Settings and lines have no digest: a setting that the checkpoints know too, and what makes JSON of a line.
    places = {".yaml": file.read_bytes().find(b"window: 3") + 8, ".jsonl": 0}
    flip(file, places.get(file.suffix, file.stat().st_size // 2))


HARMS: dict[str, Callable[[Path], object]] = {
    "flipped": flip_a_bit,
    "truncated": lambda file: os.truncate(file, file.stat().st_size // 2),
    "emptied": lambda file: os.truncate(file, 0),
    "deleted": Path.unlink,
}


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize(("part", "name"), [(part, name) for part, names in FILES.items() for name in names])
def test_a_damaged_file_is_named(home: Path, copy: Callable[[str], Path], part: str, name: str, harm: str) -> None:
    folder = copy(str(next(home.glob(part)).relative_to(home)))
    HARMS[harm](folder / name)
    damage = damage_of(folder)
    assert str(folder) in damage
    assert Path(name).name in damage


def test_all_damage_is_listed_and_not_only_the_first(copy: Callable[[str], Path]) -> None:
    data, world = copy(STORE), copy(WORLD)
    flip(data / "episodes" / "000001.safetensors", -1)
    (data / "episodes" / "000004.safetensors").unlink()
    for name in ("config.json", "model.safetensors"):
        flip(world / name, -1)
    found = {each.path: each.damage for each in verify([data, world]) if each.damage}
    assert found.keys() == {data, world}
    assert [len(damage) for damage in found.values()] == [2, 2]
    assert "000001.safetensors: sha256 is" in found[data][0]
    assert "000004.safetensors: no such file" in found[data][1]


def test_lost_lines_of_a_store_are_found(copy: Callable[[str], Path]) -> None:
    data = copy(STORE)
    lines = (data / "manifest.jsonl").read_bytes().splitlines(keepends=True)
    (data / "manifest.jsonl").write_bytes(b"".join(lines[:3]))
    assert "manifest.jsonl has lost lines" in damage_of(data)


def test_deep_finds_frames_that_cannot_be_decoded_though_the_digest_fits(tmp_path: Path) -> None:
    store = make_store(tmp_path, (20, 20))
    file = tmp_path / store.entries[1].file
    # The magic number of zstd; it begins the first chunk.
    file.write_bytes(file.read_bytes().replace(b"\x28\xb5\x2f\xfd", b"\x28\xb5\x2f\xfe", 1))
    record = vars(store.entries[1]) | {"sha256": files.sha256_file(file)}
    first = (tmp_path / "manifest.jsonl").read_text().splitlines()[0]
    (tmp_path / "manifest.jsonl").write_text(first + "\n" + json.dumps(record) + "\n")
    assert damage_of(tmp_path) == ""
    assert "000001.safetensors: not a readable episode" in damage_of(tmp_path, deep=True)


@pytest.mark.parametrize("line", [b'{"step": 5, "spl\n', b"[1]\n", b"\0" * 3000 + b"\n", b'{"step": 5}\n'])
def test_a_damaged_line_of_the_metrics_is_named(copy: Callable[[str], Path], line: bytes) -> None:
    stage = copy(STAGE)
    lines = (stage / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (stage / "metrics.jsonl").write_bytes(b"".join([*lines[:4], line, *lines[5:]]))
    assert f"{stage / 'metrics.jsonl'} line 5: " in damage_of(stage)


def test_a_checkpoint_of_another_step_and_a_broken_log_are_named(copy: Callable[[str], Path]) -> None:
    checkpoint = copy(CHECKPOINT)
    checkpoint.rename(checkpoint.with_name("step-00000009"))
    assert "step-00000009/manifest.json: is of step 8" in damage_of(checkpoint.parent)
    improved = copy("improved")
    (improved / "rounds.json").write_text('{"settings": {}, "rounds"')
    assert "rounds.json: not valid JSON" in damage_of(improved)


def test_links_and_pipes_are_not_opened_and_endless_folders_not_followed(
    copy: Callable[[str], Path], tmp_path: Path
) -> None:
    data, stage, model = copy(STORE), copy(STAGE), copy(TOKENIZER)
    (tmp_path / "secret").mkdir()
    linked = (data / "episodes" / "000001.safetensors", model / "config.json")
    for file in linked:
        file.rename(tmp_path / "secret" / file.name)
        file.symlink_to(tmp_path / "secret" / file.name)
    pipes = (stage / "metrics.jsonl", stage / "config.yaml", stage / "checkpoints" / "step-00000008" / "manifest.json")
    for file in pipes:
        file.unlink()
        os.mkfifo(file)
    (tmp_path / "runs" / "loop").symlink_to(tmp_path)
    (tmp_path / "runs" / "/".join(["deep"] * 300)).mkdir(parents=True)
    assert in_fork(lambda: damage_of(tmp_path)) == 0  # which would wait at a pipe until it is killed
    for file in (*linked, *pipes):
        assert f"{file}: expected a regular file, found a link, a folder or a device" in damage_of(tmp_path)


@pytest.mark.parametrize("config", [[], {}, {"vqvae": 1}, {"prior": []}])
def test_settings_of_any_shape_end_no_verification(tmp_path: Path, config: Any) -> None:
    header = {"format": "vqvideo-world", "format_version": 1}
    text = json.dumps(header | config if isinstance(config, dict) else config)
    weights = tensor_bytes({"prior.embed.table.weight": torch.ones(1)})
    files.commit_folder(tmp_path / "m", {"config.json": text.encode(), "model.safetensors": weights}, {"kind": "world"})
    assert all(str(tmp_path / "m") in complaint for complaint in verify([tmp_path])[0].damage)


def test_settings_that_stand_for_billions_of_values_are_damage(copy: Callable[[str], Path]) -> None:
    stage = copy(STAGE)
    bomb = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    bomb += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    (stage / "config.yaml").write_text("\n".join([*bomb, "prior: {model: {window: *a11}, train: *a11}", ""]))
    assert "config.yaml: " in damage_of(stage)


def test_a_folder_that_does_not_exist_or_holds_nothing_of_ours_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder; expected a store"):
        verify([tmp_path / "nowhere"])
    (tmp_path / "manifest.json").write_text('{"name": "somebody\'s app"}')
    (tmp_path / "config.json").write_text('{"model_type": "other"}')
    with pytest.raises(InputError, match="nothing of vqvideo's is in it; expected a store"):
        verify([tmp_path])
    with pytest.raises(InputError, match="no folder to check"):
        verify([])
