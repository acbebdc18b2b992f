"""A trained world made ready to ship: weights in half precision, a few held-out clips to start from, a model card.

Only parameters are rounded. Buffers (codebook, its running sums, data variance, action statistics) are small and stay
exact. A shipped world computes in fp32 as any other, with the rounded weights. Rounding makes another tokenizer, with
other codes here and there, so the fingerprint that the prior asks for is taken anew.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from vqvideo.data.clips import Clips, stack_frames
from vqvideo.data.index import EpisodeEntry
from vqvideo.data.store import StoreWriter
from vqvideo.errors import InputError
from vqvideo.evaluation import metrics
from vqvideo.evaluation.horizon import HorizonReport
from vqvideo.models.pixels import to_unit
from vqvideo.pretrained import STARTS
from vqvideo.storage import files
from vqvideo.storage.checkpoint import model_tensors, save_model
from vqvideo.storage.formats import SavedModel
from vqvideo.storage.records import read_yaml, to_plain, write_yaml
from vqvideo.training.hardware import describe
from vqvideo.training.run_folder import RunFolder
from vqvideo.world import WorldModel

MAX_BYTES = 12 * 2**20
"""Of a shipped world with all that belongs to it: everyone who installs vqvideo downloads it."""


class Quality(NamedTuple):
    """What a world makes of held-out clips."""

    codes: Tensor
    """(b, k, h, w)."""
    psnr_db: float
    """Of the reconstruction."""
    token_nats: float
    """Minus the log-likelihood per token of the prior, on the codes of its own tokenizer."""


# ---------------------------------------------------------------- half precision


def half_tensors(world: WorldModel) -> dict[str, Tensor]:
    """Parameters and buffers by name, the parameters in fp16.

    Raises:
        InputError: a weight is beyond the range of half precision.
    """
    learned = {name for name, parameter in world.named_parameters() if parameter.is_floating_point()}
    tensors = {n: value.half() if n in learned else value for n, value in model_tensors(world).items()}
    lost = sorted(name for name in learned if not tensors[name].isfinite().all())
    if lost:
        raise InputError(f"{lost[0]}: a weight is not finite in half precision, which reaches 65504")
    return tensors


def rounded(world: WorldModel) -> WorldModel:
    """The world as it is shipped: fp32 parameters that half precision holds exactly, and a prior that knows its
    tokenizer by the new fingerprint.
    """
    tensors = half_tensors(world)
    parts = {name.removeprefix("vqvae."): value for name, value in tensors.items() if name.startswith("vqvae.")}
    vqvae = type(world.vqvae).from_saved(SavedModel(world.vqvae.record(), parts), "the rounded tokenizer")
    config = world.config()
    config |= {"vqvae": vqvae.record(), "spec": {**config["spec"], "tokenizer": vqvae.fingerprint()}}
    again = type(world).from_saved(SavedModel(config, tensors), "the rounded world")
    return again.eval().requires_grad_(False).to(world.device)


@torch.no_grad()
def quality(world: WorldModel, clips: Clips, picks: list[int]) -> Quality:
    """Measures a world on clips of at least two latent steps."""
    codes, psnr, nats = [], [], []
    for start in range(0, len(picks), 8):
        batch = picks[start : start + 8]
        frames = stack_frames(clips, batch).to(world.device)
        actions = torch.stack([clips[i]["actions"] for i in batch]).to(world.device)
        codes.append(world.vqvae.encode(frames))
        psnr.append(metrics.psnr(world.vqvae.decode(codes[-1]), to_unit(frames)).double().flatten())
        # The same draws for every world, should the head's likelihood be an estimate.
        generator = torch.Generator(world.device).manual_seed(0)
        grouped = rearrange(actions, "b (t s) a -> b t s a", s=world.stride)
        nats.append(world.prior.likelihood(codes[-1], grouped, generator).nats.double().flatten() / world.vqvae.tokens)
    return Quality(torch.cat(codes), torch.cat(psnr).mean().item(), torch.cat(nats).mean().item())


# ---------------------------------------------------------------- the folder


def export_world(world: WorldModel, folder: Path, starts: Clips, picks: list[int], card: str) -> None:
    """Puts a shipped world at `folder`, whole or not at all: a model folder with weights in half precision, its card,
    and the store `starts/` of the chosen clips.

    Args:
        world: made by `rounded`.
        folder: a new folder, or that of a world, which is replaced.
        starts: held-out clips, longer than a single frame.
        picks: which of them to ship.
        card: the text of README.md.

    Raises:
        InputError: the folder would be larger than MAX_BYTES or holds something else; nothing was changed.
    """
    if folder.exists() and not (folder / "config.json").is_file():
        raise InputError(f"{folder} exists and is not a model folder: name another one with --out")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = files.aside(folder)
    try:
        extra = {"README.md": card.encode()}
        save_model(temporary, world.kind, world.record(), half_tensors(world), extra=extra)
        _write_starts(temporary / STARTS, starts, picks)
        _refuse_large(temporary, folder)
        files.swap_in(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def folder_bytes(folder: Path) -> int:
    """Size of all files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def origin(clips: Clips, pick: int) -> tuple[EpisodeEntry, int]:
    """The held-out episode that a clip was cut from, and its first frame there."""
    number, first = clips.locate(pick)
    long_enough = [entry for entry in clips.store.split("held_out") if entry.length + 1 >= clips.length]
    return long_enough[number], first


