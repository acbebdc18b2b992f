"""The whole of vqvideo in one command: drive a real CarRacing, then watch it dreamt.

    python scripts/quickstart.py

Records episodes, trains tokenizer and prior, imagines videos of held-out episodes, and prints the figures. Takes
nine to ten minutes on two CPU cores, longer on busy ones. Interrupted, the same command goes on where it stopped.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vqvideo import cli

if TYPE_CHECKING:
    from vqvideo.data.config import RecordConfig
    from vqvideo.data.store import Store
    from vqvideo.evaluation.horizon import HorizonReport
    from vqvideo.experiment.config import Experiment

CONFIG = Path(__file__).parents[1] / "configs" / "quickstart.yaml"


def quickstart(cfg: Experiment) -> dict[str, Any]:
    """Runs all stages and returns what is written to results.json."""
    from vqvideo.experiment.checks import check_settings, check_store
    from vqvideo.experiment.config import world_folder
    from vqvideo.experiment.prior import train_prior
    from vqvideo.experiment.tokenizer import train_vqvae
    from vqvideo.scripts.rollout import Options, rollout
    from vqvideo.training.hardware import hardware

    # What the last part would refuse is refused before the first.
    dreams = (Options.context, Options.length)
    check_settings(cfg, "vqvae", "prior", dreams=dreams)
    began, earlier = time.perf_counter(), trained_seconds(cfg)
    headline(1, f"recording {cfg.record.episodes} episodes of {cfg.record.env}")
    store = recorded(cfg.record)
    check_store(cfg, store, "vqvae", "prior", dreams=dreams)
    headline(2, "training the tokenizer: video to codes")
    tokenizer = train_vqvae(cfg, store, resume=True)
    headline(3, "training the prior: what comes next, given the actions")
    prior = train_prior(cfg, store, resume=True)
    headline(4, "dreaming on from held-out frames")
    options = Options(
        env=cfg.record.env,
        world=world_folder(cfg),
        store=cfg.record.folder,
        out=cfg.folder / "rollout",
        sampling=cfg.sampling,
    )
    result = rollout(options)
    assert result.report is not None
    speeds = imagination_speeds(cfg)
    figures = summary(cfg, tokenizer, prior, result.report, speeds)
    return {
        "seconds": round(time.perf_counter() - began + earlier, 1),
        "hardware": hardware(),
        **figures,
        "video": str(result.video),
        "picture": str(result.picture),
    }


def recorded(options: RecordConfig) -> Store:
    """The episodes, those recorded now that are missing; of a store that cannot be written, those that it holds."""
    from vqvideo.data.store import Store
    from vqvideo.envs.recording import record
    from vqvideo.storage.files import DiskError, check_writable

    try:
        check_writable(options.folder)
    except DiskError as error:
        if not (options.folder / "manifest.jsonl").is_file():
            raise
        print(f"taking the episodes that are there: {error}")
        return Store.open(options.folder)
    return Store.open(record(options))


def trained_seconds(cfg: Experiment) -> float:
    """Training time of an earlier call that this one continues; 0 for a first one."""
    return sum(last["seconds"] for last in last_records(cfg).values())


def last_records(cfg: Experiment) -> dict[str, dict[str, Any]]:
    """The last log line of each stage that has begun."""
    from vqvideo.training.run_folder import RunFolder

    logs = {stage: RunFolder(cfg.folder / stage).records() for stage in ("vqvae", "prior")}
    return {stage: log[-1] for stage, log in logs.items() if log}


def headline(number: int, text: str) -> None:
    """Tells what happens now."""
    print(f"\n[{number}/4] {text}", flush=True)


def imagination_speeds(cfg: Experiment) -> dict[str, float]:
    """Imagined frames per second for 1 and 16 streams."""
    from vqvideo.evaluation.speed import imagination_speed
    from vqvideo.experiment.config import world_folder
    from vqvideo.training.hardware import default_device
    from vqvideo.world import WorldModel

    world = WorldModel.from_pretrained(world_folder(cfg)).to(default_device())
    return {f"frames_per_s_{streams}": imagination_speed(world, streams) for streams in (1, 16)}


def summary(
    cfg: Experiment,
    tokenizer: dict[str, float],
    prior: dict[str, float],
    report: HorizonReport,
    speeds: dict[str, float],
) -> dict[str, Any]:
    """The figures of all parts."""
    from vqvideo.experiment.config import vqvae_folder
    from vqvideo.models.tokenizer.vqvae import VQVAE

    vqvae = VQVAE.from_pretrained(vqvae_folder(cfg))
    steps = {stage: last["step"] for stage, last in last_records(cfg).items()}
    figures = {
        "tokenizer": {"steps": steps["vqvae"], **tokenizer, "bits_per_latent_step": vqvae.bits_per_latent_step},
        "prior": {"steps": steps["prior"], **prior, **report.to_json()},
        "speed": speeds,
    }
    reached = floor_reached(figures)
    return {**figures, "floor": reached and reached.name}


class Floor(NamedTuple):
    """What a run of the quickstart is worth at least."""

    name: str
    """What is written down."""
    tokenizer: float
    """Held-out PSNR in dB."""
    codes: float
    """Share of the codes that are used."""
    step: float
    """dB over repeating the last frame, at the worst of the first 8 steps."""
    mean: float
    """dB over repeating the last frame, mean of the first 8 steps."""
    actions: float
    """dB that the true actions are worth over those of another clip."""

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.tokenizer:g} dB, {self.codes:.0%} of the codes, {self.mean:+g} dB over repeating "
            f"(worst {self.step:+g}), true actions {self.actions:+g} dB"
        )

    def holds(self, figures: dict[str, Any]) -> bool:
        """Whether the figures are as good in every respect."""
        tokenizer, prior = figures["tokenizer"], figures["prior"]
        gains = prior["psnr_gain_db"][:8]
        found = (tokenizer["psnr_db"], tokenizer["codes_used"], min(gains), sum(gains) / len(gains))
        least = (self.tokenizer, self.codes, self.step, self.mean, self.actions)
        return all(a >= b for a, b in zip((*found, prior["controllability_db"]), least, strict=True))


FLOORS = (
    Floor("fast machine", 38.0, 0.98, 2.0, 6.0, 4.0),
    Floor("ordinary machine", 35.5, 0.98, 2.0, 4.5, 4.0),
    Floor("busy machine", 33.0, 0.9, 0.0, 0.0, 0.0),
)
"""From the best down: on two quiet cores with AVX512-BF16, on two quiet ones with AVX2, and beside other work."""


def floor_reached(figures: dict[str, Any]) -> Floor | None:
    """The best floor that the figures hold."""
    return next((floor for floor in FLOORS if floor.holds(figures)), None)


def print_table(cfg: Experiment, results: dict[str, Any]) -> None:
    """The figures that matter most."""
    from vqvideo.experiment.config import world_folder

    tokenizer, prior, speed = results["tokenizer"], results["prior"], results["speed"]
    gains = prior["psnr_gain_db"][:8]
    print(f"""
