"""Micro batches for the training loop: in the order of the step, from processes that may die."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sized
from functools import partial
from multiprocessing import active_children
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from vqvideo.errors import InputError, RunStoppedError
from vqvideo.training.config import TrainConfig
from vqvideo.training.signals import leave_stopping_to_parent

if TYPE_CHECKING:
    from accelerate import Accelerator

Batch = Mapping[str, Tensor]
SHARED_MEMORY = Path("/dev/shm")
"""Through which loader processes hand over their batches."""
_PREFETCHED = 2
"""Batches that each loader process makes ahead."""


class LoaderDiedError(RunStoppedError):
    """A loader process is gone; the last checkpoint is untouched."""

    def __init__(self, dead: BaseProcess, workers: int) -> None:
        code = dead.exitcode or 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        super().__init__(
            f"loader process {dead.pid} {how}; nothing was lost up to the last checkpoint: go on with --resume. If it "
            f"was killed for want of memory, lower train.workers ({workers}; 0 loads in the main process)"
        )


class Loader:
    """The batches of a data set as a function of the micro step alone.

    Args:
        dataset: its items are dicts of tensors.
        train: batch, seed, number of loader processes.
        accelerator: knows rank and ranks.
        collate: puts items together; by default stacks them.

    Raises:
        InputError: the batch cannot be split over the ranks.
    """

    def __init__(
        self, dataset: Dataset, train: TrainConfig, accelerator: Accelerator, collate: Callable | None = None
    ) -> None:
        self.dataset, self.train, self.collate = dataset, train, collate or default_collate
        self.world, self.rank = accelerator.num_processes, accelerator.process_index
        self.batch = train.micro_batch(self.world)
        self.processes: list[BaseProcess] = []
        """Those that load now."""

    def __call__(self, start: int, stop: int) -> Iterator[Batch]:
        """Micro batches of this rank from one micro step up to (not including) another.

        Raises:
            InputError: what is wrong with an item, also if a loader process came across it.
            LoaderDiedError: a loader process was killed.
        """
        size, seed = len(cast(Sized, self.dataset)), self.train.seed
        order = StepBatches(size, self.batch, seed, start=start, stop=stop, rank=self.rank, world=self.world)
        # A generator of its own: by default the loader would draw from the global one, and a resumed run differ.
        own = torch.Generator().manual_seed(seed)
        batches = DataLoader(
            _FailuresAsItems(self.dataset),
            batch_sampler=order,
            collate_fn=partial(_collate_or_fail, self.collate),
            num_workers=self.train.workers,
            prefetch_factor=_PREFETCHED if self.train.workers else None,
            worker_init_fn=leave_stopping_to_parent,
            generator=own,
            pin_memory=torch.cuda.is_available(),
        )
        before = set(active_children())
        source = iter(batches)
        self.processes = [process for process in active_children() if process not in before]
        if self.processes and threading.current_thread() is threading.main_thread():
            # Torch would raise its error about a dead process wherever this one is just then. Without its handler it
            # raises it here, where the next batch is waited for.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        while (batch := self._next(source)) is not None:
            yield batch

    def _next(self, source: Iterator[Any]) -> Batch | None:
        try:
            batch = next(source, None)
        except (RuntimeError, OSError, EOFError) as error:
            # A connection breaks before its process has ended, on a busy machine by seconds.
            wait([process.sentinel for process in self.processes], timeout=10)
            dead = next((process for process in self.processes if process.exitcode), None)
            if dead is None:
                raise
            for process in self.processes:
                process.kill()  # they may wait for ever for a lock that the dead one held
            raise LoaderDiedError(dead, self.train.workers) from error
        if isinstance(batch, InputError):
            raise batch
        return batch

    @property
    def shared_bytes(self) -> int:
        """Shared memory that the loader processes of this rank may need at once."""
        if not self.train.workers:
            return 0
        one = sum(value.nbytes for value in self.collate([self.dataset[0]]).values())
        # Those made ahead by each, one that the main process reads, and one on its way.
        return one * (self.batch // self.world) * (_PREFETCHED * self.train.workers + 2)


class _FailuresAsItems(Dataset):
    """A data set whose items may be InputErrors: as values they come out of a loader process as they are, where raised
    ones would become the text of a traceback.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __getitem__(self, index: int) -> Any:
        try:
            return self.dataset[index]
        except InputError as error:
            return error


