"""How scripts let their users say how codes are drawn."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from vqvideo.models.prior import Sampling

if TYPE_CHECKING:
    from vqvideo.models.imagination import Imaginer


@dataclass(frozen=True)
class Drawing:
    """How to draw codes; what is left away is as the world was trained for."""

    temperature: float | None = None
    """Divides the logits; 0 takes the likeliest code."""
    top_k: int | None = None
    """Keep only the k likeliest codes; 0 keeps all."""
    top_p: float | None = None
    """Keep the smallest set of codes that holds this probability; 1 keeps all."""
    guidance: float | None = None
    """How strongly the actions count: 1 as learnt, more than 1 exaggerates them, 0 dreams without them."""

    def __post_init__(self) -> None:
        replace(Sampling(), **self._said())

    def of(self, world: Imaginer) -> Sampling:
        """How codes of this world are drawn."""
        return replace(world.sampling, **self._said())

    def _said(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}
