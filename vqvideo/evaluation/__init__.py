"""What trained models are worth on held-out clips, one file per kind of model."""

from vqvideo.data.clips import stack_frames
from vqvideo.evaluation.fidelity import FidelityReport, evaluate_fidelity
from vqvideo.evaluation.frame_sets import BlockDistances, FrechetConfig
from vqvideo.evaluation.horizon import Compared, HorizonReport
from vqvideo.evaluation.prior import evaluate_prior, likelihood_kind
from vqvideo.evaluation.speed import Dreaming, imagination_speed
from vqvideo.evaluation.tokenizer import evaluate_tokenizer
from vqvideo.evaluation.world import evaluate_world

__all__ = [
    "BlockDistances",
    "Compared",
    "Dreaming",
    "FidelityReport",
    "FrechetConfig",
    "HorizonReport",
    "evaluate_fidelity",
    "evaluate_prior",
    "evaluate_tokenizer",
    "evaluate_world",
    "imagination_speed",
    "likelihood_kind",
    "stack_frames",
]
