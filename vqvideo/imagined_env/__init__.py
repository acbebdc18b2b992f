"""The dream as Gymnasium environments: batched, single, and by name. Importing this package registers the name.

envs = world.as_env(16, starts="data/car_racing", horizon=50)

import vqvideo.imagined_env

env = gymnasium.make("vqvideo/Imagined-v0", world="carracing")
envs = gymnasium.make_vec("vqvideo/Imagined-v0", num_envs=16, world="runs/car_racing/world", starts="data/car_racing")
"""

import gymnasium

from vqvideo.imagined_env.batch import DivergedError, RewardFunction, no_reward
from vqvideo.imagined_env.cut import cut_thresholds
from vqvideo.imagined_env.single import ImaginedEnv
from vqvideo.imagined_env.starts import Beginnings, Starts, StartsLike
from vqvideo.imagined_env.vector import ImaginedVectorEnv, NotResetError

__all__ = [
    "Beginnings",
    "DivergedError",
    "ImaginedEnv",
    "ImaginedVectorEnv",
    "NotResetError",
    "RewardFunction",
    "Starts",
    "StartsLike",
    "cut_thresholds",
    "no_reward",
]

gymnasium.register(
    id="vqvideo/Imagined-v0",
    entry_point="vqvideo.world:make_env",
    vector_entry_point="vqvideo.world:make_vector_env",
)
