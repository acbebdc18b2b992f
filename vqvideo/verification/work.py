"""How the checks read: with the library's own readers, and with an account of what was read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vqvideo.errors import InputError
from vqvideo.storage import files
from vqvideo.storage.files import FileRecord, Manifest
from vqvideo.verification.findings import Thing, reason
from vqvideo.verification.kinds import MAX_MANIFEST, list_folder


@dataclass(frozen=True)
class Work:
    """What all checks are told."""

    deep: bool
    """Whether to decode every frame and to load every model."""
    read: Callable[[int], object]
    """Called with the number of bytes that were just read."""

    def compare(self, path: Path, expected: FileRecord) -> None:
        """Compares a file with its record; a difference is an InputError naming it, a bad disk an OSError."""
        try:
            files.verify_file(path, expected)
        finally:
            self.read(expected.size)

    def refuse_large(self, path: Path, most: int) -> None:
        """Raises InputError for a file that is missing, not regular, or too large to be one of ours."""
        size = files.check_regular(path).st_size
        if size > most:
            raise InputError(f"{path}: {size} bytes, expected at most {most}; not a file of ours")

    def files(self, thing: Thing, *, editable: tuple[str, ...] = ()) -> tuple[Manifest | None, frozenset[str]]:
        """Compares all files of a folder with its manifest and notes what differs.

        Args:
            thing: the folder, which gets the remarks.
            editable: files that people may change.

        Returns:
            The manifest, None if it cannot be read, and the names of the files that are as they were written.
        """
        manifest = None
        with thing.trying(files.MANIFEST):
            self.refuse_large(thing.path / files.MANIFEST, MAX_MANIFEST)
            manifest = files.read_manifest(thing.path)
        if manifest is None:
            return None, frozenset()
        intact = set()
        for name, expected in manifest.files.items():
            try:
                self.compare(thing.path / name, expected)
                intact.add(name)
            except (InputError, OSError) as error:
                self._complain(thing, name, reason(error, thing.path / name), name in editable)
        self._note_others(thing, manifest)
        return manifest, frozenset(intact)

    def _complain(self, thing: Thing, name: str, what: str, editable: bool) -> None:
        if editable:
            thing.note(name, "is not as it was written: somebody edited it, or it is damaged; nothing depends on it")
        else:
            thing.damaged(name, what)

    def _note_others(self, thing: Thing, manifest: Manifest) -> None:
        for name in sorted(list_folder(thing.path).files.keys() - manifest.files.keys() - {files.MANIFEST, ".lock"}):
            if not name.startswith(".tmp-"):
                thing.note(name, "is not in the manifest: nothing reads it, and it was not checked")
