"""What a verification finds: things, what is damaged about them, and what is worth a note."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vqvideo.errors import InputError
from vqvideo.spaces import ActionSpace

MOST_REMARKS = 1000
"""That are kept of one kind about one thing: a hostile file must not fill the memory with them."""
_LONGEST = 1000
"""Characters of a remark; messages may quote what they found."""


@dataclass(frozen=True)
class Remark:
    """Something to say about a file."""

    where: str
    """The file inside the thing, with its line where there is one; "" for the thing as a whole."""
    what: str
    """What was found and what was expected."""
    remedy: str = ""
    """What to do; empty where there is nothing to do."""


@dataclass
class Facts:
    """What the check of one thing learns that the check of another one asks for."""

    tokenizer: str | None = None
    """Fingerprint of the tokenizer: the thing itself, the one inside a world, the one that made a cache."""
    codebook_size: int | None = None
    """Codes of that tokenizer."""
    store: str | None = None
    """Digest of the store's content: the thing itself, or the one that was encoded."""
    highest_code: int | None = None
    """Of a cache."""
    action_space: ActionSpace | None = None
    """Of a world or a store."""
    frame_size: tuple[int, int] | None = None
    """(h, w) of a world or a store."""
    refused: bool = False
    """Whether a loader refuses it because of its digests, and looks for another one by itself."""


@dataclass
class Thing:
    """Something that vqvideo writes as a whole, and what its check found."""

    kind: str
    """store, tokenizer, world, agent, model, checkpoint, codes, training, rounds, report or folder."""
    path: Path
    """Its folder or file."""
    about: str = ""
    """A few words on its content."""
    damage: list[Remark] = field(default_factory=list)
    """Why it must not be used as it is."""
    notes: list[Remark] = field(default_factory=list)
    """What is harmless, but worth knowing."""
    facts: Facts = field(default_factory=Facts)
    """For other checks."""

    def damaged(self, where: str, what: str, remedy: str = "") -> None:
        """Notes a damage."""
        if len(self.damage) < MOST_REMARKS:
            self.damage.append(Remark(where, what[:_LONGEST], remedy))

    def note(self, where: str, what: str, remedy: str = "") -> None:
        """Notes something harmless."""
        if len(self.notes) < MOST_REMARKS:
            self.notes.append(Remark(where, what[:_LONGEST], remedy))

    def advise(self, remedy: str) -> None:
        """Gives a remedy to every damage that has none yet."""
        self.damage = [remark if remark.remedy else replace(remark, remedy=remedy) for remark in self.damage]

    @contextmanager
    def trying(self, where: str, remedy: str = "") -> Iterator[None]:
        """What goes wrong inside becomes a damage of the file that the error names, or else of the file `where`."""
        try:
            yield
        except (InputError, OSError) as error:
            self.damaged(*self._split(error, where), remedy)

    @contextmanager
    def trusting_nothing(self, where: str) -> Iterator[None]:
        """As `trying`, around code that was not made for the content of a stranger."""
        try:
            with self.trying(where):
                yield
        except Exception as error:  # whatever a stranger's values lead to, it is their fault
            self.damaged(where, f"cannot be used ({type(error).__name__}: {error})")

    def _split(self, error: InputError | OSError, where: str) -> tuple[str, str]:
        """The file that an error is about, and what it says of it."""
        text = str(error)
        if isinstance(error, OSError) or not text.startswith(f"{self.path}/"):
            return where, reason(error, self.path / where)
        file, _, what = text.removeprefix(f"{self.path}/").partition(": ")
        return (file, reason(InputError(what), self.path)) if what and len(file) < 100 else (where, text)


def reason(error: Exception, path: Path) -> str:
    """The message of an error about `path`, without the path."""
    if isinstance(error, OSError):
        return f"cannot be read ({error.strerror or error})"
    text = str(error)
    if "[Errno 2]" in text:
        return "is missing"
    return text.removeprefix(str(path)).removeprefix(":").strip() if text.startswith(str(path)) else text


@dataclass(frozen=True)
class Report:
    """All that was found."""

    things: tuple[Thing, ...]
    """In the order of their folders."""
    leftovers: tuple[tuple[Path, Remark], ...]
    """Notes on what belongs to no thing, with their paths."""

    @property
    def damaged(self) -> tuple[Thing, ...]:
        """The things that must not be used as they are."""
        return tuple(thing for thing in self.things if thing.damage)

    @property
    def notes(self) -> int:
        """How many notes there are."""
        return sum(len(thing.notes) for thing in self.things) + len(self.leftovers)

    def summary(self) -> str:
        """The last line of what is printed."""
        things, damaged, notes = len(self.things), len(self.damaged), self.notes
        return f"{things} {_plural('thing', things)} checked, {damaged} damaged, {notes} {_plural('note', notes)}"

    def to_json(self) -> dict[str, Any]:
        """Everything as plain JSON values."""
        return {
            "checked": len(self.things),
            "damaged": len(self.damaged),
            "notes": self.notes,
            "things": [
                {
                    "kind": thing.kind,
                    "path": str(thing.path),
                    "about": thing.about,
                    "damage": [vars(remark) for remark in thing.damage],
                    "notes": [vars(remark) for remark in thing.notes],
                }
                for thing in self.things
            ],
            "leftovers": [{"path": str(path), **vars(remark)} for path, remark in self.leftovers],
        }


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"
