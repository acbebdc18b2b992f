"""What trained models are worth on held-out clips, one file per kind of model."""

from vqvideo.evaluation.prior import evaluate_prior
from vqvideo.evaluation.tokenizer import evaluate_tokenizer, reconstruction_speed, stack_frames
from vqvideo.evaluation.world import Dreaming, HorizonReport, evaluate_world, imagination_speed

__all__ = [
    "Dreaming",
    "HorizonReport",
    "evaluate_prior",
    "evaluate_tokenizer",
    "evaluate_world",
    "imagination_speed",
    "reconstruction_speed",
    "stack_frames",
]
