"""Settings stand apart from what is built of them: `--help` reads them, and does not wait for torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from vqvideo.models import prior

ROOT = Path(__file__).parents[2]


def test_settings_are_read_without_torch() -> None:
    code = (
        "import sys\n"
        "from vqvideo.models.prior import PriorConfig, Sampling\n"
        "from vqvideo.models.quantizers import EMAVQConfig, FSQConfig\n"
        "from vqvideo.models.tokenizer import VQVAEConfig\n"
        "PriorConfig(), Sampling(), VQVAEConfig(quantizer=FSQConfig())\n"
        "print('torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (run.stdout.strip(), run.stderr) == ("False", "")


def test_a_room_has_only_its_own_names() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Pryor'"):
        _ = prior.Pryor
