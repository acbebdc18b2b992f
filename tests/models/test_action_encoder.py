"""Actions of every kind of space as vectors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces
from tiny_models import STEERING, shake

from vqvideo.models.prior import ActionEncoder, ActionStats
from vqvideo.spaces import ActionSpace

SPACES = {
    "box": spaces.Box(-1, 1, (3,)),
    "discrete": spaces.Discrete(4, start=-2),
    "multi_discrete": spaces.MultiDiscrete([2, 5]),
    "multi_binary": spaces.MultiBinary(3),
    "dict": spaces.Dict({"wheel": spaces.Box(-1, 1, (1,)), "gear": spaces.Discrete(3, start=1)}),
    "tuple": spaces.Tuple((spaces.Discrete(2), spaces.Box(0, 9, (2,)))),
}


@pytest.mark.parametrize("kind", SPACES)
def test_actions_of_every_kind_of_space_are_told_apart(kind: str) -> None:
    native = SPACES[kind]
    space = ActionSpace.from_gymnasium(native)
    native.seed(0)
    flat = np.unique(np.stack([space.flatten(native.sample()) for _ in range(40)]), axis=0)
    stats = ActionStats((0.0,) * space.size, (1.0,) * space.size, 0.0, 1.0)
    encoder = ActionEncoder(space, stats, stride=2, dim=16)
    shake(encoder)
    actions = torch.from_numpy(np.stack([flat, flat[::-1]], axis=1))[:, None]
    encoded = encoder(actions)
    assert encoded.shape == (len(flat), 1, 16)
    distances = torch.cdist(encoded[:, 0], encoded[:, 0]) + torch.eye(len(flat))
    assert distances.min() > 1e-4


def test_categories_have_no_order() -> None:
    """A categorical column is one-hot: swapping the weights of two categories swaps their vectors."""
    space = ActionSpace.from_gymnasium(spaces.Discrete(3, start=5))
    encoder = ActionEncoder(space, ActionStats((6.0,), (1.0,), 0.0, 1.0), stride=1, dim=8)
    actions = torch.tensor([5.0, 6.0, 7.0]).reshape(3, 1, 1, 1)
    before = encoder(actions)
    weight = encoder.mlp[0].weight
    with torch.no_grad():
        weight.copy_(weight[:, [2, 1, 0]].clone())
    torch.testing.assert_close(encoder(actions), before.flip(0))


def test_continuous_actions_are_put_to_scale_by_their_statistics() -> None:
    torch.manual_seed(0)
    encoder = ActionEncoder(STEERING, ActionStats((0.2, 1.5), (0.1, 0.4), 0.0, 1.0), stride=1, dim=8)
    plain = ActionEncoder(STEERING, ActionStats((0.0, 0.0), (1.0, 1.0), 0.0, 1.0), stride=1, dim=8)
    plain.mlp.load_state_dict(encoder.mlp.state_dict())
    actions = torch.rand(5, 2, 1, 2)
    scaled = (actions - torch.tensor([0.2, 1.5])) / torch.tensor([0.1, 0.4])
    torch.testing.assert_close(encoder(actions), plain(scaled), atol=1e-5, rtol=1e-5)


def test_an_action_that_was_never_varied_does_not_explode() -> None:
    encoder = ActionEncoder(STEERING, ActionStats((0.0, 0.0), (0.0, 0.0), 0.0, 1.0), stride=1, dim=8)
    assert encoder(torch.ones(1, 1, 1, 2)).abs().max() < 1e5
