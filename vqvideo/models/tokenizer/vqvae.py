"""The tokenizer: a causal 3-D convolutional VQ-VAE.

Neural Discrete Representation Learning (van den Oord et al. 2017, arXiv:1711.00937), for video.

Time. With temporal stride s, latent step 0 encodes frame 0 alone and latent step k >= 1 the frames
(k - 1) s + 1 .. k s. So a clip has 1 + s k frames and 1 + k latent steps. Inside, frame 0 is repeated s - 1 times
in front, which makes all groups s frames long; in every layer a clip behaves as if a still of its first frame had
been shown before it. Whole clips and streams run the same code.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from einops import rearrange
from numpy.typing import ArrayLike
from torch import Tensor, nn

from vqvideo.errors import InputError
from vqvideo.models.device import has_float64
from vqvideo.models.given import as_tensor
from vqvideo.models.pixels import channels_first, channels_last, from_signed, to_signed
from vqvideo.models.quantizers import OutsideConfig, Quantizer
from vqvideo.models.quantizers.base import Quantized, fp32
from vqvideo.models.quantizers.outside import checked, outside_config
from vqvideo.models.quantizers.usage import CodeUsage
from vqvideo.models.tokenizer.causal import TimeState, TimeWalk
from vqvideo.models.tokenizer.config import VQVAEConfig
from vqvideo.models.tokenizer.losses import reconstruction_loss
from vqvideo.storage.checkpoint import WEIGHTS, build_and_load
from vqvideo.storage.formats import SavedModel
from vqvideo.storage.hub import HubModel
from vqvideo.storage.records import kind_of, to_plain, typed, without_defaults


class VQVAEOutput(NamedTuple):
    """What a training pass returns."""

    loss: Tensor
    """Scalar to minimise."""
    metrics: dict[str, Tensor]
    """Scalars to log."""
    reconstruction: Tensor
    """(b, t, c, h, w) float, in the signed range -1 .. 1, not clamped."""
    codes: Tensor
    """(b, 1 + k, h, w) int64."""


class VQVAE(HubModel):
    """Video to a grid of codes per latent step, and back.

    Frames at the public door are (b, t, c, h, w) with c = 3: uint8, or float in 0 .. 1.
    Codes are (b, 1 + k, h, w) int64.

    Example:
        >>> vqvae = VQVAEConfig().build((64, 64))
        >>> vqvae.initialize(frames)  # scale and codebook from first clips, many enough for k-means
        >>> vqvae(frames).loss.backward()
        >>> optimizer.step()
        >>> vqvae.after_step()  # the codebook is moved by statistics, not by the gradient
        >>> codes = vqvae.eval().encode(frames)
    """

    kind = "vqvae"
    variance: Tensor

    def __init__(self, cfg: VQVAEConfig, frame_size: tuple[int, int], quantizer: nn.Module | None = None) -> None:
        """`quantizer` is a `Quantizer` of the caller's own, in place of the one that `cfg` describes."""
        super().__init__()
        if quantizer is None:
            self.quantizer: Quantizer = cfg.quantizer.build()
        else:
            recorded = cfg.quantizer if isinstance(cfg.quantizer, OutsideConfig) else None
            self.quantizer = checked(quantizer, recorded)
            cfg = replace(cfg, quantizer=outside_config(self.quantizer))
        self.cfg, self.frame_size = cfg, (frame_size[0], frame_size[1])
        self.stride, self.grid = cfg.backbone.strides[0], cfg.grid_of(frame_size)
        self.encoder = cfg.backbone.encoder(self.quantizer)
        self.decoder = cfg.backbone.decoder(self.quantizer.dim)
        self.register_buffer("variance", torch.ones(()))
        self._usage: CodeUsage | None = None
        self._keeps_codes = False

    def config(self) -> dict[str, Any]:
        return {"model": to_plain(self.cfg), "frame_size": list(self.frame_size)}

    def own_identity(self) -> dict[str, Any]:
        model = without_defaults(self.cfg)
        # How it was trained is in the weights; it does not change what they compute.
        del model["reconstruction"]
        return {"model": model, "frame_size": list(self.frame_size)}

    @classmethod
    def from_config(cls, config: dict[str, Any], source: str, quantizer: nn.Module | None = None) -> Self:
        """The untrained tokenizer that `config` describes."""
        try:
            plain, (h, w) = config["model"], config["frame_size"]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{source}: config.json lacks model or frame_size") from error
        if not all(type(side) is int and side > 0 for side in (h, w)):
            raise InputError(f"{source}: frame_size of config.json is {h!r:.40}, {w!r:.40}: expected two whole numbers")
        cfg = typed(VQVAEConfig, plain, f"{source}: model")
        if quantizer is not None and not isinstance(cfg.quantizer, OutsideConfig):
            raise InputError(f"{source} has the quantizer {kind_of(type(cfg.quantizer))} of its own: pass no module")
        return cls(cfg, (h, w), quantizer)

    @classmethod
    def from_saved(cls, saved: SavedModel, source: str, quantizer: nn.Module | None = None) -> Self:
        build = partial(cls.from_config, saved.config, source, quantizer)
        vqvae = build_and_load(build, saved.tensors, f"{source}/{WEIGHTS}")
        vqvae.recorded = saved.config.get("identity")
        return vqvae

    @property
    def codebook(self) -> Tensor:
        """All code vectors (k, d), fp32."""
        return self.quantizer.decode(torch.arange(self.quantizer.codebook_size, device=self.device)).float()

    @property
    def tokens(self) -> int:
        """n, the number of tokens per latent step."""
        return self.grid[0] * self.grid[1]

    @property
    def bits_per_latent_step(self) -> float:
        """Bits that the tokens of a latent step take without entropy coding."""
        return self.tokens * self.quantizer.bits

    @property
    def bits_per_pixel(self) -> float:
        """Bits per pixel of a long video, without entropy coding."""
        return self.bits_per_latent_step / (self.stride * self.frame_size[0] * self.frame_size[1])

    def latent_length(self, frames: int) -> int:
        """Latent steps of a clip of `frames` frames. InputError unless frames = 1 + s k."""
        if frames < 1 or (frames - 1) % self.stride:
            near = max(0, frames - 1) // self.stride
            raise InputError(
                f"a clip of {frames} frames, expected 1 + {self.stride} k frames, such as "
                f"{1 + self.stride * near} or {1 + self.stride * (near + 1)}"
            )
        return 1 + (frames - 1) // self.stride

    def clip_length(self, latent_steps: int) -> int:
        """Frames of a clip of `latent_steps` latent steps."""
        return self.cfg.clip_length(latent_steps)

    def forward(self, frames: Tensor, stills: Tensor | None = None) -> VQVAEOutput:
        """One training pass over clips (b, 1 + s k, c, h, w), and over images beside them.

        An image is a clip of one frame. The losses are weighted by the number of frames, so a batch of clips and
        images counts every frame once. Codes and reconstruction in the output are those of the clips.

        Args:
            frames: (b, 1 + s k, c, h, w).
            stills: (b', 1, c, h, w) or None.
        """
        output = self._pass(frames)
        if stills is None:
            return output
        beside = self._pass(stills)
        share = stills.shape[0] / (frames.shape[0] * frames.shape[1] + stills.shape[0])
        metrics = {
            **{name: torch.lerp(value, beside.metrics[name], share) for name, value in output.metrics.items()},
            "stills_mse": beside.metrics["mse"],
        }
        return output._replace(loss=torch.lerp(output.loss, beside.loss, share), metrics=metrics)

    def _pass(self, frames: Tensor) -> VQVAEOutput:
        # In memory channels last, as the decoder gives its frames: between two layouts, every operation of the loss
        # takes several times as long.
        target = channels_first(channels_last(self._signed(frames)).contiguous())
        quantized = self._kept(target) if self._keeps_codes else self._learning(target)
        decoded, _ = self._frames(quantized.values, self.init_state(len(target)))
        decoded = decoded[:, self.stride - 1 :].float()
        reconstruction = reconstruction_loss(decoded, target, self.variance, self.cfg.reconstruction)
        metrics = {
            "reconstruction": reconstruction.detach(),
            "quantizer": quantized.loss.detach(),
            "mse": F.mse_loss(decoded.detach(), target) / 4,
        }
        return VQVAEOutput(reconstruction + quantized.loss, metrics, decoded, quantized.indices)

    def _learning(self, target: Tensor) -> Quantized:
        """What the quantizer makes of signed frames, and learns from."""
        z, _ = self._latents(target, self.init_state(len(target)))
        quantized = self.quantizer(z)
        if self.quantizer.learns_from(z):
            self._counted().add(quantized.indices)
        return quantized

    def _kept(self, target: Tensor) -> Quantized:
        """The code vectors of signed frames, exactly as `encode` finds them, without anything to learn from."""
        with torch.no_grad(), fp32(self.variance):
            z, _ = self._latents(target, self.init_state(len(target)))
            codes = self.quantizer.encode(z)
            self._counted().add(codes)
            return Quantized(self.quantizer.decode(codes), codes, self.variance.new_zeros(()))

    def keep_codes(self) -> None:
        """From now on only the decoder learns: clips keep their codes, and so priors on them stay what they are."""
        self._keeps_codes = True
        self.encoder.requires_grad_(False)
        self.quantizer.requires_grad_(False)

    @torch.no_grad()
    def encode(self, frames: ArrayLike | Tensor) -> Tensor:
        """Codes (b, 1 + k, h, w) of clips (b, 1 + s k, c, h, w)."""
        checked = self.checked(frames)
        return self._codes(checked, self.init_state(len(checked)))[0]

    @torch.no_grad()
    def decode(self, codes: ArrayLike | Tensor) -> Tensor:
        """Clips (b, 1 + s k, c, h, w), float in 0 .. 1, of codes (b, 1 + k, h, w)."""
        frames, _ = self.decode_step(codes, self.init_state(len(codes)))  # type: ignore[arg-type]
        return frames[:, self.stride - 1 :]

    def init_state(self, batch: int) -> TimeState:
        """The state of `batch` streams that have seen nothing yet; for `encode_step` or `decode_step`."""
        return TimeState((), torch.ones(batch, dtype=torch.bool, device=self.variance.device))

    @torch.no_grad()
    def encode_step(self, frames: ArrayLike | Tensor, state: TimeState) -> tuple[Tensor, TimeState]:
        """Goes on encoding streams.

        Args:
            frames: (b, s m, c, h, w) for streams under way. A fresh stream starts with (b, 1 + s m, ...); fresh
                rows among running ones get s frames of which the last one is their first.
            state: from `init_state` or the last call; not changed.

        Returns:
            Codes (b, m, h, w) (1 + m for a start) and the new state.
        """
        return self._codes(self.checked(frames), state)

    @torch.no_grad()
    def encode_step_with_distance(
        self, frames: ArrayLike | Tensor, state: TimeState
    ) -> tuple[Tensor, Tensor, TimeState]:
        """As `encode_step`, and how far each latent is from its code vector, (b, m, h, w): see `Quantizer.distance`."""
        z, codes, state = self._quantized(self.checked(frames), state)
        return codes, self.quantizer.distance(z, codes), state

    @torch.no_grad()
    def decode_step(self, codes: ArrayLike | Tensor, state: TimeState) -> tuple[Tensor, TimeState]:
        """Goes on decoding streams.

        Args:
            codes: (b, m, h, w).
            state: from `init_state` or the last call; not changed.

        Returns:
            Frames (b, s m, c, h, w), float in 0 .. 1, and the new state. Of the first s frames of a fresh row
            only the last one belongs to the clip.
        """
        codes = as_tensor(codes, "codes", f"whole numbers (b, t, {self.grid[0]}, {self.grid[1]})").to(self.device)
        if codes.ndim != 4 or tuple(codes.shape[2:]) != self.grid:
            raise InputError(f"codes of shape {tuple(codes.shape)}, expected (b, t, {self.grid[0]}, {self.grid[1]})")
        if codes.is_floating_point() or codes.dtype == torch.bool:
            raise InputError(f"codes of type {codes.dtype}, expected whole numbers such as int64")
        codes = codes.long()
        self.quantizer.check(codes)
        return self.advance(codes, state)

    @torch.no_grad()
    def advance(self, codes: Tensor, state: TimeState) -> tuple[Tensor, TimeState]:
        """As `decode_step`, of int64 codes that are known to be codes: a GPU would be waited for to look at them."""
        signed, state = self._frames(self.quantizer.decode(codes), state)
        return from_signed(signed.float()), state

    @torch.no_grad()
    def initialize(self, frames: ArrayLike | Tensor) -> None:
        """Fits data variance and codebook to first clips (b, 1 + s k, c, h, w), the same on every rank."""
        target = self._signed(frames)
        # In parts: a large codebook wants many clips, more than memory holds activations for.
        parts = [self._latents(part, self.init_state(len(part)))[0].flatten(0, -2) for part in target.split(32)]
        self.variance.copy_(target.var().clamp(min=1e-4))
        self.quantizer.initialize(torch.cat(parts))

    def after_step(self) -> None:
        """Called by the training loop after each optimizer step, on every rank."""
        if not self._keeps_codes:
            self.quantizer.update()

    def take_usage(self) -> dict[str, float]:
        """Usage of the codes in the training passes of all ranks since the last call (see `CodeUsage.summary`).
        Collective.
        """
        usage, self._usage = self._counted(), None
        return usage.reduce().summary()

    def checked(self, frames: ArrayLike | Tensor) -> Tensor:
        """Frames (b, t, 3, h, w), a tensor or an array or a list, as a tensor on the device of the model; InputError if
        they have another shape, type or range.
        """
        h, w = self.frame_size
        frames = as_tensor(frames, "frames", f"uint8 or float (b, t, 3, {h}, {w})")
        if frames.dtype != torch.uint8 and not frames.is_floating_point():
            raise InputError(
                f"frames of type {frames.dtype}, expected uint8 in 0..255 or float in 0..1: convert them, an array by "
                "frames.astype('uint8'), a tensor by frames.to(torch.uint8)"
            )
        if frames.ndim != 5 or tuple(frames.shape[2:]) != (3, h, w):
            found = tuple(frames.shape)
            raise InputError(f"frames of shape {found}, expected (b, t, 3, {h}, {w})" + _hint(found, h, w))
        # Not in training on a GPU, which should not wait for it. NaN fails both comparisons.
        seen = not self.training or frames.device.type == "cpu"
        if frames.is_floating_point() and frames.numel() and seen and not (frames.min() >= 0 and frames.max() <= 1):
            low, high = float(frames.min()), float(frames.max())
            raise InputError(f"float frames from {low:.4g} to {high:.4g}, expected 0..1 (or uint8 in 0..255)")
        if frames.dtype == torch.float64 and not has_float64(self.device):
            frames = frames.float()
        return frames.to(self.device)

    def _counted(self) -> CodeUsage:
        if self._usage is None:
            self._usage = CodeUsage(self.quantizer.codebook_size, self.variance.device)
        return self._usage

    def _signed(self, frames: ArrayLike | Tensor) -> Tensor:
        return to_signed(self.checked(frames)).to(self.variance.dtype)

    def _codes(self, frames: Tensor, state: TimeState) -> tuple[Tensor, TimeState]:
        """Checked frames to codes (b, m, h, w)."""
        _, codes, state = self._quantized(frames, state)
        return codes, state

    def _quantized(self, frames: Tensor, state: TimeState) -> tuple[Tensor, Tensor, TimeState]:
        """Checked frames to latents (b, m, h, w, d) and codes (b, m, h, w)."""
        # Without autocast: an encoder in bf16 chose another code for a fifth of the tokens, and codes are kept.
        with fp32(self.variance):
            z, state = self._latents(to_signed(frames).to(self.variance.dtype), state)
            return z, self.quantizer.encode(z), state

    def _latents(self, frames: Tensor, state: TimeState) -> tuple[Tensor, TimeState]:
        """Signed frames to latents (b, t, h, w, d)."""
        s = self.stride
        # First of all: what follows keeps the layout, and folds pixels without gathering their channels.
        frames = rearrange(frames, "b t c h w -> b t h w c")
        if not state.past:
            self.latent_length(frames.shape[1])
            frames = torch.cat([frames[:, :1].expand(-1, s - 1, -1, -1, -1), frames], dim=1)
        elif not frames.shape[1] or frames.shape[1] % s:
            raise InputError(f"{frames.shape[1]} frames to go on with, expected a multiple of the time stride {s}")
        elif s > 1:
            first = frames[:, s - 1 : s].expand(-1, s, -1, -1, -1)
            first = torch.cat([first, frames[:, s:]], dim=1)
            frames = torch.where(rearrange(state.fresh, "b -> b 1 1 1 1"), first, frames)
        walk = TimeWalk(state)
        return self.encoder(frames, walk), walk.finish()

    def _frames(self, values: Tensor, state: TimeState) -> tuple[Tensor, TimeState]:
        """Code vectors (b, m, h, w, d) to signed frames (b, s m, c, h, w)."""
        walk = TimeWalk(state)
        values = values.to(self.variance.dtype)
        return rearrange(self.decoder(values, walk), "b t h w c -> b t c h w"), walk.finish()


def _hint(shape: tuple[int, ...], h: int, w: int) -> str:
    """What to do about frames whose channels or whose batch are not where they should be."""
    if shape[-3:] == (h, w, 3):
        return ": their channels come last, np.moveaxis(frames, -1, -3) moves them"
    return ": frames[None] makes a batch of one clip" if shape[1:] == (3, h, w) else ""
