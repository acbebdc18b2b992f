"""The whole of vqvideo in one command: drive a real CarRacing, then watch it dreamt.

    python scripts/quickstart.py
    python scripts/quickstart.py --env LunarLander-v3            any other Gymnasium environment
    python scripts/quickstart.py --source my_videos              videos or recordings that are there
    python scripts/quickstart.py --config configs/mnist.yaml     digits; configs/doom_small.yaml: Doom

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
    from vqvideo.experiment.config import Experiment

CONFIG = Path(__file__).parents[1] / "configs" / "quickstart.yaml"


def quickstart(cfg: Experiment) -> dict[str, Any]:
    """Runs all stages and returns what is written to results.json."""
    from vqvideo.experiment.checks import check_settings, check_store
    from vqvideo.experiment.prior import train_prior
    from vqvideo.experiment.suited import suited
    from vqvideo.experiment.tokenizer import train_vqvae
    from vqvideo.scripts.rollout import Options
    from vqvideo.scripts.train_vqvae import doing
    from vqvideo.training.hardware import hardware

    # What the last part would refuse is refused before the first.
    dreams: Any = {} if are_stills(cfg) else {"dreams": (Options.context, Options.length)}
    if cfg.record.source is None:
        check_settings(cfg, "vqvae", "prior", **dreams)
    began, earlier = time.perf_counter(), trained_seconds(cfg)
    headline(1, doing(cfg.record))
    store = recorded(cfg.record)
    cfg, reasons = suited(cfg, store)
    print("".join(f"{line}\n" for line in reasons), end="", flush=True)
    if dreams:
        dreams = {"dreams": (min(Options.context, cfg.prior.model.window), Options.length)}
    check_store(cfg, store, "vqvae", "prior", **dreams)
    headline(2, "training the tokenizer: video to codes")
    tokenizer = train_vqvae(cfg, store, resume=True)
    headline(3, "training the prior: what comes next, given the actions")
    prior = train_prior(cfg, store, resume=True)
    headline(4, "imagining what labels say" if are_stills(cfg) else "dreaming on from held-out frames")
    steps = {stage: last["step"] for stage, last in last_records(cfg).items()}
    figures: dict[str, Any] = {
        "tokenizer": {"steps": steps["vqvae"], **tokenizer, "bits_per_latent_step": bits_per_latent_step(cfg)},
        "prior": {"steps": steps["prior"], **prior},
    }
    shown = labels(cfg) if are_stills(cfg) else dreams_on(cfg)
    figures["prior"] |= shown.pop("prior", {})
    floor = floor_reached(figures) if has_floors(cfg) else None
    return {
        "seconds": round(time.perf_counter() - began + earlier, 1),
        "hardware": hardware(),
        **figures,
        **shown,
        "floor": floor and floor.name,
    }


def are_stills(cfg: Experiment) -> bool:
    """Whether the tokenizer learns single pictures: there is nothing to dream on from, but labels to imagine."""
    return cfg.vqvae.latent_steps == 1


def has_floors(cfg: Experiment) -> bool:
    """Whether the floors, which are those of CarRacing, say anything of this experiment."""
    return cfg.record.source is None and cfg.record.env == "CarRacing"


def dreams_on(cfg: Experiment) -> dict[str, Any]:
    """Dreams on from held-out frames: figures, speeds, video and picture."""
    from vqvideo.experiment.config import world_folder
    from vqvideo.scripts.rollout import Options, rollout

    options = Options(
        env=cfg.record.env,
        world=world_folder(cfg),
        store=cfg.record.folder,
        out=cfg.folder / "rollout",
        context=min(Options.context, cfg.prior.model.window),
    )
    result = rollout(options)
    assert result.report is not None
    return {
        "prior": result.report.to_json(),
        "speed": imagination_speeds(cfg),
        "video": str(result.video),
        "picture": str(result.picture),
    }


def labels(cfg: Experiment) -> dict[str, Any]:
    """Imagines pictures under each label, and lets a classifier say what they show: figures and picture."""
    from vqvideo.experiment.config import world_folder
    from vqvideo.scripts.evaluate_labels import Options, evaluate

    out = cfg.folder / "labels.json"
    options = Options(world=world_folder(cfg), store=cfg.record.folder, json=out)
    return {"labels": evaluate(options)["labels"], "picture": str(out.with_suffix(".png"))}


def bits_per_latent_step(cfg: Experiment) -> float:
    """Of the trained tokenizer."""
    from vqvideo.experiment.config import vqvae_folder
    from vqvideo.models.tokenizer.vqvae import VQVAE

    return VQVAE.from_pretrained(vqvae_folder(cfg)).bits_per_latent_step


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
    tokenizer, prior = results["tokenizer"], results["prior"]
    rows = {
        "tokenizer": f"held-out PSNR {tokenizer['psnr_db']:.1f} dB, {tokenizer['codes_used']:.0%} of the codes used, "
        f"{tokenizer['bits_per_latent_step']:.0f} bits per latent step",
        **(label_rows(results) if are_stills(cfg) else dream_rows(cfg, results)),
        "time": f"{results['seconds']:.0f} s, {tokenizer['steps']:,} steps of the tokenizer, {prior['steps']:,} of the "
        "prior",
        **{name: results[name] for name in ("video", "picture") if name in results},
    }
    print("".join(f"\n{name:<10}  {text}" for name, text in rows.items()))
    if not are_stills(cfg):
        print(f"\n{what_if(cfg)}")


def dream_rows(cfg: Experiment, results: dict[str, Any]) -> dict[str, str]:
    """What is said of dreams."""
    prior, speed = results["prior"], results["speed"]
    gains, actions = prior["psnr_gain_db"][:8], prior["controllability_db"]
    controlled = "" if actions is None else f", true actions {actions:+.1f} dB over others"
    rows = {
        "prior": f"{sum(gains) / len(gains):+.1f} dB over repeating the last frame (mean of the first 8 steps, worst "
        f"{min(gains):+.1f}){controlled}, repeats {prior['repeat_rate']:.0%}",
        "speed": f"{speed['frames_per_s_1']:.0f} imagined frames/s for 1 stream, {speed['frames_per_s_16']:.0f} for 16",
    }
    return rows | ({"floor": floor_text(results)} if has_floors(cfg) else {})


def label_rows(results: dict[str, Any]) -> dict[str, str]:
    """What is said of pictures imagined under labels."""
    nats, found = results["prior"]["token_nats"], results["labels"]
    real = f"{found['real']:.1%} of real pictures"
    taken = f"{found['recognised']:.1%} of what it imagines is taken for its label ({real})"
    return {"prior": f"{nats:.2f} nats per token; {taken}"}


def what_if(cfg: Experiment) -> str:
    """The command to go on with."""
    from vqvideo.experiment.config import world_folder

    play = f"    python scripts/rollout.py --world {world_folder(cfg)} --store {cfg.record.folder}"
    return f"What if it had steered left?\n{play} --actions left" if has_floors(cfg) else f"Dream on:\n{play}"


def floor_text(results: dict[str, Any]) -> str:
    """The floor that was reached, or the lowest one if none was."""
    reached = floor_reached(results)
    return f"below that of a {FLOORS[-1]}" if reached is None else str(reached)


def main() -> None:
    """Reads the settings and runs everything."""
    from vqvideo.experiment.config import EnvOptions, parse
    from vqvideo.storage import files
    from vqvideo.storage.records import without_nan

    @dataclass(frozen=True)
    class Options(EnvOptions):
        """Settings of the experiment."""

        source: Path | None = None
        """Videos or recordings to import in the place of an environment, with a store and a run of their name."""

    cfg = parse(Options, CONFIG, __doc__ or "", measures=True)
    results = quickstart(cfg)
    text = json.dumps(without_nan(results), indent=2, allow_nan=False)
    files.write_file(cfg.folder / "results.json", (text + "\n").encode())
    print_table(cfg, results)


if __name__ == "__main__":
    cli.run(main)
