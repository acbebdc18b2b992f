"""Dreams: a tokenizer and the prior that speaks its codes, together, in tensors only."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from einops import rearrange
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from vqvideo.errors import InputError, whole
from vqvideo.models.given import as_tensor, checked_seed
from vqvideo.models.pixels import to_uint8
from vqvideo.models.prior import Prior, PriorState
from vqvideo.models.prior.prior import PriorStep
from vqvideo.models.prior.sampling import Sampling
from vqvideo.models.row_parts import in_parts, side_by_side
from vqvideo.models.rows import Randomness
from vqvideo.models.surprise import Surprise, Watch, together
from vqvideo.models.tokenizer.causal import TimeState
from vqvideo.models.tokenizer.vqvae import VQVAE
from vqvideo.spaces import ActionSpace, as_float32

_COMPILERS = ("g++", "clang++", "cl")


@dataclass(frozen=True)
class EnvFacts:
    """What the recorded environment was."""

    env_id: str
    """Gymnasium id."""
    fps: float
    """Frames per second of the recorded frames."""
    action_repeat: int
    """Environment steps per recorded frame."""


class WorldState(NamedTuple):
    """A batch of dreams under way."""

    prior: PriorState
    decoder: TimeState

    def rows(self, index: Tensor) -> WorldState:
        """The dreams (r,) of `index` as a batch of their own."""
        return WorldState(self.prior.rows(index), self.decoder.rows(index))

    def with_rows(self, index: Tensor, other: WorldState) -> WorldState:
        """The same dreams, those (r,) of `index` replaced by the r dreams of `other`, which may be longer or shorter
        under way.
        """
        return WorldState(self.prior.with_rows(index, other.prior), self.decoder.with_rows(index, other.decoder))

    def ticked(self) -> WorldState:
        """The same dreams with the clock one step on, in which nothing was imagined."""
        return self._replace(prior=self.prior._replace(clock=self.prior.clock + 1))


class WorldStep(NamedTuple):
    """One imagined latent step of a batch of dreams."""

    frames: Tensor
    """(b, s, c, h, w) uint8."""
    codes: Tensor
    """(b, h, w) int64."""
    reward: Tensor
    """(b,) expected sum of rewards over the step."""
    termination: Tensor
    """(b,) probability that the episode ends in the step."""
    entropy: Tensor
    """(b,) mean entropy of the tokens in nats."""
    outcome_entropy: Tensor | None = None
    """(b,) entropy in nats of reward and end; None of an exported world, which does not tell it."""


class Imagination(NamedTuple):
    """What `WorldModel.imagine` returns, for m imagined latent steps."""

    frames: Tensor
    """(b, s m, c, h, w) uint8: the frames after the context."""
    codes: Tensor
    """(b, m, h, w) int64."""
    rewards: Tensor
    """(b, m)."""
    termination: Tensor
    """(b, m) probabilities."""
    entropy: Tensor
    """(b, m) nats per token."""


class Imaginer(nn.Module):
    """A world model in tensors only: a tokenizer and the prior over its codes, which read a few frames of a real
    episode and imagine how it goes on under given actions.

    `vqvideo.WorldModel` adds what a user wants around it: to save and load it, to find it by name, and to hand it out
    as a Gymnasium environment. What only imagines, as `vqvideo.imagined_env` does, needs no more than this.

    Args:
        vqvae: the tokenizer.
        prior: of its codes.
        env: of what recording.
        sampling: how codes are drawn where nobody says otherwise.

    Raises:
        InputError: the prior was trained on the codes of another tokenizer.
    """

    def __init__(self, vqvae: VQVAE, prior: Prior, env: EnvFacts, sampling: Sampling | None = None) -> None:
        super().__init__()
        theirs = _facts(prior.spec.grid, prior.spec.codebook_size, prior.spec.code_dim, prior.spec.stride)
        ours = _facts(vqvae.grid, vqvae.quantizer.codebook_size, vqvae.quantizer.dim, vqvae.stride)
        if theirs != ours:
            raise InputError(f"the prior is for {theirs}, this tokenizer gives {ours}: train the prior again on it")
        found = vqvae.fingerprint()
        if found != prior.spec.tokenizer:
            raise InputError(
                f"the prior speaks the codes of tokenizer {prior.spec.tokenizer[:16]}, this one is {found[:16]}: "
                "train the prior again on this tokenizer"
            )
        self.vqvae, self.prior, self.env = vqvae, prior, env
        self.sampling = sampling or Sampling()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def stride(self) -> int:
        """s, frames per latent step."""
        return self.vqvae.stride

    @property
    def action_space(self) -> ActionSpace:
        """Space of the actions."""
        return self.prior.spec.action_space

    def imagine(
        self,
        frames: Tensor | NDArray[Any],
        actions: ArrayLike | None = None,
        *,
        steps: int | None = None,
        sampling: Sampling | None = None,
        seed: int | None = None,
    ) -> Imagination:
        """Continues a context of real frames under given actions, entirely in latent space.

        Args:
            frames: (b, 1 + s c, 3, h, w), uint8 or float in 0 .. 1: the context.
            actions: (b, s c + s m, a) flat actions. The first s c led through the context (action t leads from frame t
                to frame t + 1), the others lead through the m latent steps to imagine. A world without actions takes
                (b, s c + s m, 0), or `steps` instead.
            steps: m, for a world without actions.
            sampling: how codes are drawn; by default `self.sampling`.
            seed: makes the dream reproducible; None draws a new one.

        Raises:
            InputError: frames or actions of another shape, actions outside the space.
        """
        # PyTorch takes negative ones too.
        seed = None if seed is None else checked_seed(seed, least=-(2**63))
        frames = self.vqvae.checked(frames)
        context = self.stride * (self.vqvae.latent_length(frames.shape[1]) - 1)
        steps = None if steps is None else whole(steps, "steps")
        if (actions is None) == (steps is None):
            raise InputError(
                f"actions are {'missing' if actions is None else 'given'} and steps is {steps}, expected one of them: "
                "actions, or, for a world without actions, steps=1 or more latent steps to imagine"
            )
        flat = self.checked_actions(self._given(actions, len(frames), context + self.stride * (steps or 0)))
        future = flat.shape[1] - context
        if flat.shape[0] != frames.shape[0] or future < self.stride or future % self.stride:
            raise InputError(
                f"actions of shape {tuple(flat.shape)} for {frames.shape[0]} context(s) of {frames.shape[1]} frames, "
                f"expected ({frames.shape[0]}, {context} + a multiple of {self.stride}, {self.action_space.size})"
            )
        generator = torch.Generator(self.device)
        _ = generator.seed() if seed is None else generator.manual_seed(seed)
        state = self.start(frames, flat[:, :context])
        imagined = []
        for action in flat[:, context:].split(self.stride, dim=1):
            step, state = self.step(state, action, sampling=sampling, generator=generator)
            imagined.append(step)
        return _joined(imagined)

    def start(self, frames: Tensor | NDArray[Any], actions: ArrayLike | None = None) -> WorldState:
        """Reads a context: frames (b, 1 + s c, 3, h, w) and the flat actions (b, s c, a) between them, which a world
        without actions does not need.
        """
        return self.begin(frames, actions)[0]

    def begin(self, frames: Tensor | NDArray[Any], actions: ArrayLike | None = None) -> tuple[WorldState, Tensor]:
        """As `start`, and the newest frame of the context as the tokenizer shows it, (b, 3, h, w) uint8."""
        frames = self.vqvae.checked(frames)
        codes = self.vqvae.encode(frames)
        expected = (len(frames), frames.shape[1] - 1)
        flat = self.checked_actions(self._given(actions, *expected))
        if tuple(flat.shape[:2]) != expected:
            raise InputError(f"{tuple(flat.shape[:2])} context actions, expected {expected}, one between two frames")
        grouped = rearrange(flat, "b (t s) a -> b t s a", s=self.stride)
        decoded, decoder = self.vqvae.decode_step(codes, self.vqvae.init_state(len(codes)))
        return WorldState(self.prior.start(codes, grouped), decoder), to_uint8(decoded[:, -1])

    def step(
        self,
        state: WorldState,
        action: ArrayLike | None = None,
        *,
        sampling: Sampling | None = None,
        generator: Randomness = None,
    ) -> tuple[WorldStep, WorldState]:
        """Imagines one latent step under the flat actions (b, s, a), which a world without actions does not need."""
        flat = self.checked_actions(self._given(action, len(state.prior.codes), self.stride))
        return self.advance(state, flat, checked_sampling(sampling, self.sampling), generator)

    def advance(
        self, state: WorldState, actions: Tensor, sampling: Sampling, generator: Randomness = None
    ) -> tuple[WorldStep, WorldState]:
        """As `step`, under actions (b, s, a) float32 on the device that are known to be in their space: to look at each
        again takes time.
        """

        def shown(rows: slice) -> tuple[Tensor, ...]:
            frames, after = self.vqvae.advance(imagined.codes[rows, None], state.decoder.part(rows))
            return to_uint8(frames), after.fresh, *after.past

        with side_by_side(self.device, len(actions)):
            imagined, prior = self.prior.step(state.prior, actions, sampling, generator)
            frames, fresh, *past = in_parts(shown, len(actions), actions.device)
        step = WorldStep(frames, *imagined)
        return step, WorldState(prior, TimeState(tuple(past), fresh))

    def advance_unseen(
        self, state: WorldState, actions: Tensor, sampling: Sampling, generator: Randomness = None
    ) -> tuple[PriorStep, WorldState]:
        """As `advance`, without frames: whoever goes on from there cannot look again, as the decoder misses steps."""
        with side_by_side(self.device, len(actions)):
            imagined, prior = self.prior.step(state.prior, actions, sampling, generator)
        return imagined, state._replace(prior=prior)

    def surprise(self, frames: Tensor | NDArray[Any], actions: ArrayLike | None = None) -> Surprise:
        """How unexpected real frames are, step by step: for all steps at once what `Watch` gives one by one.

        Args:
            frames: (b, 1 + s m, 3, h, w), uint8 or float in 0 .. 1.
            actions: (b, s m, a) flat ones between them, which a world without actions does not need.

        Returns:
            Figures (b, m, h, w), of m latent steps.

        Raises:
            InputError: frames or actions of another shape, or a prior whose head has no likelihood of single tokens.
        """
        frames = self.vqvae.checked(frames)
        steps = self.vqvae.latent_length(frames.shape[1]) - 1
        flat = self.checked_actions(self._given(actions, len(frames), self.stride * steps))
        if steps < 1 or tuple(flat.shape[:2]) != (len(frames), self.stride * steps):
            raise InputError(
                f"{tuple(flat.shape[:2])} actions for {frames.shape[1]} frames, expected ({len(frames)}, "
                f"{self.stride * steps}), one between two frames, of two latent steps at least"
            )
        watch = Watch(self.vqvae, self.prior, frames[:, :1])
        pairs = zip(frames[:, 1:].split(self.stride, dim=1), flat.split(self.stride, dim=1), strict=True)
        return together([watch.step(seen, acting) for seen, acting in pairs])

    def compile_steps(self, mode: str = "default") -> None:
        """Lets torch.compile make the passes of a dreamt step: the prior's backbone and the tokenizer's decoder. That
        takes minutes, which are spent during the first steps, and pays for long dreams.

        Args:
            mode: as torch.compile knows it.

        Raises:
            InputError: no C++ compiler, which it needs for the CPU.
        """
        if self.device.type == "cpu" and not any(map(shutil.which, _COMPILERS)):
            raise InputError(
                f"torch.compile needs a C++ compiler, and there is no {' or '.join(_COMPILERS)}: install one "
                "(apt install g++), or go without"
            )
        # Many worlds share the code that is compiled; past the limit, it would silently run as written.
        torch._dynamo.config.recompile_limit = 1000
        backbone = self.prior.backbone
        setattr(backbone, "step", torch.compile(backbone.step, mode=mode))  # noqa: B010
        self.vqvae.decoder.compile(mode=mode)

    def _given(self, actions: ArrayLike | None, batch: int, count: int) -> ArrayLike:
        """The actions, or (b, t, 0) in the place of None; InputError if this world has actions."""
        if actions is not None:
            return actions
        if self.action_space.size:
            raise InputError(f"no actions were given, but this world takes some: flat ones of {self.action_space}")
        return np.zeros((batch, count, 0))

    def checked_actions(self, actions: ArrayLike) -> Tensor:
        """Flat actions (b, t, a) as a float tensor on the device of the model.

        Raises:
            InputError: another shape, not finite, or outside their space.
        """
        given = as_tensor(actions, "actions", f"numbers (b, t, {self.action_space.size})")
        if given.ndim != 3:
            raise InputError(f"actions of shape {tuple(given.shape)}, expected (b, t, {self.action_space.size})")
        # On the CPU also when they come from a GPU: one bad index there would end the whole process.
        values = given.detach().cpu().double().numpy()
        self.action_space.validate(values, "actions")
        return torch.as_tensor(as_float32(values), device=self.device)


def checked_sampling(sampling: Sampling | None, own: Sampling) -> Sampling:
    """How codes are drawn, by default a world's own way; InputError for what does not say that."""
    if isinstance(sampling, Sampling | None):
        return sampling or own
    raise InputError(f"sampling is {sampling!r:.100}, expected how to draw, such as vqvideo.Sampling(temperature=0.9)")


def _facts(grid: tuple[int, int], codes: int, width: int, stride: int) -> str:
    return f"{grid[0]} x {grid[1]} tokens of {codes} codes in {width} dimensions for {stride} frames"


def _joined(steps: list[WorldStep]) -> Imagination:
    return Imagination(
        torch.cat([step.frames for step in steps], dim=1),
        torch.stack([step.codes for step in steps], dim=1),
        torch.stack([step.reward for step in steps], dim=1),
        torch.stack([step.termination for step in steps], dim=1),
        torch.stack([step.entropy for step in steps], dim=1),
    )
