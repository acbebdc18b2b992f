"""The dream as an environment of TorchRL.

from vqvideo.adapters.torchrl import torchrl_env

envs = world.as_env(16, starts="data/car_racing", horizon=50, autoreset_mode="Disabled", output="torch")
torchrl_env(envs).rollout(100, break_when_any_done=False)
"""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from torch import Tensor

from vqvideo.errors import InputError, MissingExtraError
from vqvideo.imagined_env import ImaginedVectorEnv

try:
    from tensordict import TensorDictBase
    from torchrl.data import Composite, Unbounded
    from torchrl.envs import EnvBase, GymWrapper, TransformedEnv, VecGymEnvTransform, default_info_dict_reader
except ModuleNotFoundError as error:
    raise MissingExtraError(error, "torchrl") from error

INFOS = ("entropy", "termination")
"""The infos that the tensordict of a step holds, (n,) each; zeros after a reset."""


def torchrl_env(envs: ImaginedVectorEnv) -> EnvBase:
    """Imagined environments as a `GymWrapper`, with categories instead of one-hot vectors as actions.

    Tensordicts lie on the device of the model if the envs have torch output, so that frames never leave it, and on the
    CPU if they have numpy output. Beside the observation they hold `entropy` and `termination`. TorchRL tries an env
    out when it wraps it: call `set_seed` on what comes back.

    Args:
        envs: with autoreset disabled, which TorchRL prefers, or in the same step.

    Raises:
        InputError: another kind of env, another mode, or a Dict or Tuple of actions.
    """
    if not isinstance(envs, ImaginedVectorEnv):
        raise InputError(f"torchrl_env is for an ImaginedVectorEnv, found {type(envs).__name__}: see WorldModel.as_env")
    if envs.autoreset_mode == AutoresetMode.NEXT_STEP:
        raise InputError(
            f"the envs have autoreset_mode={envs.autoreset_mode.value!r}, in which some steps are resets, and TorchRL "
            "has no such steps: make them with autoreset_mode='Disabled' or 'SameStep'"
        )
    if isinstance(envs.single_action_space, spaces.Dict | spaces.Tuple):
        raise InputError(
            f"TorchRL takes no batches of nested actions, found {envs.world.action_space}: expected a Discrete, "
            "MultiDiscrete, MultiBinary or Box"
        )
    torch_output = envs.output == "torch"
    wrapped = _DreamWrapper(
        envs,
        categorical_action_encoding=True,
        convert_actions_to_numpy=not torch_output,
        device=envs.world.device if torch_output else torch.device("cpu"),
    )
    return TransformedEnv(wrapped.base_env, _SameStep()) if isinstance(wrapped, TransformedEnv) else wrapped


class _DreamWrapper(GymWrapper):
    """A `GymWrapper` that reads the same few infos at every step, in all modes and on all devices.

    TorchRL takes the names of the infos from the first step that it sees. In our infos names come and go with the
    envs that they are about.
    """

    def __init__(self, env: ImaginedVectorEnv, **options: Any) -> None:
        super().__init__(env, **options)
        if env.autoreset_mode == AutoresetMode.DISABLED:
            number = Unbounded((env.num_envs,), dtype=torch.float32, device=self.device)
            spec = Composite({name: number.clone() for name in INFOS}, shape=(env.num_envs,))
            self.set_info_dict_reader(default_info_dict_reader(list(INFOS), spec))

    def _output_transform(self, step_outputs_tuple: tuple[Any, ...]) -> tuple[Any, ...]:
        observations, rewards, terminated, truncated, infos = step_outputs_tuple
        return observations, rewards, terminated, truncated, terminated | truncated, _step_infos(infos)

    def _reset_output_transform(self, reset_outputs_tuple: tuple[Any, ...]) -> tuple[Any, ...]:
        return reset_outputs_tuple[0], {}

    def _replace_reset(self, reset: Tensor | None, kwargs: dict[str, Any]) -> dict[str, Any]:
        """TorchRL's own takes no mask for a mistake and one on a GPU for one on the CPU."""
        if reset is None or self._env.autoreset_mode != AutoresetMode.DISABLED:
            return kwargs
        return kwargs | {"options": {**kwargs.get("options", {}), "reset_mask": reset.view(self.batch_size)}}


class _SameStep(VecGymEnvTransform):
    """Puts the last observations of episodes where TorchRL looks for them, and forgets them at a reset of all envs:
    TorchRL's own would show the stale first observations of the step before the reset.
    """

    def _reset(self, tensordict: TensorDictBase, tensordict_reset: TensorDictBase) -> TensorDictBase:
        if tensordict.get("_reset", None) is None:
            self._memo.clear()
        return super()._reset(tensordict, tensordict_reset)


def _step_infos(infos: dict[str, Any]) -> dict[str, Any]:
    """What TorchRL shall read of the infos of a step."""
    final = infos.get("final_info")
    if final is None:
        return {name: infos[name] for name in INFOS}
    # Where all episodes are over there are final infos only.
    own = {name: infos.get(name, 0 * final[name]) for name in INFOS}
    return own | {"final_obs": infos["final_obs"], "final_info": {name: final[name] for name in INFOS}}