def _write_starts(path: Path, clips: Clips, picks: list[int]) -> None:
    """A store of clips, each an episode of its own, held out as the episodes are that they were cut from."""
    with StoreWriter.open(path, clips.store.meta) as writer:
        for number, pick in enumerate(picks):
            entry, first = origin(clips, pick)
            whole, steps = clips.store.episode(entry), slice(first, first + clips.length - 1)
            cut = replace(
                whole,
                frames=whole.frames[first : first + clips.length],
                **{name: getattr(whole, name)[steps].copy() for name in ("actions", "rewards", "terminated")},
                truncated=np.zeros(clips.length - 1, dtype=bool),
            )
            cut.truncated[-1] = not cut.terminated[-1]
            writer.add(number, cut, "held_out")


def _refuse_large(temporary: Path, folder: Path) -> None:
    size = folder_bytes(temporary)
    if size > MAX_BYTES:
        weights = (temporary / "model.safetensors").stat().st_size
        clips = folder_bytes(temporary / STARTS)
        raise InputError(
            f"{folder} would have {size / 2**20:.2f} MiB (weights {weights / 2**20:.2f}, start clips "
            f"{clips / 2**20:.2f}), expected at most {MAX_BYTES / 2**20:g}: ship fewer --clips or a smaller world"
        )


# ---------------------------------------------------------------- the card

CARD = """---
library_name: vqvideo
license: mit
tags: [vqvideo, video, vq-vae, world-model]
---

# {name}: a world model of {meta.env_id}

```python
from vqvideo import WorldModel
from vqvideo.pretrained import start_clips

world = WorldModel.from_pretrained("{name}")
frames, actions, _ = start_clips("{name}")  # real clips that it was not trained on
dream = world.imagine(frames[:, :{context}], actions, seed=0)
```

## Data

{data}

## Model

{model}

## Training

{training}

## Figures

Of the world as it is shipped, against the real frames; measured on {machine}.

{report}

{figures}

## Half precision

The parameters are stored as float16 and loaded as float32; codebook, statistics and scales are stored as they are.
{rounding}

## Start clips

`starts/` is a store of {clips} clips of {length} frames, with their actions and rewards: cut from the held-out
episodes, spread evenly over them, not chosen by eye, and stored without loss. Episode and first frame of each:
{origins}.

## Limits

- It knows `{meta.env_id}` and what the policy `{meta.policy}` did there; other actions are extrapolated.
- Dreams drift: at latent step {steps}, the last one that was measured, they are {gain:+.1f} dB nearer to what happened
  than a still of their start.
- Dreams are one sample of many possible futures, and the model does not say which parts it made up.
- The environment ended {ended} of the episodes that it was trained on; after none, its terminations mean nothing.

## Licence

MIT, weights and clips as well as the code.
"""


