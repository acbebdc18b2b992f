"""Measures how well a world finds anomalies: a suite of them with known beginnings, beside simple detectors.

    python scripts/record.py --env CarRacing --episodes 48 --seed 1000 --held-out-every 1 --out data/fresh
    python scripts/evaluate_anomalies.py --world carracing --store data/fresh
    python scripts/evaluate_anomalies.py                        # by the clips that come along: shorter, without faults

One half of the held-out episodes says what is normal; in each of the others something goes wrong from a step on. What
is made: commands that are swapped or late, colours, noise, occlusions, jumps, a camera that freezes, drops frames or
runs backwards, ...; where the episodes can be played again, the real environment with faults; and other environments.
Prints a table for the scores together, and one with a column for each; writes them as JSON and as a picture.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from vqvideo import cli
from vqvideo.errors import InputError, at_least
from vqvideo.experiment.finding import Source

if TYPE_CHECKING:
    from vqvideo.data.episode import Episode
    from vqvideo.data.store import Store
    from vqvideo.evaluation.anomaly_trials import Trial, Trials
    from vqvideo.evaluation.detection import Interval
    from vqvideo.models.tokenizer.features import Lite0Features
    from vqvideo.world import WorldModel

COLUMNS = ("anomaly", "AUROC", "average precision", "false alarms", "found", "delay")


@dataclass(frozen=True)
class Options(Source):
    """What to measure."""

    episodes: int = 48
    """Held-out episodes at most, spread over the split: one half is normal, the other is tested."""
    before: int = 8
    """Latent steps before something goes wrong."""
    after: int = 8
    """Latent steps from then on."""
    rate: float = 0.005
    """Share of the steps of normal episodes that may be false alarms."""
    made: bool = True
    """Make anomalies of the recorded episodes."""
    play: bool = True
    """Play the episodes again in the real environment, with faults, and films of other ones."""
    played: int = 8
    """Episodes that are played again, of the tested ones: each takes about a second for each fault."""
    others: tuple[str, ...] = ("TinyWorld", "CartPole-v1", "LunarLander-v3")
    """Other environments."""
    neighbour: bool = True
    """Also the nearest neighbour among features of EfficientNet-Lite0; needs the packages of vqvideo[perceptual]."""
    seed: int = 0
    """Of where anomalies begin and of what they draw."""
    threads: int | None = None
    """CPU threads; by default measured."""
    json: Path | None = None
    """Figures; by default anomalies.json beside the world model, for a shipped one in runs/<name>."""
    plot: Path | None = None
    """Picture; by default anomalies.png beside the figures where matplotlib is installed."""

    def __post_init__(self) -> None:
        at_least(self, "--", episodes=4, before=1, after=1, played=2)


def evaluate(options: Options) -> dict[str, Any]:
    """Measures, prints, draws and writes; returns what is written."""
    from vqvideo.storage.files import check_writable
    from vqvideo.training.hardware import configure_threads

    out = options.json or options.results / "anomalies.json"
    check_writable(out.parent)
    configure_threads(options.threads)
    world, store = options.find()
    began = time.perf_counter()
    trials, episodes = prepared(options, world, store)
    found = run(options, trials, store, episodes)
    alarms = trials.alarms()
    print(tables(found, alarms, trials.steps, options.rate))
    figures = {"steps": trials.steps, "false_alarms": alarms, "trials": [trial.to_json() for trial in found]}
    record = options.write_figures(out, world, store, time.perf_counter() - began, anomalies=figures)
    draw(options, found, out)
    return record


def prepared(options: Options, world: WorldModel, store: Store) -> tuple[Trials, list[Episode]]:
    """The trials, and the episodes that are tested. InputError for too few or too short ones."""
    from vqvideo.evaluation.anomaly_trials import Trials
    from vqvideo.evaluation.made_anomalies import Film
    from vqvideo.evaluation.metrics import evenly

    frames = world.vqvae.clip_length(1 + options.before + options.after)
    entries = store.long_enough("held_out", frames)
    if len(entries) < 4:
        raise InputError(f"{len(entries)} held-out episodes of {frames} frames or more, expected at least 4")
    episodes = [store.episode(entries[place]) for place in evenly(len(entries), options.episodes)]
    films = [Film(episode.frames, episode.actions) for episode in episodes]
    window = {"before": options.before, "after": options.after}
    trials = Trials(
        world, films[::2], films[1::2], **window, rate=options.rate, seed=options.seed, net=network(options)
    )
    return trials, episodes[1::2]


def network(options: Options) -> Lite0Features | None:
    """That of the nearest neighbour, if it is wanted and there."""
    from vqvideo.evaluation.frame_sets import lite0_missing
    from vqvideo.models.tokenizer.features import Lite0Features

    missing = lite0_missing()
    if options.neighbour and missing:
        print(f"without the nearest neighbour, which needs: {missing}")
    return Lite0Features() if options.neighbour and not missing else None


def run(options: Options, trials: Trials, store: Store, episodes: Sequence[Episode]) -> list[Trial]:
    """Every anomaly that can be made here."""
    from tqdm import tqdm

    from vqvideo.evaluation.made_anomalies import Anomaly, suite

    made: list[Anomaly] = suite(store.meta.action_space) if options.made else []
    if options.play and not store.meta.imported:
        from vqvideo.scripts.anomaly_films import faulty, strangers

        count = trials.stride * options.after
        made += [
            *faulty(store.meta, episodes, trials.cases, options.played),
            *strangers(options.others, store.meta, count, options.seed),
        ]
    if not made:
        raise InputError("nothing to look for: leave out --no-made or --no-play, or name a store that was not imported")
    found = []
    for anomaly in tqdm(made, unit="anomaly", leave=False):
        trial = trials.run(anomaly)
        if trial is None:
            logging.getLogger(__name__).warning("%s %s: the episodes are too short", anomaly.name, anomaly.severity)
        else:
            found.append(trial)
    return sorted(found, key=lambda trial: list(dict.fromkeys(one.family for one in found)).index(trial.family))


def tables(found: Sequence[Trial], alarms: dict[str, float], steps: int, rate: float) -> str:
    """The scores together, then each alone, then false alarms."""
    from vqvideo.evaluation.tables import cell, table

    rows = []
    for trial in found:
        one = trial.found["together"]
        figures = (between(one.auroc, ".3f"), between(one.average_precision, ".3f"), between(one.false_alarms, ".1f"))
        rows.append((f"{trial.family}: {trial.title}", *figures, cell(one.found, ".0%"), cell(one.delay, ".1f")))
    names = list(alarms)
    alone = [
        (f"{trial.family}: {trial.title}", *(cell(trial.found[name].auroc.value, ".3f") for name in names))
        for trial in found
    ]
    last = ("false alarms in 1,000 steps", *(cell(alarms[name], ".1f") for name in names))
    return (
        "All signals together; in brackets 95 % of resampled episodes. False alarms are those in 1,000 normal steps "
        "where 95 % of the steps of the anomaly are found; found and delay (in latent steps, 0 the first one) those "
        f"of episodes at the threshold for {rate:g} false alarms a step\n\n{table(COLUMNS, rows)}\n\n"
        f"AUROC of each score; last row: at its threshold, over {steps} normal steps\n\n"
        f"{table(('anomaly', *names), [*alone, last])}"
    )


def between(figure: Interval, form: str) -> str:
    """A figure with its interval."""
    return f"{figure.value:{form}} ({figure.low:{form}}-{figure.high:{form}})"


def draw(options: Options, found: Sequence[Trial], figures: Path) -> None:
    """Writes the picture; by default only where matplotlib is installed."""
    from importlib.util import find_spec

    from vqvideo.scripts.anomaly_plot import plot_anomalies
    from vqvideo.scripts.fidelity_plot import require_matplotlib

    if options.plot is None and find_spec("matplotlib") is None:
        return
    path = options.plot or figures.with_suffix(".png")
    require_matplotlib(path)
    plot_anomalies(found, path)
    print(f"picture {path}")


def main() -> None:
    """Reads the command line and measures."""
    evaluate(tyro.cli(Options, description=__doc__))


if __name__ == "__main__":
    cli.run(main)
