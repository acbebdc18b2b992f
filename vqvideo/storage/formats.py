"""Formats of saved models: what a folder holds, and one named, tested upgrade for each retired format."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor


class SavedModel(NamedTuple):
    """What a model folder holds."""

    config: dict[str, Any]
    tensors: dict[str, Tensor]


def name_the_loss_terms(saved: SavedModel) -> SavedModel:
    """Format 1 knew one weight, `l1_weight`, where format 2 has a group of them."""
    return saved._replace(config=_with_loss_terms(saved.config))


def _with_loss_terms(config: dict[str, Any]) -> dict[str, Any]:
    config = {key: _with_loss_terms(value) if key == "vqvae" else value for key, value in config.items()}
    model = config.get("model")
    if isinstance(model, dict) and "l1_weight" in model:
        kept = {key: value for key, value in model.items() if key != "l1_weight"}
        config["model"] = {**kept, "reconstruction": {"l1": model["l1_weight"]}}
    return config


def give_the_prior_a_backbone(saved: SavedModel) -> SavedModel:
    """In format 2 the layers of a world's prior stood beside its head, and no training hid its actions."""
    if "prior.embed.table.weight" not in saved.tensors:
        return saved
    moved = {_in_backbone(name): value for name, value in saved.tensors.items()}
    width = moved["prior.backbone.embed.place"].shape[1]
    moved["prior.backbone.actions.unknown"] = torch.zeros(width)
    return SavedModel({**saved.config, "prior": {**saved.config["prior"], "action_dropout": 0.0}}, moved)


def _in_backbone(name: str) -> str:
    parts = name.split(".")
    if parts[0] == "prior" and parts[1] in ("embed", "actions", "blocks"):
        parts.insert(1, "backbone")
    return ".".join(parts)


def name_the_two_hot(saved: SavedModel) -> SavedModel:
    """In format 3 the two-hot targets of rewards were always weighed in symlog space. (It recorded no `identity`
    either: models without one go by their settings, as all did then; see `HubModel.own_identity`.)
    """
    if "prior" not in saved.config:
        return saved
    return saved._replace(config={**saved.config, "prior": {**saved.config["prior"], "two_hot": "symlog"}})


MODEL_FORMAT = 4
"""Version of `config.json` and of the names of the tensors."""
UPGRADES: dict[int, Callable[[SavedModel], SavedModel]] = {
    1: name_the_loss_terms,
    2: give_the_prior_a_backbone,
    3: name_the_two_hot,
}
"""From format n to n + 1."""


def upgraded(saved: SavedModel, version: int) -> SavedModel:
    """A model of format `version` in today's."""
    while version < MODEL_FORMAT:
        saved = UPGRADES[version](saved)
        version += 1
    return saved