tokenizer   held-out PSNR {tokenizer["psnr_db"]:.1f} dB, {tokenizer["codes_used"]:.0%} of the codes used, \
{tokenizer["bits_per_latent_step"]:.0f} bits per latent step
prior       {sum(gains) / len(gains):+.1f} dB over repeating the last frame (mean of the first 8 steps, worst \
{min(gains):+.1f}), true actions {prior["controllability_db"]:+.1f} dB over others, repeats {prior["repeat_rate"]:.0%}
speed       {speed["frames_per_s_1"]:.0f} imagined frames/s for 1 stream, {speed["frames_per_s_16"]:.0f} for 16
floor       {floor_text(results)}
time        {results["seconds"]:.0f} s, {tokenizer["steps"]:,} steps of the tokenizer, {prior["steps"]:,} of the prior
video       {results["video"]}
picture     {results["picture"]}

What if it had steered left?
    python scripts/rollout.py --world {world_folder(cfg)} --store {cfg.record.folder} --actions left""")


def floor_text(results: dict[str, Any]) -> str:
    """The floor that was reached, or the lowest one if none was."""
    reached = floor_reached(results)
    return f"below that of a {FLOORS[-1]}" if reached is None else str(reached)


def main() -> None:
    """Reads the settings and runs everything."""
    from vqvideo.experiment.config import Experiment, parse
    from vqvideo.storage import files
    from vqvideo.storage.records import without_nan

    @dataclass(frozen=True)
    class Options(Experiment):
        """Settings of the experiment."""

    cfg = parse(Options, CONFIG, __doc__ or "")
    results = quickstart(cfg)
    text = json.dumps(without_nan(results), indent=2, allow_nan=False)
    files.write_file(cfg.folder / "results.json", (text + "\n").encode())
    print_table(cfg, results)


if __name__ == "__main__":
    cli.run(main)
