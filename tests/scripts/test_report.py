"""report.py: one page with every part, whose figures are those of the library, that needs no network."""

from __future__ import annotations

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import film_world, tiny_experiment, tiny_store, tiny_world
from videos import moving_frames

from vqvideo.data import write_store
from vqvideo.data.clips import Clips
from vqvideo.data.store import Store
from vqvideo.evaluation.prior import teacher_forced
from vqvideo.evaluation.tokenizer import evaluate_tokenizer
from vqvideo.evaluation.world import evaluate_world
from vqvideo.experiment.finding import Source
from vqvideo.models.prior import Sampling
from vqvideo.scripts import fidelity_plot, report
from vqvideo.storage.records import to_plain, without_nan, write_yaml
from vqvideo.world import WorldModel

pytest.importorskip("matplotlib")

Called = Callable[..., tuple[int, str]]
SMALL = ("--clips", 3, "--shown", 1, "--context", 2, "--horizon", 3, "--teacher-steps", 4, "--threads", 1)
LINE = {"step": 2, "split": "held_out", "seconds": 60.0, "psnr_db": 20.0, "token_nats": 2.0}


class Page(HTMLParser):
    """What a page asks for, and what it says."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text = path.read_text()
        self.asks: list[str] = []
        self.tags: list[str] = []
        self.titles: list[str] = []
        self.feed(self.text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        asking = ("src", "href", "xlink:href", "srcset", "data", "action", "poster")
        self.asks += [value or "" for name, value in attributes if name in asking]

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] == "h2":
            self.titles.append(data.strip())
            self.tags.append("")

    @property
    def figures(self) -> list[dict[str, Any]]:
        return json.loads(self.text.partition('id="figures">')[2].partition("</script>")[0])


def make_run(folder: Path, store: Path, seed: int = 0, *, stride: int = 2) -> None:
    """A run as a training leaves it: its world, its settings, its logs."""
    tiny_world(stride, seed=seed).save_pretrained(folder / "world")
    cfg = tiny_experiment(folder.parent)
    plain = to_plain(cfg)
    plain["record"]["out"] = str(store)
    for stage in ("vqvae", "prior"):
        (folder / stage).mkdir()
        (folder / stage / "config.yaml").write_text(write_yaml(plain))
        (folder / stage / "metrics.jsonl").write_text(json.dumps(LINE) + "\n")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs on the same episodes; one has a name that HTML reads otherwise, and another time stride."""
    home = tmp_path_factory.mktemp("home")
    tiny_store(home / "episodes")
    (home / "runs").mkdir()
    make_run(home / "runs" / "tiny", home / "episodes")
    make_run(home / "runs" / "<b>&co", home / "episodes", seed=1, stride=1)
    return home


@pytest.fixture
def reported(home: Path, monkeypatch: pytest.MonkeyPatch, called: Called) -> Called:
    """Runs the script in `home`."""
    monkeypatch.chdir(home)
    monkeypatch.setattr("vqvideo.evaluation.report.measure.imagination_speed", lambda world, streams: 10.0 * streams)
    return lambda *arguments: called(report.main, *SMALL, *arguments)


def test_a_page_has_all_parts_and_asks_for_nothing(reported: Called, home: Path) -> None:
    code, said = reported("--run", "runs/tiny")
    assert code == 0, said
    page = Page(home / "runs" / "tiny" / "report.html")
    assert page.titles == [
        *("Figures", "Dreams along the horizon", "Real, reconstructed, imagined", "What if", "The worst clips"),
        *("Rate and distortion", "Use of the codes", "Codes over a clip", "Training", "Speed", "Protocol"),
    ]
    assert all(ask.startswith(("data:image/webp;base64,", "#")) for ask in page.asks)
    assert sum(ask.startswith("data:") for ask in page.asks) == 3 + 7 + 3 + 2
    assert {"link", "iframe", "object", "embed"}.isdisjoint(page.tags)
    assert "url(http" not in page.text
    assert "@import" not in page.text
    assert "vqvae 2 steps in 1.0 min" in page.text
    assert page.text.count("<svg ") == 7 + 1 + 1 + 2
    assert "Tokenizer: held-out PSNR" in page.text


def test_its_figures_are_those_of_the_library(reported: Called, home: Path) -> None:
    assert reported("--run", "runs/tiny", "--seed", 3, "--temperature", 0.5, "--out", "made/page.html")[0] == 0
    page = Page(home / "made" / "page.html")
    (figures,) = page.figures
    world, store = WorldModel.from_pretrained(home / "runs" / "tiny" / "world"), Store.open(home / "episodes")
    clips = Clips(store, "held_out", world.vqvae.clip_length(5))
    dreams = evaluate_world(world, clips, 3, 2, Sampling(temperature=0.5), seed=3)
    assert figures["dreams"] == dreams.to_json()
    tokenizer, told = evaluate_tokenizer(world.vqvae, clips, 3), teacher_forced(world, store, 4)
    assert figures["tokenizer"] == tokenizer
    assert figures["teacher_forced"] == without_nan(told)
    assert f'<th scope="row">tokenizer: PSNR, dB</th><td>{tokenizer["psnr_db"]:.2f}</td>' in page.text
    assert f"<td>{dreams.psnr['imagined'].mean():.2f}</td>" in page.text
    low, high = dreams.quartiles("psnr")
    assert (low <= high).all()
    assert dreams.by_clip["psnr", "imagined"].mean(axis=0) == pytest.approx(dreams.psnr["imagined"])


