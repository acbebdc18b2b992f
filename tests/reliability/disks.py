"""Disks that are full, read-only or gone: a clear end, and nothing lost."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

from stores import make_episode, make_meta

from reliability.endings import INPUT_ERROR, NO_MOUNT, badly_ended, before_step, goes_on, in_fork
from reliability.lives import Life, Poison
from reliability.outcome import Guarantee, Outcome
from reliability.references import beside, reference
from vqvideo.data.store import Store, StoreWriter
from vqvideo.storage.files import DiskError


def small_disk(rank: int, folder: Path) -> None:
    """The checkpoints lie on a disk where one checkpoint fits and a second does not."""
    checkpoints = folder / "runs" / "tiny" / "vqvae" / "checkpoints"
    checkpoints.mkdir(parents=True, exist_ok=True)
    mount_privately(checkpoints, "size=96k")


def read_only_disk(rank: int, folder: Path) -> None:
    """The runs lie on a disk that cannot be written."""
    runs = folder / "runs"
    runs.mkdir(exist_ok=True)
    mount_privately(runs, "ro")


def vanishing_folder(rank: int, folder: Path) -> None:
    """Somebody removes the run's folder in its seventh step."""
    before_step(7, lambda: shutil.rmtree(folder / "runs" / "tiny" / "vqvae"))


def file_in_the_way(rank: int, folder: Path) -> None:
    """Where the run's folder should be there is a file."""
    (folder / "runs").mkdir(exist_ok=True)
    (folder / "runs" / "tiny").write_text("mine")


def disks(work: Path, trials: int, seed: int) -> Outcome:
    """A full, a read-only, a vanished disk and a file in the way end a training with code 2 and the path."""
    cases: dict[str, tuple[Poison, str]] = {
        "full disk": (small_disk, r"checkpoints/step-\d+: cannot be written .*No space left.* \d+ bytes are needed, "),
        "read-only disk": (read_only_disk, r"runs/tiny/vqvae/media: cannot be written .*Read-only file system"),
        "folder that vanishes": (vanishing_folder, r"/vqvae\S*: cannot be written .*does not exist"),
        "file in the way": (file_in_the_way, r"runs/tiny/vqvae/media: cannot be written .*Not a directory"),
    }
    whole, expected, _ = reference(work, "vqvae")
    failures: list[str] = []
    for name, (poison, message) in cases.items():
        plan = beside(whole, work / name.replace(" ", "_"))
        life = Life(replace(plan, poison=poison))
        failures += [f"{name}: {what}" for what in badly_ended(life, INPUT_ERROR, message)]
        if name == "file in the way":
            (plan.folder / "runs" / "tiny").unlink()
        failures += [f"{name}, afterwards: {what}" for what in goes_on(plan, expected)]
    return Outcome(len(cases), tuple(failures))


def full_disk_recording(work: Path, trials: int, seed: int) -> Outcome:
    """A store on a disk that fills up keeps the episodes that fitted, whole, and names path, need and room."""
    code = in_fork(lambda: _record_until_full(work))
    problems = (work / "problems").read_text() if (work / "problems").exists() else f"exit code {code}"
    return Outcome(1, tuple(line for line in problems.splitlines() if line))


def _record_until_full(work: Path) -> None:
    disk = work / "disk"
    disk.mkdir()
    mount_privately(disk, "size=256k")
    (disk / "filler").write_bytes(bytes(2**16))
    problems: list[str] = []
    written = 0
    try:
        with StoreWriter.open(disk / "store", make_meta()) as writer:
            for index in range(1000):
                writer.add(index, make_episode(200, index), "train")
                written += 1
        problems.append("1000 episodes fitted")
    except DiskError as error:
        if not re.search(r"store/\S+: cannot be written .*\d+ bytes are needed, \d+ bytes are free", str(error)):
            problems.append(f"message: {error}")
    store = Store.open(disk / "store")
    store.verify()
    if len(store.entries) != written:
        problems.append(f"{len(store.entries)} episodes are listed, {written} were written")
    problems += [f"{path.name} was left behind" for path in (disk / "store").rglob(".tmp-*")]
    (disk / "filler").unlink()
    with StoreWriter.open(disk / "store", make_meta()) as writer:
        writer.add(written, make_episode(200, written), "train")
    after = Store.open(disk / "store")
    after.verify()
    if len(after.entries) != written + 1:
        problems.append(f"with room again the recording went on to {len(after.entries)} episodes, not {written + 1}")
    (work / "problems").write_text("\n".join(problems))


def mount_privately(place: Path, options: str) -> None:
    """A small disk at `place`, which this process alone sees and which is gone with it."""
    libc = ctypes.CDLL(None, use_errno=True)
    clone_newns, ms_private, ms_rec, ms_rdonly = 0x20000, 1 << 18, 1 << 14, 1
    data = options.replace("ro", "size=1m")
    if (
        libc.unshare(clone_newns)
        or libc.mount(b"none", b"/", None, ms_rec | ms_private, None)
        or libc.mount(b"tmpfs", os.fsencode(place), b"tmpfs", ms_rdonly if options == "ro" else 0, data.encode())
    ):
        os._exit(NO_MOUNT)


GUARANTEES = (
    Guarantee(
        "disks",
        "A full, read-only or vanished disk ends a training with code 2, path and room; what was saved is whole.",
        disks,
        fast=4,
        long=4,
    ),
    Guarantee(
        "full-disk-recording",
        "A recording that fills the disk keeps every episode that fitted, whole, and nothing of the last one.",
        full_disk_recording,
        fast=1,
        long=1,
    ),
)
