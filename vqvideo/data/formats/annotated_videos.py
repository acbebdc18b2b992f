"""Films with a file of rows beside each: name.mp4 and name.csv, .jsonl, .npz or .npy, a row per frame."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vqvideo.data.files_below import files_below
from vqvideo.data.formats.columns import rows_of
from vqvideo.data.formats.rows import RowReader, Rows
from vqvideo.data.formats.tables import READERS, json_lines, read_table
from vqvideo.data.formats.videos import ENDINGS, Film, film_names, place_of
from vqvideo.errors import InputError
from vqvideo.spaces import ActionSpace

if TYPE_CHECKING:
    from vqvideo.data.config import ImportConfig


def beside(film: Path) -> Path | None:
    """The file of rows beside a film."""
    return next((path for ending in READERS if (path := film.with_suffix(ending)).is_file()), None)


def _first_annotated(path: Path) -> Path | None:
    """The file of rows of the first film that has one."""
    films = [path] if path.is_file() else [path / name for name in files_below(path, ENDINGS)[0]]
    return next((rows for film in films if film.suffix.lower() in ENDINGS and (rows := beside(film))), None)


class AnnotatedVideos(RowReader):
    """All films below a folder, each with its rows; or one film."""

    episodes = False

    def __init__(self, options: ImportConfig) -> None:
        super().__init__(options)
        self.names = film_names(self.path)
        bare = [name for name in self.names if beside(place_of(self.path, name)) is None]
        if bare:
            raise InputError(
                f"{self.path}: {len(bare)} of {len(self.names)} videos have no file of actions beside them, such as "
                f"{bare[0]}: expected {Path(bare[0]).with_suffix('.csv')} (or {', '.join(list(READERS)[1:])}). To "
                "leave the actions of the others out: --from videos"
            )

    @staticmethod
    def recognises(path: Path) -> bool:
        """Whether a film has rows beside it."""
        return _first_annotated(path) is not None

    def size_of(self, name: str) -> int:
        """Bytes of the film and its rows."""
        film = place_of(self.path, name)
        return film.stat().st_size + self._annotation(name).stat().st_size

    def pictures(self, name: str) -> Film:
        """As `RowReader`."""
        return Film(place_of(self.path, name), every_frame=True)

    def rows(self, name: str) -> Rows:
        """As `RowReader`."""
        path = self._annotation(name)
        rows = rows_of(read_table(path), self.options.columns, str(path))
        if rows.actions is None and "actions" not in self.options.columns:
            raise InputError(f"{path}: no column is called action: --columns actions=NAME, or actions=null for none")
        return rows

    def _annotation(self, name: str) -> Path:
        found = beside(place_of(self.path, name))
        assert found is not None  # looked for when the reader was made
        return found


# ---------------------------------------------------------------- contractor recordings of Minecraft

KEYS = (
    *(f"key.keyboard.{name}" for name in ("w", "a", "s", "d", "space", "left.shift", "left.control", "q", "e", "f")),
    *("key.keyboard.escape", *(f"key.keyboard.{number}" for number in range(1, 10))),
)
"""The keys that mean something: move, jump, sneak, sprint, drop, inventory, swap hands, leave, hotbar."""
_BUTTONS = 3
"""Of the mouse: attack, use, pick."""
_DEGREES = 360 / 2400
"""That the camera turns for a pixel of the mouse, as the recorder of VPT does."""


class VPT(AnnotatedVideos):
    """Recordings as those of VPT: name.mp4 and name.jsonl, a line per frame with keyboard and mouse, 20 a second.

    An action is {"camera": (pitch, yaw) in degrees, "keys": those of `KEYS` and three buttons of the mouse}.
    """

    @staticmethod
    def recognises(path: Path) -> bool:
        """Whether the first file of rows tells of mouse and keyboard."""
        rows = _first_annotated(path)
        if rows is None or rows.suffix.lower() != ".jsonl":
            return False
        try:
            return all(name in line for line in islice(json_lines(rows), 1) for name in ("mouse", "keyboard"))
        except InputError:
            return False

    def space(self) -> ActionSpace:
        """As `RowReader`."""
        from gymnasium import spaces

        camera, keys = spaces.Box(-180.0, 180.0, (2,)), spaces.MultiBinary(len(KEYS) + _BUTTONS)
        return ActionSpace.from_gymnasium(spaces.Dict({"camera": camera, "keys": keys}))

    def rows(self, name: str) -> Rows:
        """As `RowReader`."""
        path = self._annotation(name)
        lines = [_pressed(line, f"{path}, line {number}") for number, line in enumerate(json_lines(path), 1)]
        return Rows(np.array(lines, np.float64).reshape(len(lines), 2 + len(KEYS) + _BUTTONS))


def _pressed(line: dict[str, Any], where: str) -> NDArray[np.float64]:
    try:
        mouse, down = line["mouse"], set(line["keyboard"]["keys"])
        camera = [float(mouse["dy"]) * _DEGREES, float(mouse["dx"]) * _DEGREES]
        buttons = set(mouse["buttons"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{where}: {error!r}, expected mouse with dx, dy and buttons, and keyboard with keys"
        ) from error
    keys = [key in down for key in KEYS] + [number in buttons for number in range(_BUTTONS)]
    return np.array([*np.clip(camera, -180, 180), *keys], np.float64)
