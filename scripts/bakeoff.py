"""Trains the same tokenizer with one quantizer after the other on one store and prints one table.

    python scripts/bakeoff.py                                  all of them, two minutes each
    python scripts/bakeoff.py --kinds EMAVQ FSQ --vqvae.train.max-seconds 300

Backbone, data, order, loss and time are the same for all; only the quantizer changes, at about 10 bits per token.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from quickstart import CONFIG
from train_vqvae import open_store
from vqvideo import cli

if TYPE_CHECKING:
    from vqvideo.config import Experiment
    from vqvideo.data.store import Store

COLUMNS = ("psnr_db", "ssim", "changed_psnr_db", "codes_used", "effective_bits")


def contestants(kinds: Iterable[str]) -> dict[str, Any]:
    """Quantizer configs by kind, all at about 10 bits; InputError for a kind that does not exist."""
    from typing import get_args

    from vqvideo.errors import InputError, suggest
    from vqvideo.quantizers import QuantizerConfig
    from vqvideo.records import kind_of

    known = {kind_of(config): config() for config in get_args(QuantizerConfig)}
    if unknown := [kind for kind in kinds if kind not in known]:
        raise InputError(f"--kinds {unknown[0]}: {suggest(unknown[0], known)}")
    return {kind: config for kind, config in known.items() if not kinds or kind in kinds}


def measure(cfg: Experiment, store: Store, kind: str, quantizer: Any) -> dict[str, float]:
    """Held-out figures of one quantizer, and how far its training came."""
    from vqvideo.run_folder import RunFolder
    from vqvideo.stages import train_vqvae

    model = replace(cfg.vqvae.model, quantizer=quantizer)
    own = replace(cfg, name=f"{cfg.name}/bakeoff/{kind}", vqvae=replace(cfg.vqvae, model=model))
    figures = train_vqvae(own, store, resume=True)
    last = RunFolder(own.folder / "vqvae").records()[-1]
    return {"bits": quantizer.build().bits, **figures, "steps": last["step"], "seconds": last["seconds"]}


def table(rows: dict[str, dict[str, float]]) -> str:
    """The figures as a Markdown table."""
    names = ("bits", *COLUMNS, "steps", "seconds")
    lines = ["| quantizer | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    lines += [f"| {kind} | " + " | ".join(f"{row[name]:.4g}" for name in names) + " |" for kind, row in rows.items()]
    return "\n".join(lines)


def main() -> None:
    """Reads the settings and runs all quantizers."""
    from vqvideo import durable
    from vqvideo.config import Experiment, parse
    from vqvideo.records import without_nan

    @dataclass(frozen=True)
    class Options(Experiment):
        """Settings of the experiment."""

        kinds: tuple[str, ...] = ()
        """Quantizers to compare, by kind; all by default."""

    cfg = parse(Options, CONFIG, __doc__ or "")
    chosen = contestants(cfg.kinds)
    store = open_store(cfg)
    rows = {kind: measure(cfg, store, kind, quantizer) for kind, quantizer in chosen.items()}
    out = cfg.folder / "bakeoff"
    text = json.dumps(without_nan(rows), indent=2, allow_nan=False) + "\n"
    durable.write_file(out / "results.json", text.encode())
    print(f"seed {cfg.vqvae.train.seed}, {cfg.vqvae.validation_clips} held-out clips\n{table(rows)}")


if __name__ == "__main__":
    cli.run(main)
