"""Where a world of TinyWorld errs: single steps from exact states, along random and along good play."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vqvideo.errors import InputError
from vqvideo.scripts.benchmarks.subject import Benchmark

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from vqvideo.envs.tiny_world import State
    from vqvideo.scripts.benchmarks.report import Report
    from vqvideo.world import WorldModel

_BATCH = 250
_BLUNDERS, _NEW = 0.1, 1 / 60
"""Share of random actions in good play, and of steps after which another episode begins."""


class Steps(NamedTuple):
    """Steps of the exact world."""

    before: list[State]
    actions: NDArray[np.int64]
    after: list[State]
    rewards: NDArray[np.float64]
    terminated: NDArray[np.bool_]

    @property
    def kinds(self) -> dict[str, NDArray[np.bool_]]:
        """Which steps are of which kind, by name."""
        import numpy as np

        moved = np.array([one.block != other.block for one, other in zip(self.before, self.after, strict=True)])
        goal = self.rewards > 0
        plain = ~goal & ~self.terminated
        return {"goal": goal, "hazard": self.terminated, "moves": moved & plain, "stays": ~moved & plain}


@dataclass(frozen=True)
class TinyWorldBenchmark(Benchmark):
    """Errors of a TinyWorld's codes, rewards and ends, one step at a time, against the exact dynamics."""

    world: Path = Path("runs/tiny_world/world")
    """Folder of the world, of time stride 1."""
    steps: int = 4000
    """Steps of each player."""
    seed: int = 7
    """Of play and of what the world draws."""

    def measure(self) -> Report:
        import torch

        from vqvideo.scripts.benchmarks.report import Report, Table
        from vqvideo.world import WorldModel

        world = WorldModel.from_pretrained(self.world)
        if world.env.env_id != "TinyWorld" or world.stride != 1:
            found = f"of {world.env.env_id}, stride {world.stride}"
            raise InputError(f"{self.world} is {found}: expected TinyWorld, stride 1")
        cfg = replace(self, steps=200) if self.quick else self
        title = f"single steps from exact states, {cfg.steps:,} along each player's way, seed {cfg.seed}"
        shown = Table(title, ("play", "step", "steps", "a code wrong", "reward", "end"))
        report = Report("tiny_world", {**asdict(replace(cfg, json=None)), "world": str(cfg.world)}, tables=[shown])
        for player in ("random", "shortest path"):
            torch.manual_seed(cfg.seed)
            steps = play(player, cfg.steps, cfg.seed)
            report.results[player] = found = errors(world, steps)
            for kind, figures in found.items():
                cells = (f"{figures['wrong']:.1%}", f"{figures['reward']:.3f}", f"{figures['end']:.3f}")
                shown.rows.append((player, kind, f"{figures['steps']:,}", *cells))
        return report


def play(player: str, count: int, seed: int) -> Steps:
    """Steps of random play, or of one that goes to the goal but for a tenth of its actions."""
    import numpy as np

    from vqvideo.envs.tiny_world import MOVES, first_state, next_state, shortest_path_action

    rng = np.random.default_rng(seed)
    state, taken = first_state(rng), []
    for _ in range(count):
        wanders = player == "random" or rng.random() < _BLUNDERS
        action = int(rng.integers(len(MOVES))) if wanders else shortest_path_action(state)
        outcome = next_state(state, action)
        taken.append((state, action, *outcome))
        state = first_state(rng) if outcome.terminated or rng.random() < _NEW else outcome.state
    before, actions, after, rewards, terminated = zip(*taken, strict=True)
    return Steps(list(before), np.array(actions), list(after), np.array(rewards), np.array(terminated))


def errors(world: WorldModel, steps: Steps) -> dict[str, dict[str, Any]]:
    """By kind of step: how many there are, the share in which a drawn code differs from that of the true frame, the
    mean reward, and the mean probability of an end.
    """
    import numpy as np

    wrong, reward, end = (np.concatenate(parts) for parts in zip(*_imagined(world, steps), strict=True))
    return {
        kind: {
            "steps": int(chosen.sum()),
            "wrong": float(wrong[chosen].mean()),
            "reward": float(reward[chosen].mean()),
            "end": float(end[chosen].mean()),
        }
        for kind, chosen in steps.kinds.items()
        if chosen.any()
    }


def _imagined(world: WorldModel, steps: Steps) -> Iterator[tuple[NDArray[Any], ...]]:
    """Of each batch of steps: whether a code is wrong, rewards, and probabilities of an end."""
    import torch

    from vqvideo.models.prior.sampling import Sampling

    actions = torch.from_numpy(steps.actions).float()[:, None, None]
    for first in range(0, len(steps.before), _BATCH):
        part = slice(first, first + _BATCH)
        before, after = (_codes(world, states[part]) for states in (steps.before, steps.after))
        state = world.prior.start(before[:, None], actions[part][:, :0, None])
        step, _ = world.prior.step(state, actions[part], Sampling())
        yield tuple(
            values.numpy() for values in ((step.codes != after).flatten(1).any(1), step.reward, step.termination)
        )


def _codes(world: WorldModel, states: list[State]) -> Tensor:
    """Codes (b, h, w) of the frames of states."""
    import numpy as np
    import torch

    from vqvideo.envs.tiny_world import draw
    from vqvideo.models.pixels import channels_first

    frames = np.stack([draw(state, world.vqvae.frame_size[0]) for state in states])
    return world.vqvae.encode(channels_first(torch.from_numpy(frames))[:, None])[:, 0]
