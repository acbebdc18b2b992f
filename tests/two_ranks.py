"""What each of two processes does in `test_two_processes`: the tokenizer's training script, watched step by step.

    two_ranks.py CONFIG OUT

Writes the codebook after every step of the tokenizer's training to OUT/codebooks-<rank>.safetensors.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

import torch
from safetensors.torch import save_file

from vqvideo.models.tokenizer.vqvae import VQVAE
from vqvideo.scripts import train_vqvae
from vqvideo.training.launch import join_processes


def main(config: str, out: Path) -> None:
    """Trains the tokenizer through its script."""
    codebooks: list[torch.Tensor] = []
    after_step = VQVAE.after_step

    def watched(self: VQVAE) -> None:
        after_step(self)
        codebooks.append(self.codebook.clone())

    VQVAE.after_step = watched  # type: ignore[method-assign]
    state = join_processes()
    print(f"rank {state.process_index} of {state.num_processes}", flush=True)
    sys.argv = ["train.py", "--config", config]
    train_vqvae.main()
    save_file({"codebooks": torch.stack(codebooks)}, out / f"codebooks-{state.process_index}.safetensors")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
