"""Agents that learn in dreams, by Stable-Baselines3 (`pip install 'vqvideo[agent]'`)."""

from importlib.util import find_spec

from vqvideo.errors import InputError

if find_spec("stable_baselines3") is None:
    raise InputError("agents learn by Stable-Baselines3, which is an extra: pip install 'vqvideo[agent]'")
