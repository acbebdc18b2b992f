"""What to record, and how it is read for training. Free of heavy imports, so that scripts show their help at once."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from math import inf
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from vqvideo.errors import InputError, at_least
from vqvideo.storage.records import parse_yaml


def _arguments(words: list[str]) -> dict[str, Any]:
    """Of `NAME=VALUE ...`, with values in YAML."""
    pairs = [word.partition("=") for word in words]
    for name, equals, _ in pairs:
        if not (name and equals):
            raise ValueError(f"{name!r} is not NAME=VALUE, as in difficulty=2")
    return {name: parse_yaml(value, name) for name, _, value in pairs}


def _pairs(arguments: Mapping[str, Any]) -> list[str]:
    return [f"{name}={json.dumps(value)}" for name, value in arguments.items()]


Size = Annotated[int | str | tuple[int, int], tyro.conf.arg(metavar="N|HxW")]
AnySize = Annotated[int | str | tuple[int, int] | None, tyro.conf.arg(metavar="N|HxW")]
Pixels = Annotated[str | None, tyro.conf.arg(metavar="KEY|observation|render")]
Arguments = Annotated[
    dict[str, Any],
    PrimitiveConstructorSpec(
        nargs="*",
        metavar="[NAME=VALUE ...]",
        instance_from_str=_arguments,
        is_instance=lambda value: isinstance(value, Mapping),
        str_from_instance=_pairs,
    ),
]


@dataclass(frozen=True)
class RecordConfig:
    """What to record."""

    env: str = "CarRacing"
    """A preset (CarRacing, CarRacingAnywhere, Doom, DynamicObstacles, TinyWorld), a Gymnasium id (LunarLander-v3,
    ALE/Pong-v5, MinAtar/Breakout-v1, MiniGrid-Empty-5x5-v0, Ant-v5, VizdoomBasic-v1, ...), or module:id."""
    out: Path | None = None
    """Folder of the store; by default data/<environment>, such as data/car_racing, or data/<source>."""
    source: Path | None = None
    """Videos or other recordings to import, in the place of playing an environment: a folder, a file, or
    hf://someone/name. Only what import_data.py finds out by itself; it has all options."""
    episodes: int = 120
    """Episodes that the store holds in the end."""
    frames: int | None = None
    """Frames that it holds at least, about: where episodes end early, more are recorded. By default whatever the
    episodes have."""
    steps: int = 200
    """Longest episode, in stored steps."""
    frame_size: AnySize = None
    """Of the stored frames in pixels: 64 for squares, 48x96 for a height of 48 and a width of 96. By default 64, or
    what suits the environment's family."""
    pixels: Pixels = None
    """Where the frames come from; by default from a picture that is observed, else from what the environment draws."""
    env_kwargs: Arguments = field(default_factory=dict)
    """Arguments of the environment's constructor, such as difficulty=2 map=maze1, with values as in YAML."""
    held_out_every: int = 6
    """Every n-th episode is held out for evaluation; 0 for none."""
    policy: str | None = None
    """What presses the buttons: random, sticky-random, smooth, or for some games drive (CarRacing), arcade (Atari),
    minatar, wander (MiniGrid), roam (Doom); by default the preset's choice."""
    action_repeat: int | None = None
    """Env steps for which an action is held; by default the preset's."""
    skip_first: int | None = None
    """Env steps left out at the start of each episode; by default the preset's."""
    seed: int = 0
    """Everything follows from it: equal seeds record equal episodes."""
    workers: int | None = None
    """Processes; by default one per core. 0 plays in this process."""
    step_timeout: float = 60.0
    """Seconds after which a step counts as hung, and its worker is replaced; 0 for no limit."""
    reset_timeout: float = 600.0
    """The same for making the environment and for a reset, which may compile shaders or build a world."""

    def __post_init__(self) -> None:
        at_least(
            self,
            "--",
            episodes=1,
            frames=1,
            steps=1,
            seed=0,
            held_out_every=0,
            workers=0,
            step_timeout=0,
            reset_timeout=0,
        )
        _ = self.size
        if "render_mode" in self.env_kwargs:
            raise InputError("--env-kwargs: render_mode is set by the recorder; --pixels render records what is drawn")
        try:
            json.dumps(dict(self.env_kwargs), allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError(
                f"--env-kwargs: {error}; expected numbers, texts, true, false, null, lists and mappings of them: only "
                "those can be kept with the episodes"
            ) from error

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the stored frames in pixels; 64 and 64 as long as nobody looked at the environment."""
        return height_and_width(64 if self.frame_size is None else self.frame_size)

    @property
    def folder(self) -> Path:
        """Where the store is."""
        return self.out or (self.imported.folder if self.source else Path("data") / snake_case(self.env))

    @property
    def imported(self) -> ImportConfig:
        """What makes a store of the source. Of its episodes, those are held out that an import holds out, unless it is
        asked for others.
        """
        assert self.source is not None
        default = RecordConfig()
        return ImportConfig(
            self.source,
            out=self.out,
            frame_size=64 if self.frame_size is None else self.frame_size,
            steps=None if self.steps == default.steps else self.steps,
            held_out_every=None if self.held_out_every == default.held_out_every else self.held_out_every,
            workers=self.workers,
        )

    @property
    def command(self) -> str:
        """What records this at a shell: all settings that are not at their defaults."""
        words = ["python", "scripts/record.py"]
        default = RecordConfig()
        for setting in fields(self):
            value = getattr(self, setting.name)
            if value != getattr(default, setting.name):
                words.append(f"--{setting.name.replace('_', '-')}")
                value = "x".join(map(str, self.size)) if setting.name == "frame_size" else value
                words += _pairs(value) if isinstance(value, Mapping) else [str(value)]
        return shlex.join(words)


def check_name(name: str, runs: Path) -> None:
    """Raises InputError unless the name of a run is that of a folder inside of the folder of all runs."""
    parts = Path(name).parts
    if not parts or Path(name).is_absolute() or ".." in parts or not name.isprintable():
        raise InputError(
            f"--name {name!r} is no folder inside of {runs}: take a name such as car_racing, and --runs for another "
            "place of all runs"
        )


@dataclass(frozen=True)
class ImportConfig:
    """What to make a store of that was recorded elsewhere."""

    source: tyro.conf.Positional[Path]
    """A folder of recordings, searched in depth, or one file; hf://someone/name for a data set of the Hugging Face
    Hub."""
    format: Annotated[str | None, tyro.conf.arg(name="from", metavar="FORMAT")] = None
    """What they are, one of the formats above; by default what they look like."""
    out: Path | None = None
    """Folder of the store; by default data/<source>, such as data/my_videos."""
    title: str | None = None
    """What the store says that it shows; by default the name of the source."""
    frame_size: Size = 64
    """Of the stored frames in pixels: 64 for squares, 48x96 for a height of 48 and a width of 96."""
    fit: Literal["crop", "pad", "stretch"] = "crop"
    """Where a recording has another shape: crop keeps the largest piece in its middle, pad keeps all and fills up with
    black, stretch distorts."""
    fps: float | None = None
    """Frames per second to keep: every n-th frame, with the n that comes nearest; by default all of them."""
    source_fps: float | None = None
    """Frames per second of recordings that do not say it; 25 by default."""
    source_size: AnySize = None
    """Height and width of frames that are only bytes, of recordings that do not say it: 90x160."""
    aggregate: Literal["last", "mean", "sum"] = "last"
    """What --fps makes of the actions between two frames that are kept. Rewards are always summed."""
    action_leads: Literal["from", "to"] | None = None
    """Whether the action in the row of a frame leads from this frame to the next, or led to it from the one before; by
    default as the format is usually written."""
    align: Literal["drop-last", "repeat-last", "shortest"] = "drop-last"
    """Where there are as many actions as frames, so that nothing shows what the last one did: drop it with its reward
    and end, or show the last frame again. shortest: also where many more of one than of the other are missing at the
    end."""
    columns: Arguments = field(default_factory=dict)
    """Which columns or arrays are what, for roles frames, actions, rewards, ends: actions=[steer,gas] rewards=score
    ends=null."""
    cameras: tuple[str, ...] = ()
    """Of several cameras those to keep, side by side; by default the only one."""
    steps: int | None = None
    """Longest episode: longer recordings are cut. By default 200, or less where else no episode could be held out."""
    held_out_every: int | None = None
    """Every n-th episode is held out for evaluation; 0 for none. By default 6, or the last one of fewer. What its
    authors hold out, as the test images of MNIST, stays so, and no others beside it."""
    workers: int | None = None
    """Processes that decode; by default one per core where there is enough to do."""
    skip_broken: bool = False
    """Leave out what cannot be read, in place of an error before anything is written."""
    dry_run: bool = False
    """Say what would be done and draw it, into a picture beside the folder of the store; import nothing."""

    def __post_init__(self) -> None:
        at_least(self, "--", steps=1, held_out_every=0, workers=1)
        for name, rate in (("fps", self.fps), ("source-fps", self.source_fps)):
            if rate is not None and not 0 < rate < inf:
                raise InputError(f"--{name} is {rate}, expected frames per second, more than 0")
        _ = self.size
        if self.source_size is not None:
            height_and_width(self.source_size, "source-size")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the stored frames in pixels."""
        return height_and_width(self.frame_size)

    @property
    def name(self) -> str:
        """What the store shows: as asked, or the name of the folder, of the file without its ending, or of the
        repository.
        """
        if self.title is not None or self.repository is not None:
            return self.title or str(self.repository).rpartition("/")[2]
        place = self.source.resolve()
        return place.stem if place.is_file() else place.name

    @property
    def repository(self) -> str | None:
        """The repository that is to be fetched, if the source is one."""
        # What looks like an address is a path whose double slash is lost.
        return "/".join(self.source.parts[1:]) if self.source.parts[:1] == ("hf:",) else None

    @property
    def folder(self) -> Path:
        """Where the store is."""
        return self.out or Path("data") / (snake_case(self.name) or "imported")


def height_and_width(given: int | str | tuple[int, int], option: str = "frame-size") -> tuple[int, int]:
    """What --frame-size or a similar option says: 64 is (64, 64), "48x96" is (48, 96)."""
    written = given.lower().replace("×", "x").split("x") if isinstance(given, str) else given
    try:
        sides = [int(side) for side in ([written] if isinstance(written, int) else written)]
        h, w = sides * 2 if len(sides) == 1 else sides
    except (TypeError, ValueError):
        h = w = 0
    if min(h, w) < 1:
        raise InputError(
            f"--{option} is {given!r:.80}, expected a side in pixels, as in 64, or height x width, as in 48x96"
        )
    return h, w


def snake_case(name: str) -> str:
    """A folder name: CarRacing becomes car_racing, ALE/Pong-v5 ale_pong_v5."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return re.sub(r"[^a-z0-9]+", "_", words.lower()).strip("_")


@dataclass(frozen=True)
class SegmentConfig:
    """How episodes are cut up for encoding."""

    latent_steps: int = 13
    """Latent steps of a segment; shorter episodes make shorter ones."""
    every: int = 7
    """Frames from the start of one segment to the next; an odd number meets every phase of the time stride."""

    def __post_init__(self) -> None:
        at_least(self, "segments.", latent_steps=2, every=1)


@dataclass(frozen=True)
class StillsConfig:
    """Images in every training batch, beside the clips. An image is a clip of one frame."""

    per_batch: int = 0
    """Images per optimizer step, over all ranks and accumulated micro batches."""
    folder: Path | None = None
    """Folder of images (PNG, JPEG, WebP, BMP), searched in depth; by default single frames of the training episodes.
    Transparent parts are shown on white; of an animation the first frame counts."""

    def __post_init__(self) -> None:
        at_least(self, "stills.", per_batch=0)
