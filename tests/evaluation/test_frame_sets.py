"""Sets of frames along the horizon: which frames they hold, and their distances."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_models import noise_frames
from torch import Tensor

from vqvideo.errors import InputError
from vqvideo.evaluation.frame_sets import BlockDistances, FrameSets, FrechetConfig


class Colours:
    """A network whose features are the mean colour in three places."""

    multiple = 1

    def to(self, *where: object, **how: object) -> Colours:
        return self

    def pooled(self, frames: Tensor) -> Tensor:
        assert -1 <= frames.min() <= frames.max() <= 1
        return torch.cat([frames.mean(dim=(2, 3)), frames[:, :, 0, 0], frames[:, :, 5, 7]], dim=1)


def frame_sets(frames: int, clips: int = 4, steps: int = 5, block: int = 2, stride: int = 2) -> FrameSets:
    cfg = FrechetConfig(block=block, frames=frames, side=32)
    return FrameSets(cfg, clips, steps, stride, torch.device("cpu"), Colours())  # type: ignore[arg-type]


def test_frames_as_real_ones_are_at_distance_0_and_others_are_not() -> None:
    real = noise_frames(4, 11)
    sets = frame_sets(frames=100)
    for part in real.split(2):
        sets.add(part, {"imagined": part, "reconstruction": part // 2, "repeat": part})
    found = sets.distances()
    assert found.last_steps == [2, 4, 5]
    assert found.imagined == [0, 0, 0]
    assert min(found.repeat + found.reconstruction + found.real_odd_against_even) > 1e-4
    assert found.frames == [16, 16, 8]
    assert found.frames_odd_even == [[8, 8], [8, 8], [4, 4]]


def test_distances_do_not_depend_on_how_clips_are_batched_also_when_frames_are_sampled() -> None:
    real, other = noise_frames(4, 11), noise_frames(4, 11, seed=1)

    def distances(parts: list[int]) -> BlockDistances:
        sets = frame_sets(frames=9)
        for a, b in zip(real.split(parts), other.split(parts), strict=True):
            sets.add(a, {"imagined": b, "reconstruction": b})
        return sets.distances()

    whole = distances([4])
    assert distances([1, 3]) == whole
    assert whole.frames == [9, 9, 8]
    assert sum(whole.frames_odd_even[0]) == 9


def test_the_blocks_are_the_frames_of_their_steps_and_the_floor_compares_odd_with_even_clips() -> None:
    """Brightness is the number of the frame; odd clips are redder."""
    clip, frame = torch.arange(4)[:, None], torch.arange(11)
    real = (10 * frame + 0 * clip)[:, :, None, None, None].expand(4, 11, 3, 16, 16).to(torch.uint8).clone()
    real[1::2, :, 0] += 51
    sets = frame_sets(frames=100)
    sets.add(real, {"imagined": real, "reconstruction": real})
    seen = [(torch.cat(s["real"])[:, 2] + 1) * 127.5 / 10 for s in sets._sets]
    assert [sorted({round(v) for v in values.tolist()}) for values in seen] == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10]]
    # Three features are red, each 51 grey levels of 127.5 apart; nothing else differs between the halves.
    assert sets.distances().real_odd_against_even == pytest.approx([3 * (51 / 127.5) ** 2] * 3, abs=1e-4)


def test_a_half_of_one_frame_has_no_floor() -> None:
    sets = frame_sets(frames=100, clips=2, steps=1, block=1, stride=1)
    sets.add(noise_frames(2, 2), {"imagined": noise_frames(2, 2), "reconstruction": noise_frames(2, 2)})
    assert math.isnan(sets.distances().real_odd_against_even[0])


@pytest.mark.parametrize("name", ["block", "frames", "side"])
def test_sets_of_nothing_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} is 0, expected at least"):
        FrechetConfig(**{name: 0})
