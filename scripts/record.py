"""Records episodes of any Gymnasium environment into a store.

    python scripts/record.py                                   CarRacing, 36 episodes
    python scripts/record.py --env CartPole-v1 --policy random  any Gymnasium id

The same command continues a recording that was interrupted, and does nothing when all episodes exist.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vqvideo import cli

if TYPE_CHECKING:
    import gymnasium

    from vqvideo.data.store import StoreMeta
    from vqvideo.envs import Preset


@dataclass(frozen=True)
class Options:
    """What to record."""

    env: str = "CarRacing"
    """A preset (CarRacing, CarRacingAnywhere, TinyWorld) or any Gymnasium id, or package:id."""
    out: Path | None = None
    """Folder of the store; by default data/<environment>, such as data/car_racing."""
    episodes: int = 36
    """Episodes that the store holds in the end."""
    steps: int = 150
    """Longest episode, in stored steps."""
    frame_size: int = 64
    """Height and width of the stored frames in pixels."""
    held_out_every: int = 6
    """Every n-th episode is held out for evaluation; 0 for none."""
    policy: str | None = None
    """What presses the buttons: random, sticky-random, smooth, drive; by default the preset's choice."""
    action_repeat: int | None = None
    """Env steps for which an action is held; by default the preset's."""
    skip_first: int | None = None
    """Env steps left out at the start of each episode; by default the preset's."""
    seed: int = 0
    """Everything follows from it: equal seeds record equal episodes."""
    workers: int | None = None
    """Processes; by default one per core. 0 plays in this process."""


def record(options: Options) -> Path:
    """Records what is missing and returns the folder of the store.

    Raises:
        InputError: an unknown environment, policy or setting, or an environment that keeps failing.
    """
    from functools import partial

    from vqvideo import envs
    from vqvideo.collect import collect
    from vqvideo.data.store import StoreWriter
    from vqvideo.envs.policies import make_policy

    preset = chosen_preset(options)
    make_policy(preset.policy)  # a misspelt name fails here, before anything is made
    env = envs.make(preset)
    try:
        meta = describe(env, preset, options)
    finally:
        env.close()
    out = options.out or Path("data") / snake_case(options.env)
    with StoreWriter.open(out, meta) as writer:
        before = len(writer.indices)
        report = collect(
            partial(envs.make, preset),
            partial(make_policy, preset.policy),
            writer,
            episodes=options.episodes,
            max_steps=options.steps,
            frame_size=meta.frame_size,
            seed=options.seed,
            held_out_every=options.held_out_every,
            workers=options.workers,
        )
    if report.episodes == 0:
        print(f"{out} holds {before} episodes already; nothing to record.")
    else:
        print(
            f"{out}: {report.episodes} new episodes ({before} before), {report.frames} frames in "
            f"{report.seconds:.0f} s ({report.frames / report.seconds:.0f} frames/s), "
            f"mean return {sum(report.returns) / report.episodes:.1f}"
        )
    return out


def chosen_preset(options: Options) -> Preset:
    """The environment's preset with the options that replace its own."""
    import dataclasses

    from vqvideo import envs
    from vqvideo.errors import InputError

    for name, least in (("episodes", 1), ("steps", 1), ("seed", 0)):
        if getattr(options, name) < least:
            raise InputError(f"--{name} is {getattr(options, name)}; it must be at least {least}.")
    replaced = {name: getattr(options, name) for name in ("policy", "action_repeat", "skip_first")}
    return dataclasses.replace(
        envs.resolve(options.env), **{name: value for name, value in replaced.items() if value is not None}
    )


def describe(env: gymnasium.Env, preset: Preset, options: Options) -> StoreMeta:
    """What the store says about all its episodes."""
    from vqvideo import envs
    from vqvideo.data.store import StoreMeta
    from vqvideo.spaces import ActionSpace

    fps = preset.fps or env.metadata.get("render_fps") or 30.0
    return StoreMeta(
        env_id=envs.name_of(preset),
        env_spec=spec_json(preset),
        action_space=ActionSpace.from_gymnasium(env.action_space),
        frame_size=(options.frame_size, options.frame_size),
        fps=float(fps) / preset.action_repeat,
        action_repeat=preset.action_repeat,
        skip_first=preset.skip_first,
        policy=preset.policy,
        seed=options.seed,
        held_out_every=options.held_out_every,
        versions=package_versions(type(env.unwrapped).__module__),
    )


def spec_json(preset: Preset) -> str | None:
    """The environment's spec as JSON; None when it holds things that JSON cannot."""
    import dataclasses

    from vqvideo import envs

    spec = envs.find_spec(preset.env_id)
    try:
        return dataclasses.replace(spec, kwargs={**spec.kwargs, **preset.kwargs}).to_json()
    except (ValueError, TypeError):
        return None


def package_versions(env_module: str) -> dict[str, str]:
    """Versions of what draws the frames: pixels are only reproducible with the same ones."""
    from importlib.metadata import PackageNotFoundError, packages_distributions, version

    makers = packages_distributions().get(env_module.split(".")[0], [])
    versions = {}
    for name in {"vqvideo", "gymnasium", "numpy", "torch", "box2d", "pygame-ce", *makers}:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return dict(sorted(versions.items()))


def snake_case(name: str) -> str:
    """A folder name: CarRacing becomes car_racing, ALE/Pong-v5 ale_pong_v5."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return re.sub(r"[^a-z0-9]+", "_", words.lower()).strip("_")


def main() -> None:
    """Reads the command line and records."""
    import tyro

    record(tyro.cli(Options, description=__doc__))


if __name__ == "__main__":
    cli.run(main)
