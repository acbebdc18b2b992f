"""A suite: variants of one experiment that differ in a few settings each, for comparisons under equal conditions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from vqvideo.errors import InputError, suggest
from vqvideo.experiment.config import Experiment
from vqvideo.storage.records import from_plain, read_yaml, to_plain

E = TypeVar("E", bound=Experiment)


@dataclass(frozen=True)
class Suite:
    """What a suite file says: the settings that make each variant, as plain nested values."""

    name: str
    """The file's name without ending."""
    variants: Mapping[str, Mapping[str, Any]]
    """Changes of the experiment, by the variant's name."""

    @classmethod
    def read(cls, path: Path) -> Suite:
        """The suite in a YAML file of names and nested settings."""
        variants = read_yaml(path)
        if not variants:
            raise InputError(f"{path}: no variants; expected a name and its settings on each line")
        for name, changes in variants.items():
            if not isinstance(changes, dict):
                raise InputError(f"{path}: variant {name!r} is {changes!r}, expected nested settings, or {{}}")
        return cls(path.stem, {str(name): changes for name, changes in variants.items()})

    def chosen(self, names: tuple[str, ...]) -> list[str]:
        """The variants called `names`, in the suite's order; all for none. InputError for an unknown name."""
        for name in names:
            if name not in self.variants:
                raise InputError(f"suite {self.name} has no variant {name!r}: {suggest(name, self.variants)}")
        return [name for name in self.variants if not names or name in names]

    def experiment(self, cfg: E, name: str) -> E:
        """The experiment with the settings of a variant."""
        return changed(cfg, self.variants[name], f"{self.name}.{name}")


def changed(cfg: E, changes: Mapping[str, Any], where: str) -> E:
    """The same settings with some of them replaced. A group that gets another `kind` starts from that kind's defaults.

    Args:
        cfg: the settings.
        changes: plain nested values, as in a YAML file.
        where: names `changes` in errors.
    """
    result: E = from_plain(type(cfg), _merged(to_plain(cfg), changes), where)
    return result


def _merged(plain: Any, changes: Any) -> Any:
    if not isinstance(plain, Mapping) or not isinstance(changes, Mapping):
        return changes
    if "kind" in changes and changes["kind"] != plain.get("kind"):
        return changes
    return {**plain, **{key: _merged(plain.get(key), value) for key, value in changes.items()}}
