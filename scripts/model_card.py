"""The card of a shipped world: what it is, what it was made from, what it is worth. Written from recorded facts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from vqvideo.data.index import StoreMeta
from vqvideo.data.store import Store
from vqvideo.evaluation import HorizonReport
from vqvideo.scripts.shipping import RoundingLoss, Start
from vqvideo.storage.records import read_yaml, write_yaml
from vqvideo.training.run_folder import RunFolder
from vqvideo.world import WorldModel

STAGES = {"vqvae": "tokenizer", "prior": "prior"}
"""Folders of a run, and what is trained in them."""


@dataclass(frozen=True)
class Training:
    """How a world was trained."""

    command: str
    """What was typed."""
    hardware: str | None
    """On what; None: nobody wrote it down."""
    stages: Mapping[str, Mapping[str, Any]]
    """Last line of the metrics per stage that left any."""
    settings: Mapping[str, Any]
    """Settings of data and stages; empty if the run's folder is not there."""

    @classmethod
    def of_run(cls, run: Path, command: str, hardware: str | None) -> Training:
        """What the folder of a run, such as runs/car_racing, tells."""
        logs = {title: RunFolder(run / stage).records() for stage, title in STAGES.items()}
        config = run / "prior" / "config.yaml"
        plain = read_yaml(config) if config.is_file() else {}
        settings = {name: plain[name] for name in ("record", *STAGES) if name in plain}
        # Where the episodes lay says nothing about the world.
        settings = {name: {k: v for k, v in part.items() if k != "out"} for name, part in settings.items()}
        return cls(command, hardware, {title: log[-1] for title, log in logs.items() if log}, settings)


@dataclass(frozen=True)
class CardFacts:
    """All that a card says."""

    name: str
    """Under which `from_pretrained` finds the world."""
    world: WorldModel
    """As it is shipped."""
    store: Store
    """The episodes."""
    training: Training
    """How the world was trained."""
    report: HorizonReport
    """Held-out figures of the world as it is shipped."""
    measured_on: str
    """The machine that measured them."""
    rounding: RoundingLoss
    """What half precision costs."""
    starts: Sequence[Start]
    """Where the start clips were cut from."""
    start_frames: int
    """Frames of each."""
    figures: Mapping[str, Any]
    """Further figures, JSON; only single numbers and texts are shown."""


def card(facts: CardFacts) -> str:
    """The text of the card, Markdown with the Hub's header."""
    sections = (_head, _data, _model, _training, _figures, _rounding, _starts, _limits, _licence)
    return "\n\n".join(section(facts) for section in sections) + "\n"


def _head(facts: CardFacts) -> str:
    meta, world = facts.store.meta, facts.world
    return f"""---
library_name: vqvideo
license: mit
tags: [vqvideo, video, vq-vae, world-model]
---

# {facts.name}: a world model of {meta.env_id}

```python
from vqvideo import WorldModel
from vqvideo.pretrained import start_clips

world = WorldModel.from_pretrained("{facts.name}")
frames, actions, _ = start_clips("{facts.name}")  # real clips that it was not trained on
dream = world.imagine(frames[:, :{1 + 2 * world.stride}], actions, seed=0)
```"""


def _data(facts: CardFacts) -> str:
    store, meta = facts.store, facts.store.meta
    splits = {name: store.split(name) for name in ("train", "held_out")}
    count = {
        name: f"{len(entries)} episodes, {sum(e.length for e in entries)} steps" for name, entries in splits.items()
    }
    rows = {
        "environment": f"`{_spec_id(meta)}`, recorded as `{meta.env_id}`",
        "trained on": count["train"],
        "held out": f"{count['held_out']} (every {meta.held_out_every}th episode)",
        "policy": f"`{meta.policy}`",
        "seed": f"{meta.seed}; those of the episodes follow from it",
        "frames": f"{meta.frame_size[0]}x{meta.frame_size[1]} RGB at {meta.fps:g} per second; an action is held for "
        f"{meta.action_repeat} environment steps; the first {meta.skip_first} steps of an episode are left out",
        "actions": str(meta.action_space),
        "recorded with": ", ".join(f"{name} {version}" for name, version in meta.versions.items()),
        "digest of the store": f"`{store.digest[:16]}`",
    }
    return f"## Data\n\n{_table(('', ''), rows.items())}"


def _model(facts: CardFacts) -> str:
    world, (h, w) = facts.world, facts.world.vqvae.grid
    vqvae, quantizer = world.vqvae, world.vqvae.quantizer
    rows = {
        "tokenizer": f"{_millions(vqvae)}; {h} x {w} tokens of {quantizer.codebook_size} codes "
        f"({quantizer.bits:g} bits each) for every {world.stride} frame(s), {vqvae.bits_per_pixel:.3f} bits per pixel",
        "prior": f"{_millions(world.prior)}",
        "fingerprint": f"`{world.fingerprint()[:16]}`, of its tokenizer `{vqvae.fingerprint()[:16]}`",
    }
    return f"## Model\n\n{_table(('', ''), rows.items())}"


