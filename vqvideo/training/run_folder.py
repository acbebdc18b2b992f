"""The folder of one stage of a run: metrics, pictures, checkpoints."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqvideo.errors import InputError
from vqvideo.storage import files
from vqvideo.storage.checkpoint import training_checkpoints
from vqvideo.storage.files import DiskError
from vqvideo.storage.locks import FolderLock
from vqvideo.storage.records import without_nan
from vqvideo.training.processes import on_main_process
from vqvideo.training.trackers import start_trackers

if TYPE_CHECKING:
    from accelerate import Accelerator


class RunFolder:
    """Where a stage of a run writes: `metrics.jsonl`, `media/`, `checkpoints/`. One process at a time writes there:
    between `prepare_run`, or `lock`, and `close`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metrics = path / "metrics.jsonl"
        self.media = path / "media"
        self.checkpoints = path / "checkpoints"
        self._lock = FolderLock(path)

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def lock(self) -> None:
        """Makes the folders, keeps other writers out and clears away what a killed one left.

        Raises:
            InputError: another process writes there.
            DiskError: the folders cannot be made or written.
        """
        for folder in (self.media, self.checkpoints):
            files.make_folder(folder)
        self._lock.acquire()
        for folder in (self.path, self.media, self.checkpoints):
            files.clean_temporaries(folder)

    def close(self) -> None:
        """Lets another process write; a second call changes nothing."""
        self._lock.release()

    def check_room(self, checkpoint_bytes: int, keep: int) -> None:
        """Raises DiskError if a run would end for want of room when it saves a checkpoint: now, and not after hours.

        Args:
            checkpoint_bytes: size of one.
            keep: how many stay. One more is there while it is written; those of an earlier run are there already.
        """
        more, free = self._more(keep), shutil.disk_usage(self.path).free
        if free < more * checkpoint_bytes:
            raise DiskError(
                f"{self.path}: {more} more checkpoint(s) of {checkpoint_bytes / 2**20:.1f} MiB must fit, "
                f"{free / 2**20:.1f} MiB are free: make room, keep fewer (train.keep is {keep}), or choose another "
                "place with --runs"
            )

    def refuse_run(self) -> None:
        """Raises InputError if there are checkpoints, which a new run would overwrite."""
        if training_checkpoints(self.checkpoints):
            raise InputError(f"{self.path} holds a run already: go on with --resume, or name a new one with --name")

    def missing_room(self, checkpoint_bytes: int, keep: int) -> int:
        """Bytes that checkpoints are still going to take."""
        return self._more(keep) * checkpoint_bytes

    def _more(self, keep: int) -> int:
        """Checkpoints that are still to be written before an older one goes."""
        return max(1, keep + 1 - len(training_checkpoints(self.checkpoints)))

    def log(self, record: Mapping[str, Any]) -> None:
        """Adds a line to metrics.jsonl. DiskError if it cannot be written."""
        line = json.dumps(without_nan(record), allow_nan=False) + "\n"
        with files.disk_errors(self.metrics), open(self.metrics, "a") as file:
            file.write(line)

    def sync(self) -> None:
        """Makes the lines of metrics.jsonl durable: a checkpoint must not outlive the lines that led to it."""
        if self.metrics.exists():
            with open(self.metrics, "rb") as file:
                os.fsync(file.fileno())

    def records(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl. What a killed process left after the last newline is not one.

        Raises:
            InputError: a line is damaged, or it is not a file of ours; names it.
        """
        if not os.path.lexists(self.metrics):
            return []
        files.check_regular(self.metrics)
        lines = self.metrics.read_bytes().split(b"\n")[:-1]
        return [self._record(line, number) for number, line in enumerate(lines, 1)]

    def rewind(self, step: int) -> None:
        """Drops the lines after `step`, which a resumed run writes again."""
        kept = [json.dumps(r) + "\n" for r in self.records() if r["step"] <= step]
        files.write_file(self.metrics, "".join(kept).encode())

    def _record(self, line: bytes, number: int) -> dict[str, Any]:
        where = f"{self.metrics} line {number}"
        record = files.parse_json(line, where)
        if not isinstance(record, dict) or type(record.get("step")) is not int or "split" not in record:
            raise InputError(f"{where}: expected a record with a step and a split; the line is damaged")
        return record


def prepare_run(path: Path, *, resume: bool, settings: object, accelerator: Accelerator) -> RunFolder:
    """The folder of a stage, which nobody else may write into until it is closed. Without `resume` it must not hold
    another run's checkpoints.

    Raises:
        InputError: there are checkpoints and `resume` was not asked for, or another process writes there; nothing was
            overwritten. On every process if on one. Or a tracker does not begin.
        DiskError: the folder cannot be made or written.
    """
    run = RunFolder(path)

    def prepare() -> None:
        if not resume:
            run.refuse_run()
        run.lock()
        if not resume:
            run.metrics.unlink(missing_ok=True)

    on_main_process(prepare)
    try:
        start_trackers(accelerator, path, settings, resume=resume)
    except InputError:
        run.close()
        raise
    return run
