"""How a training script starts: its processes, and the Accelerator with the precision and threads of this machine."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING

from vqvideo.errors import InputError
from vqvideo.storage.checkpoint import newest_progress
from vqvideo.training.hardware import best_precision, configure_threads, default_device
from vqvideo.training.signals import stop_with_launcher
from vqvideo.training.trainer import TrainConfig

if TYPE_CHECKING:
    from accelerate import Accelerator, PartialState


def make_accelerator(cfg: TrainConfig, run: Path, *, resume: bool = False) -> Accelerator:
    """An Accelerator with the threads and the precision that suit this machine.

    What was measured is kept: a resumed run takes the choices of the run that it continues, since other threads or
    another precision would give other bits.

    Args:
        cfg: how to train.
        run: folder of the stage.
        resume: whether an earlier run's checkpoints are continued.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedDataParallelKwargs

    on_cpu = join_processes().device.type == "cpu"
    local_world = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    # The state is shared by all Accelerators of a process, and would refuse another precision for the next stage.
    AcceleratorState._reset_state(reset_partial_state=False)
    earlier = newest_progress(run / "checkpoints") if resume else {}
    configure_threads(cfg.threads or earlier.get("threads"), local_world, on_cpu=on_cpu)
    measured = earlier.get("precision") or best_precision(on_cpu=on_cpu)
    precision = measured if cfg.precision == "auto" else cfg.precision
    # Codebook statistics are all-reduced where they are made, so broadcasting buffers would be waste.
    ddp = DistributedDataParallelKwargs(broadcast_buffers=False)
    tracker = "tensorboard" if importlib.util.find_spec("tensorboard") else None
    return Accelerator(mixed_precision=precision, kwargs_handlers=[ddp], log_with=tracker, project_dir=str(run))


def join_processes() -> PartialState:
    """The processes of this launch. Scripts call it before anything that only one of them must do.

    Raises:
        InputError: the launcher was asked for more processes than work together.
    """
    from accelerate import PartialState

    # Left alone, `PartialState` takes the processes of a launch on CPUs for strangers: each would be the main one.
    stop_with_launcher()
    state = PartialState(cpu=default_device().type == "cpu")
    check_processes(state.num_processes)
    return state


def check_processes(started: int) -> None:
    """Raises InputError if the launcher was asked for more processes than the number that was started: on CPUs,
    `accelerate launch --cpu --num_processes 2` quietly starts one.
    """
    world = os.environ.get("WORLD_SIZE")
    # The launcher passes the number on to nobody; but for more than one it sets a port, and without ranks.
    lonely = world is None and {"ACCELERATE_MIXED_PRECISION", "MASTER_PORT"} <= os.environ.keys()
    if started == 1 and (lonely or int(world or 1) > 1):
        raise InputError(
            f"{world or 'several'} processes were asked for, but they do not work together. On CPUs start them with: "
            f"ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes {world or 2} ..."
        )
