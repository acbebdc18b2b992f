"""Writes one page on what a world is worth: figures, curves, dreams, worst clips, codes, training, protocol.

    python scripts/report.py --run runs/car_racing
    python scripts/report.py --name car_racing
    python scripts/report.py --world carracing                        the one that comes along, on its start clips
    python scripts/report.py --compare runs/one runs/another          beside each other, on the same clips

The page is a single HTML file that opens anywhere, without a network. Everything in it is measured now, on held-out
clips; `pip install 'vqvideo[report]'` brings what draws it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from vqvideo import cli
from vqvideo.errors import InputError, at_least
from vqvideo.experiment.drawing import Drawing
from vqvideo.experiment.finding import Source, clips_to_dream

if TYPE_CHECKING:
    from vqvideo.data.store import Store
    from vqvideo.evaluation.report.measure import Measured
    from vqvideo.world import WorldModel

STAGES = ("vqvae", "prior")


@dataclass(frozen=True)
class Options(Source):
    """What to report on."""

    run: Path | None = None
    """Folder of a run, such as runs/car_racing, in the place of --name; its episodes are those that it trained on."""
    compare: tuple[Path, ...] = ()
    """Several runs, or worlds, beside each other; all on the episodes of --store, or of the first one."""
    out: Path | None = None
    """The page; by default report.html in the folder of the run, of several comparison.html in that of the first."""
    clips: int = 32
    """Held-out clips to dream on from."""
    shown: int = 3
    """Clips to show, and as many of the worst."""
    context: int | None = None
    """Latent steps that the model sees; of worlds of several time strides those of the largest one. By default 3, or
    fewer where a prior does not look back so far."""
    horizon: int = 16
    """Latent steps to imagine; counted as --context is."""
    teacher_steps: int = 13
    """Latent steps of the clips for the teacher-forced figures, which cover every step of the split."""
    sampling: tyro.conf.OmitArgPrefixes[Drawing] = field(default_factory=Drawing)
    """How codes are drawn."""
    seed: int = 0
    """Equal seeds dream equal dreams."""
    threads: int | None = None
    """CPU threads; by default measured."""

    def __post_init__(self) -> None:
        at_least(self, "--", clips=2, shown=1, context=1, horizon=1, teacher_steps=2)
        if len(self.compare) == 1:
            raise InputError(f"--compare {self.compare[0]}: expected at least two runs; for a single one take --run")

    def sources(self) -> list[Source]:
        """The worlds that were asked for, and their episodes."""
        if self.compare:
            first = Source.of_run(self.compare[0], self.store)
            return [first, *(Source.of_run(run, first.store) for run in self.compare[1:])]
        return [Source.of_run(self.run, self.store) if self.run else self]


def report(options: Options) -> Path:
    """Measures, and writes the page."""
    from vqvideo.evaluation.report.sections import written
    from vqvideo.scripts.fidelity_plot import require_matplotlib
    from vqvideo.storage import files
    from vqvideo.training.hardware import configure_threads

    require_matplotlib()
    sources = options.sources()
    out = options.out or sources[0].results / ("comparison.html" if options.compare else "report.html")
    files.check_writable(out.parent)
    configure_threads(options.threads)
    found = _found(sources)
    stride = max(world.stride for world, _ in found)
    if options.context is None:
        back = [1 + (world.prior.cfg.window - 1) * world.stride // stride for world, _ in found]
        options = replace(options, context=min(3, *back))
    names = titles(sources)
    measured = [
        _measured(options, source, name, world, store, stride)
        for source, name, (world, store) in zip(sources, names, found, strict=True)
    ]
    what = "these worlds are" if options.compare else "this world is"
    text = written(f"{' and '.join(names)}: what {what} worth", measured)
    files.make_folder(out.parent)
    files.write_file(out, text.encode())
    print(f"page    {out} ({len(text) / 2**20:.1f} MiB): open it in a browser")
    return out


def titles(sources: list[Source]) -> list[str]:
    """What the page calls the worlds: those of one name are numbered."""
    names = [source.title for source in sources]
    return [name if names.count(name) == 1 else f"{name} ({number})" for number, name in enumerate(names, 1)]


def _found(sources: list[Source]) -> list[tuple[WorldModel, Store]]:
    """The worlds, all on the episodes of the first one."""
    world, store = sources[0].find()
    others = [source.find_world() for source in sources[1:]]
    for other in others:
        store.require(other.action_space, other.vqvae.frame_size)
    return [(world, store), *((other, store) for other in others)]


def _measured(options: Options, source: Source, name: str, world: WorldModel, store: Store, stride: int) -> Measured:
    """All that the page shows of one world; clips are equally long in frames, whatever its time stride."""
    from vqvideo.evaluation.report.measure import Questions, Subject, measure

    began, times = time.perf_counter(), stride // world.stride
    if stride % world.stride:
        raise InputError(f"time strides {world.stride} and {stride}: expected one to be a multiple of the other")
    context, horizon = 1 + times * ((options.context or 1) - 1), times * options.horizon
    clips = clips_to_dream(world, store, context=context, horizon=horizon)
    asked = Questions(
        options.clips, options.shown, context, times * options.teacher_steps, options.sampling.of(world), options.seed
    )
    subject = Subject(name, world, clips, _logs(source), _named(world), {})
    found = measure(subject, asked)
    facts = _facts(options, source, world, store) | {"measured in": f"{time.perf_counter() - began:.0f} s"}
    return replace(found, subject=replace(subject, facts=facts))


def _logs(source: Source) -> dict[str, list[dict[str, Any]]]:
    """What a run logged in training, by stage; nothing of a world that comes along."""
    from vqvideo.training.run_folder import RunFolder

    folder = source.trained_in
    return {stage: RunFolder(folder / stage).records() for stage in STAGES} if folder else {}


def _named(world: WorldModel) -> Mapping[str, tuple[float, ...]]:
    from vqvideo.scripts.rollout import named_actions

    return named_actions(world)


def _facts(options: Options, source: Source, world: WorldModel, store: Store) -> dict[str, str]:
    """What was measured, how, and by what."""
    from vqvideo.storage.files import sha256_file
    from vqvideo.training.hardware import commit, hardware, versions

    how = options.sampling.of(world)
    configs = {stage: (source.trained_in or Path()) / stage / "config.yaml" for stage in STAGES}
    digests = {f"settings of {stage}": sha256_file(path) for stage, path in configs.items() if path.is_file()}
    machine, held_out = hardware(), store.split("held_out")
    load = ", ".join(f"{value:.1f}" for value in machine["load_average"])
    return {
        "world": f"{source.world or source.run_folder / 'world'} of {world.env.env_id}, fingerprint "
        f"{world.fingerprint()}",
        "episodes": f"{store.path}, {len(held_out)} held out, digest {store.digest}",
        "dreams": f"temperature {how.temperature:g}, top-p {how.top_p:g}, top-k {how.top_k}, guidance "
        f"{how.guidance:g}, seed {options.seed}",
        **digests,
        "versions": ", ".join(f"{name} {version}" for name, version in versions().items() if version),
        "commit": commit() or "not in a clone",
        "hardware": f"{machine['description']}; load {load} (1, 5, 15 minutes)",
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }


def main() -> None:
    """Reads the command line and reports."""
    report(tyro.cli(Options, description=__doc__))


if __name__ == "__main__":
    cli.run(main)
