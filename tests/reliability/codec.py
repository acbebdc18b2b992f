"""Compressed films: what is encoded comes back exactly, also by other instructions, and what is damaged is refused."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tiny_models import FIVE, NOTHING, STEERING, make_spec, tiny_prior
from tiny_tokenizers import QUANTIZERS, small_quantizer

from reliability.outcome import Guarantee, Outcome
from vqvideo.codec import Codec
from vqvideo.errors import InputError
from vqvideo.models.prior import ActionStats, AutoregressiveHeadConfig, ParallelHeadConfig, PixelCNNConfig
from vqvideo.models.tokenizer import FactorisedConv, VQVAEConfig
from vqvideo.models.tokenizer.vqvae import VQVAE
from vqvideo.scripts import compress
from vqvideo.world import EnvFacts, WorldModel

HEADS = (ParallelHeadConfig(), AutoregressiveHeadConfig(layers=1), PixelCNNConfig(layers=1))
FILMS_OF_A_CODEC = 4
PLACE = re.compile(r"header|version|begins|frame \d|the end|made with")
"""What a refusal names: a field of the header, or where the film is damaged."""


class Subject(NamedTuple):
    """A codec of random settings."""

    model: WorldModel | VQVAE
    codec: Codec
    what: str
    """Its settings."""


class Sample(NamedTuple):
    """A film in a file, and what it holds."""

    content: bytes
    codes: str
    """Digest of the codes that the tokenizer makes of it."""
    what: str
    """All settings."""


def subjects(seed: int) -> Iterator[Subject]:
    """Random ones, of untrained models of a few thousand weights."""
    dice = random.Random(seed)
    for number in range(10**9):
        stride, size = dice.choice((1, 2, 4)), (8 * dice.randint(1, 3), 8 * dice.randint(1, 3))
        kind, head, space = dice.choice(QUANTIZERS), dice.choice(HEADS), dice.choice((FIVE, STEERING, NOTHING))
        model: WorldModel | VQVAE = tokenizer(stride, size, kind, seed + number)
        of = "the tokenizer alone"
        if dice.random() < 0.75:
            of = f"{type(head).__name__}, {space.size} columns of actions"
            model = world(model, space, head, seed + number)
        chunk = dice.randint(2, 5)
        what = f"{kind.__name__}, stride {stride}, {size[0]}x{size[1]}, {of}, chunks of {chunk}"
        yield Subject(model, Codec(model, chunk), what)


def tokenizer(stride: int, size: tuple[int, int], kind: type, seed: int) -> VQVAE:
    """An untrained one that is fitted to noise."""
    torch.manual_seed(seed)
    backbone = FactorisedConv(strides=(stride, 8, 8), widths=(8, 8), encoder_blocks=1, decoder_blocks=1)
    vqvae = VQVAEConfig(backbone=backbone, quantizer=small_quantizer(kind)).build(size)
    vqvae.initialize(torch.randint(256, (64, 1 + stride, 3, *size), dtype=torch.uint8))
    return vqvae.eval().requires_grad_(False)


def digest(codes: list[torch.Tensor]) -> str:
    """Of codes (t, h, w) of some chunks."""
    return hashlib.sha256(torch.cat(codes).numpy().tobytes()).hexdigest()


def world(vqvae: VQVAE, space: Any, head: Any, seed: int) -> WorldModel:
    """An untrained one."""
    columns = space.size
    spec = make_spec(
        space,
        grid=vqvae.grid,
        codebook_size=vqvae.quantizer.codebook_size,
        code_dim=vqvae.quantizer.dim,
        stride=vqvae.stride,
        stats=ActionStats((0.5,) * columns, (2.0,) * columns, -1.0, 3.0),
        tokenizer=vqvae.fingerprint(),
    )
    prior = tiny_prior(spec, vqvae.codebook, seed=seed, head=head, dim=16, layers=2)
    return WorldModel(vqvae, prior, EnvFacts("Tiny-v0", 10.0, 1)).eval().requires_grad_(False)


def sample(subject: Subject, dice: np.random.Generator, chunks: float = 0) -> Sample:
    """A film of noise that holds still at times, encoded: of more than so many chunks, and of at most three."""
    codec = subject.codec
    length = int(dice.integers(1 + int(chunks * codec.frames_per_chunk), 1 + 5 * codec.frames_per_chunk // 2))
    frames = dice.integers(256, size=(length, *codec.vqvae.frame_size, 3), dtype=np.uint8)
    frames = frames[np.sort(dice.integers(length, size=length))]
    native = codec.action_space.native()
    native.seed(int(dice.integers(2**31)))
    actions = np.array([codec.action_space.flatten(native.sample()) for _ in range(length - 1)])
    file = io.BytesIO()
    codec.encode(frames, 12.5, file, actions.reshape(length - 1, codec.action_space.size), subject.what)
    return Sample(file.getvalue(), digest(made(codec, frames)), f"{subject.what}, {length} frames")


def made(codec: Codec, frames: np.ndarray) -> list[torch.Tensor]:
    """The codes of each chunk, by the tokenizer."""
    found, step = [], codec.frames_per_chunk
    for begin in range(0, len(frames), step):
        piece = frames[begin : begin + step]
        missing = -(len(piece) - 1) % codec.vqvae.stride
        whole = np.concatenate([piece, np.repeat(piece[-1:], missing, axis=0)])
        found.append(codec.vqvae.encode(torch.from_numpy(whole).movedim(-1, 1)[None])[0])
    return found


def decoded(codec: Codec, content: bytes) -> str:
    """Digest of the codes in a file."""
    return digest([piece.codes for piece in codec.decode_codes(io.BytesIO(content))])


def round_trips(work: Path, trials: int, seed: int) -> Outcome:
    """Encodes and decodes films of random lengths, a few of each codec."""
    failures, dice, coming = [], np.random.default_rng(seed), subjects(seed)
    for trial in range(trials):
        if trial % FILMS_OF_A_CODEC == 0:
            subject = next(coming)
        one = sample(subject, dice)
        try:
            if decoded(subject.codec, one.content) != one.codes:
                failures.append(f"{one.what}: other codes")
        except InputError as error:
            failures.append(f"{one.what}: {error}")
    return Outcome(trials, tuple(failures), {"codecs": -(-trials // FILMS_OF_A_CODEC)})


OTHERS = """
import json, sys
from pathlib import Path
import torch
from reliability.codec import decoded
from vqvideo import VQVAE, WorldModel
from vqvideo.codec import Codec
torch.set_num_threads(2)
jobs = json.loads(Path(sys.argv[1]).read_text())
found = []
for job in jobs:
    model = (VQVAE if job["alone"] else WorldModel).from_pretrained(job["model"]).eval()
    found.append(decoded(Codec(model, job["chunk"]), Path(job["file"]).read_bytes()))