def _training(facts: CardFacts) -> str:
    training = facts.training
    rows = [
        (title, f"{last['step']:,} steps, {last['seconds']:,.0f} s")
        for title, last in training.stages.items()
        if {"step", "seconds"} <= last.keys()
    ]
    rows.append(("hardware", training.hardware or "not written down"))
    text = f"## Training\n\n```bash\n{training.command}\n```\n\n{_table(('', ''), rows)}"
    if training.settings:
        settings = write_yaml(dict(training.settings)).strip()
        text += f"\n\n<details><summary>All settings</summary>\n\n```yaml\n{settings}\n```\n\n</details>"
    return text


def _figures(facts: CardFacts) -> str:
    report, last = facts.report, len(facts.report.psnr_gain_db)
    steps = [k for k in (1, 2, 4, 8, 16, 32) if k <= last]
    rows: list[tuple[str, ...]] = [
        (title, *(f"{values[k - 1]:.2f}" for k in steps))
        for title, values in (
            ("imagined under the true actions, dB", report.psnr["imagined"]),
            ("last context frame repeated, dB", report.psnr["repeat"]),
            ("imagined under another clip's actions, dB", report.psnr["other_actions"]),
            ("real frames through the tokenizer, dB", report.psnr["reconstruction"]),
            ("imagined, SSIM", report.ssim["imagined"]),
        )
    ]
    text = (
        f"## Figures\n\nOf the world as it is shipped, against the real frames: means over {report.clips} held-out "
        f"clips, {report.context} latent steps of context, seed {report.seed}; measured on {facts.measured_on}.\n\n"
        f"{_table(('latent step', *map(str, steps)), rows)}\n\n"
        f"The true actions are worth {report.controllability_db:+.2f} dB over those of another clip (mean of "
        f"{last} steps). {report.repeat_rate:.1%} of the imagined steps repeat the step before; of the real ones "
        f"{report.repeat_rate_real:.1%}."
    )
    further = list(_flat(facts.figures))
    return f"{text}\n\n{_table(('further figures', ''), further)}" if further else text


def _rounding(facts: CardFacts) -> str:
    loss = facts.rounding
    rows = [
        ("same code as in full precision", "", f"{loss.same_codes:.3%}"),
        ("reconstruction, dB", f"{loss.psnr_db:.3f}", f"{loss.psnr_rounded_db:.3f}"),
        ("prior, nats per token", f"{loss.token_nats:.4f}", f"{loss.token_nats_rounded:.4f}"),
    ]
    table = _table((f"{loss.clips} held-out clips", "full precision", "half precision"), rows)
    return (
        "## Half precision\n\nThe parameters are stored as float16 and loaded as float32; codebook, statistics and "
        f"scales are stored as they are.\n\n{table}"
    )


def _starts(facts: CardFacts) -> str:
    places = ", ".join(f"{start.episode} (seed {start.seed}) from {start.first}" for start in facts.starts)
    return (
        f"## Start clips\n\n`starts/` is a store of {len(facts.starts)} clips of {facts.start_frames} frames, with "
        "their actions and rewards: cut from the held-out episodes, spread evenly over them, not chosen by eye, and "
        f"stored without loss. Episode and first frame of each: {places}."
    )


def _limits(facts: CardFacts) -> str:
    meta, report = facts.store.meta, facts.report
    limits = [
        f"It knows `{meta.env_id}` at {meta.frame_size[0]}x{meta.frame_size[1]} pixels and what the policy "
        f"`{meta.policy}` did there; other actions are extrapolated.",
        _horizon_limit(report),
        "Dreams are one sample of many possible futures, and the model does not say which parts it made up.",
    ]
    ended = sum(entry.terminated for entry in facts.store.split("train"))
    if not ended:
        limits.append("No episode that it was trained on was ended by the environment: terminations mean nothing.")
    return "## Limits\n\n" + "\n".join(f"- {limit}" for limit in limits)


def _horizon_limit(report: HorizonReport) -> str:
    psnr = report.psnr["imagined"]
    last = len(psnr)
    better = max((k for k, gain in enumerate(report.psnr_gain_db, start=1) if gain > 0), default=0)
    if better < last:
        return f"From latent step {better + 1} on a dream is no nearer to what happened than a still of its start."
    return (
        f"Dreams drift: {psnr[0]:.1f} dB at the first latent step, {psnr[-1]:.1f} dB at step {last}; longer ones were "
        "not measured."
    )


def _licence(facts: CardFacts) -> str:
    return "## Licence\n\nMIT, weights and clips as well as the code."


def _spec_id(meta: StoreMeta) -> str:
    return str(json.loads(meta.env_spec).get("id", meta.env_id)) if meta.env_spec else meta.env_id


def _millions(model: nn.Module) -> str:
    return f"{sum(parameter.numel() for parameter in model.parameters()) / 1e6:.2f} million parameters"


def _flat(value: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    for name, item in value.items():
        if isinstance(item, Mapping):
            yield from _flat(item, f"{path}{name}.")
        elif isinstance(item, int | float) and not isinstance(item, bool):
            yield f"{path}{name}", f"{item:.5g}" if isinstance(item, float) else str(item)
        elif isinstance(item, str) and name != "hardware":
            yield f"{path}{name}", item


def _table(head: Sequence[str], rows: Any) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
