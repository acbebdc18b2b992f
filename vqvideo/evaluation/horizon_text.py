"""The report of a horizon as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vqvideo.evaluation.horizon import Compared, HorizonReport

ALL_UP_TO = 16
"""A longer horizon shows its steps 1, 2, 4, 8 ... and the last one only."""

Columns = Mapping[str, tuple[Sequence[float] | None, str]]
"""By their heads: values, None where there is nothing, and how to write them."""


def summary(report: HorizonReport) -> str:
    """PSNR and SSIM of each step, and a last line on the whole."""
    columns: Columns = {
        "imagined": (report.psnr_db, ".2f"),
        "repeat last": (report.psnr_repeat_db, ".2f"),
        "no actions": (report.psnr_no_actions_db, ".2f"),
        "other actions": (report.psnr_other_actions_db, ".2f"),
        "reconstructed": (report.psnr_reconstruction_db, ".2f"),
        "gain": (report.psnr_gain_db, "+.2f"),
        "SSIM": (report.ssim, ".3f"),
        "SSIM repeat": (report.ssim_repeat, ".3f"),
    }
    head = f"{_setting(report)}; PSNR in dB against the real frames"
    return "\n".join([head, *_lines(_steps(report), columns), _last_line(report)])


def everything(report: HorizonReport) -> str:
    """A table for each figure, and a last line on the whole."""
    kind = report.likelihood_kind
    parts = [
        _setting(report),
        _table(report, "PSNR in dB", report.psnrs, ".2f"),
        _table(report, "SSIM", report.ssims, ".3f"),
        _table(report, "PSNR in dB of the pixels that changed", report.changed_psnrs, ".2f"),
        _table(report, "share of steps that repeat the step before", report.repeat_rates, ".1%"),
        _table(report, f"nats per token of the real codes, teacher-forced, {kind}", report.token_nats, ".3f", TOLD),
        _table(report, "entropy in nats per token of the dream", report.token_entropy, ".3f"),
        _table(report, "RMSE of the reward", report.reward_rmse, ".3f"),
        _distances(report),
        _last_line(report),
    ]
    return "\n\n".join(part for part in parts if part)


TITLES = {
    "imagined": "imagined",
    "repeat": "repeat last",
    "no_actions": "no actions",
    "other_actions": "other actions",
    "reconstruction": "reconstructed",
    "real": "real",
    "teacher_forced": "teacher-forced",
    "training_mean": "training mean",
}
"""Heads of the columns, by the fields of `Compared`."""
TOLD = {**TITLES, "imagined": "true actions"}


def _table(report: HorizonReport, title: str, compared: Compared, form: str, titles: Mapping[str, str] = TITLES) -> str:
    columns: Columns = {head: (getattr(compared, name), form) for name, head in titles.items()}
    return "\n".join([title, *_lines(_steps(report), columns)])


def _distances(report: HorizonReport) -> str:
    found = report.fd_effnetlite0
    if found is None:
        return f"fd_effnetlite0 was not measured: {report.fd_missing}" if report.fd_missing else ""
    firsts = [1, *(last + 1 for last in found.last_steps)]
    names = [f"{first}-{last}" for first, last in zip(firsts, found.last_steps, strict=False)]
    columns: Columns = {
        "imagined": (found.imagined, ".2f"),
        "repeat last": (found.repeat, ".2f"),
        "reconstructed": (found.reconstruction, ".2f"),
        "real, odd against even": (found.real_odd_against_even, ".2f"),
        "frames": (found.frames, ".0f"),
    }
    title = (
        f"fd_effnetlite0 to the real frames, EfficientNet-Lite0 at {found.side} pixels a side; odd against even clips "
        "are half the frames each"
    )
    return "\n".join([title, *_lines(dict(enumerate(names)), columns, "steps")])


def _setting(report: HorizonReport) -> str:
    return f"held-out clips {report.clips}, context {report.context} latent steps, seed {report.seed}"


def _last_line(report: HorizonReport) -> str:
    return (
        f"controllability {report.controllability_db:+.2f} dB (standard error {report.controllability_se_db:.2f})   "
        f"repeat rate {report.repeat_rate:.1%} (real frames {report.repeat_rate_real:.1%})"
    )


def _steps(report: HorizonReport) -> dict[int, str]:
    """Places of the latent steps to show, and their names."""
    last = len(report.psnr_db)
    shown = {2**i for i in range(last.bit_length())} if last > ALL_UP_TO else set(range(1, last))
    return {step - 1: str(step) for step in sorted(shown | {last})}


def _lines(rows: Mapping[int, str], columns: Columns, first: str = "step") -> list[str]:
    """Head and rows; columns without values are left out."""
    kept = {head: (values, form) for head, (values, form) in columns.items() if values is not None}
    lines = [[first, *kept], *([name, *(_cell(v[i], form) for v, form in kept.values())] for i, name in rows.items())]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]


def _cell(value: float, form: str) -> str:
    return f"{value:{form}}" if isfinite(value) else "-"
