"""Films to small files and back: a tokenizer makes codes, a model of codes makes them small."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, repeat
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from vqvideo.codec.container import VERSION, Chunk, Header, Writer, part, read
from vqvideo.codec.models import AdaptiveModel, CodeModel, PriorModel
from vqvideo.codec.range_coder import RangeDecoder, RangeEncoder, coder_name
from vqvideo.codec.samplers import ReadingSampler, WritingSampler
from vqvideo.codec.tables import GRID
from vqvideo.errors import InputError, at_least
from vqvideo.models.pixels import channels_first, channels_last, to_uint8
from vqvideo.models.tokenizer.vqvae import VQVAE
from vqvideo.spaces import ActionSpace

if TYPE_CHECKING:
    from vqvideo.world import WorldModel

Frames = NDArray[np.uint8]
TABLES = f"float64 logits in steps of 1/{GRID}"


@dataclass(frozen=True)
class Summary:
    """What an encoded film takes."""

    frames: int
    bytes: int
    """Of the chunks."""
    action_bytes: int
    """Of these, those of the actions."""
    plain_bits: float
    """That its codes would take without a model."""
    flat: int
    """How many times the model was not used, where another machine might have found other tables."""

    @property
    def bits_per_frame(self) -> float:
        """Of the file, without its header and actions."""
        return 8 * (self.bytes - self.action_bytes) / max(1, self.frames)


class Piece(NamedTuple):
    """What a film, or a part of it, takes of a chunk."""

    codes: Tensor
    """(t, h, w): from the first latent step of the chunk to the last one that is needed."""
    chunk: Chunk
    frames: slice
    """Which frames of the chunk belong to the part."""


class Codec:
    """Encodes and decodes with one world, or with a tokenizer alone.

    Args:
        model: a `WorldModel`, whose prior expects the codes; or a `VQVAE`, of which the frequencies of codes do.
        chunk: latent steps that are coded together. Decoding can begin at each chunk, and each begins anew: fewer make
            larger files.

    Raises:
        InputError: the prior cannot be coded with.
    """

    def __init__(self, model: WorldModel | VQVAE, chunk: int = 128) -> None:
        self.chunk = chunk
        at_least(self, "", chunk=2)
        if isinstance(model, VQVAE):
            self.vqvae, self.name, self.action_space = model, "", ActionSpace.none()
            self._model: CodeModel = AdaptiveModel(model.quantizer.codebook_size, model.grid)
        else:
            self.vqvae, self.name, self.action_space = model.vqvae, model.fingerprint(), model.action_space
            self._model = PriorModel(model.prior)
        self.tokenizer = self.vqvae.fingerprint()

    @property
    def frames_per_chunk(self) -> int:
        """At most."""
        return self.vqvae.clip_length(self.chunk)

    # ---------------------------------------------------------------- encoding

    def encode(
        self,
        frames: Iterable[Frames],
        fps: float,
        file: BinaryIO,
        actions: Iterable[NDArray[np.float64]] | None = None,
        source: str = "",
    ) -> Summary:
        """Writes a film as its frames come.

        Args:
            frames: (h, w, 3) uint8 of the tokenizer's size.
            fps: frames per second.
            file: open for writing, at its beginning.
            actions: flat ones (a,), of which number t leads from frame t to frame t + 1; needed by a world that has
                actions. They are stored along.
            source: what it is, for people.

        Raises:
            InputError: no frames, frames of another size, or missing actions.
        """
        columns = self.action_space.size
        if columns and actions is None:
            raise InputError(
                f"this world has actions ({self.action_space}), and the film none: --tokenizer-alone codes without its "
                "prior"
            )
        header = Header(
            *(VERSION, coder_name(), TABLES, self.tokenizer, self.name, float(fps), self.vqvae.frame_size),
            *(self.chunk, columns, source),
        )
        writer, flat, steps = Writer(file, header), 0, 0
        leading = self._leading(actions if columns and actions is not None else repeat(np.zeros(0)))
        coming = iter(frames)
        while block := list(islice(coming, self.frames_per_chunk)):
            given = np.array(list(islice(leading, len(block))), np.float64)
            if len(given) < len(block):
                found, needed = (writer.frames + len(rows) for rows in (given, block))
                raise InputError(f"{found - 1} actions for {needed} frames or more, expected one between two frames")
            chunk = self._encoded(np.stack(block), given)
            writer.add(chunk)
            flat, steps = flat + len(chunk.flat), steps + self._steps(chunk.frames)
        if not writer.frames:
            raise InputError("no frames to encode")
        writer.end()
        plain_bits = steps * self.vqvae.bits_per_latent_step
        return Summary(writer.frames, writer.bytes, writer.action_bytes, plain_bits, flat)

    def _leading(self, actions: Iterable[NDArray[np.float64]]) -> Iterator[NDArray[np.float64]]:
        """What leads to each frame, (a,); nothing leads to the very first one."""
        yield np.zeros(self.action_space.size)
        for number, action in enumerate(actions):
            self.action_space.validate(action, f"action {number}")
            yield action

    def _encoded(self, frames: Frames, actions: NDArray[np.float64]) -> Chunk:
        """A chunk of frames (n, h, w, 3) and the actions (n, a) that lead to each."""
        expected = (*self.vqvae.frame_size, 3)
        if frames.shape[1:] != expected or frames.dtype != np.uint8:
            raise InputError(f"frames are {frames.dtype} {frames.shape[1:]}, the tokenizer takes uint8 {expected}")
        codes = self.vqvae.encode(channels_first(torch.from_numpy(self._filled(frames)))[None])[0].cpu()
        coder = RangeEncoder()
        coder.encode_flat(codes[0].flatten().numpy(), self._codes)
        self._model.begin(codes[0])
        sampler = WritingSampler(coder)
        for step, acting in zip(codes[1:], self._grouped(actions), strict=True):
            sampler.takes(step[None])
            self._model.step(acting, sampler)
        return Chunk(len(frames), tuple(sampler.flat), actions, coder.words())

    # ---------------------------------------------------------------- decoding

    def decode(self, file: BinaryIO, first: int = 0, count: int | None = None) -> Iterator[Frames]:
        """The frames of a file, (n, h, w, 3) uint8 for each of its chunks, or those of a part of it.

        A part begins at the chunk that holds its first frame, for nothing is carried from one chunk to the next: so it
        takes at most one chunk more than it holds. Its frames equal those of the whole film, decoded on the same device
        by as many threads. Chunks before are read and checked, but not decoded; what is behind is not read.

        Args:
            file: open for reading, at its beginning.
            first: number of the first frame, from 0 on.
            count: how many frames; by default all that follow.

        Raises:
            InputError: another or a damaged file, or one that another model made; says at which frame. Or fewer frames
                than were asked for, of which those that are there have come before.
        """
        for frames, _ in self.decode_with_actions(file, first, count):
            yield frames

    def decode_with_actions(
        self, file: BinaryIO, first: int = 0, count: int | None = None
    ) -> Iterator[tuple[Frames, NDArray[np.float64]]]:
        """As `decode`, and with the frames the actions (n, a) that led to each; to the very first one of a film none
        did.
        """
        for codes, chunk, shown in self.decode_codes(file, first, count):
            # As many latent steps as in the whole chunk: tensors of other shapes may be rounded otherwise.
            whole = torch.cat([codes, codes[-1:].expand(self._steps(chunk.frames) - len(codes), -1, -1)])
            frames = to_uint8(self.vqvae.decode(whole[None])[0])[shown]
            yield channels_last(frames).cpu().numpy(), chunk.actions[shown]

    def decode_codes(self, file: BinaryIO, first: int = 0, count: int | None = None) -> Iterator[Piece]:
        """The codes of each chunk, exactly as they were encoded, and what stands beside them. As `decode`."""
        header, chunks = read(file)
        self._check(header)
        for begin, chunk, shown in part(chunks, first, count):
            if chunk.frames > self.vqvae.clip_length(header.chunk):
                raise InputError(
                    f"frame {begin}: a chunk of {chunk.frames} frames, expected at most {header.chunk} latent steps"
                )
            try:
                yield Piece(self._decoded(chunk, shown.stop), chunk, shown)
            except InputError as error:
                raise InputError(f"the chunk from frame {begin} on: {error}") from error

    def _decoded(self, chunk: Chunk, frames: int) -> Tensor:
        """The codes of the latent steps that so many frames of a chunk take."""
        coder = RangeDecoder(chunk.words)
        first = coder.decode_flat(self.vqvae.tokens, self._codes)
        codes = [torch.from_numpy(first).view(self.vqvae.grid)]
        self._model.begin(codes[0])
        sampler = ReadingSampler(coder, set(chunk.flat))
        needed = self._grouped(chunk.actions)[: self._steps(frames) - 1]
        codes += [self._model.step(acting, sampler).cpu() for acting in needed]
        if len(codes) == self._steps(chunk.frames):
            coder.finish()
        return torch.stack(codes)

    def _check(self, header: Header) -> None:
        """InputError, which names the field, for a file that this codec cannot decode exactly."""
        ours = {
            "tokenizer": (header.tokenizer, self.tokenizer),
            "model": (header.model, self.name),
            "coder": (header.coder, coder_name()),
            "tables": (header.tables, TABLES),
            "frame_size": (header.frame_size, self.vqvae.frame_size),
            "actions": (header.actions, self.action_space.size),
        }
        for name, (found, expected) in ours.items():
            if found != expected:
                hint = {"": " (frequencies alone: decode with the tokenizer)"}.get(str(found), "")
                raise InputError(f"the file was made with {name} {found!r:.40}{hint}, this is {expected!r:.40}")

    @property
    def _codes(self) -> int:
        return self.vqvae.quantizer.codebook_size

    def _steps(self, frames: int) -> int:
        """Latent steps that hold so many frames, the last of them perhaps in part."""
        return 1 + -(-(frames - 1) // self.vqvae.stride)

    def _filled(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Rows of the frames of a chunk, and the last one repeated until its latent step is full."""
        return np.concatenate([rows, np.repeat(rows[-1:], -(len(rows) - 1) % self.vqvae.stride, axis=0)])

    def _grouped(self, actions: NDArray[np.float64]) -> Tensor:
        """The actions (n, a) that lead to the frames of a chunk as those of its latent steps, (t, s, a)."""
        return rearrange(torch.from_numpy(self._filled(actions)[1:]), "(t s) a -> t s a", s=self.vqvae.stride)
