"""How often an imagined environment waits for its device: twice a step, whatever happens in it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from imagined import MODES, SPACES, dreams, some_starts, some_world
from torch import Tensor
from torch.utils._pytree import tree_map
from waiting import DEVICE, waits

from vqvideo.errors import InputError
from vqvideo.imagined_env import ImaginedVectorEnv, Starts
from vqvideo.models.prior.sampling import Sampling

SAMPLING = Sampling(top_p=1.0)
"""Draws the same codes on every device; of a nucleus they are drawn in another way on a CPU."""


def on_device(values: Any) -> Any:
    """A nest of arrays or tensors on the device."""
    return tree_map(lambda value: torch.as_tensor(value).to(DEVICE) if hasattr(value, "shape") else value, values)


def far_dreams(mode: str, space: str) -> ImaginedVectorEnv:
    """Four envs on the device whose waits are counted, whose episodes end early or at a horizon of 5."""
    world = some_world(space=SPACES[space])
    starts = some_starts(world)
    far = Starts(*map(on_device, (starts.state, starts.frames, starts.source)))
    return dreams(world.to(DEVICE), 4, starts=far, autoreset_mode=mode, output="torch", sampling=SAMPLING)


@pytest.mark.parametrize("given", ["tensors", "arrays"])
@pytest.mark.parametrize("space", ["discrete", "dict"])
@pytest.mark.parametrize("mode", MODES)
def test_a_step_waits_twice_at_most(mode: str, space: str, given: str) -> None:
    """To know whether the actions are valid, or to bring them there, and to know which episodes are over."""
    with waits() as waited:
        envs = far_dreams(mode, space)
        envs.action_space.seed(0)
        envs.reset(seed=0)
        steps = {"ends": 0, "begins": 0, "goes on": 0}
        for _ in range(12):
            actions = envs.action_space.sample()
            actions = on_device(actions) if given == "tensors" else actions
            waited.clear()
            *results, infos = envs.step(actions)
            assert len(waited) <= 2, waited
            assert all(result.device == DEVICE for result in results)
            over = results[2] | results[3]
            steps["ends" if over.any() else "begins" if "start" in infos else "goes on"] += 1
            if mode == "Disabled" and over.any():
                envs.reset(options={"reset_mask": over})
    assert steps["ends"] > 1
    assert steps["goes on"]
    assert bool(steps["begins"]) == (mode == "NextStep")


def test_results_on_a_device_are_those_of_the_host() -> None:
    world = some_world()
    here = dreams(world, 4, autoreset_mode="SameStep", output="torch", sampling=SAMPLING)
    here.action_space.seed(0)
    expected = [here.reset(seed=0)]
    actions = [here.action_space.sample() for _ in range(8)]
    expected += [here.step(action) for action in actions]
    with waits():
        envs = far_dreams("SameStep", "discrete")
        found = [envs.reset(seed=0), *(envs.step(on_device(action)) for action in actions)]
        for one, two in zip(found, expected, strict=True):
            torch.testing.assert_close(one[0].cpu(), two[0], atol=1, rtol=0)
            assert [set(part) if isinstance(part, dict) else part.tolist() for part in one[2:]] == [
                set(part) if isinstance(part, dict) else part.tolist() for part in two[2:]
            ]


def test_a_bad_action_on_a_device_is_named_as_on_the_host() -> None:
    with waits():
        envs = far_dreams("NextStep", "discrete")
        envs.reset(seed=0)
        with pytest.raises(InputError, match=r"env 2: action: column 0 is 7\.0, .* from 0 to 4"):
            envs.step(on_device(torch.tensor([0, 1, 7, 2])))
        with pytest.raises(InputError, match=r"float32 of shape \(4,\), expected one of Discrete\(5\)"):
            envs.step(torch.zeros(4, device=DEVICE))
        rewards: Tensor = envs.step(torch.zeros(4, device=DEVICE, dtype=torch.int64))[1]
        assert rewards.shape == (4,)