print(json.dumps([*found, torch.backends.cpu.get_cpu_capability()]))
"""
"""Decodes elsewhere, on two threads."""


def other_instructions(work: Path, trials: int, seed: int) -> Outcome:
    """Encodes here, and decodes in one other process with plain kernels and another number of threads."""
    jobs, expected, dice = [], [], np.random.default_rng(seed)
    for number, subject in enumerate(islice(subjects(seed), trials)):
        # Saved: made anew with other instructions, it would have other weights.
        folder, file = work / f"model{number}", work / f"{number}.vqv"
        subject.model.save_pretrained(folder)
        expected.append(sample(subject, dice))
        file.write_bytes(expected[-1].content)
        alone = isinstance(subject.model, VQVAE)
        jobs.append({"model": str(folder), "file": str(file), "alone": alone, "chunk": subject.codec.chunk})
    (work / "jobs.json").write_text(json.dumps(jobs))
    plain = os.environ | {"ATEN_CPU_CAPABILITY": "default", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}
    words = [sys.executable, "-c", OTHERS, str(work / "jobs.json")]
    plain |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    ended = subprocess.run(words, env=plain, capture_output=True, text=True, timeout=3600, check=False)
    if ended.returncode:
        return Outcome(trials, (ended.stderr[-2000:],))
    *listed, kernels = json.loads(ended.stdout)
    pairs = zip(expected, listed, strict=True)
    failures = [f"{one.what}: other codes" for one, found in pairs if found != one.codes]
    return Outcome(trials, (*failures, *([] if kernels == "DEFAULT" else [f"decoded with {kernels} kernels"])))


# ---------------------------------------------------------------- damage


def flipped(content: bytes, other: bytes, dice: random.Random) -> bytes:
    """One to three bits."""
    broken = bytearray(content)
    for _ in range(dice.randint(1, 3)):
        broken[dice.randrange(len(broken))] ^= 1 << dice.randrange(8)
    return bytes(broken)


def overwritten(content: bytes, other: bytes, dice: random.Random) -> bytes:
    """A few bytes by random ones."""
    begin = dice.randrange(len(content))
    return content[:begin] + dice.randbytes(dice.randint(1, 8)) + content[begin + 8 :]


def cut(content: bytes, other: bytes, dice: random.Random) -> bytes:
    """The end is missing."""
    return content[: dice.randrange(len(content))]


def lost(content: bytes, other: bytes, dice: random.Random) -> bytes:
    """A piece from the middle is missing."""
    begin = dice.randrange(len(content) - 1)
    return content[:begin] + content[begin + dice.randint(1, 64) :]


def shuffled(content: bytes, other: bytes, dice: random.Random) -> bytes:
    """Chunks are swapped, missing or twice there."""
    head, *chunks = content.split(b"CHNK")
    order = [dice.randrange(len(chunks)) for _ in range(dice.randint(1, 4))]
    return b"CHNK".join([head, *(chunks[place] for place in order)])


def spliced(content: bytes, other: bytes, dice: random.Random) -> bytes:
    """A chunk, or all from one on, are those of another film."""
    (head, *chunks), (_, *others) = (film.split(b"CHNK") for film in (content, other))
    place = dice.randrange(min(len(chunks), len(others)))
    return b"CHNK".join([head, *chunks[:place], others[place], *dice.choice((chunks, others))[place + 1 :]])


def joined(content: bytes, other: bytes, dice: random.Random) -> bytes:
    """Another film follows."""
    return content + other


DAMAGES: tuple[Callable[[bytes, bytes, random.Random], bytes], ...] = (
    *(flipped, overwritten, cut, lost),
    *(shuffled, spliced, joined),
)


def damaged(work: Path, trials: int, seed: int) -> Outcome:
    """Damages files in all ways, and decodes them. What happens to be as it was does not count."""
    failures, counts, dice, coming = list[str](), Counter[str](), random.Random(seed), subjects(seed)
    rng = np.random.default_rng(seed)
    for trial in count():
        if counts.total() == trials:
            break
        if trial % (10 * len(DAMAGES)) == 0:
            subject = next(coming)
            # Of two chunks at least, so that there is something to shuffle.
            films = [sample(subject, rng, chunks=1) for _ in range(2)]
            subject.model.save_pretrained(work / f"model{trial}")
            model = work / f"model{trial}"
        damage = DAMAGES[trial % len(DAMAGES)]
        broken = damage(films[0].content, films[1].content, dice)
        if broken in (films[0].content, films[1].content):
            continue
        counts[damage.__name__] += 1
        failures += refused(subject, broken, f"{damage.__name__}, {films[0].what}")
        if trial % 25 == 0:
            failures += left_nothing(broken, model, subject, work)
    return Outcome(trials, tuple(failures), dict(counts))


def refused(subject: Subject, broken: bytes, what: str) -> list[str]:
    """What is wrong about how a damaged file is taken."""
    try:
        decoded(subject.codec, broken)
    except InputError as error:
        return [] if PLACE.search(str(error)) else [f"{what}: refused, and no place named: {error}"]
    except Exception as error:
        return [f"{what}: {error!r}"]
    return [f"{what}: decoded"]


def left_nothing(broken: bytes, model: Path, subject: Subject, work: Path) -> list[str]:
    """What is wrong about how the command takes a damaged file."""
    if isinstance(subject.model, VQVAE):
        return []
    (work / "broken.vqv").write_bytes(broken)
    with suppress(InputError):
        compress.Decode(work / "broken.vqv", work / "broken.mp4", compress.Model(str(model))).run()
        return ["a damaged file became a film"]
    left = [path.name for path in work.iterdir() if "broken" in path.name and path.suffix != ".vqv"]
    return [f"left behind: {left}"] if left else []


GUARANTEES = (
    Guarantee(
        "codec-round-trips",
        "Films of any length, size, stride, head and quantizer come back from their files code by code.",
        *(round_trips, 12, 1000),
    ),
    Guarantee(
        "codec-machines",
        "Files are decoded exactly by other instructions and another number of threads than those that encoded them.",
        *(other_instructions, 1, 50),
    ),
    Guarantee(
        "codec-damage",
        "A damaged or spliced file is refused with the place of the damage, and leaves no film behind.",
        *(damaged, 70, 1000),
    ),
)
