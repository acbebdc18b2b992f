"""Shared layers: nothing sees the future, a cache or a state changes nothing but the cost."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vqvideo.models.prior.attention import SpaceAttention, TimeAttention, attend
from vqvideo.models.prior.memory import KVCache, Now, Seen
from vqvideo.models.prior.rotary import Rotation, clock_angles, rotary_angles
from vqvideo.models.tokenizer.causal import CausalConv3d, ChannelNorm, TimeState, TimeWalk


def fresh(batch: int) -> TimeState:
    return TimeState((), torch.ones(batch, dtype=torch.bool))


def walk_through(layer: CausalConv3d, x: Tensor, state: TimeState) -> tuple[Tensor, TimeState]:
    """Of (b, c, t, h, w), whose channels come last inside."""
    walk = TimeWalk(state)
    return layer(x.movedim(1, -1), walk).movedim(-1, 1), walk.finish()


# ---------------------------------------------------------------- causal convolution


@pytest.mark.parametrize("kernel", [(1, 3, 3), (2, 1, 1), (3, 1, 1), (3, 3, 3), (5, 1, 3)])
def test_a_convolution_keeps_the_shape_and_sees_no_later_frame(kernel: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    conv = CausalConv3d(2, 4, kernel)
    x = torch.randn(2, 2, 7, 4, 6)
    other = x.clone()
    other[:, :, 4] += 10
    (before, _), (after, _) = walk_through(conv, x, fresh(2)), walk_through(conv, other, fresh(2))
    assert before.shape == (2, 4, 7, 4, 6)
    assert torch.equal(before[:, :, :4], after[:, :, :4])
    changed = (before != after).any(dim=0).any(dim=0).flatten(1).any(dim=1)
    assert changed.tolist() == [4 <= t < 4 + kernel[0] for t in range(7)]


def test_a_still_clip_gives_the_same_output_at_every_frame() -> None:
    torch.manual_seed(0)
    conv = CausalConv3d(2, 4, (3, 3, 3))
    out, _ = walk_through(conv, torch.randn(1, 2, 1, 4, 4).expand(-1, -1, 5, -1, -1), fresh(1))
    torch.testing.assert_close(out, out[:, :, :1].expand_as(out))


# ---------------------------------------------------------------- norm and feed-forward


def test_channel_norm_treats_every_position_alone() -> None:
    x = torch.randn(2, 8, 3, 4, 5) * 3 + 1
    norm = ChannelNorm(8)

    def channels_second(x: Tensor) -> Tensor:
        return norm(x.movedim(1, -1)).movedim(-1, 1)

    out = channels_second(x)
    torch.testing.assert_close(out.mean(dim=1), torch.zeros(2, 3, 4, 5), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.var(dim=1, unbiased=False), torch.ones(2, 3, 4, 5), atol=1e-3, rtol=0)
    torch.testing.assert_close(channels_second(x[:1, :, 1:2, 2:3, 3:4]), out[:1, :, 1:2, 2:3, 3:4])


# ---------------------------------------------------------------- rotary positions and attention


def turned(x: Tensor, position: int) -> Tensor:
    return Rotation.by(rotary_angles(torch.tensor(position), x.shape[-1], base=100.0))(x)


def step(
    attention: TimeAttention, x: Tensor, cache: KVCache, clock: int, seen: Tensor | list[int]
) -> tuple[Tensor, KVCache]:
    """One step after a cache, of rows that have seen so much with it."""
    steps = torch.as_tensor(seen).clamp(max=attention.window)
    after, e = cache.moved(), cache.k.shape[-1]
    y = attention.step(x, after, Now.at(clock, Seen(steps, int(steps.min()), int(steps.max())), e))
    return y, after


def test_rotation_keeps_lengths_and_sees_only_distances() -> None:
    torch.manual_seed(0)
    q, k = torch.randn(2, 8)

    def score(i: int, j: int) -> Tensor:
        return turned(q, i) @ turned(k, j)

    assert torch.allclose(turned(q, 7).norm(), q.norm())
    torch.testing.assert_close(score(5, 3), score(12, 10))
    assert not torch.isclose(score(5, 3), score(5, 4))


def test_space_attention_keeps_latent_steps_apart_and_knows_places() -> None:
    torch.manual_seed(0)
    attention = SpaceAttention(16, heads=2, grid=(2, 3))
    x = torch.randn(2, 4, 6, 16)
    other = x.clone()
    other[:, 2] += torch.randn(2, 6, 16)
    out, changed = attention(x), attention(other)
    assert torch.equal(out[:, [0, 1, 3]], changed[:, [0, 1, 3]])
    assert not torch.allclose(out[:, 2], changed[:, 2])
    order = torch.tensor([1, 0, 2, 3, 4, 5])
    assert not torch.allclose(attention(x[:, :, order]), out[:, :, order], atol=1e-4)


def test_time_attention_sees_its_window_of_the_past_and_its_own_place_only() -> None:
    torch.manual_seed(0)
    attention = TimeAttention(16, heads=2, window=3)
    x = torch.randn(1, 7, 4, 16)
    other = x.clone()
    other[:, 2, 1] += 5 * torch.randn(16)
    moved = (attention(x) - attention(other)).abs().amax(dim=-1)[0] > 1e-5
    assert moved[:, 1].tolist() == [False, False, True, True, True, False, False]
    assert not moved[:, [0, 2, 3]].any()


@pytest.mark.parametrize("window", [1, 3, 8])
def test_time_attention_with_a_cache_equals_the_whole_pass(window: int) -> None:
    torch.manual_seed(0)
    attention = TimeAttention(16, heads=2, window=window)
    x = torch.randn(2, 8, 4, 16)
    whole = attention(x)
    cache = attention.init_cache(2, tokens=4)
    for t in range(8):
        out, cache = step(attention, x[:, t : t + 1], cache, t, [t + 1, t + 1])
        torch.testing.assert_close(out[:, 0], whole[:, t], atol=1e-5, rtol=1e-4)


def test_each_row_looks_back_as_far_as_it_is_allowed_to() -> None:
    torch.manual_seed(0)
    attention = TimeAttention(16, heads=2, window=4)
    x = torch.randn(2, 7, 3, 16)
    late = attention(x[:, 5:])
    whole = attention(x)
    cache = attention.init_cache(2, tokens=3)
    for t in range(7):
        out, cache = step(attention, x[:, t : t + 1], cache, t, [t + 1, t - 4 if t >= 5 else t + 1])
    torch.testing.assert_close(out[0, 0], whole[0, 6], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(out[1, 0], late[1, 1], atol=1e-5, rtol=1e-4)


def test_attention_in_plain_products_is_torchs_own() -> None:
    q, k, v = torch.randn(3, 2, 4, 5, 8)
    mask = torch.ones(5, 5, dtype=torch.bool).tril()
    for chosen in (None, mask):
        expected = F.scaled_dot_product_attention(q, k, v, attn_mask=chosen)
        torch.testing.assert_close(attend(q, k, v, chosen), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("clock", [0, 7, 10**6, 10**9])
def test_the_angle_between_two_steps_does_not_depend_on_how_late_they_are(clock: int) -> None:
    angles = [clock_angles(clock + age, 12, 100.0, torch.device("cpu")) for age in (0, 5)]
    first, second = (torch.polar(torch.ones(6), angle) for angle in angles)
    expected = torch.polar(torch.ones(6), rotary_angles(torch.tensor(5), 12, 100.0))
    torch.testing.assert_close(second / first, expected, atol=2e-6, rtol=0)


@torch.no_grad()
def test_a_step_after_a_million_steps_attends_as_the_first_ones_do() -> None:
    attention = TimeAttention(32, 2, window=4)
    x = torch.randn(6, 2, 1, 3, 32)
    outputs = []
    for began in (0, 10**6):
        cache, found = attention.init_cache(2, 3), []
        for i, newest in enumerate(x):
            y, cache = step(attention, newest, cache, began + i, [i + 1, i + 1])
            found.append(y)
        outputs.append(torch.stack(found))
    torch.testing.assert_close(outputs[0], outputs[1], atol=1e-5, rtol=1e-5)
