"""The quantizer bake-off: the same conditions for all, one table."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from tiny_models import tiny_experiment, tiny_store

from vqvideo.errors import InputError
from vqvideo.quantizers import EMAVQConfig, FSQConfig, QuantizerConfig

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

from bakeoff import contestants, measure, table


def test_every_quantizer_takes_part_at_about_ten_bits() -> None:
    everyone = contestants(())
    assert {type(config) for config in everyone.values()} == set(get_args(QuantizerConfig))
    assert all(config.build().bits == pytest.approx(10, abs=0.05) for config in everyone.values())


def test_a_choice_can_be_made_and_a_misspelt_one_is_explained() -> None:
    assert list(contestants(("FSQ",))) == ["FSQ"]
    with pytest.raises(InputError, match="--kinds EMVQ: did you mean EMAVQ"):
        contestants(("EMVQ",))


def test_each_quantizer_trains_in_a_folder_of_its_own_and_gets_a_row(tmp_path: Path) -> None:
    cfg, store = tiny_experiment(tmp_path, steps=3), tiny_store(tmp_path / "data")
    small = {"EMAVQ": EMAVQConfig(codebook_size=16, dim=4), "FSQ": FSQConfig(levels=(4, 4))}
    rows = {kind: measure(cfg, store, kind, quantizer) for kind, quantizer in small.items()}
    assert {row["steps"] for row in rows.values()} == {3}
    assert rows["EMAVQ"]["bits"] == rows["FSQ"]["bits"] == 4
    assert {path.name for path in (cfg.folder / "bakeoff").iterdir()} == {"EMAVQ", "FSQ"}
    lines = table(rows).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| EMAVQ", "| FSQ"]
    assert lines[0].count("|") == lines[1].count("|") == lines[2].count("|")


def test_a_bakeoff_goes_on_where_it_stopped(tmp_path: Path) -> None:
    cfg, store = tiny_experiment(tmp_path, steps=3), tiny_store(tmp_path / "data")
    first = measure(cfg, store, "FSQ", FSQConfig(levels=(4, 4)))
    assert measure(replace(cfg), store, "FSQ", FSQConfig(levels=(4, 4))) == first
