"""What each of two processes does in `test_two_processes`: short trainings with a row of ordinary settings.

    two_rank_settings.py FOLDER

Writes to FOLDER/<rank>.json, of each setting by name, what went wrong; nothing after the first that did.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from tiny_models import tiny_experiment
from tiny_tokenizers import QUANTIZERS, small_quantizer

from vqvideo.data import code_cache
from vqvideo.data.codes import CodeArrays, encode_episode
from vqvideo.data.config import StillsConfig
from vqvideo.data.store import Store
from vqvideo.experiment.config import Experiment, vqvae_folder
from vqvideo.experiment.prior import train_prior
from vqvideo.experiment.tokenizer import train_vqvae
from vqvideo.models.prior import ConditioningConfig, HeadConfig, PoolingConfig
from vqvideo.models.tokenizer import PatchDiscriminator3D
from vqvideo.training.launch import join_processes
from vqvideo.training.processes import gathered
from vqvideo.training.trainer import Trainer

TOKENIZERS: dict[str, dict[str, Any]] = {
    **{f"tokenizer with {kind.__name__}": {"quantizer": small_quantizer(kind)} for kind in QUANTIZERS},
    "tokenizer with stills": {"stills": StillsConfig(per_batch=2)},
    "tokenizer with an adversary": {"adversarial": PatchDiscriminator3D(width=4, start_step=1)},
}
PRIORS: dict[str, dict[str, Any]] = {
    "prior that sees all actions": {"action_dropout": 0.0},
    "prior that sees the true past": {"corruption": 0.0},
    "prior that sees everything": {"action_dropout": 0.0, "corruption": 0.0},
    "prior without weight on outcomes": {"reward_weight": 0.0, "termination_weight": 0.0},
    "prior of patches": {"patch": 2},
    **{
        f"prior with {kind.__name__}": {part: kind()}
        for part, union in (("head", HeadConfig), ("conditioning", ConditioningConfig), ("pooling", PoolingConfig))
        for kind in get_args(union)
    },
}


def experiment(folder: Path, name: str, **train: Any) -> Experiment:
    """A tiny experiment with one of the settings."""
    cfg = replace(tiny_experiment(folder, steps=3, batch=4, validate_every=9, **train), name=name.replace(" ", "_"))
    changes = TOKENIZERS.get(name, {})
    if "quantizer" in changes:
        changes = {"model": replace(cfg.vqvae.model, **changes)}
    prior = replace(cfg.prior.model, heads=4, **PRIORS.get(name, {}))
    return replace(cfg, vqvae=replace(cfg.vqvae, **changes), prior=replace(cfg.prior, model=prior))


def check(trainer: Trainer) -> None:
    """All ranks hold the same weights, and they have learnt."""
    sums = gathered(*(float(value.double().abs().sum()) for value in trainer.model.state_dict().values()))
    assert sums[0] == sums[1], "the ranks hold different weights"
    (line, *_) = [record for record in trainer.run.records() if record["step"] == 3]
    assert line["gradient_norm"] > 0, "nothing was learnt"


def main(folder: Path) -> None:
    """Trains with all settings."""
    rank = join_processes().process_index
    fit = Trainer.fit

    def checked(self: Trainer, *arguments: Any) -> dict[str, float]:
        figures = fit(self, *arguments)
        check(self)
        return figures

    Trainer.fit = checked  # type: ignore[method-assign]
    store, first = Store.open(folder / "data"), experiment(folder, next(iter(TOKENIZERS)))
    wrong: dict[str, str] = {}
    encoded = 0

    def counted(*arguments: Any) -> CodeArrays:
        nonlocal encoded
        encoded += 1
        return encode_episode(*arguments)

    code_cache.encode_episode, code_cache._SHARD_FRAMES = counted, 1
    for name in [*TOKENIZERS, *PRIORS]:
        try:
            if name in TOKENIZERS:
                train_vqvae(experiment(folder, name), store)
            else:
                train_prior(experiment(folder, name), store, tokenizer=vqvae_folder(first))
            wrong[name] = ""
        except Exception as error:
            wrong[name] = f"{type(error).__name__}: {error}"
            break
        finally:
            (folder / f"{rank}.json").write_text(json.dumps({"encoded": f"{encoded} episodes", **wrong}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
