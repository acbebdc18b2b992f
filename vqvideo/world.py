"""The front door: a world model that is saved and loaded, found by name, and handed out as an environment."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias, cast

import torch
from torch import nn

from vqvideo import pretrained
from vqvideo.errors import InputError
from vqvideo.export import OnnxWorld
from vqvideo.models.imagination import EnvFacts, Imagination, Imaginer, WorldState, WorldStep
from vqvideo.models.prior import Prior, PriorConfig, PriorSpec, Sampling
from vqvideo.models.tokenizer.vqvae import VQVAE
from vqvideo.storage.checkpoint import WEIGHTS, build_and_load
from vqvideo.storage.files import standing
from vqvideo.storage.formats import SavedModel
from vqvideo.storage.hub import HubModel
from vqvideo.storage.records import to_plain, typed
from vqvideo.training.hardware import device_named

if TYPE_CHECKING:
    from vqvideo.imagined_env import ImaginedEnv, ImaginedVectorEnv, StartsLike

__all__ = ["EnvFacts", "Imagination", "WorldModel", "WorldState", "WorldStep", "make_env", "make_vector_env"]


class WorldModel(Imaginer, HubModel):
    """A world model: a tokenizer and the prior over its codes. Reads a few frames, then imagines what given actions do.

    `imagine`, `start` and `step` come from `vqvideo.models.imagination.Imaginer`; `save_pretrained`, `push_to_hub` and
    the rest of `from_pretrained` from `vqvideo.storage.hub.HubModel`.

    Example:
        >>> world = WorldModel.from_pretrained("runs/car_racing/world")
        >>> dream = world.imagine(frames, actions, seed=0)
        >>> dream.frames.shape
        torch.Size([1, 32, 3, 64, 64])
        >>> envs = world.as_env(16, starts="data/car_racing", horizon=50)
    """

    kind = "world"

    def as_env(self, num_envs: int, starts: StartsLike, **options: Any) -> ImaginedVectorEnv:
        """A batch of imagined environments, for agents: see `vqvideo.imagined_env.ImaginedVectorEnv`.

        Args:
            num_envs: how many.
            starts: where episodes begin: a store, its folder, clips.
            options: horizon, autoreset_mode, sampling, ...
        """
        # Not at the top: a world that only imagines needs no Gymnasium and no store.
        from vqvideo.imagined_env import ImaginedVectorEnv

        return ImaginedVectorEnv(self, starts, num_envs, **options)

    def config(self) -> dict[str, Any]:
        found = {
            "vqvae": self.vqvae.config(),
            "prior": to_plain(self.prior.cfg),
            # Taken anew: in half precision it is another tokenizer than the one whose codes the prior was trained on.
            "spec": to_plain(replace(self.prior.spec, tokenizer=self.vqvae.fingerprint())),
            "env": to_plain(self.env),
        }
        # Without what is so anyway, worlds keep the files and the fingerprint of before there was a choice.
        return found if self.sampling == Sampling() else found | {"sampling": to_plain(self.sampling)}

    def own_identity(self) -> dict[str, Any]:
        config = self.config()
        # Worlds from before there was a choice keep their fingerprint.
        if config["prior"]["two_hot"] == "symlog":
            del config["prior"]["two_hot"]
        # Nor do those for which later settings change nothing.
        if not config["spec"]["missing"]:
            del config["spec"]["missing"]
        if not config["prior"]["own_draws"]:
            del config["prior"]["own_draws"]
        return config

    def record(self) -> dict[str, Any]:
        # The prior asks for its tokenizer by fingerprint, which must be the same one whenever both are loaded.
        return super().record() | {"vqvae": self.vqvae.record()}

    @classmethod
    def from_saved(cls, saved: SavedModel, source: str, quantizer: nn.Module | None = None) -> Self:
        config = saved.config
        parts: dict[str, dict[str, torch.Tensor]] = {"vqvae": {}, "prior": {}}
        for name, value in saved.tensors.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = value
        vqvae = VQVAE.from_saved(SavedModel(config["vqvae"], parts["vqvae"]), source, quantizer)
        spec = typed(PriorSpec, config["spec"], f"{source}: spec")
        cfg = typed(PriorConfig, config["prior"], f"{source}: prior")
        prior = build_and_load(
            lambda: Prior(cfg, spec, torch.zeros(spec.codebook_size, spec.code_dim)),
            parts["prior"],
            f"{source}/{WEIGHTS}",
        )
        sampling = typed(Sampling, config.get("sampling", {}), f"{source}: sampling")
        world = cls(vqvae, prior, typed(EnvFacts, config["env"], f"{source}: env"), sampling)
        world.recorded = config.get("identity")
        return world

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, *, quantizer: nn.Module | None = None, **hub: Any
    ) -> Self:
        """As `HubModel.from_pretrained`, and by the name of a world that comes along: see `vqvideo.pretrained`."""
        name = str(pretrained_model_name_or_path)
        shipped = None if standing(name).is_dir() else pretrained.find(name)
        return super().from_pretrained(shipped or name, quantizer=quantizer, **hub)

    @classmethod
    def alternatives(cls, name: str) -> str:
        """The worlds that come along."""
        hint = pretrained.hint(name)
        return f" or a world that comes with vqvideo: {hint}" if hint else ""


WorldLike: TypeAlias = WorldModel | OnnxWorld | str | Path
"""A model, its folder, the name of one that comes along, or an exported world or its folder."""


def make_env(
    world: WorldLike, starts: StartsLike | None = None, device: str | None = None, **options: Any
) -> ImaginedEnv:
    """One imagined environment.

    Args:
        world: a model, its folder, the name of one that comes with vqvideo, or one that was exported to ONNX.
        starts: where episodes begin; a world that comes with vqvideo has start clips of its own, and so has an exported
            one.
        device: where to put a model that is loaded; by default the best there is.
        options: as of `ImaginedVectorEnv`.
    """
    from vqvideo.imagined_env import ImaginedEnv

    return ImaginedEnv(*_loaded(world, starts, device, options.get("context", 1)), **options)


# What `gymnasium.make` looks for at a class: it then collects frames itself for "rgb_array_list".
make_env.metadata = {"render_modes": ["human", "rgb_array"]}  # type: ignore[attr-defined]


def make_vector_env(
    world: WorldLike,
    starts: StartsLike | None = None,
    num_envs: int = 1,
    device: str | None = None,
    **options: Any,
) -> ImaginedVectorEnv:
    """A batch of imagined environments; arguments as of `make_env`."""
    from vqvideo.imagined_env import ImaginedVectorEnv

    return ImaginedVectorEnv(*_loaded(world, starts, device, options.get("context", 1)), num_envs, **options)


def _loaded(
    world: WorldLike, starts: StartsLike | None, device: str | None, context: int
) -> tuple[Imaginer, StartsLike]:
    if not isinstance(world, WorldModel):
        exported = world if isinstance(world, OnnxWorld) else _exported(world)
        if exported is not None:
            return _dreams_of(exported, starts, device, context)
        assert not isinstance(world, OnnxWorld)
    if starts is None:
        shipped = None if isinstance(world, WorldModel) else pretrained.find(str(world))
        if shipped is None:
            raise InputError(
                "starts is missing: give the store that imagined episodes begin from, such as starts='data/car_racing'"
            )
        starts = pretrained.start_store(str(world))
    if not isinstance(world, WorldModel):
        world = WorldModel.from_pretrained(world).to(device_named(device))
    elif device is not None and device_named(device) != world.device:
        raise InputError(f"device is {device!r}, but this model is on {world.device}: move it, world.to({device!r})")
    return world, starts


def _exported(folder: str | Path) -> OnnxWorld | None:
    """The exported world in a folder; None if there is none."""
    place = standing(folder)
    return OnnxWorld(place) if (place / "step.onnx").is_file() else None


def _dreams_of(
    world: OnnxWorld, starts: StartsLike | None, device: str | None, context: int
) -> tuple[Imaginer, StartsLike]:
    from vqvideo.imagined_env.onnx import OnnxDreams

    if device not in (None, "cpu"):
        raise InputError(f"device is {device!r}, but an exported world dreams on the CPU: leave it out")
    dreams = OnnxDreams(world)
    # It answers all that environments ask of an Imaginer.
    return cast(Imaginer, dreams), dreams.starts(context) if starts is None else starts