def card(
    name: str,
    world: WorldModel,
    starts: Clips,
    picks: list[int],
    report: HorizonReport,
    rounding: str,
    training: str,
    figures: Mapping[str, Any],
) -> str:
    """The text of the card, Markdown with the Hub's header.

    Args:
        name: under which `from_pretrained` finds the world.
        world: as it is shipped.
        starts: clips of the store that it was trained on, of the length of the start clips.
        picks: which of them are shipped.
        report: held-out figures of the world as it is shipped, measured on this machine.
        rounding: what half precision costs.
        training: how it was trained.
        figures: further figures, JSON; its lists are left out.
    """
    store, origins = starts.store, [origin(starts, pick) for pick in picks]
    splits = {split: store.split(split) for split in ("train", "held_out")}
    counts = {split: f"{len(them)} episodes, {sum(e.length for e in them)} steps" for split, them in splits.items()}
    parts = {"tokenizer": world.vqvae, "prior": world.prior}
    model: dict[str, Any] = {f"parameters of the {n}": sum(p.numel() for p in m.parameters()) for n, m in parts.items()}
    model |= {"tokens": list(world.vqvae.grid), "codes": len(world.vqvae.codebook), "frames per step": world.stride}
    model |= {"bits per pixel": round(world.vqvae.bits_per_pixel, 4), "fingerprint": world.fingerprint()}
    return CARD.format(
        name=name,
        meta=store.meta,
        context=1 + 2 * world.stride,
        data=as_yaml(counts | {"store": to_plain(store.meta), "digest": store.digest}),
        model=as_yaml(model),
        training=training,
        machine=describe(),
        report=report.table(),
        figures=as_yaml(_single(figures)) if figures else "",
        rounding=rounding,
        clips=len(picks),
        length=starts.length,
        origins=", ".join(f"{entry.index} (seed {entry.seed}) from {first}" for entry, first in origins),
        steps=len(report.psnr_gain_db),
        gain=report.psnr_gain_db[-1],
        ended=sum(entry.terminated for entry in splits["train"]),
    )


def training_text(run: Path, command: str, hardware: str | None) -> str:
    """What was typed, on what machine, and what the folder of the run says, as far as it is there."""
    stages = {"vqvae": "tokenizer", "prior": "prior"}
    facts: dict[str, Any] = {"hardware": hardware or "not written down"}
    for stage, title in stages.items():
        if log := RunFolder(run / stage).records():
            facts[title] = {key: log[-1].get(key) for key in ("step", "seconds")}
    config = run / "prior" / "config.yaml"
    settings = read_yaml(config) if config.is_file() else {}
    # Where the episodes lay says nothing about the world.
    facts["settings"] = {
        name: {k: v for k, v in settings[name].items() if k != "out"}
        for name in ("record", *stages)
        if name in settings
    }
    return f"```bash\n{command}\n```\n\n{as_yaml(facts)}"


def rounding_text(full: Quality, half: Quality) -> str:
    """What half precision costs, in words."""
    same = (full.codes == half.codes).double().mean().item()
    return (
        f"On {len(full.codes)} held-out clips {same:.3%} of the codes are those of full precision, reconstruction is "
        f"{half.psnr_db:.3f} dB (full {full.psnr_db:.3f}), the prior takes {half.token_nats:.4f} nats per token (full "
        f"{full.token_nats:.4f})."
    )


def as_yaml(facts: Mapping[str, Any]) -> str:
    """Facts as a block of YAML."""
    return f"```yaml\n{write_yaml(dict(facts)).strip()}\n```"


def _single(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Without lists, which hold whole logs and curves."""
    kept = {name: value for name, value in figures.items() if not isinstance(value, list)}
    return {name: _single(value) if isinstance(value, Mapping) else value for name, value in kept.items()}
