"""What trained models are worth on held-out clips, one file per kind of model."""

from typing import TYPE_CHECKING

from vqvideo.models import on_first_use

if TYPE_CHECKING:
    from vqvideo.evaluation.fidelity import FidelityReport, evaluate_fidelity
    from vqvideo.evaluation.frame_sets import BlockDistances, FrechetConfig
    from vqvideo.evaluation.horizon import HorizonReport
    from vqvideo.evaluation.prior import evaluate_prior
    from vqvideo.evaluation.speed import Dreaming, imagination_speed
    from vqvideo.evaluation.tokenizer import evaluate_tokenizer
    from vqvideo.evaluation.world import evaluate_world

_HOMES = {
    "fidelity": ("FidelityReport", "evaluate_fidelity"),
    "frame_sets": ("BlockDistances", "FrechetConfig"),
    "horizon": ("HorizonReport",),
    "prior": ("evaluate_prior",),
    "speed": ("Dreaming", "imagination_speed"),
    "tokenizer": ("evaluate_tokenizer",),
    "world": ("evaluate_world",),
}
__getattr__ = on_first_use(__name__, _HOMES)
