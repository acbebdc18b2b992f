"""vqvideo: video VQ-VAEs with an action-conditioned prior.

    import torch
    from vqvideo import Store, WorldModel

    world = WorldModel.from_pretrained("runs/car_racing/world")
    episode = (store := Store.open("data/car_racing")).episode(store.split("held_out")[0])
    frames = torch.from_numpy(episode.frames[None, :9]).permute(0, 1, 4, 2, 3)  # (b, t, c, h, w)
    dream = world.imagine(frames, episode.actions[None, :40], seed=0)  # 8 actions of context, 32 to come
    print(dream.frames.shape, dream.rewards)

Importing vqvideo is cheap: names are loaded when they are first used, and neither gymnasium nor av is needed.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vqvideo.data.arrays import write_store as write_store
    from vqvideo.data.clips import Clips as Clips
    from vqvideo.data.store import Store as Store
    from vqvideo.data.store import StoreWriter as StoreWriter
    from vqvideo.errors import InputError as InputError
    from vqvideo.models.prior import Prior as Prior
    from vqvideo.models.prior import PriorConfig as PriorConfig
    from vqvideo.models.prior import Sampling as Sampling
    from vqvideo.models.quantizers import EMAVQConfig as EMAVQConfig
    from vqvideo.models.quantizers import FSQConfig as FSQConfig
    from vqvideo.models.tokenizer import VQVAEConfig as VQVAEConfig
    from vqvideo.models.tokenizer.vqvae import VQVAE as VQVAE
    from vqvideo.spaces import ActionSpace as ActionSpace
    from vqvideo.world import WorldModel as WorldModel

__version__ = "0.1.0"

_HOMES = {
    "ActionSpace": "spaces",
    "Clips": "data.clips",
    "EMAVQConfig": "models.quantizers",
    "FSQConfig": "models.quantizers",
    "InputError": "errors",
    "Prior": "models.prior",
    "PriorConfig": "models.prior",
    "Sampling": "models.prior.sampling",
    "Store": "data.store",
    "StoreWriter": "data.store",
    "VQVAE": "models.tokenizer.vqvae",
    "VQVAEConfig": "models.tokenizer.vqvae",
    "WorldModel": "world",
    "write_store": "data.arrays",
}

__all__ = [*_HOMES, "__version__"]


def _compute_on_one_thread() -> None:
    """In a forked child: PyTorch computes on the calling thread from now on, if it is there already.

    OpenMP's threads do not survive a fork, and GNU's library (libgomp), which PyTorch brings on Linux, does not notice:
    once the parent has computed on several threads, the child waits for threads that are not there, for ever. On one
    thread it waits for nobody. PyTorch's own `DataLoader` does the same in its workers; NumPy's OpenBLAS begins new
    threads by itself. Children that shall compute on several threads need the start method "spawn" or "forkserver".
    """
    torch = sys.modules.get("torch")
    # Another thread of the parent may be in the midst of importing it.
    if torch is not None and hasattr(torch, "set_num_threads"):
        torch.set_num_threads(1)


# Here and not where it is needed first: environments, DataLoaders and recordings of any room are forked.
if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_compute_on_one_thread)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vqvideo' has no attribute {name!r}")
    value = getattr(import_module(f"vqvideo.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
