"""Which world model and which episodes a command means: named ones, those made here, or those that come along."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqvideo.data.config import check_name, snake_case
from vqvideo.errors import InputError

if TYPE_CHECKING:
    from vqvideo.data.clips import Clips
    from vqvideo.data.store import Store
    from vqvideo.world import WorldModel


@dataclass(frozen=True)
class Source:
    """Which world model, and which episodes."""

    env: str = "CarRacing"
    """Environment that was recorded: a preset or a Gymnasium id."""
    name: str | None = None
    """Name of the run that trained the world model; by default the environment's, such as car_racing."""
    world: Path | None = None
    """Folder of the world model, or the name of a shipped one; by default runs/<name>/world, and where nothing was
    trained, the shipped one of the environment."""
    store: Path | None = None
    """Folder of the episodes; by default data/<name> if there is one, or else data/<environment>, such as
    data/car_racing, and where nothing was recorded, the shipped clips."""

    @property
    def run_folder(self) -> Path:
        """Folder of the run."""
        runs = Path("runs")
        if self.name is not None:
            check_name(self.name, runs)
        return runs / (self.name or snake_case(self.env))

    @property
    def results(self) -> Path:
        """Folder for what is found out about the world: the one it lies in; that of the run for a shipped one."""
        return self.world.parent if self.world and self.world.is_dir() else self.run_folder

    @property
    def title(self) -> str:
        """What to call the world: as its run, or as the shipped one."""
        return self.world.name if self.world and not self.world.is_dir() else self.results.name

    @property
    def trained_in(self) -> Path | None:
        """Folder of the run that trained the world; None for a shipped one."""
        folder = self.world or self.run_folder / "world"
        return folder.parent if folder.is_dir() else None

    @classmethod
    def of_run(cls, run: Path, store: Path | None = None) -> Source:
        """The world model and the episodes of a run.

        Args:
            run: its folder, or that of a world model, or the name of a shipped one.
            store: folder of the episodes; by default those that it trained on.

        Raises:
            InputError: nothing of that kind is there, or nothing there says which episodes it trained on.
        """
        from vqvideo import pretrained
        from vqvideo.storage.files import standing

        if not run.is_dir() and pretrained.find(str(run)):
            return Source(env=run.name, world=run, store=store)
        world = run if (run / "config.json").is_file() else run / "world"
        if not standing(world).is_dir():
            raise InputError(
                f"{run}: no world model in it, and none of that name comes along. Expected the folder of a run whose "
                "prior is trained, such as runs/car_racing"
            )
        return Source(world=world, store=store or _trained_on(world.parent))

    def find(self) -> tuple[WorldModel, Store]:
        """The world model and the episodes.

        Raises:
            InputError: one of them is not there or damaged, or they are of different environments.
        """
        world, store = self.find_world(), self.find_store()
        store.require(world.action_space, world.vqvae.frame_size)
        return world, store

    def find_world(self) -> WorldModel:
        """The world model that was asked for or trained here, or else the shipped one.

        Raises:
            InputError: there is none, with the commands that train one.
        """
        from vqvideo.storage.files import standing
        from vqvideo.training.hardware import default_device
        from vqvideo.world import WorldModel

        folder = self.world or self.run_folder / "world"
        if not standing(folder).is_dir():
            shipped = self._shipped()
            if shipped is None:
                raise InputError(self._no_world(folder))
            print(f"no world model in {folder}: taking {shipped.name}, which comes with vqvideo")
            folder = shipped
        return WorldModel.from_pretrained(folder).to(default_device())

    def find_store(self) -> Store:
        """The episodes that were asked for or recorded here, or else the clips of the shipped world."""
        from vqvideo import pretrained
        from vqvideo.data.store import Store

        folder = self.store or self._own_store or Path("data") / snake_case(self.env)
        shipped = self._shipped() or pretrained.find(self.env)
        if self.store is not None or folder.is_dir():
            return Store.open(folder)
        if shipped is None:
            raise InputError(
                f"no episodes in {folder}. Name others with --store; or record some: python scripts/record.py --env "
                f"{self.env}"
            )
        store = pretrained.start_store(shipped.name)
        print(f"no episodes in {folder}: taking the {len(store.entries)} start clips of {shipped.name}")
        return store

    def write_figures(
        self, path: Path, world: WorldModel, store: Store, seconds: float, **figures: Any
    ) -> dict[str, Any]:
        """Writes figures as JSON, with what they are of and what measured them. Returns what is written."""
        from vqvideo.storage import files
        from vqvideo.storage.records import to_plain, without_nan
        from vqvideo.training.hardware import hardware, versions

        record = {
            "world": str(self.world or self.run_folder.name),
            "fingerprint": world.fingerprint(),
            "store": str(store.path),
            "store_digest": store.digest,
            "hardware": hardware(),
            "versions": versions(),
            "settings": to_plain(self),
            "seconds": round(seconds, 1),
            **without_nan(figures),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_file(path, (json.dumps(record, indent=2, allow_nan=False) + "\n").encode())
        print(f"figures {path}")
        return record

    @property
    def _own_store(self) -> Path | None:
        """The episodes that are called as the run is, if there are any."""
        folder = Path("data") / (self.name or "")
        return folder if self.name and folder.is_dir() else None

    def _shipped(self) -> Path | None:
        """The folder of the shipped world that stands in for one that is not there."""
        from vqvideo import pretrained

        if self.world is not None:
            return pretrained.find(str(self.world))
        # Who names a run of their own wants no other one.
        return pretrained.find(self.env) if self.name is None else None

    def _no_world(self, folder: Path) -> str:
        """What to do when there is no world model: the commands that train one, and the shipped ones."""
        from vqvideo import pretrained

        name = self.run_folder.name
        # In a clone the configs lie beside the package, in a wheel inside it.
        known = resources.files("vqvideo.configs").joinpath(f"{name}.yaml").is_file()
        store = self.store or self._own_store
        episodes = f"--store {store}" if store else f"--env {self.env}"
        own = f"--name {name} {episodes}" if store or self.name else episodes
        settings = f"--config configs/{name}.yaml" if known else own
        shipped = ", ".join(pretrained.worlds())
        return (
            f"no world model in {folder}. Train one:\n"
            f"  accelerate launch scripts/train_vqvae.py {settings}\n"
            f"  accelerate launch scripts/train_prior.py {settings}\n"
            "or take the quickstart's (python scripts/quickstart.py, CarRacing, about ten minutes):\n"
            "  python scripts/rollout.py --world runs/quickstart/world --store data/quickstart"
        ) + (f"\nor one that comes with vqvideo: --env {shipped}" if shipped else "")


def _trained_on(run: Path) -> Path:
    """The episodes that the settings of a run name."""
    from vqvideo.experiment.config import Experiment
    from vqvideo.storage.records import read_yaml, typed

    for settings in (run / stage / "config.yaml" for stage in ("prior", "vqvae")):
        if settings.is_file():
            store = typed(Experiment, read_yaml(settings), str(settings)).record.folder
            if store.is_dir():
                return store
            raise InputError(f"{run} trained on the episodes of {store}, which are not there: name others with --store")
    raise InputError(
        f"{run}: nothing there says which episodes it trained on: name them, such as --store data/{run.absolute().name}"
    )


def clips_to_dream(world: WorldModel, store: Store, **steps: int) -> Clips:
    """Held-out clips that hold the context and what is dreamt.

    Args:
        world: the model.
        store: the episodes.
        steps: latent steps by the option that asks for them, such as context=3, horizon=16.

    Raises:
        InputError: no episode is that long; it names the options.
    """
    from vqvideo.data.clips import Clips

    try:
        return Clips(store, "held_out", world.vqvae.clip_length(sum(steps.values())))
    except InputError as error:
        options = " and ".join(f"--{name} {count}" for name, count in steps.items())
        raise InputError(f"{error}: here with {options}") from error
