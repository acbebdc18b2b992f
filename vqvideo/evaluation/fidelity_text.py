"""The report on the fidelity of dreams as text."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vqvideo.evaluation.agreement import Agreement
    from vqvideo.evaluation.fidelity import FidelityReport

_STEPS = {
    "reward RMSE": ("reward_rmse", ".3f"),
    "training mean": ("reward_rmse_training_mean", ".3f"),
    "correlation": ("reward_correlation", ".2f"),
    "alive, real": ("alive_real", ".1%"),
    "alive, dream": ("alive_dream", ".1%"),
    "ended: accuracy": ("ended_accuracy", ".1%"),
    "Brier": ("ended_brier", ".4f"),
    "training rate": ("ended_brier_training_rate", ".4f"),
}
"""Heads of the table per step: fields of `StepAgreement`, and how to write them."""


def tables(report: FidelityReport) -> str:
    """Settings, returns and lengths, figures per latent step, terminations."""
    return "\n\n".join([_setting(report), _agreements(report), _along(report), _ends(report)])


def _setting(report: FidelityReport) -> str:
    return (
        f"split {report.split}: {report.episodes} episodes, {report.samples} dream(s) of each, context {report.context}"
        f" and horizon {report.horizon} latent steps, seed {report.seed}\n"
        f"left out: {report.episodes_cut} episode(s) that the recording cut before the horizon, "
        f"{report.episodes_too_short} with nothing after the context; baselines from {report.training_episodes} "
        "training episodes"
    )


def _agreements(report: FidelityReport) -> str:
    heads = ("", "real", "dream", "correlation", "error", "error of training mean", "error under other actions")
    rows = [_agreement("return", report.returns), _agreement("length", report.lengths)]
    title = "returns and lengths in latent steps: means ± standard errors, mean absolute errors per episode"
    return "\n".join([title, *_lines([heads, *rows])])


def _agreement(name: str, found: Agreement) -> tuple[str, ...]:
    means = (f"{found.real_mean:.2f} ± {found.real_se:.2f}", f"{found.dream_mean:.2f} ± {found.dream_se:.2f}")
    errors = (found.error, found.error_training_mean, found.error_other_actions)
    return (name, *means, *(_cell(value, ".2f") for value in (found.correlation, *errors)))


def _along(report: FidelityReport) -> str:
    shown = [2**i for i in range(report.horizon.bit_length()) if 2**i < report.horizon]
    rows = [
        (str(step), *(_cell(getattr(report.steps, name)[step - 1], form) for name, form in _STEPS.values()))
        for step in (*shown, report.horizon)
    ]
    title = "per latent step: rewards where the real episode was alive, and whether the episode has ended by then"
    return "\n".join([title, *_lines([("step", *_STEPS), *rows])])


def _ends(report: FidelityReport) -> str:
    return (
        f"probability of ending in a step: average precision {_cell(report.ends.average_precision, '.3f')} "
        f"(guessing {_cell(report.ends.rate, '.3f')}), "
        f"calibration error {_cell(report.ends.calibration_error, '.4f')}"
    )


def _lines(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]


def _cell(value: float, form: str) -> str:
    return f"{value:{form}}" if isfinite(value) else "-"
