"""Trained worlds made ready to ship: weights in half precision, a few held-out clips to start from, a model card.

Only parameters are rounded. Buffers (codebook, its running sums, data variance, action statistics) are small and stay
exact. A shipped world computes in fp32 as any other, with the rounded weights. Rounding makes another tokenizer, with
other codes here and there, so the fingerprint that the prior asks for is taken anew.
"""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from vqvideo.data.clips import Clips
from vqvideo.data.episode import Episode
from vqvideo.data.index import EpisodeEntry
from vqvideo.data.store import Store, StoreWriter
from vqvideo.errors import InputError
from vqvideo.evaluation import metrics, stack_frames
from vqvideo.models.pixels import to_unit
from vqvideo.pretrained import STARTS
from vqvideo.storage import files
from vqvideo.storage.checkpoint import model_tensors, save_model
from vqvideo.storage.formats import SavedModel
from vqvideo.world import WorldModel

MAX_BYTES = 12 * 2**20
"""Of a shipped world with all that belongs to it: everyone who installs vqvideo downloads it."""


class Start(NamedTuple):
    """Where a start clip was cut from."""

    episode: int
    """Number of the held-out episode."""
    seed: int
    """What the environment was reset with."""
    first: int
    """Its first frame there."""


class RoundingLoss(NamedTuple):
    """What half precision costs on held-out clips."""

    clips: int
    """How many."""
    same_codes: float
    """Share of tokens with the code that the full-precision tokenizer gives them."""
    psnr_db: float
    """Reconstruction in full precision."""
    psnr_rounded_db: float
    """Reconstruction in half precision."""
    token_nats: float
    """Minus the log-likelihood per token of the prior in full precision, on the codes of its own tokenizer."""
    token_nats_rounded: float
    """The same in half precision."""


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
    vqvae = type(world.vqvae).from_saved(SavedModel(world.vqvae.config(), parts), "the rounded tokenizer")
    config = world.config()
    config["spec"] = {**config["spec"], "tokenizer": vqvae.fingerprint()}
    again = type(world).from_saved(SavedModel(config, tensors), "the rounded world")
    return again.eval().requires_grad_(False).to(world.device)


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
    # A leading dot: no world is found under such a name.
    temporary = folder.with_name(f".tmp-{secrets.token_hex(4)}-{folder.name}")
    try:
        extra = {"README.md": card.encode()}
        save_model(temporary, world.kind, world.config(), half_tensors(world), extra=extra)
        write_starts(temporary / STARTS, starts, picks)
        _refuse_large(temporary, folder)
        _refuse_other(world, temporary)
        files.swap_in(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def write_starts(path: Path, clips: Clips, picks: list[int]) -> None:
    """A store of clips, each an episode of its own, held out as the episodes are that they were cut from."""
    with StoreWriter.open(path, clips.store.meta) as writer:
        for number, pick in enumerate(picks):
            writer.add(number, _cut(clips, pick), "held_out")


def origins(clips: Clips, picks: list[int]) -> list[Start]:
    """Where the chosen held-out clips come from."""
    sources = [_source(clips, pick) for pick in picks]
    return [Start(entry.index, entry.seed, first) for entry, first in sources]


def folder_bytes(folder: Path) -> int:
    """Size of all files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


@torch.no_grad()
def rounding_loss(world: WorldModel, shipped: WorldModel, clips: Clips, picks: list[int]) -> RoundingLoss:
    """Compares a world with its `rounded` self on clips of at least two latent steps."""
    batches = [picks[start : start + 8] for start in range(0, len(picks), 8)]
    full, half = ([_figures(model, clips, batch) for batch in batches] for model in (world, shipped))
    same = torch.cat([(one.codes == two.codes).flatten() for one, two in zip(full, half, strict=True)])

    def mean(parts: list[Tensor]) -> float:
        return torch.cat(parts).double().mean().item()

    return RoundingLoss(
        clips=len(picks),
        same_codes=same.double().mean().item(),
        psnr_db=mean([part.psnr for part in full]),
        psnr_rounded_db=mean([part.psnr for part in half]),
        token_nats=mean([part.nats for part in full]),
        token_nats_rounded=mean([part.nats for part in half]),
    )


class _Figures(NamedTuple):
    codes: Tensor
    psnr: Tensor
    nats: Tensor


def _figures(world: WorldModel, clips: Clips, batch: list[int]) -> _Figures:
    frames = stack_frames(clips, batch).to(world.device)
    actions = torch.stack([clips[i]["actions"] for i in batch]).to(world.device)
    codes = world.vqvae.encode(frames)
    psnr = metrics.psnr(world.vqvae.decode(codes), to_unit(frames))
    # The same draws for both worlds, should the head's likelihood be an estimate.
    generator = torch.Generator(world.device).manual_seed(0)
    grouped = rearrange(actions, "b (t s) a -> b t s a", s=world.stride)
    return _Figures(codes, psnr, world.prior.likelihood(codes, grouped, generator).nats / world.vqvae.tokens)


def _source(clips: Clips, pick: int) -> tuple[EpisodeEntry, int]:
    number, first = clips.locate(pick)
    long_enough = [entry for entry in clips.store.split("held_out") if entry.length + 1 >= clips.length]
    return long_enough[number], first


def _cut(clips: Clips, pick: int) -> Episode:
    entry, first = _source(clips, pick)
    reader, stop = clips.store.reader(entry), first + clips.length
    steps, taken = reader.steps, slice(first, stop - 1)
    terminated = steps.terminated[taken].copy()
    truncated = np.zeros_like(terminated)
    truncated[-1] = not terminated[-1]
    return Episode(
        frames=reader.frames(first, stop),
        actions=steps.actions[taken].copy(),
        rewards=steps.rewards[taken].copy(),
        terminated=terminated,
        truncated=truncated,
        seed=reader.seed,
    )


def _refuse_large(temporary: Path, folder: Path) -> None:
    size = folder_bytes(temporary)
    if size > MAX_BYTES:
        weights = (temporary / "model.safetensors").stat().st_size
        clips = folder_bytes(temporary / STARTS)
        raise InputError(
            f"{folder} would have {size / 2**20:.2f} MiB (weights {weights / 2**20:.2f}, start clips "
            f"{clips / 2**20:.2f}), expected at most {MAX_BYTES / 2**20:g}: ship fewer --clips or a smaller world"
        )


def _refuse_other(world: WorldModel, folder: Path) -> None:
    """What was written must be loaded as the same world, and dream on from the clips beside it."""
    loaded, store = WorldModel.from_pretrained(folder), Store.open(folder / STARTS)
    if loaded.fingerprint() != world.fingerprint():
        raise InputError(f"{folder}: the world that was written is not the one that is loaded; nothing was shipped")
    start = store.episode(store.entries[0])
    frames = rearrange(torch.from_numpy(start.frames[None, :1]), "b t h w c -> b t c h w")
    loaded.imagine(frames, start.actions[None, : world.stride], seed=0)
