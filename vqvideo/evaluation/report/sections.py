"""What the page shows, each part of one or several worlds beside each other. A new part is a function in SECTIONS."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import isfinite
from typing import Any, NamedTuple

import numpy as np
import torch

from vqvideo.evaluation.horizon import HEADS
from vqvideo.evaluation.metrics import evenly
from vqvideo.evaluation.pictures import LABELS
from vqvideo.evaluation.report import page
from vqvideo.evaluation.report.measure import STREAMS, Measured
from vqvideo.evaluation.report.page import Frames, Section, grid, sheet, table
from vqvideo.evaluation.report.plots import COLOURS, INK, Line, bar_plot, line_plot, style
from vqvideo.evaluation.tables import cell

Subjects = Sequence[Measured]

_OF_STYLES = {
    "imagined": (COLOURS[0], "-"),
    "repeat": (INK, "--"),
    "no_actions": (COLOURS[3], "-."),
    "other_actions": (COLOURS[1], ":"),
    "reconstruction": (COLOURS[2], "-"),
    "real": (INK, ":"),
    "teacher_forced": (COLOURS[2], "--"),
    "training_mean": (INK, "--"),
}


class Figure(NamedTuple):
    """A line of the table of figures."""

    name: str
    """What it is, in which unit."""
    read: Callable[[Measured], float | None]
    """Its value; None where there is none."""
    form: str
    """Its format."""
    better: int = 0
    """1 where more is better, -1 where less is, 0 where neither."""


def _bits(measured: Measured, bits_per_token: float) -> float:
    vqvae = measured.world.vqvae
    return bits_per_token * vqvae.tokens / vqvae.stride


FIGURES = (
    Figure("tokenizer: PSNR, dB", lambda m: m.tokenizer["psnr_db"], ".2f", 1),
    Figure("tokenizer: SSIM", lambda m: m.tokenizer["ssim"], ".4f", 1),
    Figure("tokenizer: PSNR of pixels that changed, dB", lambda m: m.tokenizer["changed_psnr_db"], ".2f", 1),
    Figure("codes that are used", lambda m: m.tokenizer["codes_used"], ".1%"),
    Figure("bits per frame, codes as they are", lambda m: _bits(m, m.world.vqvae.quantizer.bits), ",.1f"),
    Figure("bits per frame, by the prior", lambda m: m.told["bits_per_frame"], ",.1f", -1),
    Figure("prior: nats per token, told the past", lambda m: m.told["token_nats"], ".3f"),
    Figure("prior: likeliest code is right", lambda m: m.told["top1"], ".1%"),
    Figure("dream: PSNR over the horizon, dB", lambda m: float(m.report.psnr["imagined"].mean()), ".2f", 1),
    Figure("dream: SSIM over the horizon", lambda m: float(m.report.ssim["imagined"].mean()), ".4f", 1),
    Figure("dream: over repeating the last frame, dB", lambda m: float(m.report.psnr_gain_db.mean()), "+.2f", 1),
    Figure("dream: true actions over others', dB", lambda m: m.report.controllability_db, "+.2f", 1),
    Figure("dream: standard error of that over clips, dB", lambda m: m.report.controllability_se_db, ".2f"),
    Figure("dream: steps that repeat the one before", lambda m: m.report.repeat_rate, ".1%"),
    Figure("real frames: steps that repeat the one before", lambda m: m.report.repeat_rate_real, ".1%"),
    Figure("reward: RMSE, told the past", lambda m: m.told.get("reward_rmse"), ".3f", -1),
    Figure("reward: RMSE of always saying the mean", lambda m: m.told.get("reward_rmse_of_mean"), ".3f"),
    Figure("termination: average precision", lambda m: m.told.get("termination_ap"), ".3f", 1),
    *(
        Figure(f"imagined frames/s, {n} at once", lambda m, n=n: m.speed[n], ",.0f", 1)  # type: ignore[misc]
        for n in STREAMS
    ),
    Figure("weights, millions", lambda m: sum(p.numel() for p in m.world.parameters()) / 1e6, ".2f"),
)


def figures(subjects: Subjects) -> Section:
    """The table of figures; of several worlds, with the best marked."""
    rows, best = [], []
    for figure in FIGURES:
        values = [figure.read(one) for one in subjects]
        cells = [cell(value, figure.form) for value in values]
        if set(cells) == {cell(None, figure.form)}:
            continue
        rows.append([figure.name, *cells])
        best.append(_best(values, figure.better) if len(subjects) > 1 else None)
    note = " The best of a row is marked ★ where more, or less, is better." if len(subjects) > 1 else ""
    tables = "".join(
        page.details(f"All figures along the horizon: {one.name}", one.report.tables()) for one in subjects
    )
    body = table(["figure", *(one.name for one in subjects)], rows, best) + tables
    return Section("Figures", f"{_over(subjects)}.{note}", body)


def _best(values: Sequence[float | None], better: int) -> int | None:
    """Which cell of a row is the best one; the first cell is the name."""
    known = [
        (better * value, -number) for number, value in enumerate(values, 1) if value is not None and isfinite(value)
    ]
    return -max(known)[1] if better and len(known) > 1 else None


class Along(NamedTuple):
    """A plot along the horizon."""

    title: str
    unit: str
    field: str
    """Of `HorizonReport`."""
    rows: str | None
    """The same of each clip in its `by_clip`, if it has quartiles."""


ALONG = (
    Along("PSNR against the real frames", "dB", "psnr", "psnr"),
    Along("SSIM against the real frames", "SSIM", "ssim", "ssim"),
    Along("PSNR of the pixels that changed", "dB", "changed_psnr", None),
    Along("Real codes, told the past", "nats per token", "token_nats", "nats"),
    Along("Entropy of the dream", "nats per token", "token_entropy", "entropy"),
    Along("Steps that repeat the one before", "share of the clips", "repeat_rates", None),
    Along("Error of the predicted reward", "RMSE per latent step", "reward_rmse", None),
)


def horizon(subjects: Subjects) -> Section:
    """Curves along the horizon: of one world beside its baselines, of several beside each other."""
    of_one = len(subjects) == 1
    plots = []
    for plot in ALONG:
        lines = list(_beside_baselines(subjects[0], plot) if of_one else _beside_each_other(subjects, plot))
        if lines:
            title = f"{plot.title}, {subjects[0].report.clips} clips"
            plots.append(line_plot(title, "frames after the context", plot.unit, lines))
    beside = (
        "Repeat last: the last frame seen, again and again. No actions, other actions: the same world without them, or "
        "under those of another clip. Reconstructed: the real frames through the tokenizer, which no dream can surpass."
        if of_one
        else "All dreams are under the true actions."
    )
    caption = f"{_over(subjects)}. Lines are means over clips, the band holds the middle half of the clips. {beside}"
    return Section("Dreams along the horizon", caption, grid(plots))


def _frames(one: Measured) -> list[float]:
    """The last frame of each imagined step, counted from the context on."""
    return [one.world.stride * (step + 1) for step in range(len(one.report.psnr_gain_db))]


def _beside_baselines(one: Measured, plot: Along) -> Iterator[Line]:
    compared = getattr(one.report, plot.field)
    for of in HEADS:
        if of in compared:
            band = one.report.quartiles(plot.rows) if plot.rows and of == "imagined" else None
            yield Line(HEADS[of], _frames(one), compared[of], *_OF_STYLES[of], band)


def _beside_each_other(subjects: Subjects, plot: Along) -> Iterator[Line]:
    for number, one in enumerate(subjects):
        compared = getattr(one.report, plot.field)
        if "imagined" in compared:
            band = one.report.quartiles(plot.rows) if plot.rows else None
            yield Line(one.name, _frames(one), compared["imagined"], *style(number), band)


def clips(subjects: Subjects) -> Section:
    """Some clips, real, reconstructed and imagined."""
    body = "".join(_sheet(subjects, number) for number in subjects[0].shown)
    return Section("Real, reconstructed, imagined", _pictured(subjects[0], "Evenly spread held-out clips"), body)


def worst(subjects: Subjects) -> Section:
    """The clips that each world dreams worst."""
    body = "".join(_sheet([one], number, of=one.name) for one in subjects for number in one.worst)
    what = f"Of {subjects[0].report.clips} held-out clips those whose dream has the lowest PSNR"
    return Section("The worst clips", _pictured(subjects[0], what), body)


def _pictured(one: Measured, what: str) -> str:
    return (
        f"{what}: of each {page.STRIP} frames, from the first to the last of {one.subject.clips.length}, at "
        f"{one.world.env.fps:g} frames/s. Below an orange line everything is dreamt; what is before it was seen."
    )


def _sheet(subjects: Subjects, number: int, of: str = "") -> str:
    """A clip by its number; several worlds share the row of the real frames."""
    rows = list(zip(LABELS, subjects[0].dreams[number], strict=True))
    if len(subjects) > 1:
        named = [(f"{label}, {one.name}", row) for one in subjects for label, row in _rebuilt(one, number)]
        rows = [rows[0], *named]
    episode, start = subjects[0].subject.clips.locate(subjects[0].report.picks[number])
    dreamt = ", ".join(f"{one.report.by_clip['psnr', 'imagined'][number].mean():.1f}" for one in subjects)
    rebuilt = ", ".join(f"{one.report.by_clip['psnr', 'reconstruction'][number].mean():.1f}" for one in subjects)
    where = f"{of + ', ' if of else ''}held-out episode {episode}, from frame {start}"
    return sheet(f"{where}: dream {dreamt} dB, reconstruction {rebuilt} dB", rows)


def _rebuilt(one: Measured, number: int) -> list[tuple[str, Frames]]:
    return list(zip(LABELS, one.dreams[number], strict=True))[1:]


def what_if(subjects: Subjects) -> Section | None:
    """The same start under different actions."""
    fans = [one for one in subjects if one.fan]
    if not fans:
        return None
    body = "".join(
        sheet(f"{one.name}: one start under {len(one.fan) - 1} actions", list(one.fan.items())) for one in fans
    )
    return Section("What if", _pictured(fans[0], "One held-out clip under constant actions, with the same noise"), body)


def rate(subjects: Subjects) -> Section:
    """Bits of a frame, and what they buy."""
    h, w = subjects[0].world.vqvae.frame_size
    bars = {
        "raw": {one.name: h * w * 24.0 for one in subjects},
        "codes as they are": {one.name: _bits(one, one.world.vqvae.quantizer.bits) for one in subjects},
        "by how often\neach occurs": {one.name: _bits(one, one.tokenizer["effective_bits"]) for one in subjects},
        "by the prior": {one.name: one.told["bits_per_frame"] for one in subjects},
    }
    rows = [
        [one.name, *_rates(one, bars), cell(one.tokenizer["psnr_db"], ".2f"), cell(one.tokenizer["ssim"], ".4f")]
        for one in subjects
    ]
    heads = ["world", "bits per frame, by the prior", "kbit/s", "times smaller than raw", "PSNR, dB", "SSIM"]
    body = grid([bar_plot("What a frame costs, held-out clips", "bits per frame", bars)]) + table(heads, rows)
    kinds = ", ".join(sorted({one.told["likelihood_kind"] for one in subjects}))
    caption = (
        f"The rate is that of the prior over every step of the held-out split ({kinds} likelihood), the distortion "
        f"that of the tokenizer, a mean over the frames of {subjects[0].report.clips} held-out clips."
    )
    return Section("Rate and distortion", caption, body)


def _rates(one: Measured, bars: dict[str, dict[str, float]]) -> list[str]:
    bits, raw = bars["by the prior"][one.name], bars["raw"][one.name]
    return [cell(bits, ",.1f"), cell(bits * one.world.env.fps / 1000, ",.2f"), cell(raw / bits, ",.0f")]


def usage(subjects: Subjects) -> Section:
    """How often each code occurs."""
    lines = []
    for number, one in enumerate(subjects):
        counts = one.usage.counts.double().sort(descending=True).values
        share = (counts / counts.sum())[counts > 0]
        places = evenly(len(share), 400)
        lines.append(Line(one.name, [i + 1 for i in places], share[places].tolist(), *style(number)))
    told = "; ".join(
        f"{one.name}: {one.tokenizer['codes_used']:.1%} of {len(one.usage.counts):,} codes occur, "
        f"{one.tokenizer['effective_bits']:.2f} of {one.world.vqvae.quantizer.bits:.2f} bits per token, perplexity "
        f"{one.tokenizer['perplexity']:,.0f}"
        for one in subjects
    )
    plot = line_plot(
        f"How often each code occurs, {subjects[0].report.clips} clips",
        "codes, the most frequent first",
        "share of the tokens",
        lines,
        "log",
    )
    return Section("Use of the codes", f"Over {subjects[0].report.clips} held-out clips. {told}.", grid([plot]))


def codes(subjects: Subjects) -> Section:
    """The codes of a clip as a map of colours."""
    sheets = []
    for one in subjects:
        real = one.dreams[one.shown[0]][0][:: one.world.stride]
        sheets.append(sheet(f"{one.name}: a held-out clip", [("real", real), ("codes", code_map(one))]))
    caption = (
        "Of each latent step shown the last real frame, and its codes as a grid. Neighbours in colour are neighbours "
        "along the axis on which the code vectors of this clip differ most (viridis, from dark to light)."
    )
    return Section("Codes over a clip", caption, "".join(sheets))


def code_map(one: Measured) -> Frames:
    """The codes (t, h, w) of a clip as colours (t, h, w, 3)."""
    from matplotlib import colormaps

    known, place = one.codes.unique(return_inverse=True)
    with torch.no_grad():
        vectors = one.world.vqvae.quantizer.decode(known.to(one.world.device)).float().cpu()
    # Exact, and with a sign that does not hang on the machine.
    axis = torch.linalg.eigh(torch.cov(vectors.T).reshape(vectors.shape[1], -1)).eigenvectors[:, -1]
    along = vectors @ (axis * axis[axis.abs().argmax()].sign())
    rank = along.argsort().argsort().double() / max(1, len(known) - 1)
    return np.asarray(colormaps["viridis"](rank[place].numpy(), bytes=True))[..., :3]


CURVES = (
    ("vqvae", "train", "loss", "Tokenizer: loss in training", "loss"),
    ("vqvae", "held_out", "psnr_db", "Tokenizer: held-out PSNR", "dB"),
    ("vqvae", "held_out", "codes_used", "Tokenizer: held-out codes used", "share"),
    ("prior", "train", "loss", "Prior: loss in training", "loss"),
    ("prior", "held_out", "token_nats", "Prior: held-out codes", "nats per token"),
    ("prior", "held_out", "reward_rmse", "Prior: held-out reward", "RMSE"),
)


def training(subjects: Subjects) -> Section:
    """Curves of the logs."""
    plots = []
    for stage, split, key, title, unit in CURVES:
        lines = [line for i, one in enumerate(subjects) if (line := _curve(one, i, stage, split, key))]
        if lines:
            plots.append(line_plot(title, "optimizer steps", unit, lines))
    return Section("Training", f"From the logs of each run. {'; '.join(map(_took, subjects))}.", grid(plots))


def _took(one: Measured) -> str:
    """Steps and minutes of each stage."""
    ends = {stage: log[-1] for stage, log in one.subject.logs.items() if log}
    took = [f"{stage} {end['step']:,} steps in {end.get('seconds', 0) / 60:.1f} min" for stage, end in ends.items()]
    return f"{one.name}: {', '.join(took) or 'there are no logs of its training here'}"


def _curve(one: Measured, number: int, stage: str, split: str, key: str) -> Line | None:
    log = [line for line in one.subject.logs.get(stage, ()) if line["split"] == split and line.get(key) is not None]
    kept = [log[i] for i in evenly(len(log), 300)] if log else []
    return Line(one.name, [r["step"] for r in kept], [r[key] for r in kept], *style(number)) if kept else None


def speed(subjects: Subjects) -> Section:
    """Imagined frames per second."""
    rows = [
        [one.name, *(f"{one.speed[n]:,.0f}" for n in STREAMS), f"{one.speed[1] / one.world.env.fps:.1f}"]
        for one in subjects
    ]
    heads = ["world", *(f"frames/s, {n} at once" for n in STREAMS), "times as fast as the recorded fps, one at once"]
    caption = (
        "Imagined frames over all dreams, decoding included, the median of three trials, on the hardware below; other "
        "work on the machine shows in it."
    )
    return Section("Speed", caption, table(heads, rows))


def protocol(subjects: Subjects) -> Section:
    """What was measured, on what, and by what."""
    body = "".join(f"<h3>{page.html.escape(one.name)}</h3>{page.facts(one.subject.facts)}" for one in subjects)
    return Section("Protocol", "", body)


def _over(subjects: Subjects) -> str:
    one = subjects[0]
    seen = one.world.vqvae.clip_length(one.asked.context)
    frames = "1 frame" if seen == 1 else f"{seen} frames"
    return f"Over {one.report.clips} held-out clips, {frames} of context, seed {one.report.seed}"


SECTIONS: tuple[Callable[[Any], Section | None], ...] = (
    figures,
    horizon,
    clips,
    what_if,
    worst,
    rate,
    usage,
    codes,
    training,
    speed,
    protocol,
)
"""From the top of the page to its end."""


def written(title: str, subjects: Subjects) -> str:
    """The page on one world, or on several beside each other."""
    parts = [part for section in SECTIONS if (part := section(subjects))]
    return page.page(title, f"{_over(subjects)}.", parts, [one.figures() for one in subjects])
