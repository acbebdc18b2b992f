"""How a training script starts: its processes, and the Accelerator with the precision and threads of this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from vqvideo.errors import InputError
from vqvideo.storage.checkpoint import newest_progress
from vqvideo.training.hardware import YES, best_precision, configure_threads, default_device
from vqvideo.training.signals import stop_with_launcher
from vqvideo.training.trackers import chosen_trackers
from vqvideo.training.trainer import TrainConfig

if TYPE_CHECKING:
    from accelerate import Accelerator, PartialState

_WHOLE = "Here every process has a whole model: launch with --multi_gpu, and without it"
_REFUSED = {
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": (
        "1",
        "it would divide every gradient unseen. Unset it; for micro batches set --vqvae.train.accumulate and "
        "--prior.train.accumulate",
    ),
    "ACCELERATE_DYNAMO_BACKEND": (
        "no",
        # Measured in fp32 with AVX2, after minutes of compiling: a step of the tokenizer no faster, the prior's by 9 %.
        "it would compile the model: that takes minutes, gains little on CPUs, and computes otherwise. Launch "
        "with --dynamo_backend no, or unset it",
    ),
    "ACCELERATE_USE_FSDP": ("", f"it would split up the model. {_WHOLE}"),
    "ACCELERATE_USE_DEEPSPEED": ("", f"it would split up the optimizer. {_WHOLE}"),
    "ACCELERATE_USE_MEGATRON_LM": ("", f"it would split up the model. {_WHOLE}"),
    "ACCELERATE_USE_PARALLELISM_CONFIG": ("", f"it would split up the model. {_WHOLE}"),
}
"""What Accelerate would obey without a word in any log: the value that changes nothing, and what all others would do.
(Those that are on or off have none.)
"""
_PRECISIONS = ("no", "bf16", "fp16")


def make_accelerator(cfg: TrainConfig, run: Path, *, resume: bool = False) -> Accelerator:
    """An Accelerator with the threads and the precision that suit this machine.

    A launcher may ask for bf16 or fp16, as `accelerate launch --mixed_precision bf16` does and what `accelerate config`
    saved; that is taken where `train.precision` is auto. What was measured or asked for is kept: a resumed run takes
    the choices of the run that it continues, since other threads or another precision would give other bits.
    (A run that follows the load begins with these threads, and its trainer changes them.)

    Args:
        cfg: how to train.
        run: folder of the stage.
        resume: whether an earlier run's checkpoints are continued.

    Raises:
        InputError: the launcher asks for what the settings, the earlier run or this machine contradict; or a tracker
            is not installed.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedDataParallelKwargs

    trackers = chosen_trackers(cfg)
    on_cpu = join_processes().device.type == "cpu"
    local_world = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    # The state is shared by all Accelerators of a process, and would refuse another precision for the next stage.
    AcceleratorState._reset_state(reset_partial_state=False)
    earlier = newest_progress(run / "checkpoints") if resume else {}
    threads = None if cfg.threads == "follow" else cfg.threads
    configure_threads(threads or earlier.get("threads"), local_world, on_cpu=on_cpu)
    precision = chosen_precision(cfg, earlier.get("precision"), run) or best_precision(on_cpu=on_cpu)
    if precision == "fp16" and on_cpu:
        # Accelerate would train in full precision and call it fp16.
        raise InputError("mixed precision fp16 needs a GPU: take bf16 on the CPU, or no")
    # Codebook statistics are all-reduced where they are made, so broadcasting buffers would be waste.
    ddp = DistributedDataParallelKwargs(broadcast_buffers=False)
    return Accelerator(
        mixed_precision=precision,
        kwargs_handlers=[ddp],
        log_with=trackers or None,
        project_dir=str(run / "tensorboard"),
    )


def join_processes() -> PartialState:
    """The processes of this launch. Scripts call it before anything that only one of them must do.

    Raises:
        InputError: the launcher was asked for more processes than work together, or for what would silently change
            the training.
    """
    from accelerate import PartialState

    refuse_unseen_settings()
    # Left alone, `PartialState` takes the processes of a launch on CPUs for strangers: each would be the main one.
    stop_with_launcher()
    state = PartialState(cpu=default_device().type == "cpu")
    check_processes(state.num_processes)
    return state


def refuse_unseen_settings() -> None:
    """Raises InputError for a variable that Accelerate would obey although no setting of the run says so: it is set in
    the shell, or by `accelerate launch` from its options or from what `accelerate config` saved.
    """
    for name, (neutral, effect) in _REFUSED.items():
        value = os.environ.get(name)
        if value is not None and (value.lower() != neutral if neutral else value.lower() in YES):
            raise InputError(f"{name} is {value}: {effect}")


def chosen_precision(cfg: TrainConfig, before: str | None, run: Path) -> str | None:
    """The precision that the settings name, or the launcher, or else that of the run that goes on (`before`); None if
    nobody chose one.

    Raises:
        InputError: they contradict each other, or the launcher asks for one that there is not.
    """
    asked = os.environ.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    by = f"the launcher asks for mixed precision {asked} (ACCELERATE_MIXED_PRECISION)"
    if asked not in _PRECISIONS:
        raise InputError(f"{by}, expected one of {', '.join(_PRECISIONS)}")
    own = None if cfg.precision == "auto" else cfg.precision
    # A launcher that was asked for nothing says "no" too: that is no contradiction.
    if asked == "no":
        return own or before
    if own not in (None, asked):
        raise InputError(
            f"{by}, but train.precision is {own}: launch with --mixed_precision no, or set "
            f"--{run.name}.train.precision {asked}"
        )
    if before not in (None, asked):
        raise InputError(
            f"{by}, but {run} was trained in {before}: launch with --mixed_precision no to go on as "
            "before, or start a new run with --name"
        )
    return asked


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
