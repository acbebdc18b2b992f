"""A world that dreams without torch: exported graphs, run by ONNX Runtime.

The words and shapes are those of `vqvideo.models.imagination`, in numpy arrays.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vqvideo.errors import InputError, whole
from vqvideo.export import noise
from vqvideo.export.manifest import START_ACTIONS, START_CODES, read_facts
from vqvideo.export.session import Session, Tensors
from vqvideo.models.prior.config import Sampling
from vqvideo.spaces import ActionSpace, Limits, as_float32
from vqvideo.storage.files import read_members


class DreamState(NamedTuple):
    """A batch of dreams under way."""

    codes: NDArray[np.int32]
    """(b, h, w): the newest latent step, not yet seen by the prior."""
    prior: Tensors
    """What the step graph is given back."""
    decoder: Tensors
    """What the decoder graph is given back."""
    keys: NDArray[np.uint32]
    """(b,): what the random numbers of each dream begin from."""
    steps: NDArray[np.int64]
    """(b,): latent steps that were dreamt."""


class DreamStep(NamedTuple):
    """One imagined latent step of a batch of dreams."""

    frames: NDArray[np.uint8]
    """(b, s, c, h, w)."""
    codes: NDArray[np.int64]
    """(b, h, w)."""
    reward: NDArray[np.float32]
    """(b,) expected sum of rewards over the step."""
    termination: NDArray[np.float32]
    """(b,) probability that the episode ends in the step."""
    entropy: NDArray[np.float32]
    """(b,) mean entropy of the tokens in nats."""


class Dream(NamedTuple):
    """What `OnnxWorld.imagine` returns, for m imagined latent steps."""

    frames: NDArray[np.uint8]
    """(b, s m, c, h, w): the frames after the context."""
    codes: NDArray[np.int64]
    """(b, m, h, w)."""
    rewards: NDArray[np.float32]
    """(b, m)."""
    termination: NDArray[np.float32]
    """(b, m) probabilities."""
    entropy: NDArray[np.float32]
    """(b, m) nats per token."""


class Starts(NamedTuple):
    """The start clips that come with an exported world."""

    codes: NDArray[np.int32]
    """(r, 1 + c, h, w)."""
    actions: NDArray[np.float32]
    """(r, s c, a), flat."""


class OnnxWorld:
    """A trained world as ONNX Runtime runs it: for dreams where torch is not installed, or slower.

    Args:
        folder: what `scripts/export.py` wrote.
        threads: of ONNX Runtime.

    Raises:
        InputError: no exported world, one of another version, or a damaged one.
        MissingExtraError: onnxruntime is not installed.

    Example:
        >>> world = OnnxWorld("exported/carracing")
        >>> codes, actions = world.starts
        >>> state = world.start(codes=codes[:1, :3], actions=actions[:1, :4], seed=0)
        >>> step, state = world.step(state, np.zeros((1, 2, 3)))
        >>> step.frames.shape
        (1, 2, 3, 64, 64)
    """

    def __init__(self, folder: str | Path, *, threads: int = 1) -> None:
        self.folder, self.threads = Path(folder), whole(threads, "threads")
        self.facts, self._manifest = read_facts(self.folder)
        self._step, self._decoder = self._graph("step"), self._graph("decoder")

    @cached_property
    def _encoder(self) -> Session:
        return self._graph("encoder")

    def _graph(self, name: str) -> Session:
        (content,) = read_members(self.folder, self._manifest, f"{name}.onnx")
        return Session(content, self.facts.graphs[name], self.threads, str(self.folder / f"{name}.onnx"))

    @property
    def stride(self) -> int:
        """s, frames per latent step."""
        return self.facts.stride

    @property
    def actions(self) -> int:
        """a, columns of a flat action; 0 where nothing acts."""
        return len(self.facts.action_columns)

    @cached_property
    def action_space(self) -> ActionSpace:
        """Space of the actions. Needs Gymnasium."""
        return ActionSpace.from_json(self.facts.action_space)

    @cached_property
    def starts(self) -> Starts:
        """The start clips that were exported with the world; InputError if none were."""
        if self.facts.starts is None:
            raise InputError(f"{self.folder} has no start clips: give frames or codes of your own")
        clips, steps = self.facts.starts
        codes, actions = read_members(self.folder, self._manifest, START_CODES, START_ACTIONS)
        return Starts(
            np.frombuffer(codes, "<i4").reshape(clips, steps, *self.facts.grid),
            np.frombuffer(actions, "<f4").reshape(clips, self.stride * (steps - 1), self.actions),
        )

    def imagine(
        self,
        frames: ArrayLike | None = None,
        actions: ArrayLike | None = None,
        *,
        codes: ArrayLike | None = None,
        steps: int | None = None,
        sampling: Sampling | None = None,
        seed: int | None = None,
    ) -> Dream:
        """Continues a context of real frames, or of their codes, under given actions.

        Args:
            frames: (b, 1 + s c, 3, h, w), uint8 or float in 0 .. 1: the context.
            actions: (b, s c + s m, a) flat actions: those that led through the context, and those that lead through
                the m latent steps to imagine. A world without actions takes `steps` instead.
            codes: (b, 1 + c, h, w) in the place of frames.
            steps: m, for a world without actions.
            sampling: how codes are drawn.
            seed: makes the dream reproducible: row i gets seed + i. None draws a new one.

        Raises:
            InputError: frames, codes or actions of another shape, or actions outside the space.
        """
        context = self._codes(frames, codes)
        if (actions is None) == (steps is None):
            raise InputError(
                f"actions are {'missing' if actions is None else 'given'} and steps is {steps}, expected one of them: "
                "actions, or, for a world without actions, steps=1 or more latent steps to imagine"
            )
        read = self.stride * (context.shape[1] - 1)
        ahead = self.stride * (0 if steps is None else whole(steps, "steps"))
        flat = self._actions(actions, len(context), read + ahead)
        future = flat.shape[1] - read
        if future < self.stride or future % self.stride:
            raise InputError(
                f"actions of shape {flat.shape} for a context of {1 + read} frames, expected ({len(context)}, {read} + "
                f"a multiple of {self.stride}, {self.actions})"
            )
        state = self.start(codes=context, actions=flat[:, :read], seed=seed)
        imagined = []
        for first in range(read, flat.shape[1], self.stride):
            step, state = self.step(state, flat[:, first : first + self.stride], sampling=sampling)
            imagined.append(step)
        frames_, codes_, *others = (np.stack(each, axis=1) for each in zip(*imagined, strict=True))
        return Dream(frames_.reshape(len(context), -1, *frames_.shape[3:]), codes_, *others)

    def start(
        self,
        frames: ArrayLike | None = None,
        actions: ArrayLike | None = None,
        *,
        codes: ArrayLike | None = None,
        seed: int | None = None,
    ) -> DreamState:
        """Reads a context: frames (b, 1 + s c, 3, h, w), or codes (b, 1 + c, h, w), and the flat actions (b, s c, a)
        between them, which a world without actions does not need. Row i dreams by the random numbers of seed + i.
        """
        return self.begin(frames, actions, codes=codes, seed=seed)[0]

    def begin(
        self,
        frames: ArrayLike | None = None,
        actions: ArrayLike | None = None,
        *,
        codes: ArrayLike | None = None,
        seed: int | None = None,
    ) -> tuple[DreamState, NDArray[np.uint8]]:
        """As `start`, and the newest frame of the context as the tokenizer shows it, (b, 3, h, w) uint8."""
        context = self._codes(frames, codes)
        batch, steps = context.shape[:2]
        if steps > self.facts.window:
            raise InputError(
                f"a context of {steps} latent steps, the prior looks back over {self.facts.window}: give it the last "
                f"{self.facts.window} or fewer"
            )
        flat = self._actions(actions, batch, self.stride * (steps - 1))
        if flat.shape[1] != self.stride * (steps - 1):
            raise InputError(f"{flat.shape[1]} context actions, expected {self.stride * (steps - 1)}")
        prior, decoder = self._step.fresh(batch), self._decoder.fresh(batch)
        for k in range(steps):
            shown, decoder = self._decoder.run({"codes": context[:, k]}, decoder)
            if k + 1 < steps:
                acting = flat[:, k * self.stride : (k + 1) * self.stride]
                _, prior = self._step.run(self._inputs(context[:, k], acting, Sampling(temperature=0)), prior)
        seed = int(np.random.SeedSequence().generate_state(1, np.uint64)[0]) if seed is None else seed
        keys = noise.keys([whole(seed, "seed", least=-(2**63), most=2**64 - 1) + i for i in range(batch)])
        state = DreamState(context[:, -1], prior, decoder, keys, np.zeros(batch, np.int64))
        return state, _channels_first(shown["frames"][:, -1])

    def step(
        self, state: DreamState, action: ArrayLike | None = None, *, sampling: Sampling | None = None
    ) -> tuple[DreamStep, DreamState]:
        """Imagines one latent step under the flat actions (b, s, a), which a world without actions does not need."""
        how = self.facts.sampling if sampling is None else sampling
        self.check_sampling(how)
        flat = self._actions(action, len(state.codes), self.stride)
        if flat.shape[1] != self.stride:
            raise InputError(f"{flat.shape[1]} actions, expected {self.stride}: one for each frame of a latent step")
        numbers = noise.noise(state.keys, state.steps, self.facts.noise)
        step, after = self.advance(state, flat, how, numbers)
        return step, after._replace(steps=state.steps + 1)

    def advance(
        self, state: DreamState, actions: NDArray[np.float32], how: Sampling, numbers: NDArray[np.int32]
    ) -> tuple[DreamStep, DreamState]:
        """As `step`, with the random numbers (b, m) of the step, and under actions (b, s, a) float32 that are known to
        be in their space.
        """
        inputs, prior = self._inputs(state.codes, actions, how, numbers), state.prior
        if how.compares:
            inputs, prior = _compared(inputs), _twice(prior)
        outputs, after = self._step.run(inputs, prior)
        if how.compares:
            outputs, after = ({name: part[: len(actions)] for name, part in each.items()} for each in (outputs, after))
        codes = outputs["next.codes"]
        shown, decoder = self._decoder.run({"codes": codes}, state.decoder)
        figures = (outputs[name] for name in ("reward", "termination", "entropy"))
        step = DreamStep(_channels_first(shown["frames"]), codes.astype(np.int64), *figures)
        return step, state._replace(codes=codes, prior=after, decoder=decoder)

    def _inputs(
        self,
        codes: NDArray[np.int32],
        actions: NDArray[np.float32],
        how: Sampling,
        numbers: NDArray[np.int32] | None = None,
    ) -> Tensors:
        """What the step graph takes for the rows (b, h, w) of codes."""
        batch = len(codes)
        rows = np.arange(batch, dtype=np.int32)
        inputs = {
            "codes": codes,
            "noise": np.zeros((batch, self.facts.noise), np.int32) if numbers is None else numbers,
            "temperature": np.array(how.temperature, np.float32),
            "top_p": np.array(how.top_p, np.float32),
            "guidance": np.array(how.guidance if how.compares else 1, np.float32),
            "told": rows,
            "untold": rows,
        }
        if self.actions:
            inputs |= {"actions": actions, "known": np.full(batch, how.guidance != 0)}
        return inputs

    def check_sampling(self, how: Sampling) -> None:
        """Raises InputError if this world cannot draw like that."""
        if how.top_k:
            raise InputError(f"top_k is {how.top_k}: an exported world draws by temperature, top_p and guidance alone")
        if how.guidance != 1 and not self.facts.can_guide:
            why = "has never been without its actions" if self.actions else "has no actions to be guided by"
            raise InputError(f"guidance is {how.guidance}, but this world {why}: leave it at 1")

    def _codes(self, frames: ArrayLike | None, codes: ArrayLike | None) -> NDArray[np.int32]:
        """Codes (b, 1 + c, h, w) of what is given: frames, or codes."""
        if (frames is None) == (codes is None):
            raise InputError("expected either frames or codes to start from")
        if codes is None:
            return self.encode(np.asarray(frames))
        found = np.asarray(codes)
        h, w = self.facts.grid
        if found.ndim != 4 or found.shape[2:] != (h, w) or not found.shape[1] or found.dtype.kind not in "iu":
            raise InputError(f"codes {found.dtype} of shape {found.shape}, expected whole numbers (b, t, {h}, {w})")
        if found.size and not 0 <= found.min() <= found.max() < self.facts.codebook_size:
            raise InputError(f"codes {found.min()}..{found.max()} found, expected 0..{self.facts.codebook_size - 1}")
        return found.astype(np.int32)

    def encode(self, frames: ArrayLike) -> NDArray[np.int32]:
        """Codes (b, 1 + c, h, w) of clips (b, 1 + s c, 3, h, w), uint8 or float in 0 .. 1."""
        pixels = self._frames(np.asarray(frames))
        first = np.repeat(pixels[:, :1], self.stride, axis=1)
        state, found = self._encoder.fresh(len(pixels)), []
        for part in [first, *np.split(pixels[:, 1:], (pixels.shape[1] - 1) // self.stride or 1, axis=1)]:
            if part.shape[1]:
                outputs, state = self._encoder.run({"frames": np.ascontiguousarray(part)}, state)
                found.append(outputs["codes"])
        return np.stack(found, axis=1)

    def _frames(self, frames: NDArray[Any]) -> NDArray[np.uint8]:
        """Frames (b, t, h, w, 3) uint8."""
        (h, w), s = self.facts.frame_size, self.stride
        if frames.ndim != 5 or frames.shape[2:] != (3, h, w) or frames.dtype.kind not in "uf":
            raise InputError(
                f"frames {frames.dtype} of shape {frames.shape}, expected uint8 or float (b, t, 3, {h}, {w})"
            )
        if not frames.shape[1] or (frames.shape[1] - 1) % s:
            raise InputError(f"a clip of {frames.shape[1]} frames, expected 1 + {s} k frames")
        if frames.dtype.kind == "f":
            if frames.size and not (frames.min() >= 0 and frames.max() <= 1):
                raise InputError(f"float frames from {frames.min():.4g} to {frames.max():.4g}, expected 0..1")
            frames = np.round(frames * 255)
        return np.moveaxis(frames, -3, -1).astype(np.uint8)

    def _actions(self, actions: ArrayLike | None, batch: int, length: int) -> NDArray[np.float32]:
        """Flat actions (b, t, a) float32; no numbers for a world without actions."""
        if actions is None and not (self.actions and length):
            return np.zeros((batch, length, self.actions), np.float32)
        flat = np.asarray(actions)
        if flat.dtype.kind not in "iufb" or flat.ndim != 3 or (len(flat), flat.shape[2]) != (batch, self.actions):
            raise InputError(
                f"actions {flat.dtype} of shape {flat.shape}, expected numbers ({batch}, {length}, {self.actions})"
            )
        if not self._limits.hold(flat.astype(np.float64)).all():
            self.action_space.validate(flat, "actions")
        return as_float32(flat)

    @cached_property
    def _limits(self) -> Limits:
        columns = self.facts.action_columns
        least, most = (np.array([getattr(column, name) for column in columns], float) for name in ("least", "most"))
        return Limits(least, most, np.array([column.whole for column in columns], bool))


def _compared(inputs: Tensors) -> Tensors:
    """Inputs of all rows, and of the same ones again without the actions."""
    batch = len(inputs["codes"])
    told = np.tile(np.arange(batch, dtype=np.int32), 2)
    known = np.repeat(np.array([True, False]), batch)
    return _twice(inputs) | {"told": told, "untold": told + np.int32(batch), "known": known}


def _twice(tensors: Tensors) -> Tensors:
    """Every row twice; what has no rows stays."""
    return {name: np.concatenate([part, part]) if part.ndim else part for name, part in tensors.items()}


def _channels_first(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(..., h, w, c) to (..., c, h, w), a view."""
    return np.moveaxis(frames, -1, -3)