def _collate_or_fail(collate: Callable[[list[Any]], Any], items: list[Any]) -> Any:
    """The batch, or the first of its InputErrors."""
    return next((item for item in items if isinstance(item, InputError)), None) or collate(items)


class WithStills:
    """Batches of clips with a batch of images beside each."""

    def __init__(self, clips: Loader, stills: Loader) -> None:
        self.clips, self.stills = clips, stills

    def __call__(self, start: int, stop: int) -> Iterator[Batch]:
        """Micro batches of this rank from one micro step up to (not including) another."""
        for batch, images in zip(self.clips(start, stop), self.stills(start, stop), strict=True):
            yield {**batch, "stills": images["frames"]}

    @property
    def shared_bytes(self) -> int:
        """Of both."""
        return self.clips.shared_bytes + self.stills.shared_bytes


def check_shared_memory(batches: Loader | WithStills) -> None:
    """Raises InputError if the batches that loader processes hold ready do not fit into the shared memory: they would
    wait for room for ever, without a word.
    """
    if not SHARED_MEMORY.is_dir():
        return
    # The other ranks of this machine need as much.
    needed = batches.shared_bytes * int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    free = shutil.disk_usage(SHARED_MEMORY).free
    if needed > free:
        raise InputError(
            f"loader processes need {needed / 2**20:.1f} MiB in {SHARED_MEMORY}, {free / 2**20:.1f} MiB are free: "
            "give a container more with --shm-size, or load in the main process (--vqvae.train.workers 0, "
            "--prior.train.workers 0)"
        )


class StepBatches:
    """The order of training as a function of the step alone; a batch sampler for `DataLoader`.

    Each epoch is a permutation of the data set drawn from (seed, epoch); the epochs follow each other
    without a gap, and micro step s takes the positions s * batch .. (s+1) * batch - 1 of that row. So
    every sample comes once per epoch, a run that resumes at step s sees what it would have seen, and any
    number of ranks that divides the batch sees the same samples.

    Args:
        size: samples in the data set.
        batch: samples per micro step over all ranks; `world` divides it.
        seed: of the order.
        stop: the micro step before which to stop.
        start: the first micro step.
        rank: which slice of each batch this process takes.
        world: how many processes share a batch.
    """

    def __init__(
        self, size: int, batch: int, seed: int, *, stop: int, start: int = 0, rank: int = 0, world: int = 1
    ) -> None:
        self.size, self.batch, self.seed = size, batch, seed
        self.start, self.stop = start, stop
        self.rank, self.world = rank, world
        self._orders: dict[int, NDArray[np.int64]] = {}

    def __len__(self) -> int:
        return max(0, self.stop - self.start)

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.start, self.stop):
            yield self.indices(step)

    def indices(self, step: int) -> list[int]:
        """The samples of this rank in one micro step."""
        share = self.batch // self.world
        first = step * self.batch + self.rank * share
        epochs, offsets = np.divmod(np.arange(first, first + share), self.size)
        return [int(self._order(int(e))[offset]) for e, offset in zip(epochs, offsets, strict=True)]

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if epoch not in self._orders:
            # Numpy promises the raw stream of Philox across versions, but not `permutation`'s use of it.
            bits = np.random.Philox(np.random.SeedSequence((self.seed, epoch))).random_raw(self.size)
            recent = {e: order for e, order in self._orders.items() if e == epoch - 1}
            self._orders = recent | {epoch: np.argsort(bits, kind="stable")}
        return self._orders[epoch]
