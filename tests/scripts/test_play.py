"""`scripts/play.py`: serves a dream and the real environment, keeps what is played, and says what is wrong."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest
from players import start, step, unpacked
from processes import SCRIPTS
from tiny_models import film_store, film_world, tiny_store, tiny_world
from websockets.sync.client import connect

from vqvideo.data.store import Store
from vqvideo.play.recorder import SHORTEST
from vqvideo.play.server import bind
from vqvideo.scripts import play

Called = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """Arguments for a tiny world of TinyWorld."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny_world().save_pretrained(folder / "world")
    tiny_store(folder / "data")
    return ["--world", folder / "world", "--store", folder / "data", "--context", 2, "--length", 3, "--clips", 2]


@contextmanager
def playing(cwd: Path, *arguments: object) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address that the script prints, and its process, which has ended afterwards."""
    command = [sys.executable, str(SCRIPTS / "play.py"), "--port", "0", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert process.stdout is not None
        shown = []
        for line in process.stdout:
            shown.append(line)
            if line.startswith("open http"):
                yield line.split()[1], process
                break
        else:
            raise AssertionError("".join(shown))
    finally:
        process.kill()
        process.wait(timeout=60)


def test_a_game_is_played_beside_the_dream_and_kept(tiny: list[object], tmp_path: Path) -> None:
    with playing(tmp_path, *tiny, "--record", "played") as (address, process):
        with urlopen(f"{address}site.json", timeout=60) as answer:
            site = json.load(answer)
        assert (site["engine"], site["real"], len(site["starts"])) == ("socket", True, 3)
        assert "real TinyWorld is beside the dream" in site["note"]
        for one in site["starts"]:
            with urlopen(address + one["thumbnail"], timeout=60) as answer:
                assert answer.headers["Content-Type"] == "image/webp"
        with connect(f"ws{address[4:]}{site['socket']}", origin=address[:-1]) as websocket:  # type: ignore[arg-type]
            websocket.recv(60)
            for message in (start(seed=2), *(step(number, number % 5) for number in range(1, 9))):
                websocket.send(json.dumps(message))
                answer = websocket.recv(60)
                assert isinstance(answer, bytes)
                assert unpacked(answer)[2] is not None
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in out
    assert "played: 1 new episodes (0 before)" in out
    (episode,) = Store.open(tmp_path / "played").entries
    assert episode.length >= SHORTEST
    assert episode.seed == 2


def test_where_the_real_environment_does_not_run_the_dream_is_alone(tmp_path: Path, called: Called) -> None:
    film_world().save_pretrained(tmp_path / "world")
    film_store(tmp_path / "data")
    options = play.Options(world=tmp_path / "world", store=tmp_path / "data", context=2, length=3, clips=2)
    stage = play.set_stage(options, 2, 2, 3, real=True)
    assert stage.frame is None
    assert "no environment is called 'films'" in stage.note
    site = json.loads(stage.files(options.sampling.of(stage.world))["site.json"])
    assert (site["real"], site["note"], len(site["starts"])) == (False, stage.note, 2)
    assert stage.session().game is None
    arguments = ["--world", options.world, "--store", options.store, "--context", 2, "--length", 3, "--port", 0]
    code, out = called(play.main, *arguments, "--record", tmp_path / "played")
    assert code == 2
    assert "there is no real environment to record" in out
    assert not (tmp_path / "played").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--record", "played", "--no-real"], "leave --no-real away"),
        (["--port", 65536], "at most 65535"),
        (["--port", -1], "--port is -1"),
        (["--top-k", 5], "the page draws by temperature"),
        (["--players", 0], "--players is 0"),
        (["--host", "no.such.host.invalid"], "cannot listen on no.such.host.invalid:8000"),
        (["--env", "CarRacign", "--port", 0], "Train one"),
    ],
)
def test_what_cannot_be_done_is_refused(
    arguments: list[object], expected: str, called: Called, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out = called(play.main, *arguments)
    assert code == 2
    assert expected in out
    assert list(tmp_path.iterdir()) == []


def test_a_port_that_is_in_use_is_refused_before_anything_is_loaded(called: Called) -> None:
    with bind("127.0.0.1", 0) as taken:
        code, out = called(play.main, "--port", taken.getsockname()[1])
    assert code == 2
    assert "--port 0 for any that is free" in out
    assert "no world model" not in out


def test_without_the_extra_it_says_what_to_install(called: Called, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "vqvideo.play.server")
    monkeypatch.setitem(sys.modules, "starlette.applications", None)
    code, out = called(play.main)
    assert code == 2
    assert "pip install 'vqvideo[play]'" in out


def test_elsewhere_the_address_holds_a_token(
    tiny: list[object], called: Called, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted:
        def run(self, sockets: list[socket.socket]) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr("vqvideo.play.server.runner", lambda *_: Interrupted())
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    code, out = called(play.main, *tiny, "--no-real", "--host", "0.0.0.0", "--port", 0, "--open")
    assert code == 130
    (address,) = opened
    assert re.fullmatch(rf"http://{re.escape(socket.gethostname())}:[0-9]+/\?token=[\w-]{{32}}", address)
    assert f"open {address} (Ctrl-C ends it)" in out
    opened.clear()
    called(play.main, *tiny, "--no-real", "--port", 0)
    assert opened == []
