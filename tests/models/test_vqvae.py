"""The tokenizer: causal, the same in streams as in whole clips, and trainable (on disk: test_vqvae_saved)."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny_tokenizers import (
    BACKBONES,
    QUANTIZERS,
    STRIDES,
    moving_squares,
    name_of,
    noise,
    small_backbone,
    small_quantizer,
    small_vqvae,
    wake,
)
from torch import Tensor

from vqvideo.errors import InputError
from vqvideo.models.pixels import to_unit
from vqvideo.models.quantizers import CosineVQConfig, EMAVQConfig, FSQConfig, GradientVQConfig, ResidualVQConfig
from vqvideo.models.quantizers.lookup_free import BitConfig
from vqvideo.models.tokenizer import Backbone, StridedConv, VQVAEConfig
from vqvideo.models.tokenizer.causal import TimeState
from vqvideo.models.tokenizer.vqvae import VQVAE

each_backbone = pytest.mark.parametrize("backbone", BACKBONES, ids=name_of)
each_quantizer = pytest.mark.parametrize("quantizer", QUANTIZERS, ids=name_of)
each_stride = pytest.mark.parametrize("stride", STRIDES)


def memoryless(backbone: type[Backbone]) -> bool:
    """Whether it takes every frame by itself."""
    return backbone.time_strides == (1,)


def encode_stream(model: VQVAE, chunks: list[Tensor], state: TimeState) -> tuple[Tensor, TimeState]:
    parts = []
    for chunk in chunks:
        codes, state = model.encode_step(chunk, state)
        parts.append(codes)
    return torch.cat(parts, dim=1), state


def decode_stream(model: VQVAE, chunks: list[Tensor], state: TimeState) -> tuple[Tensor, TimeState]:
    parts = []
    for chunk in chunks:
        frames, state = model.decode_step(chunk, state)
        parts.append(frames)
    return torch.cat(parts, dim=1), state


def random_codes(model: VQVAE, batch: int, steps: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(model.quantizer.codebook_size, (batch, steps, *model.grid), generator=generator)


# ---------------------------------------------------------------- shapes and lengths


@each_backbone
@each_quantizer
@each_stride
def test_clips_become_codes_and_codes_become_clips(backbone: type[Backbone], quantizer: type, stride: int) -> None:
    model = small_vqvae(backbone, quantizer, stride)
    frames = noise(2, 1 + 2 * stride)
    codes = model.encode(frames)
    assert (codes.shape, codes.dtype) == ((2, 3, *model.grid), torch.int64)
    assert 0 <= codes.min() <= codes.max() < model.quantizer.codebook_size
    decoded = model.decode(codes)
    assert (decoded.shape, decoded.dtype) == (frames.shape, torch.float32)
    assert 0 <= decoded.min() <= decoded.max() <= 1
    assert model.tokens == model.grid[0] * model.grid[1] >= 16
    assert model.bits_per_latent_step == model.tokens * model.quantizer.bits


@pytest.mark.parametrize(("stride", "frames", "steps"), [(1, 1, 1), (1, 5, 5), (2, 1, 1), (2, 17, 9), (4, 17, 5)])
def test_a_clip_of_one_and_s_k_frames_has_one_and_k_latent_steps(stride: int, frames: int, steps: int) -> None:
    model = small_vqvae(stride=stride)
    assert model.latent_length(frames) == steps
    assert model.clip_length(steps) == frames


@pytest.mark.parametrize(
    ("stride", "frames", "message"),
    [
        (2, 16, r"a clip of 16 frames, expected 1 \+ 2 k frames, such as 15 or 17"),
        (4, 16, r"a clip of 16 frames, expected 1 \+ 4 k frames, such as 13 or 17"),
        (2, 2, r"such as 1 or 3"),
        (4, 0, r"a clip of 0 frames, expected 1 \+ 4 k frames, such as 1 or 5"),
        (1, 0, r"a clip of 0 frames"),
    ],
)
def test_any_other_length_is_refused_everywhere(stride: int, frames: int, message: str) -> None:
    model = small_vqvae(stride=stride)
    clip = torch.zeros(1, frames, 3, 16, 16)
    for door in (
        lambda: model.latent_length(frames),
        lambda: model.encode(clip),
        lambda: model(clip),
        lambda: model.initialize(clip),
        lambda: model.encode_step(clip, model.init_state(1)),
    ):
        with pytest.raises(InputError, match=message):
            door()


@pytest.mark.parametrize("frames", [0, 1, 3])
def test_a_stream_under_way_takes_whole_groups_of_frames(frames: int) -> None:
    model = small_vqvae(stride=2)
    _, state = model.encode_step(noise(1, 3), model.init_state(1))
    with pytest.raises(InputError, match=f"{frames} frames to go on with, expected a multiple of the time stride 2"):
        model.encode_step(noise(1, frames), state)


@pytest.mark.parametrize("shape", [(1, 1, 16, 16), (1, 1, 1, 16, 16), (1, 1, 3, 16, 24), (1, 1, 16, 16, 3)])
def test_frames_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    model = small_vqvae()
    for door in (model, model.encode, model.initialize):
        with pytest.raises(InputError, match=r"frames of shape .* expected \(b, t, 3, 16, 16\)"):
            door(torch.zeros(shape))


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (torch.zeros(1, 1, 4, 5, dtype=torch.int64), r"codes of shape \(1, 1, 4, 5\), expected \(b, t, 4, 4\)"),
        (torch.zeros(1, 4, 4, dtype=torch.int64), r"expected \(b, t, 4, 4\)"),
        (torch.full((1, 1, 4, 4), 32), r"codes 32\.\.32 found, expected 0\.\.31"),
        (torch.full((1, 1, 4, 4), -1), r"codes -1\.\.-1 found, expected 0\.\.31"),
    ],
)
def test_codes_that_the_model_does_not_speak_are_refused(codes: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        small_vqvae().decode(codes)


def test_frames_that_cannot_be_cut_into_cells_are_refused() -> None:
    with pytest.raises(InputError, match="frames of 18x16 cannot be cut into cells of 4x4"):
        VQVAEConfig(small_backbone(), small_quantizer()).build((18, 16))


def test_frames_need_not_be_square() -> None:
    model = VQVAEConfig(small_backbone(), small_quantizer()).build((8, 24))
    codes = model.encode(torch.rand(1, 3, 3, 8, 24))
    assert codes.shape == (1, 2, 2, 6)
    assert model.decode(codes).shape == (1, 3, 3, 8, 24)


def test_uint8_and_float_frames_are_the_same_clip() -> None:
    model = small_vqvae()
    frames = noise(2, 5)
    assert torch.equal(model.encode(frames), model.encode(to_unit(frames)))


# ---------------------------------------------------------------- causality


@each_backbone
@each_stride
def test_a_later_frame_changes_no_earlier_code_or_reconstruction(backbone: type[Backbone], stride: int) -> None:
    model = small_vqvae(backbone, stride=stride)
    frames, others = noise(1, 1 + 3 * stride), noise(1, 1 + 3 * stride, seed=1)
    with torch.no_grad():
        before = model(frames)
        for t in range(1, frames.shape[1]):
            changed = frames.clone()
            changed[:, t] = others[:, t]
            after = model(changed)
            step = model.latent_length(1 + stride * ((t - 1) // stride))
            assert torch.equal(after.codes[:, :step], before.codes[:, :step])
            past = slice(0, model.clip_length(step))
            torch.testing.assert_close(after.reconstruction[:, past], before.reconstruction[:, past], atol=1e-6, rtol=0)
            assert not torch.equal(after.codes[:, step], before.codes[:, step])


@each_backbone
@each_stride
def test_the_first_frame_is_encoded_alone(backbone: type[Backbone], stride: int) -> None:
    model = small_vqvae(backbone, stride=stride)
    frames = noise(2, 1 + 2 * stride)
    assert torch.equal(model.encode(frames)[:, :1], model.encode(frames[:, :1]))
    codes = model.encode(frames)
    torch.testing.assert_close(model.decode(codes)[:, :1], model.decode(codes[:, :1]), atol=1e-6, rtol=0)


@each_backbone
def test_rows_of_a_batch_do_not_meet(backbone: type[Backbone]) -> None:
    model = small_vqvae(backbone)
    frames = noise(3, 5)
    codes = model.encode(frames)
    for row in range(3):
        assert torch.equal(model.encode(frames[row : row + 1]), codes[row : row + 1])


# ---------------------------------------------------------------- streams


@each_backbone
@each_stride
@pytest.mark.parametrize("chunk", [1, 2])
def test_a_row_reset_in_mid_stream_encodes_like_a_fresh_stream(
    backbone: type[Backbone], stride: int, chunk: int
) -> None:
    model = small_vqvae(backbone, stride=stride)
    frames, anew = noise(3, model.clip_length(7)), noise(1, model.clip_length(4), seed=5)
    head, tail = frames.split([model.clip_length(3), 4 * stride], dim=1)
    # What stands before the last of the first s frames does not belong to the new clip.
    tail[1] = torch.cat([noise(1, stride - 1, seed=6), anew], dim=1)[0]
    _, state = model.encode_step(head, model.init_state(3))
    state = state.reset(torch.tensor([False, True, False]))
    codes, _ = encode_stream(model, list(tail.split(chunk * stride, dim=1)), state)
    whole = model.encode(torch.cat([head, tail], dim=1))[:, 3:]
    assert torch.equal(codes[[0, 2]], whole[[0, 2]])
    assert torch.equal(codes[1], model.encode(anew)[0])
    assert torch.equal(codes[1], whole[1]) == memoryless(backbone), "only what has no memory has nothing to forget"


@each_backbone
@each_stride
@pytest.mark.parametrize("chunk", [1, 2])
def test_a_row_reset_in_mid_stream_decodes_like_a_fresh_stream(
    backbone: type[Backbone], stride: int, chunk: int
) -> None:
    model = small_vqvae(backbone, stride=stride)
    codes = random_codes(model, 3, 7)
    head, tail = codes.split([3, 4], dim=1)
    _, state = model.decode_step(head, model.init_state(3))
    state = state.reset(torch.tensor([False, True, False]))
    decoded, _ = decode_stream(model, list(tail.split(chunk, dim=1)), state)
    whole = model.decode(codes)[:, model.clip_length(3) :]
    torch.testing.assert_close(decoded[[0, 2]], whole[[0, 2]], atol=1e-5, rtol=0)
    torch.testing.assert_close(decoded[1, stride - 1 :], model.decode(tail[1:2])[0], atol=1e-5, rtol=0)
    assert ((decoded[1] - whole[1]).abs().max() > 1e-2) == (not memoryless(backbone))


@each_backbone
def test_a_state_is_not_changed_by_use_and_can_be_forked(backbone: type[Backbone]) -> None:
    model = small_vqvae(backbone)
    codes, state = model.encode_step(noise(2, 3), model.init_state(2))
    _, decoder = model.decode_step(codes, model.init_state(2))
    kept = copy.deepcopy((state, decoder))
    left, right = noise(2, 4, seed=1), noise(2, 4, seed=2)
    first, _ = model.encode_step(left, state)
    _ = model.encode_step(right, state)
    again, _ = model.encode_step(left, state)
    assert torch.equal(again, first)
    assert torch.equal(first, model.encode(torch.cat([noise(2, 3), left], dim=1))[:, codes.shape[1] :])
    shown, _ = model.decode_step(first, decoder)
    _ = model.decode_step(first.flip(0), decoder)
    assert torch.equal(model.decode_step(first, decoder)[0], shown)
    for after, before in zip((state, decoder), kept, strict=True):
        assert torch.equal(after.fresh, before.fresh)
        assert all(torch.equal(a, b) for a, b in zip(after.past, before.past, strict=True))


# ---------------------------------------------------------------- training


@each_backbone
@each_quantizer
@each_stride
def test_the_codes_of_the_training_pass_are_those_of_encode(
    backbone: type[Backbone], quantizer: type, stride: int
) -> None:
    model = small_vqvae(backbone, quantizer, stride).train()
    frames = noise(2, 1 + 2 * stride)
    output = model(frames)
    assert torch.equal(output.codes, model.encode(frames))
    shown = ((output.reconstruction.detach() + 1) / 2).clamp(0, 1)
    torch.testing.assert_close(shown, model.decode(output.codes), atol=1e-5, rtol=0)
    mse = (output.reconstruction.detach() / 2 + 0.5 - to_unit(frames)).square().mean()
    torch.testing.assert_close(output.metrics["mse"], mse, rtol=1e-4, atol=0)
    torch.testing.assert_close(output.loss.detach(), output.metrics["reconstruction"] + output.metrics["quantizer"])


@each_backbone
@each_quantizer
def test_every_parameter_receives_a_gradient(backbone: type[Backbone], quantizer: type) -> None:
    model = small_vqvae(backbone, quantizer).train()
    model(noise(4, 5)).loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@each_quantizer
def test_a_pass_under_autocast_trains_too(quantizer: type) -> None:
    model = small_vqvae(quantizer=quantizer).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(noise(2, 5))
    output.loss.backward()
    assert output.loss.dtype == output.reconstruction.dtype == torch.float32
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@each_quantizer
def test_micro_batches_add_up_to_the_big_batch(quantizer: type) -> None:
    # The entropy of the bits' use over a batch is no mean over its micro batches.
    changes = {"entropy": 0.0} if issubclass(quantizer, BitConfig) else {}
    whole, parts = (small_vqvae(quantizer=quantizer, **changes).train() for _ in range(2))
    frames = noise(4, 5)
    whole(frames).loss.backward()
    for micro in frames.chunk(2):
        (parts(micro).loss / 2).backward()
    whole.after_step()
    parts.after_step()
    for (name, a), b in zip(whole.named_parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-5, rtol=1e-4, msg=lambda m, name=name: f"{name}: {m}")
    torch.testing.assert_close(whole.codebook, parts.codebook, atol=1e-6, rtol=0)


@each_quantizer
def test_initialising_measures_the_data_and_spreads_the_codes(quantizer: type) -> None:
    torch.manual_seed(0)
    model = wake(VQVAEConfig(small_backbone(), small_quantizer(quantizer)).build((16, 16)))
    frames = noise(8, 5) // 2
    model.initialize(frames)
    assert model.variance.item() == pytest.approx(to_unit(frames).var().item() * 4, rel=1e-4)
    used = model.encode(frames).unique().numel()
    assert used > (0.9 if quantizer is EMAVQConfig else 0.05) * model.quantizer.codebook_size


def test_a_black_world_does_not_divide_by_zero() -> None:
    model = small_vqvae(quantizer=FSQConfig)
    model.initialize(torch.zeros(2, 3, 3, 16, 16, dtype=torch.uint8))
    assert model(torch.zeros(2, 3, 3, 16, 16, dtype=torch.uint8)).loss.isfinite()


USED_EARLY = {EMAVQConfig: 0.6, CosineVQConfig: 0.6, ResidualVQConfig: 0.6}
"""Share of the codes in use after 40 steps where codes are revived. Elsewhere the latents fill the codes later."""


@each_backbone
@each_quantizer
def test_a_tokenizer_learns_moving_squares_and_uses_its_codes(backbone: type[Backbone], quantizer: type) -> None:
    if backbone is StridedConv and issubclass(quantizer, GradientVQConfig):
        pytest.skip("codes that are learnt by gradient are slower than latents that no norm holds")
    torch.manual_seed(0)
    model = VQVAEConfig(small_backbone(backbone), small_quantizer(quantizer)).build((16, 16))
    clips = moving_squares(64, 5)
    model.initialize(clips)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for step in range(40):
        start = 16 * (step % 4)
        loss = model(clips[start : start + 16]).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        model.after_step()
        losses.append(loss.item())
    used = model.eval().encode(clips).unique().numel()
    assert sum(losses[-5:]) / 5 < 0.4 * losses[0]
    assert used > USED_EARLY.get(quantizer, 0.1) * model.quantizer.codebook_size


# ---------------------------------------------------------------- kinds of numbers


def test_codes_do_not_depend_on_autocast() -> None:
    vqvae, frames = small_vqvae(), noise(4, 5)
    codes = vqvae.encode(frames)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(vqvae.encode(frames), codes)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_frames_of_an_unsupported_type_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(InputError, match=r"frames.* of type [\w.]+, expected uint8 .*or float"):
        small_vqvae().encode(torch.zeros(1, 1, 3, 16, 16, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_frames_of_any_float_type_are_frames(dtype: torch.dtype) -> None:
    vqvae, frames = small_vqvae(), (noise(2, 3) > 127).to(dtype)
    assert torch.equal(vqvae.encode(frames), vqvae.encode(frames.float()))
    assert vqvae(frames).loss.dtype == torch.float32


def test_codes_of_any_whole_type_are_codes_and_others_are_refused() -> None:
    vqvae = small_vqvae()
    codes = vqvae.encode(noise(1, 3))
    for dtype in (torch.uint8, torch.int16, torch.uint16, torch.int32):
        assert torch.equal(vqvae.decode(codes.to(dtype)), vqvae.decode(codes))
    with pytest.raises(InputError, match=r"codes of type torch\.float32, expected whole numbers"):
        vqvae.decode(codes.float())
