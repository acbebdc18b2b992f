"""The quickstart's table says which floor a run reached."""

from __future__ import annotations

from typing import Any

import pytest

from vqvideo.scripts import quickstart


def figures(
    psnr: float = 40.0, codes: float = 1.0, gains: tuple[float, ...] = (7.0,) * 16, actions: float = 5.0
) -> Any:
    return {
        "tokenizer": {"psnr_db": psnr, "codes_used": codes},
        "prior": {"psnr_gain_db": list(gains), "controllability_db": actions},
    }


@pytest.mark.parametrize(
    ("found", "floor"),
    [
        (figures(), "fast machine"),
        (figures(psnr=37.9), "ordinary machine"),
        (figures(gains=(1.9, *[9.0] * 15)), "busy machine"),  # the mean alone does not do
        (figures(gains=(5.0,) * 8 + (-3.0,) * 8), "ordinary machine"),  # beyond 8 steps it is not looked at
        (figures(codes=0.97), "busy machine"),
        (figures(actions=3.9), "busy machine"),
        (figures(psnr=33.0, gains=(0.0,) * 16, actions=0.0), "busy machine"),
        (figures(gains=(-0.1, *[9.0] * 15)), None),
        (figures(psnr=32.9), None),
    ],
)
def test_a_floor_holds_in_every_respect_or_not_at_all(found: dict[str, Any], floor: str | None) -> None:
    reached = quickstart.floor_reached(found)
    assert (reached and reached.name) == floor


def test_the_table_names_the_floor_and_what_it_asks_for() -> None:
    assert quickstart.floor_text(figures(psnr=36.0)) == (
        "ordinary machine: 35.5 dB, 98% of the codes, +4.5 dB over repeating (worst +2), true actions +4 dB"
    )
    assert quickstart.floor_text(figures(psnr=20.0)).startswith("below that of a busy machine: 33 dB")
