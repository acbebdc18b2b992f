"""Recording by name: an environment's preset, the store that its settings name, and what the store says of it."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from itertools import product
from pathlib import Path

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec

from vqvideo import envs
from vqvideo.data.collect import CollectReport, collect
from vqvideo.data.config import RecordConfig
from vqvideo.data.importing import import_data
from vqvideo.data.index import StoreMeta
from vqvideo.data.main_guard import end_second_recording
from vqvideo.data.playing import Policy
from vqvideo.data.store import Store, StoreWriter
from vqvideo.envs.packages import package_of
from vqvideo.envs.pixels import UNSAID, PixelFrames, choose
from vqvideo.envs.policies import make_policy
from vqvideo.envs.preset import DRAWN
from vqvideo.spaces import ActionSpace

_REWARDS, _MOST_TIMES = 10, 3
"""Rewards of the rarer sign that are enough, and how many times the episodes may become for them."""
_SAME_SHAPE = 0.04
"""Largest difference of two logarithms of height over width that nobody sees: 4 percent."""


def record(options: RecordConfig) -> Path:
    """Records what is missing, or imports it if that has a source, says so, and returns the folder of the store.

    Raises:
        InputError: an unknown environment, policy or setting, an environment that keeps failing, or a source that
            cannot be read.
    """
    if options.source is not None:
        return import_data(options.imported)
    end_second_recording()  # before an environment is made, which may take its time
    options = with_frame_size(options)
    out, preset = options.folder, chosen_preset(options)
    make_policy(preset.policy)  # a misspelt name fails here, before anything is made
    env = envs.make(preset)
    try:
        meta = _describe(env, preset, options)
        notes = notes_on(env, meta)
    finally:
        env.close()
    with StoreWriter.open(out, meta) as writer:
        before = len(writer.indices)
        if before < options.episodes:
            print("".join(f"note: {note}\n" for note in notes), end="", flush=True)
        report = collect_episodes(writer, options, partial(make_policy, preset.policy))
    if report.episodes == 0:
        print(f"{out} holds {before} episodes already; nothing to record.")
    else:
        print(
            f"{out}: {report.episodes} new episodes ({before} before), {report.frames} frames in "
            f"{report.seconds:.0f} s ({report.frames / report.seconds:.0f} frames/s), "
            f"mean return {sum(report.returns) / report.episodes:.1f}"
        )
    more = with_enough(options)
    if more.episodes > options.episodes:
        if report.episodes:
            print(
                f"{out}: they end early, so {more.episodes:,} episodes make the {options.frames:,} frames", flush=True
            )
        return record(more)
    return out


def with_enough(options: RecordConfig) -> RecordConfig:
    """The options with as many episodes as hold `options.frames`, if all are as long as those that were asked for,
    which are recorded.
    """
    if options.frames is None or options.source is not None:
        return options
    first = [e.length + 1 for e in Store.open(options.folder).entries if e.index < options.episodes]
    episodes = math.ceil(options.frames / (sum(first) / len(first)))
    return dataclasses.replace(options, episodes=max(episodes, options.episodes), frames=None)


def until_rewarded(options: RecordConfig) -> RecordConfig:
    """The options with as many more episodes, up to three times as many in all, as it takes to have ten rewards of each
    sign that is seen, and records these: who never sees a reward learns nothing from it.
    """
    most = _MOST_TIMES * options.episodes
    while options.episodes < most and (seen := rarer_rewards(options)) < _REWARDS:
        options = dataclasses.replace(options, episodes=min(most, math.ceil(1.5 * options.episodes)), frames=None)
        print(f"{options.folder}: {seen} rewards of the rarer sign, so it goes on up to {options.episodes:,} episodes")
        record(options)
    return options


def rarer_rewards(options: RecordConfig) -> int:
    """How many rewards of the rarer sign, of those that are seen, the recorded episodes of `options` hold."""
    store = Store.open(options.folder)
    signs = [np.sign(store.reader(e).steps.rewards) for e in store.entries if e.index < options.episodes]
    counts = [int((np.concatenate(signs) == sign).sum()) for sign in (-1, 1)]
    return min((count for count in counts if count), default=0)


def collect_episodes(writer: StoreWriter, options: RecordConfig, make_player: Callable[[], Policy]) -> CollectReport:
    """Plays the episodes that the store lacks of those that `options` ask for, with a policy of the caller's."""
    preset = chosen_preset(options)
    return collect(
        partial(_make, preset, _by_hand(preset.env_id)),
        make_player,
        writer,
        episodes=options.episodes,
        max_steps=options.steps,
        frame_size=writer.meta.frame_size,
        seed=options.seed,
        held_out_every=options.held_out_every,
        workers=options.workers,
        step_timeout=options.step_timeout,
        reset_timeout=options.reset_timeout,
    )


