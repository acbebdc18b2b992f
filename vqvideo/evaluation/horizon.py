"""What dreams are worth along the horizon: figures per imagined latent step, each beside its baselines."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqvideo.evaluation.frame_sets import BlockDistances
from vqvideo.evaluation.tables import step_table
from vqvideo.storage.records import without_nan

Steps = NDArray[np.float64]
"""(m,): a value per imagined latent step."""
Compared = dict[str, Steps]
"""One figure of the dreams, "imagined", and of what they are compared with, by the names of `HEADS`. What there is
nothing of is left out: no repeated frame has a likelihood."""

HEADS = {
    "imagined": "imagined",  # the world model under the true actions
    "repeat": "repeat last",  # baseline: the last context frame, repeated
    "no_actions": "no actions",  # baseline: the same prior without actions, if it learnt to do without
    "other_actions": "other actions",  # under the actions of another clip: what it loses is what the actions are worth
    "reconstruction": "reconstructed",  # ceiling: the real frames through the tokenizer
    "real": "real",  # of the real frames themselves
    "teacher_forced": "teacher-forced",  # ceiling: the prior reads the real codes and predicts one step
    "training_mean": "training mean",  # baseline: predicting the mean of the training episodes
}
"""What figures are of, and the heads of their columns."""


@dataclass(frozen=True)
class HorizonReport:
    """Figures per imagined latent step, over clips, against the real frames."""

    clips: int
    """Held-out clips."""
    context: int
    """Latent steps of context."""
    seed: int
    """Seed of the dreams."""
    psnr: Compared
    """PSNR in dB, means over clips and the frames of the step."""
    ssim: Compared
    """SSIM, means over clips and the frames of the step."""
    changed_psnr: Compared
    """PSNR in dB of the mean squared error over the pixels that changed in the real video since the frame before; nan
    where none did."""
    repeat_rates: Compared
    """Share of clips whose step merely repeats the step before."""
    token_nats: Compared
    """Cross-entropy in nats per token of the real codes, given the real steps before (nothing is dreamt)."""
    likelihood_kind: str
    """Whether that is exact or a bound (an upper one)."""
    token_entropy: Compared
    """Entropy in nats of the tokens dreamt: how unsure the prior is."""
    reward_rmse: Compared
    """Root mean squared error of the predicted reward, summed over the frames of the step; empty where frames are all
    there is."""
    controllability_se_db: float | None
    """Standard error of `controllability_db` over clips, as if clips were independent; None without actions."""
    fd_effnetlite0: BlockDistances | None = None
    """Fréchet distances on pooled EfficientNet-Lite0 features; None if not measured."""
    fd_missing: str | None = None
    """What to install to have it measured, if it was asked for."""
    by_clip: dict[tuple[str, str], Steps] = field(default_factory=dict)
    """(b, m) per clip and step, by figure (psnr, ssim, nats, entropy, ...) and by what it is of: what the means above
    are taken over."""
    picks: tuple[int, ...] = ()
    """Which of the clips (b,) these are."""

    @property
    def psnr_gain_db(self) -> Steps:
        """Over repeating the last context frame."""
        return self.psnr["imagined"] - self.psnr["repeat"]

    @property
    def ssim_gain(self) -> Steps:
        """Over repeating the last context frame."""
        return self.ssim["imagined"] - self.ssim["repeat"]

    @property
    def controllability_db(self) -> float | None:
        """PSNR with the true actions minus PSNR with those of another clip, over the whole horizon; None without
        actions.
        """
        if "other_actions" not in self.psnr:
            return None
        return float((self.psnr["imagined"] - self.psnr["other_actions"]).mean())

    def quartiles(self, figure: str, of: str = "imagined") -> tuple[Steps, Steps]:
        """What a quarter, and three quarters, of the clips stay below at each step (m,), by the names of `by_clip`."""
        low, high = np.quantile(self.by_clip[figure, of], (0.25, 0.75), axis=0)
        return low, high

    @property
    def repeat_rate(self) -> float:
        """Share of imagined steps that merely repeat the step before."""
        return float(self.repeat_rates["imagined"].mean())

    @property
    def repeat_rate_real(self) -> float:
        """The same of the real frames: a car may stand still."""
        return float(self.repeat_rates["real"].mean())

    def to_json(self) -> dict[str, Any]:
        """All figures by flat names such as psnr_db and psnr_repeat_db, the derived ones too; None for what is not a
        number. Lists have a value per latent step, but for those in `fd_effnetlite0`.
        """
        derived = ("psnr_gain_db", "ssim_gain", "controllability_db", "repeat_rate", "repeat_rate_real")
        plain: dict[str, Any] = {name: np.asarray(getattr(self, name)).tolist() for name in derived}
        for figure, value in vars(self).items():
            if value == {} or figure in ("by_clip", "picks"):
                continue
            if not isinstance(value, dict):
                plain[figure] = asdict(value) if isinstance(value, BlockDistances) else value
                continue
            unit = "_db" if figure.endswith("psnr") else ""
            # A prior that cannot do without actions says so; what else is missing is just not there.
            for of, values in {"no_actions": None, **value}.items():
                name = figure if of == "imagined" else f"{figure}_{of}"
                plain[f"{name}{unit}"] = None if values is None else values.tolist()
        del plain["fd_missing"]
        return without_nan(plain)

    def table(self) -> str:
        """PSNR and SSIM of each step, and a last line on the whole."""
        psnr = {HEADS[of]: (self.psnr.get(of), ".2f") for of in list(HEADS)[:5]}
        gain = {"gain": (self.psnr_gain_db, "+.2f")}
        ssim = {"SSIM": (self.ssim["imagined"], ".3f"), "SSIM repeat": (self.ssim["repeat"], ".3f")}
        head = f"{self._setting}; PSNR in dB against the real frames"
        return "\n".join([head, step_table(psnr | gain | ssim), self._last_line])

    def tables(self) -> str:
        """A table for each figure, and a last line on the whole."""
        nats = f"nats per token of the real codes, teacher-forced, {self.likelihood_kind}"
        parts = [
            self._setting,
            _titled("PSNR in dB", self.psnr, ".2f"),
            _titled("SSIM", self.ssim, ".3f"),
            _titled("PSNR in dB of the pixels that changed", self.changed_psnr, ".2f"),
            _titled("share of steps that repeat the step before", self.repeat_rates, ".1%"),
            _titled(nats, self.token_nats, ".3f", "true actions" if "other_actions" in self.psnr else "world model"),
            _titled("entropy in nats per token of the dream", self.token_entropy, ".3f"),
            _titled("RMSE of the reward", self.reward_rmse, ".3f") if self.reward_rmse else "",
            self.fd_effnetlite0.table() if self.fd_effnetlite0 else "",
            f"fd_effnetlite0 was not measured: {self.fd_missing}" if self.fd_missing else "",
            self._last_line,
        ]
        return "\n\n".join(part for part in parts if part)

    @property
    def _setting(self) -> str:
        return f"held-out clips {self.clips}, context {self.context} latent steps, seed {self.seed}"

    @property
    def _last_line(self) -> str:
        gain, error = self.controllability_db, self.controllability_se_db
        control = "" if gain is None else f"controllability {gain:+.2f} dB (standard error {error:.2f})   "
        return f"{control}repeat rate {self.repeat_rate:.1%} (real frames {self.repeat_rate_real:.1%})"


def _titled(title: str, compared: Compared, form: str, imagined: str = "imagined") -> str:
    heads = HEADS | {"imagined": imagined}
    return f"{title}\n" + step_table({head: (compared.get(of), form) for of, head in heads.items()})
