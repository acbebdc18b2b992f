"""One of each thing that is loaded, made small: what hostile and malformed files are put into.

Whoever changes a file of it can make the digests fit again, as one who plants a file could.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any, NamedTuple

import torch
from stores import cached_codes, make_meta
from tiny_models import SIZE, tiny_episode, tiny_vqvae, tiny_world

from vqvideo.data.clips import Clips
from vqvideo.data.codes import CodeArrays, CodeClips
from vqvideo.data.config import SegmentConfig
from vqvideo.data.store import Store, StoreWriter
from vqvideo.experiment.config import Experiment
from vqvideo.models.tokenizer.vqvae import VQVAE
from vqvideo.storage import files
from vqvideo.storage.checkpoint import TrainingState, latest_training, load_training, save_training
from vqvideo.storage.records import read_yaml, typed
from vqvideo.training.loader import StepBatches
from vqvideo.training.run_folder import RunFolder
from vqvideo.world import WorldModel


class Things(NamedTuple):
    """One of each that is loaded, in a folder of its own."""

    root: Path

    @property
    def checkpoint(self) -> Path:
        """The newest of two."""
        return self.root / "run" / "checkpoints" / "step-00000010"

    @property
    def store(self) -> Path:
        """Of three episodes."""
        return self.root / "store"

    def load_checkpoint(self) -> object:
        """As a run that resumes, and as one that names the checkpoint."""
        latest_training(self.checkpoint.parent)
        return load_training(self.checkpoint)

    def load_vqvae(self) -> object:
        """As train_prior."""
        return VQVAE.from_pretrained(self.root / "vqvae")

    def load_world(self) -> object:
        """As a rollout."""
        return WorldModel.from_pretrained(self.root / "world")

    def load_store(self) -> object:
        """As the first steps of train_vqvae."""
        store = Store.open(self.store)
        clips = [Clips(store, split, 3) for split in sorted({entry.split for entry in store.entries})]
        orders = [next(iter(StepBatches(len(each), 4, 0, stop=1))) for each in clips]
        return [each[i] for each, order in zip(clips, orders, strict=True) for i in [*order, 0, len(each) - 1]]

    def load_codes(self) -> object:
        """As train_prior."""
        return CodeClips(read_codes(self.store), 2)[0]

    def load_config(self) -> object:
        """As every script."""
        config = self.root / "config.yaml"
        return typed(Experiment, read_yaml(config), str(config))

    def load_metrics(self) -> object:
        """As a run that resumes."""
        return RunFolder(self.root / "run").records()


def read_codes(store: Path) -> list[CodeArrays]:
    """From the cache, or made and cached."""
    vqvae = tiny_vqvae()
    segments = SegmentConfig(3, 3)
    return cached_codes(vqvae, vqvae.fingerprint(), Store.open(store), "train", segments)


Load = Callable[[Things], object]


def make_things(root: Path) -> Things:
    """Untrained, and as small as they can be."""
    things = Things(root)
    things.checkpoint.parent.mkdir(parents=True)
    for step in (5, 10):
        weights = {"layer.weight": torch.full((3, 4), float(step))}
        state = TrainingState(weights, {"layer.weight/exp_avg": torch.ones(3, 4)}, weights, {"step": step})
        save_training(things.checkpoint.parent, step, state, keep=2)
    RunFolder(root / "run").log({"step": 5, "split": "train", "loss": 1.0})
    tiny_vqvae().save_pretrained(root / "vqvae")
    tiny_world().save_pretrained(root / "world")
    with StoreWriter.open(things.store, make_meta(frame_size=(SIZE, SIZE))) as writer:
        for index in range(3):
            writer.add(index, tiny_episode(8, 3 + index), "held_out" if index == 2 else "train")
    (root / "config.yaml").write_text("name: tiny\nvqvae:\n  train: {steps: 7}\n")
    with redirect_stderr(io.StringIO()):
        read_codes(things.store)
    for load in set(loaded(things).values()):
        load(things)
    return things


def loaded(things: Things) -> dict[Path, Load]:
    """Every file that is loaded, by its path below the root, and who loads it."""
    (cache,) = (things.store / "codes").iterdir()
    folders: dict[Path, Load] = {
        things.checkpoint: Things.load_checkpoint,
        things.root / "vqvae": Things.load_vqvae,
        things.root / "world": Things.load_world,
        things.store: Things.load_store,
        things.store / "episodes": Things.load_store,
        cache: Things.load_codes,
        things.root / "run": Things.load_metrics,
        things.root: Things.load_config,
    }
    return {
        file.relative_to(things.root): load
        for folder, load in folders.items()
        for file in sorted(folder.iterdir())
        if file.is_file() and file.name != "README.md"
    }


def reseal(file: Path) -> None:
    """Makes all digests right for what is in a file now: who plants a file can write a manifest too."""
    manifest = file.parent / files.MANIFEST
    lines = file.parents[1] / "manifest.jsonl"
    found = {"size": file.stat().st_size, "sha256": files.sha256_file(file)}
    if manifest.is_file() and file != manifest:
        record = json.loads(manifest.read_bytes())
        record["files"][file.name] = found
        manifest.write_text(json.dumps(sealed(record)))
    elif file.parent.name == "episodes":
        records = [json.loads(line) for line in lines.read_text().splitlines()]
        for record in records:
            if record["file"].endswith(file.name):
                record |= {"bytes": found["size"], "sha256": found["sha256"]}
        lines.write_text("".join(json.dumps(record) + "\n" for record in records))


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record with a digest that fits, whatever digest it had."""
    return files.seal({name: value for name, value in record.items() if name != "digest"})
