"""What each of two processes does in `test_objective`: rank 1 alone meets a statistic that is not finite, in step 2.

Every rank prints how its training ended.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vqvideo.training.config import TrainConfig
from vqvideo.training.finite import NonFiniteError
from vqvideo.training.launch import make_accelerator
from vqvideo.training.run_folder import prepare_run
from vqvideo.training.trainer import Trainer


class Output(NamedTuple):
    loss: Tensor
    metrics: dict[str, Tensor]


class Toy(nn.Module):
    total: Tensor

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.rank, self.steps = rank, 0
        self.line = nn.Linear(2, 1)
        self.register_buffer("total", torch.zeros(()))

    def forward(self, x: Tensor) -> Output:
        if self.rank == 1 and self.steps == 2:
            self.total += torch.nan
        return Output(self.line(x).square().mean(), {})

    def after_step(self) -> None:
        self.steps += 1
        torch.distributed.all_reduce(self.total)


def main() -> None:
    """Trains until it ends."""
    cfg = TrainConfig(steps=4, batch=2, precision="no", threads=1)
    accelerator = make_accelerator(cfg, Path())
    model = Toy(accelerator.process_index)
    run = prepare_run(Path("run"), resume=False, settings=cfg, accelerator=accelerator)
    try:
        Trainer(model, cfg, run, accelerator).fit(
            lambda start, stop: ({"x": torch.ones(1, 2)} for _ in range(start, stop)), lambda model, step: {}
        )
    except NonFiniteError as error:
        print(f"rank {accelerator.process_index} after {model.steps} steps: {error}\n", end="", flush=True)


if __name__ == "__main__":
    main()
