"""Frames beside rows of actions, rewards and ends: what all formats that have both share.

Such formats differ in what a row means. Where row t tells what was done at frame t ("from", as LeRobot, RLDS and most
recorders write), action t leads from frame t to frame t+1; where it tells what came before frame t ("to", as Dreamer
writes), row 0 leads nowhere. Often there are as many rows as frames, so that the frame to which the last action leads
is missing; `--align` says what becomes of that action.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from vqvideo.data.action_inference import SpaceFinder, as_columns, guess
from vqvideo.data.formats import Facts, Moment
from vqvideo.errors import InputError
from vqvideo.spaces import ActionSpace

if TYPE_CHECKING:
    from vqvideo.data.config import ImportConfig

Leads = Literal["from", "to"]


@dataclass(frozen=True, eq=False)
class Rows:
    """What a recording tells beside its frames, as it is stored."""

    actions: NDArray[Any] | None
    """(n, ...) numbers; None: the recording has none."""
    rewards: NDArray[Any] | None = None
    """(n,) numbers; None where nobody wrote them down."""
    terminated: NDArray[Any] | None = None
    """(n,) bools: the environment ended in the step. None where nobody wrote it down."""

    def __post_init__(self) -> None:
        if len({len(column) for column in self.columns.values()}) > 1:
            counts = ", ".join(f"{len(column)} {name}" for name, column in self.columns.items())
            raise InputError(f"{counts}: expected as many of each")

    @property
    def columns(self) -> dict[str, NDArray[Any]]:
        """Those that are there, by name."""
        named = {"actions": self.actions, "rewards": self.rewards, "terminated": self.terminated}
        return {name: column for name, column in named.items() if column is not None}

    def __len__(self) -> int:
        return max((len(column) for column in self.columns.values()), default=0)

    @property
    def missing(self) -> set[str]:
        """What is not known of any step."""
        return {name for name, column in (("rewards", self.rewards), ("ends", self.terminated)) if column is None}


class Pictures(Protocol):
    """The frames of a recording."""

    facts: Facts
    """What is known of them before they are decoded."""

    def frames(self, first: int = 0) -> Iterator[NDArray[np.uint8]]:
        """The frames (h, w, 3) uint8 in order, from the one with number `first` on, decoded one by one. InputError
        where that fails.
        """
        ...


@dataclass(frozen=True, eq=False)
class Steps:
    """Rows that were laid to the frames: step t leads from frame t to frame t+1."""

    actions: NDArray[np.float64]
    """(T, a)."""
    rewards: NDArray[np.float64]
    """(T,); zeros where there are none."""
    terminated: NDArray[np.bool_]
    """(T,)."""
    repeat_last: bool = False
    """Whether the last frame stands for the one after it too, which is not there."""
    notes: tuple[str, ...] = field(default=())
    """What became of rows that have no frames."""


def laid(rows: Rows, frames: int, leads: Leads, align: str, where: str) -> Steps:
    """Lays rows to so many frames.

    Args:
        rows: as they are stored.
        frames: how many frames there are.
        leads: whether row t leads "from" frame t or "to" it.
        align: "drop-last", "repeat-last" or "shortest", as `ImportConfig.align` says.
        where: begins errors.

    Raises:
        InputError: the counts do not fit, or a column is not what it should be.
    """
    _check(rows, where)
    if not rows.columns:
        rows = Rows(np.zeros((frames - 1, 0)))
    n = len(rows)
    notes: tuple[str, ...] = ()
    if align == "shortest" and n not in (frames - 1, frames):
        frames, n, notes = min(frames, n), min(frames, n), (f"{frames} frames and {n} rows: the shorter counts",)
    if n not in (frames - 1, frames):
        raise InputError(
            f"{where}: {frames} frames and {n} rows, expected a row per frame or one less. Frames or rows are missing; "
            "if they are only missing at the end: --align shortest"
        )
    if leads == "to":
        # Row 0 came before the first frame; with one row less there is no such row.
        return _steps(rows, slice(n - (frames - 1), n), False, notes)
    if n == frames and align == "repeat-last":
        return _steps(
            rows, slice(0, n), True, (*notes, "the last action leads to no frame: the last one is shown again")
        )
    if n == frames:
        # The same words for all recordings, of which they are said once.
        lost = " with a reward" if rows.rewards is not None and rows.rewards[-1] else ""
        lost += " and the end of the episode" if rows.terminated is not None and rows.terminated[-1] else ""
        notes = (*notes, f"the last action leads to no frame: dropped{lost} (--align repeat-last keeps it)")
    return _steps(rows, slice(0, frames - 1), False, notes)


def _check(rows: Rows, where: str) -> None:
    if rows.actions is not None:
        as_columns(rows.actions, where)
    for name, column in (("rewards", rows.rewards), ("ends", rows.terminated)):
        if column is not None and (column.dtype.kind not in "fiub" or column.ndim != 1):
            raise InputError(f"{where}: {name} are {column.dtype} of shape {column.shape}, expected a number per row")
    if rows.rewards is not None and not np.isfinite(rows.rewards.astype(float)).all():
        row = int(np.argmin(np.isfinite(rows.rewards.astype(float))))
        raise InputError(f"{where}: the reward of row {row} is {rows.rewards[row]}, expected finite numbers")


def _steps(rows: Rows, kept: slice, repeat: bool, notes: tuple[str, ...]) -> Steps:
    n = len(rows)
    actions = np.zeros((n, 0)) if rows.actions is None else as_columns(rows.actions, "").astype(np.float64)
    rewards = np.zeros(n) if rows.rewards is None else rows.rewards.astype(np.float64)
    ends = np.zeros(n, bool) if rows.terminated is None else rows.terminated.astype(bool)
    return Steps(actions[kept], rewards[kept], ends[kept], repeat, notes)


class LaidRecording:
    """Frames with the steps between them."""

    def __init__(self, pictures: Pictures, steps: Steps, where: str) -> None:
        self.pictures, self.steps, self.where = pictures, steps, where
        self.ends = np.flatnonzero(steps.terminated) + 1
        facts = pictures.facts
        self.facts = replace(facts, frames=len(steps.actions) + 1, notes=(*facts.notes, *steps.notes))

    def moments(self, first: int = 0) -> Iterator[Moment]:
        """As `Recording`. InputError if frames are missing, since all that follow would be laid to wrong rows."""
        steps, wanted = self.steps, len(self.steps.actions) + 1 - self.steps.repeat_last
        after, frame = first, None
        for after, frame in enumerate(islice(self.pictures.frames(first), wanted - first), first + 1):
            yield self._moment(frame, after - 2)
        if frame is None or after < wanted:
            raise InputError(
                f"{self.where}: {after} frames could be decoded, expected {wanted}: the rows behind have no frames. "
                "Repair it, or keep what comes before: --skip-broken"
            )
        if steps.repeat_last:
            yield self._moment(frame, after - 1)

    def _moment(self, frame: NDArray[np.uint8], step: int) -> Moment:
        if step < 0:
            return Moment(frame)
        steps = self.steps
        return Moment(frame, steps.actions[step], float(steps.rewards[step]), bool(steps.terminated[step]))


class RowReader(ABC):
    """A format of frames with rows beside them. It says where both are; the rest is done here.

    Args:
        options: of the import.
    """

    leads: Leads = "from"
    """Whether row t leads from frame t, or to it, unless the user says it."""
    episodes: ClassVar[bool] = True
    """As `Reader`."""

    def __init__(self, options: ImportConfig) -> None:
        self.options, self.path = options, options.source
        self._rows: tuple[str, Rows] | None = None

    names: Sequence[str]
    """As `Reader`."""

    @abstractmethod
    def size_of(self, name: str) -> int:
        """As `Reader`."""

    @abstractmethod
    def pictures(self, name: str) -> Pictures:
        """The frames of a recording."""

    @abstractmethod
    def rows(self, name: str) -> Rows:
        """The rows of a recording."""

    def space(self) -> ActionSpace | None:
        """The space of the actions, where the format says it; else it is found by looking at all of them."""
        return None

    def open(self, name: str) -> LaidRecording:
        """As `Reader`."""
        where, pictures = self.where(name), self.pictures(name)
        steps = laid(self.rows(name), pictures.facts.frames, self._leads, self.options.align, where)
        try:
            self.action_space.validate(steps.actions, f"{where}: actions")
        except InputError as error:
            raise InputError(f"{error}. Are these the columns of the actions? --columns actions=NAME") from error
        return LaidRecording(pictures, steps, where)

    def where(self, name: str) -> str:
        """How errors call a recording."""
        return str(self.path / name) if self.path.is_dir() else f"{self.path}: {name}"

    @property
    def _leads(self) -> Leads:
        return self.options.action_leads or self.leads

    @property
    def action_space(self) -> ActionSpace:
        """As `Reader`."""
        return self._looked[0]

    @property
    def missing(self) -> tuple[str, ...]:
        """As `Reader`."""
        return self._looked[1]

    @property
    def notes(self) -> tuple[str, ...]:
        """As `Reader`."""
        return self._looked[2]

    @cached_property
    def _looked(self) -> tuple[ActionSpace, tuple[str, ...], tuple[str, ...]]:
        """Space, what is missing, and what to say of both: from a look at the rows of all recordings."""
        finder, missing, acting = SpaceFinder(), [], 0
        for name in self.names:
            try:
                rows = self.rows(name)
                if rows.actions is not None:
                    finder.add(rows.actions, self.where(name))
                    acting += 1
                missing.append(rows.missing)
            except InputError:
                continue  # it is told when it is opened
        if acting not in (0, len(missing)):
            raise InputError(
                f"{self.path}: {acting} of {len(missing)} recordings have actions, expected all or none: import them "
                "into two stores"
            )
        known = self.space()
        space = known or finder.space()
        lacks = tuple(sorted(set[str]().union(*missing)))
        return space, lacks, tuple(self._notes(acting, "" if known else guess(space), missing, lacks))

    def _notes(self, acting: int, said: str, missing: list[set[str]], lacks: tuple[str, ...]) -> Iterator[str]:
        if acting:
            yield (
                f"action t is taken to lead {self._leads} frame t"
                f"{' to frame t+1' if self._leads == 'from' else ', from the one before'} (--action-leads)"
            )
        elif missing:
            yield "there are no actions: a tokenizer and a prior without actions can be trained"
        if said:
            yield said
        for name in lacks:
            count = sum(name in one for one in missing)
            some = "" if count == len(missing) else f" {count} of {len(missing)} recordings"
            yield f"{name} are missing{f' in{some}' if some else ''}: a world model of these episodes knows none"
