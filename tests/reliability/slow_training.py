"""What `accelerate launch` starts in an experiment: the tokenizer's training script, with steps slow enough to be met.

slow_training.py SCRIPTS CONFIG
"""

from __future__ import annotations

import sys
import time

sys.path.insert(0, sys.argv[1])

from vqvideo import cli
from vqvideo.models.tokenizer.vqvae import VQVAE
from vqvideo.scripts import train_vqvae

real = VQVAE.after_step


def slowly(self: VQVAE) -> None:
    """A step and a tenth of a second."""
    time.sleep(0.1)
    real(self)


VQVAE.after_step = slowly  # type: ignore[method-assign]
sys.argv = ["train_vqvae.py", "--config", sys.argv[2], "--resume"]
cli.run(train_vqvae.main)