def chosen_preset(options: RecordConfig) -> envs.Preset:
    """The environment's preset with the options that replace its own."""
    asked = {name: getattr(options, name) for name in ("policy", "action_repeat", "skip_first", "pixels")}
    given = {name: value for name, value in asked.items() if value is not None}
    preset = envs.resolve(options.env)
    return dataclasses.replace(preset, **given, kwargs={**preset.kwargs, **options.env_kwargs})


def with_frame_size(options: RecordConfig) -> RecordConfig:
    """The options with the frame size that suits the environment, where they name none."""
    if options.frame_size is not None or options.source is not None:
        return options
    choice, size = envs.resolve(options.env).frame_size, options.size
    if choice is not None:
        env = envs.make(chosen_preset(options))
        h, w, _ = env.observation_space.shape or ()
        env.close()
        # Not given, a size that nothing keeps the shape of is as good as another.
        size = (h, w) if choice == DRAWN else next(iter(sizes_in_shape((h, w), size)), size)
    return dataclasses.replace(options, frame_size=size[0] if size[0] == size[1] else size)


def _make(preset: envs.Preset, spec: EnvSpec | None) -> gymnasium.Env:
    """Makes the environment in a worker, which does not know what the main process registered by hand."""
    if spec is not None:
        gymnasium.registry.setdefault(spec.id, spec)
    return envs.make(preset)


def _by_hand(env_id: str) -> EnvSpec | None:
    """The spec of an id that no import of ours registers anew."""
    return None if ":" in env_id or package_of(env_id) else envs.find_spec(env_id)


def notes_on(env: PixelFrames, meta: StoreMeta) -> list[str]:
    """What a user should know about the frames before they are recorded."""
    shape = env.observation_space.shape or ()
    return [note for note in (env.source.note, squashed(shape[:2], meta.frame_size)) if note]


def squashed(source: tuple[int, ...], stored: tuple[int, int]) -> str:
    """What to say if frames (h, w) change their shape when they are stored: the sizes that keep it; else nothing."""
    if _alike(source, stored):
        return ""
    names = " or ".join(f"{h}x{w}" for h, w in sizes_in_shape(source, stored)[:2])
    keeps = f"; --frame-size {names} keeps their shape" if names else ""
    return f"the frames are {source[0]}x{source[1]}, stored at {stored[0]}x{stored[1]}: squashed{keeps}"


def sizes_in_shape(source: tuple[int, ...], pixels: tuple[int, int]) -> list[tuple[int, int]]:
    """Sizes (h, w) in the shape of frames (h, w), those first that have about as many pixels as another size."""
    # In steps of 16: the tokenizers of configs/ and their priors cut frames into such squares.
    sides = range(16, 513, 16)
    kept = [size for size in product(sides, sides) if _alike(source, size)]
    return sorted(kept, key=lambda size: abs(math.log(math.prod(size) / math.prod(pixels))))


def _alike(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether two sizes (h, w) have the same shape, as far as one sees."""
    return abs(math.log(one[0] / one[1]) - math.log(other[0] / other[1])) < _SAME_SHAPE


def _describe(env: PixelFrames, preset: envs.Preset, options: RecordConfig) -> StoreMeta:
    known = envs.resolve(options.env)
    source, unsaid = env.source.name, choose(env.env, known.pixels or UNSAID).name
    fps = preset.fps or env.metadata.get("render_fps") or 30.0
    return StoreMeta(
        env_id=envs.name_of(known),
        env_spec=_spec_json(preset),
        action_space=ActionSpace.from_gymnasium(env.action_space),
        frame_size=options.size,
        fps=float(fps) / preset.action_repeat,
        action_repeat=preset.action_repeat,
        skip_first=preset.skip_first,
        policy=preset.policy,
        seed=options.seed,
        held_out_every=options.held_out_every,
        versions=_versions(type(env.unwrapped).__module__),
        # As they are read back: tuples become lists.
        env_kwargs=json.loads(json.dumps(options.env_kwargs)),
        pixels=None if source == unsaid else source,
    )


def played_by_hand(meta: StoreMeta) -> StoreMeta:
    """Of a store whose episodes somebody plays in the environment of another one."""
    module = str(envs.find_spec(envs.resolve(meta.env_id).env_id).entry_point).partition(":")[0]
    # Few are played: of four, one is held out already.
    return dataclasses.replace(meta, policy="player", seed=0, held_out_every=4, versions=_versions(module))


def _spec_json(preset: envs.Preset) -> str | None:
    """The environment's spec; None when it holds things that JSON cannot."""
    spec = envs.find_spec(preset.env_id)
    try:
        return dataclasses.replace(spec, kwargs={**spec.kwargs, **preset.kwargs}).to_json()
    except (ValueError, TypeError):
        return None


def _versions(env_module: str) -> dict[str, str]:
    """Of the packages that draw the frames: pixels are only reproducible with the same ones."""
    makers = packages_distributions().get(env_module.split(".")[0], [])
    versions = {}
    for name in sorted({"vqvideo", "gymnasium", "numpy", "torch", "box2d", "pygame-ce", *makers}):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
