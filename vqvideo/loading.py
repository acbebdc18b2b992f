"""Micro batches for the training loop: in the order of the step, from processes that may die."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from vqvideo.data.clips import StepBatches
from vqvideo.errors import InputError, RunStoppedError
from vqvideo.signals import leave_stopping_to_parent
from vqvideo.training import Batch, TrainConfig

if TYPE_CHECKING:
    from accelerate import Accelerator

Batches = Callable[[int, int], Iterable[Batch]]
"""Micro batches of this rank from one micro step up to (not including) another."""

SHARED_MEMORY = Path("/dev/shm")
"""Through which loader processes hand over their batches."""
_PREFETCHED = 2
"""Batches that each loader process makes ahead."""
_ORIGINAL = re.compile(
    r"\ACaught \w+ in DataLoader worker.*\n(?:[\w.]+\.)?(?:InputError|DiskError): (.+)\Z", flags=re.DOTALL
)


class LoaderDiedError(RunStoppedError):
    """A loader process is gone; the last checkpoint is untouched."""


def loader(dataset: Dataset, train: TrainConfig, accelerator: Accelerator, collate: Callable | None = None) -> Batches:
    """The batches of a data set as a function of the micro step alone.

    Raises:
        InputError: the batch cannot be split over the ranks, or there is too little shared memory for loader processes.
    """
    world, rank = accelerator.num_processes, accelerator.process_index
    batch = train.micro_batch(world)
    size = len(cast(Sized, dataset))
    if train.workers:
        first = (collate or default_collate)([dataset[0]])
        share = batch // world * sum(value.nbytes for value in first.values())
        check_shared_memory(share, train.workers * int(os.environ.get("LOCAL_WORLD_SIZE", "1")))

    def batches(start: int, stop: int) -> Iterable[Batch]:
        order = StepBatches(size, batch, train.seed, start=start, stop=stop, rank=rank, world=world)
        # A generator of its own: by default the loader would draw from the global one, and a resumed run differ.
        own = torch.Generator().manual_seed(train.seed)
        return DataLoader(
            dataset,
            batch_sampler=order,
            collate_fn=collate,
            num_workers=train.workers,
            prefetch_factor=_PREFETCHED if train.workers else None,
            worker_init_fn=leave_stopping_to_parent,
            generator=own,
            pin_memory=torch.cuda.is_available(),
        )

    return batches


def with_stills(clips: Batches, stills: Batches) -> Batches:
    """Batches of clips with a batch of images beside each."""

    def both(start: int, stop: int) -> Iterable[Batch]:
        for batch, images in zip(clips(start, stop), stills(start, stop), strict=True):
            yield {**batch, "stills": images["frames"]}

    return both


def check_shared_memory(batch_bytes: int, workers: int) -> None:
    """Raises InputError if the batches that loader processes hold ready do not fit into the shared memory: they would
    die of a bus error, without a word about the reason.
    """
    if not SHARED_MEMORY.is_dir():
        return
    # One more for each, which is on its way.
    needed, free = batch_bytes * workers * (_PREFETCHED + 1), shutil.disk_usage(SHARED_MEMORY).free
    if needed > free:
        raise InputError(
            f"{workers} loader processes need {needed / 2**20:.0f} MiB in {SHARED_MEMORY}, {free / 2**20:.0f} MiB are "
            "free: give a container more with --shm-size, or load in the main process (train.workers 0)"
        )


@contextmanager
def explained(workers: int) -> Iterator[None]:
    """Around a training: failures of its loader processes as what they are. That one died is noticed wherever the main
    process is just then; what one of them found wrong comes wrapped into the text of its traceback.

    Raises:
        InputError: what is wrong with an episode.
        LoaderDiedError: a loader process was killed.
    """
    try:
        yield
    except InputError as error:
        found = _ORIGINAL.search(str(error))
        if found is None:
            raise
        raise InputError(found[1].strip()) from error
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        cause = str(error).splitlines()[0].rstrip(". ")
        raise LoaderDiedError(
            f"{cause}; nothing was lost up to the last checkpoint: go on with --resume. If it was killed for want of "
            f"memory, lower train.workers ({workers}; 0 loads in the main process)"
        ) from error
