"""What dreams are worth along the horizon: figures per imagined latent step, each beside its baselines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from statistics import mean

from vqvideo.evaluation.frame_sets import BlockDistances
from vqvideo.evaluation.horizon_text import everything, summary


@dataclass(frozen=True)
class Compared:
    """One figure of the dreams and of what they are compared with, a value per imagined latent step.

    None where there is nothing to compare: no repeated frame has a likelihood.
    """

    imagined: list[float]
    """The world model under the true actions."""
    repeat: list[float] | None = None
    """Baseline: the last context frame, repeated."""
    no_actions: list[float] | None = None
    """Baseline: the same prior without actions (guidance 0); None if it never learnt to do without."""
    other_actions: list[float] | None = None
    """The world model under the actions of another clip: what it loses is what the actions are worth."""
    reconstruction: list[float] | None = None
    """Ceiling: the real frames through the tokenizer."""
    real: list[float] | None = None
    """Of the real frames themselves."""
    teacher_forced: list[float] | None = None
    """Ceiling: the prior reads the real codes and predicts one step."""
    training_mean: list[float] | None = None
    """Baseline: predicting the mean of the training episodes."""

    def named(self, stem: str, unit: str = "") -> Iterator[tuple[str, list[float] | None]]:
        """Names as in a flat file, such as psnr_db, psnr_repeat_db; without what there is nothing of."""
        for field in fields(self):
            values = getattr(self, field.name)
            if values is not None or field.name == "no_actions":
                yield f"{stem}{'' if field.name == 'imagined' else f'_{field.name}'}{unit}", values


@dataclass(frozen=True)
class HorizonReport:
    """Figures per imagined latent step, over clips, against the real frames."""

    clips: int
    """Held-out clips."""
    context: int
    """Latent steps of context."""
    seed: int
    """Seed of the dreams."""
    psnrs: Compared
    """PSNR in dB, means over clips and the frames of the step."""
    ssims: Compared
    """SSIM, means over clips and the frames of the step."""
    changed_psnrs: Compared
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
    """Root mean squared error of the predicted reward, summed over the frames of the step."""
    controllability_se_db: float
    """Standard error of `controllability_db` over clips, as if clips were independent."""
    fd_effnetlite0: BlockDistances | None = None
    """Fréchet distances on pooled EfficientNet-Lite0 features; None if not measured."""
    fd_missing: str | None = None
    """What to install to have it measured, if it was asked for."""

    @property
    def psnr_db(self) -> list[float]:
        """Imagined under the true actions."""
        return self.psnrs.imagined

    @property
    def psnr_repeat_db(self) -> list[float]:
        """Baseline: the last context frame, repeated."""
        return self.psnrs.repeat or []

    @property
    def psnr_reconstruction_db(self) -> list[float]:
        """Ceiling: the real frames through the tokenizer."""
        return self.psnrs.reconstruction or []

    @property
    def psnr_other_actions_db(self) -> list[float]:
        """Imagined under the actions of another clip."""
        return self.psnrs.other_actions or []

    @property
    def psnr_no_actions_db(self) -> list[float] | None:
        """Imagined by the same prior without actions; None if it cannot."""
        return self.psnrs.no_actions

    @property
    def ssim(self) -> list[float]:
        """Imagined under the true actions."""
        return self.ssims.imagined

    @property
    def ssim_repeat(self) -> list[float]:
        """Baseline: the last context frame, repeated."""
        return self.ssims.repeat or []

    @property
    def repeat_rate(self) -> float:
        """Share of imagined steps that merely repeat the step before."""
        return mean(self.repeat_rates.imagined)

    @property
    def repeat_rate_real(self) -> float:
        """The same of the real frames: a car may stand still."""
        return mean(self.repeat_rates.real or [])

    @property
    def psnr_gain_db(self) -> list[float]:
        """Over repeating the last context frame."""
        return [a - b for a, b in zip(self.psnr_db, self.psnr_repeat_db, strict=True)]

    @property
    def ssim_gain(self) -> list[float]:
        """Over repeating the last context frame."""
        return [a - b for a, b in zip(self.ssim, self.ssim_repeat, strict=True)]

    @property
    def controllability_db(self) -> float:
        """PSNR with the true actions minus PSNR with those of another clip, over the whole horizon."""
        return mean(a - b for a, b in zip(self.psnr_db, self.psnr_other_actions_db, strict=True))

    def to_json(self) -> dict[str, object]:
        """All figures, the derived ones too. Lists have a value per latent step, but for those in `fd_effnetlite0`."""
        derived = ("psnr_gain_db", "ssim_gain", "controllability_db", "repeat_rate", "repeat_rate_real")
        return {
            **{name: getattr(self, name) for name in ("clips", "context", "seed")},
            **dict(self.psnrs.named("psnr", "_db")),
            **dict(self.ssims.named("ssim")),
            **dict(self.changed_psnrs.named("changed_psnr", "_db")),
            **dict(self.repeat_rates.named("repeat_rates")),
            **dict(self.token_nats.named("token_nats")),
            "likelihood_kind": self.likelihood_kind,
            **dict(self.token_entropy.named("token_entropy")),
            **dict(self.reward_rmse.named("reward_rmse")),
            **{name: getattr(self, name) for name in derived},
            "controllability_se_db": self.controllability_se_db,
            "fd_effnetlite0": asdict(self.fd_effnetlite0) if self.fd_effnetlite0 else None,
        }

    def table(self) -> str:
        """The figures that matter most as text, a line per latent step."""
        return summary(self)

    def tables(self) -> str:
        """All figures as text."""
        return everything(self)