def test_the_dreams_that_are_shown_are_those_that_were_measured(home: Path) -> None:
    from vqvideo.evaluation.report.measure import Questions, Subject, measure

    world, store = WorldModel.from_pretrained(home / "runs" / "tiny" / "world"), Store.open(home / "episodes")
    clips = Clips(store, "held_out", world.vqvae.clip_length(5))
    found = measure(Subject("tiny", world, clips, {}, {}, {}), Questions(clips=18, context=2, teacher_steps=4))
    assert found.report.clips == 18
    for number in {*found.shown, *found.worst}:
        real, _, dreamt = (row.astype(float) / 255 for row in found.dreams[number])
        # Below the line that marks it as dreamt.
        error = np.square(real - dreamt)[3:, 1:].reshape(3, -1).mean(axis=1)
        assert -10 * np.log10(error) == pytest.approx(found.report.by_clip["psnr", "imagined"][number], abs=0.5)
    assert list(found.fan)[2:] == [f"action = {value}" for value in range(5)][:6]


def test_runs_beside_each_other_show_the_same_clips_whatever_their_strides(reported: Called, home: Path) -> None:
    code, said = reported("--compare", "runs/tiny", "runs/<b>&co", "--context", "None")
    assert code == 0, said
    page = Page(home / "runs" / "tiny" / "comparison.html")
    assert [one["name"] for one in page.figures] == ["tiny", "<b>&co"]
    assert [len(one["dreams"]["psnr_db"]) for one in page.figures] == [3, 6]
    # By default as much as both priors, which look back over 3 steps, can be shown: 3 frames.
    assert [one["dreams"]["context"] for one in page.figures] == [2, 3]
    repeats = [np.mean(one["dreams"]["psnr_repeat_db"]) for one in page.figures]
    assert repeats[0] == pytest.approx(repeats[1])
    assert "&lt;b&gt;&amp;co" in page.text
    assert "b" not in page.tags
    assert "<b>" not in page.text
    assert page.text.count('class="best"') >= 6
    assert "imagined, &lt;b&gt;&amp;co" in page.text


def test_films_have_a_page_without_actions(reported: Called, home: Path) -> None:
    film_world().save_pretrained(home / "films")
    write_store("film_store", [{"frames": moving_frames(25, (16, 16))}] * 4, fps=10, held_out_every=2)
    code, said = reported("--world", "films", "--store", "film_store", "--out", "films.html", "--clips", 2)
    assert code == 0, said
    assert "What if" not in Page(home / "films.html").titles


def test_runs_of_one_name_are_told_apart() -> None:
    sources = [Source(), Source(), Source(name="y")]
    assert report.titles(sources) == ["car_racing (1)", "car_racing (2)", "y"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--run", "nowhere"), "nowhere: no world model in it"),
        (("--run", "runs/lonely"), "nothing there says which episodes it trained on: name them, such as --store"),
        (
            ("--world", "runs/tiny/world", "--env", "Nowhere-v0"),
            "no episodes in data/nowhere_v0. Name others with --store",
        ),
        (("--run", "runs/moved"), "which are not there: name others with --store"),
        (("--run", "runs/tiny", "--store", "no_held_out"), "has 0 clips of length 9 in split held_out"),
        (("--run", "runs/tiny", "--horizon", "100"), "here with --context 2 and --horizon 100"),
        (("--compare", "runs/tiny"), "expected at least two runs"),
        (("--compare", "runs/tiny", "carracing"), "the world model takes"),
        (("--run", "runs/tiny", "--clips", "1"), "--clips is 1, expected at least 2"),
    ],
)
def test_what_cannot_be_reported_on_is_explained_and_nothing_is_written(
    reported: Called, home: Path, words: tuple[str, ...], message: str
) -> None:
    if not (home / "no_held_out").exists():
        tiny_store(home / "no_held_out", episodes=2)
        tiny_world().save_pretrained(home / "runs" / "lonely" / "world")
        make_run(home / "runs" / "moved", home / "gone")
    code, said = reported(*words, "--out", "never/page.html")
    assert code == 2
    assert message in said
    assert "Traceback" not in said
    assert not (home / "never").exists()


def test_without_matplotlib_the_extra_is_named(reported: Called, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fidelity_plot, "find_spec", lambda name: None)
    code, said = reported("--run", "runs/tiny")
    assert (code, "pip install 'vqvideo[report]'" in said) == (2, True)
