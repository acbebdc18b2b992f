"""The script that measures how faithful dreams are, from end to end on tiny ones."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib import util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from processes import SCRIPTS
from tiny_models import tiny_store, tiny_world

from vqvideo import cli
from vqvideo.evaluation import evaluate_fidelity
from vqvideo.scripts import fidelity_plot

sys.path.insert(0, str(SCRIPTS))

from vqvideo.scripts import evaluate_dreams

Script = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a world model and six episodes, two of them held out."""
    home = tmp_path_factory.mktemp("home")
    tiny_store(home / "data" / "tiny_world", steps=25)
    tiny_world().save_pretrained(home / "runs" / "tiny_world" / "world")
    return home


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], home: Path) -> Script:
    """Runs the script in `home`; its exit code and output."""

    def run(*arguments: object) -> tuple[int, str]:
        fixed = ("--env", "TinyWorld", "--context", 2, "--horizon", 5, "--samples", 2, "--threads", 1)
        monkeypatch.chdir(home)
        monkeypatch.setattr(sys, "argv", ["evaluate_dreams.py", *map(str, (*fixed, *arguments))])
        code = 0
        try:
            cli.run(evaluate_dreams.main)
        except SystemExit as end:
            code = int(end.code or 0)
        shown = capsys.readouterr()
        return code, shown.out + shown.err

    return run


def test_tables_are_printed_and_everything_is_written_beside_the_world(measure: Script, home: Path) -> None:
    code, shown = measure()
    assert code == 0, shown
    found = json.loads((home / "runs" / "tiny_world" / "fidelity.json").read_text())
    assert found["settings"]["horizon"] == found["fidelity"]["horizon"] == 5
    assert {len(values) for values in found["fidelity"]["steps"].values()} == {5}
    assert {len(found["fidelity"]["returns"][of]) for of in ("real", "dream", "other_actions")} == {2}
    assert found["hardware"]["cores"] >= 1
    assert "split held_out: 2 episodes, 2 dream(s) of each" in shown
    for title in ("returns and lengths", "reward RMSE", "alive, dream", "Brier", "average precision"):
        assert title in shown
    assert "figures runs/tiny_world/fidelity.json" in shown


def test_the_figures_are_those_of_the_library_under_the_same_options(measure: Script, home: Path) -> None:
    from vqvideo.data.store import Store
    from vqvideo.models.prior import Sampling
    from vqvideo.world import WorldModel

    code, shown = measure("--seed", 3, "--temperature", 0.5, "--json", "out/script.json")
    assert code == 0, shown
    world = WorldModel.from_pretrained(home / "runs" / "tiny_world" / "world")
    how = Sampling(temperature=0.5)
    store = Store.open(home / "data" / "tiny_world")
    report = evaluate_fidelity(world, store, horizon=5, context=2, samples=2, sampling=how, seed=3)
    assert json.loads((home / "out" / "script.json").read_text())["fidelity"] == report.to_json()


def test_a_picture_is_drawn_where_it_is_asked_for(measure: Script, home: Path) -> None:
    pytest.importorskip("matplotlib")
    code, shown = measure("--plot", "pictures/dreams.png")
    assert code == 0, shown
    assert "picture pictures/dreams.png" in shown
    assert np.asarray(Image.open(home / "pictures" / "dreams.png")).std() > 1


def test_without_matplotlib_a_picture_is_refused_before_anything_is_dreamt(
    measure: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = lambda name: None if name == "matplotlib" else util.find_spec(name)  # noqa: E731
    monkeypatch.setattr(fidelity_plot, "find_spec", missing)
    code, shown = measure("--plot", "never.png")
    assert code == 2
    assert "pip install matplotlib" in shown
    assert "split held_out" not in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--episodes", 1), "--episodes is 1, expected at least 2"),
        (("--samples", 0), "--samples is 0, expected at least 1"),
        (("--horizon", 0), "--horizon is 0, expected at least 1"),
        (("--context", 0), "--context is 0, expected at least 1"),
        (("--horizon", 100), "the longest usable horizon is 11"),
        (("--context", 4), "the prior looks back over 3"),
        (("--world", "nowhere"), "no world model in nowhere"),
        (("--store", "nowhere"), "nowhere"),
        (("--guidance", -1), "guidance is -1.0"),
        (("--horizen", 3), "--horizon"),
    ],
)
def test_what_cannot_be_measured_is_explained(measure: Script, arguments: tuple[object, ...], message: str) -> None:
    code, shown = measure(*arguments)
    assert code == 2
    assert message in shown
