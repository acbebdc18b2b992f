"""What a training left, and where that of two runs differs."""

from __future__ import annotations

import hashlib
from pathlib import Path

from reliability.lives import Plan
from vqvideo.experiment.config import vqvae_folder, world_folder
from vqvideo.storage.checkpoint import load_training, training_checkpoints
from vqvideo.training.run_folder import RunFolder


def results(plan: Plan) -> dict[str, str]:
    """Digests of all that must not depend on interruptions, by name: logged lines (but for the time they took),
    weights, optimizer, averages and codebook of the last checkpoint, the exported model.
    """
    checkpoints = training_checkpoints(plan.run / "checkpoints")
    state = load_training(checkpoints[-1])
    # Which others are kept depends on where a signal stopped the run.
    found = {"checkpoints": f"{len(checkpoints)} up to {checkpoints[-1].name}"}
    for part in ("model", "optimizer", "average"):
        for name, value in getattr(state, part).items():
            found[f"{part} {name}"] = hashlib.sha256(value.contiguous().numpy().tobytes()).hexdigest()
    for number, record in enumerate(RunFolder(plan.run).records(), 1):
        # After a stop the usage of the codes is counted over fewer steps.
        free = {"seconds"} | ({"codes_used", "effective_bits", "perplexity"} if record["split"] == "train" else set())
        # Floats with all their digits: a difference in the last bit is a difference.
        figures = {key: float(v).hex() if isinstance(v, float) else v for key, v in record.items() if key not in free}
        found[f"line {number} of metrics.jsonl"] = str(figures)
    exported = vqvae_folder(plan.cfg) if plan.stage == "vqvae" else world_folder(plan.cfg)
    for name in ("model.safetensors", "config.json"):
        found[f"exported {name}"] = _digest(exported / name)
    return found


def differences(found: dict[str, str], expected: dict[str, str]) -> list[str]:
    """Names of what differs or is there only once."""
    return [name for name in sorted(found.keys() | expected.keys()) if found.get(name) != expected.get(name)]


def leftovers(plan: Plan) -> list[str]:
    """Files that a finished run must not leave behind."""
    return [str(p.relative_to(plan.folder)) for p in plan.run.rglob("*") if p.name.startswith((".tmp-", ".lock"))]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
