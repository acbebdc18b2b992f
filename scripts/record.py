"""Records episodes of any Gymnasium environment into a store.

    python scripts/record.py                                   CarRacing, 36 episodes
    python scripts/record.py --env CartPole-v1 --policy random  any Gymnasium id

The same command continues a recording that was interrupted, and does nothing when all episodes exist.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vqvideo import cli
from vqvideo.data.recording import RecordConfig

if TYPE_CHECKING:
    import gymnasium

    from vqvideo.data.index import StoreMeta
    from vqvideo.envs import Preset


def record(options: RecordConfig) -> Path:
    """Records what is missing and returns the folder of the store.

    Raises:
        InputError: an unknown environment, policy or setting, or an environment that keeps failing.
    """
    from functools import partial

    from vqvideo import envs
    from vqvideo.data.collect import collect
    from vqvideo.data.store import StoreWriter
    from vqvideo.envs.policies import make_policy

    preset = chosen_preset(options)
    make_policy(preset.policy)  # a misspelt name fails here, before anything is made
    env = envs.make(preset)
    try:
        meta = describe(env, preset, options)
    finally:
        env.close()
    out = options.folder
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


def chosen_preset(options: RecordConfig) -> Preset:
    """The environment's preset with the options that replace its own."""
    import dataclasses

    from vqvideo import envs

    replaced = {name: getattr(options, name) for name in ("policy", "action_repeat", "skip_first")}
    return dataclasses.replace(
        envs.resolve(options.env), **{name: value for name, value in replaced.items() if value is not None}
    )


def describe(env: gymnasium.Env, preset: Preset, options: RecordConfig) -> StoreMeta:
    """What the store says about all its episodes."""
    from vqvideo import envs
    from vqvideo.data.index import StoreMeta
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


def main() -> None:
    """Reads the command line and records."""
    import tyro

    record(tyro.cli(RecordConfig, description=__doc__))


if __name__ == "__main__":
    cli.run(main)
