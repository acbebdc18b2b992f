"""Films to small files: every code comes back, on other machines too, and what is damaged is refused."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tiny_models import FIVE, STEERING, film_world, noise_frames, tiny_vqvae, tiny_world

from vqvideo.codec import Codec, Summary, read_header
from vqvideo.codec.container import Writer, read
from vqvideo.codec.tables import GRID, tables
from vqvideo.errors import InputError
from vqvideo.models.prior import AutoregressiveHeadConfig, MaskedHeadConfig, ParallelHeadConfig
from vqvideo.models.tokenizer.vqvae import VQVAE

pytest.importorskip("constriction")
HEADS = {"parallel": ParallelHeadConfig(), "autoregressive": AutoregressiveHeadConfig(layers=1)}


def film(count: int, seed: int = 0) -> NDArray[np.uint8]:
    """(t, h, w, 3) uint8."""
    return noise_frames(1, count, seed)[0].movedim(1, -1).numpy()


def acts(space: Any, count: int, seed: int = 0) -> NDArray[np.float64]:
    native = space.native()
    native.seed(seed)
    return np.array([space.flatten(native.sample()) for _ in range(count)]).reshape(count, space.size)


def encoded(codec: Codec, frames: NDArray[np.uint8], actions: Any = None) -> tuple[bytes, Summary]:
    file = io.BytesIO()
    summary = codec.encode(frames, 12.5, file, actions, "noise")
    return file.getvalue(), summary


def codes_of(codec: Codec, content: bytes, *part: int | None) -> list[torch.Tensor]:
    return [piece.codes for piece in codec.decode_codes(io.BytesIO(content), *part)]


def decoded(codec: Codec, content: bytes, *part: int | None) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    frames, actions = zip(*codec.decode_with_actions(io.BytesIO(content), *part), strict=True)
    return np.concatenate(frames), np.concatenate(actions)


def true_codes(codec: Codec, frames: NDArray[np.uint8]) -> list[torch.Tensor]:
    """What the tokenizer makes of each chunk, its last frame repeated where the latent step is not full."""
    found = []
    for start in range(0, len(frames), codec.frames_per_chunk):
        piece = frames[start : start + codec.frames_per_chunk]
        missing = -(len(piece) - 1) % codec.vqvae.stride
        whole = np.concatenate([piece, np.repeat(piece[-1:], missing, axis=0)])
        found.append(codec.vqvae.encode(torch.from_numpy(whole).movedim(-1, 1)[None])[0])
    return found


CODECS = {
    (head, stride, actions): Codec(tiny_world(stride, space, head=HEADS[head]), chunk)
    for head, stride, actions, space, chunk in (
        ("parallel", 1, True, FIVE, 5),
        ("parallel", 2, True, STEERING, 4),
        ("autoregressive", 2, True, FIVE, 4),
        ("autoregressive", 4, True, STEERING, 3),
    )
}
CODECS |= {("film", stride, False): Codec(film_world(stride), 4) for stride in (1, 2)}
CODECS |= {("alone", 2, False): Codec(tiny_vqvae(2), 6)}


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(which=st.sampled_from(list(CODECS)), count=st.integers(1, 30), seed=st.integers(0, 99))
def test_every_code_and_action_comes_back(which: tuple[str, int, bool], count: int, seed: int) -> None:
    codec, frames = CODECS[which], film(count, seed)
    actions = acts(codec.action_space, count - 1, seed) if which[2] else None
    content, summary = encoded(codec, frames, actions)
    assert summary.frames == count
    found = list(codec.decode_codes(io.BytesIO(content)))
    for (codes, chunk, _), true in zip(found, true_codes(codec, frames), strict=True):
        assert torch.equal(codes, true)
        assert chunk.frames <= codec.frames_per_chunk
    if actions is not None:
        back = np.concatenate([piece.chunk.actions for piece in found])
        assert np.array_equal(back[1:], actions)
    assert np.concatenate(list(codec.decode(io.BytesIO(content)))).shape == frames.shape


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(which=st.sampled_from(list(CODECS)), length=st.integers(1, 20), data=st.data())
def test_a_part_is_what_the_whole_film_has_there(
    which: tuple[str, int, bool], length: int, data: st.DataObject
) -> None:
    codec = CODECS[which]
    first = data.draw(st.integers(0, length - 1), label="first")
    count = data.draw(st.none() | st.integers(1, length - first), label="count")
    content, _ = encoded(codec, film(length), acts(codec.action_space, length - 1) if which[2] else None)
    end = length if count is None else first + count
    for found, whole in zip(decoded(codec, content, first, count), decoded(codec, content), strict=True):
        assert np.array_equal(found, whole[first:end])
    chunks = true_codes(codec, film(length))[first // codec.frames_per_chunk :]
    for found, true in zip(codes_of(codec, content, first, count), chunks, strict=False):
        assert torch.equal(found, true[: len(found)])


def test_chunks_beside_a_part_are_not_decoded() -> None:
    codec, content = CODECS["parallel", 2, True], io.BytesIO()
    header, chunks = read(io.BytesIO(CONTENT))
    writer = Writer(content, header)
    for number, chunk in enumerate(chunks):
        writer.add(chunk if number == 1 else replace(chunk, words=np.append(chunk.words, np.ones(9, np.uint32))))
    writer.end()
    for part in ((7, 7), (9, 1), (8, 5)):
        for found, whole in zip(decoded(codec, content.getvalue(), *part), decoded(codec, CONTENT, *part), strict=True):
            assert np.array_equal(found, whole)
    with pytest.raises(InputError, match="the chunk from frame 0 on: more codes than"):
        decoded(codec, content.getvalue(), 6, 2)
    # Of the chunk itself no more than is needed.
    assert [len(codes) for codes in codes_of(codec, CONTENT, 8, 4)] == [3]


def test_the_tokenizer_gets_whole_chunks_also_for_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """With other numbers of latent steps, frames may be rounded otherwise, by processors that no test runs on."""
    codec, lengths, decode = CODECS["parallel", 2, True], list[int](), VQVAE.decode
    monkeypatch.setattr(VQVAE, "decode", lambda vqvae, codes: lengths.append(codes.shape[1]) or decode(vqvae, codes))
    decoded(codec, CONTENT)
    whole = lengths.copy()
    lengths.clear()
    for first in (0, 7, 14):
        decoded(codec, CONTENT, first, 1)
    assert lengths == whole == [4, 4, 4]


def test_a_header_says_what_is_needed() -> None:
    codec = CODECS["parallel", 2, True]
    content, _ = encoded(codec, film(9), acts(STEERING, 8))
    header = read_header(io.BytesIO(content))
    assert (header.frames_per_second, header.frame_size, header.actions, header.chunk) == (12.5, (16, 16), 2, 4)
    assert (header.tokenizer, header.model) == (codec.tokenizer, codec.name)
    assert (header.source, header.coder.split()[0]) == ("noise", "constriction")


def test_what_the_prior_expects_takes_less_room() -> None:
    """Codes of a prior that is sure of them, against as many bits as codes have."""
    codec = Codec(tiny_vqvae(2), 64)
    still, noise = np.repeat(film(1), 101, axis=0), film(101)
    assert encoded(codec, still)[1].bytes < 0.65 * encoded(codec, noise)[1].bytes
    world = Codec(film_world(2), 64)
    codes = true_codes(world, noise)[0]
    nats = float(world._model.prior.likelihood(codes[None], torch.zeros(1, 50, 2, 0).double()).nats.sum())  # type: ignore[attr-defined]
    ideal = (nats / np.log(2) + world.vqvae.bits_per_latent_step) / 8
    around = 24  # bytes of a chunk that are not codes
    assert encoded(world, noise)[1].bytes - around == pytest.approx(ideal, rel=0.02, abs=5)


def test_other_instructions_and_threads_decode_the_same_codes(tmp_path: Path) -> None:
    # Saved: made anew with other instructions it would have other weights.
    world = tiny_world(2, FIVE, head=AutoregressiveHeadConfig(layers=1))
    world.save_pretrained(tmp_path / "world")
    codec = Codec(world, 4)
    content, _ = encoded(codec, film(25), acts(FIVE, 24))
    (tmp_path / "x.vqv").write_bytes(content)
    program = (
        "import sys, torch\nfrom vqvideo import WorldModel\nfrom vqvideo.codec import Codec\n"
        "torch.set_num_threads(2)\n"
        "codec = Codec(WorldModel.from_pretrained(sys.argv[1]).eval(), 4)\n"
        "for part in ((0, None), (9, 5)):\n"
        "    print(torch.cat([found.codes for found in codec.decode_codes(open(sys.argv[2], 'rb'), *part)]).tolist())"
    )
    plain = os.environ | {"ATEN_CPU_CAPABILITY": "default", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}
    arguments = [sys.executable, "-c", program, str(tmp_path / "world"), str(tmp_path / "x.vqv")]
    done = subprocess.run(arguments, env=plain, capture_output=True, text=True, timeout=120, check=False)
    expected = [str(torch.cat(codes_of(codec, content, *part)).tolist()) for part in ((), (9, 5))]
    assert done.stdout.splitlines() == expected, done.stderr


# ---------------------------------------------------------------- tables


def test_tables_are_the_probabilities_in_whole_numbers() -> None:
    logits = torch.randn(5, 64, generator=torch.Generator().manual_seed(0)).double()
    found = tables(logits)
    assert np.array_equal(found.weights, np.rint(found.weights))
    assert found.weights.min() >= 1
    probability = found.weights / found.weights.sum(axis=1, keepdims=True)
    # A logit is rounded by half a step at most.
    assert np.abs(np.log(probability) - logits.log_softmax(dim=1).numpy()).max() < 1.1 / GRID


def test_a_logit_in_the_middle_between_two_steps_is_noticed() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0 + 0.5 / GRID + 1e-12]], dtype=torch.float64)
    assert not tables(logits).certain
    assert tables(logits + torch.tensor([0, 0, 1e-3])).certain
    with pytest.raises(InputError, match="not finite"):
        tables(logits * float("nan"))


def test_what_is_not_certain_is_coded_without_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    from vqvideo.codec import samplers

    codec, calls = CODECS["autoregressive", 2, True], iter(range(10**6))

    def doubtful(logits: torch.Tensor) -> Any:
        return tables(logits)._replace(certain=next(calls) % 3 != 0)

    monkeypatch.setattr(samplers, "tables", doubtful)
    content, summary = encoded(codec, film(17), acts(FIVE, 16))
    monkeypatch.undo()
    assert summary.flat > 5
    assert torch.equal(torch.cat(codes_of(codec, content)), torch.cat(true_codes(codec, film(17))))


# ---------------------------------------------------------------- what is refused


CONTENT = encoded(CODECS["parallel", 2, True], film(20), acts(STEERING, 19))[0]


@settings(max_examples=150, deadline=None)
@given(place=st.integers(0, len(CONTENT) - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_is_noticed(place: int, bit: int) -> None:
    broken = bytearray(CONTENT)
    broken[place] ^= 1 << bit
    with pytest.raises(InputError):
        codes_of(CODECS["parallel", 2, True], bytes(broken))


@settings(max_examples=50, deadline=None)
@given(length=st.integers(0, len(CONTENT) - 1))
def test_a_file_that_ends_too_early_is_noticed(length: int) -> None:
    with pytest.raises(InputError):
        codes_of(CODECS["parallel", 2, True], CONTENT[:length])


def test_damage_is_told_with_its_frame() -> None:
    second = CONTENT.index(b"CHNK", CONTENT.index(b"CHNK") + 4)
    broken = bytearray(CONTENT)
    broken[second + 20] ^= 1
    with pytest.raises(InputError, match="chunk 1, from frame 7 on: its checksum is wrong"):
        codes_of(CODECS["parallel", 2, True], bytes(broken))
    with pytest.raises(InputError, match="the file ends or is damaged after frame 20"):
        codes_of(CODECS["parallel", 2, True], CONTENT[:-12])
    with pytest.raises(InputError, match="something follows the end of the file, after frame 20"):
        codes_of(CODECS["parallel", 2, True], CONTENT + b"x")


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ((-1, None), "the first frame is -1, expected a whole number of at least 0"),
        ((1.5, None), "the first frame is 1.5, expected a whole number"),
        ((0, 0), "the number of frames is 0, expected a whole number of at least 1"),
        ((20, None), "frame 20 asked for, expected 0 to 19: the film has 20 frames"),
        ((18, 3), "frames 18 to 20 asked for, expected 0 to 19"),
        ((2**62, 1), f"frame {2**62} asked for, expected 0 to 19"),
    ],
)
def test_a_part_that_is_not_there_is_refused(part: Any, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        codes_of(CODECS["parallel", 2, True], CONTENT, *part)


def test_a_film_of_one_frame_has_one_part() -> None:
    codec = CODECS["parallel", 2, True]
    content, _ = encoded(codec, film(1), acts(STEERING, 0))
    assert np.array_equal(decoded(codec, content, 0, 1)[0], decoded(codec, content)[0])
    with pytest.raises(InputError, match="frame 1 asked for, expected 0 to 0: the film has 1 frames"):
        decoded(codec, content, 1)


def test_damage_before_a_part_is_noticed_and_behind_it_does_not_matter() -> None:
    codec, first = CODECS["parallel", 2, True], CONTENT.index(b"CHNK")
    for place, part in ((first + 20, (14, 2)), (len(CONTENT) - 20, (0, 14))):
        broken = bytearray(CONTENT)
        broken[place] ^= 1
        if part[0]:
            with pytest.raises(InputError, match="chunk 0, from frame 0 on: its checksum is wrong"):
                codes_of(codec, bytes(broken), *part)
        else:
            assert np.array_equal(decoded(codec, bytes(broken), *part)[0], decoded(codec, CONTENT)[0][:14])


def test_chunks_in_another_order_or_of_another_file_are_noticed() -> None:
    head, *chunks = CONTENT.split(b"CHNK")
    other = encoded(CODECS["parallel", 2, True], film(20, 1), acts(STEERING, 19, 1))[0].split(b"CHNK")[1:]
    assert len(chunks) == len(other) == 3
    for mixed, number in (
        ([chunks[0], other[1], chunks[2]], 1),
        ([chunks[1], chunks[0], chunks[2]], 0),
        ([chunks[0], chunks[2]], 1),
        ([chunks[0], chunks[0], chunks[1], chunks[2]], 1),
    ):
        with pytest.raises(InputError, match=f"chunk {number}, .* of another file"):
            codes_of(CODECS["parallel", 2, True], b"CHNK".join([head, *mixed]))


def test_another_world_or_tokenizer_is_named() -> None:
    with pytest.raises(InputError, match="the file was made with model"):
        codes_of(Codec(tiny_vqvae(2), 4), CONTENT)
    with pytest.raises(InputError, match="the file was made with tokenizer"):
        codes_of(Codec(tiny_world(2, STEERING, seed=1), 4), CONTENT)


def test_what_cannot_be_encoded_is_said() -> None:
    with pytest.raises(InputError, match="MaskedHead"):
        Codec(tiny_world(head=MaskedHeadConfig()))
    codec = CODECS["parallel", 2, True]
    with pytest.raises(InputError, match="this world has actions"):
        encoded(codec, film(5))
    # Also where a single frame is left for the last chunk.
    for frames, actions, counted in ((9, 3, 7), (9, 6, 9), (8, 6, 8)):
        with pytest.raises(InputError, match=f"{actions} actions for {counted} frames or more"):
            encoded(codec, film(frames), acts(STEERING, actions))
    with pytest.raises(InputError, match=r"action 2: column 1 is 9.0"):
        encoded(codec, film(9), [*acts(STEERING, 2), np.array([0.0, 9.0])])
    with pytest.raises(InputError, match=r"action 0: float64 of shape \(4,\), expected numbers \(..., 2\)"):
        encoded(codec, film(9), np.zeros((8, 4)))
    with pytest.raises(InputError, match="no frames"):
        encoded(codec, film(1)[:0], acts(STEERING, 0))
    with pytest.raises(InputError, match=r"frames are uint8 \(8, 16, 3\), the tokenizer takes uint8 \(16, 16, 3\)"):
        encoded(codec, film(5)[:, :8], acts(STEERING, 4))
    for fps in (0.0, -5.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match=f"{fps} frames per second"):
            codec.encode(film(1), fps, io.BytesIO(), acts(STEERING, 0))
    with pytest.raises(InputError, match="chunk is 1"):
        Codec(tiny_vqvae(2), 1)
