"""The page of `scripts/play.py` in headless Chromium, over its websocket. Slow: a browser starts for each test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pages import chromium
from players import serving
from tiny_models import tiny_store, tiny_world

from vqvideo.play.access import Access
from vqvideo.play.server import Server
from vqvideo.scripts.play import Options
from vqvideo.scripts.stage import Stage, set_stage
from vqvideo.world import EnvFacts

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """A tiny world beside TinyWorld."""
    folder = tmp_path_factory.mktemp("tiny")
    world = tiny_world()
    world.env = EnvFacts("TinyWorld", 10.0, 1)
    world.save_pretrained(folder / "world")
    tiny_store(folder / "data")
    return set_stage(Options(world=folder / "world", store=folder / "data"), 2, 2, 3, real=True)


@pytest.fixture
def served(stage: Stage) -> Iterator[tuple[Server, str]]:
    with serving(files=stage.files(Options().sampling), new_session=stage.session) as (server, port):
        yield server, f"http://127.0.0.1:{port}/"


def opened(context: Any, address: str) -> Any:
    """A page that shows the newest frame of its context and waits."""
    page = context.new_page()
    page.goto(f"{address}{'&' if '?' in address else '?'}paused")
    at(page, 0)
    return page


def at(page: Any, step: int) -> tuple[str, str]:
    """What both screens show when so many latent steps are shown."""
    page.wait_for_selector(f"#clock:text-is('{step * 0.2:.1f} s')", timeout=60000)
    return tuple(page.evaluate("['dream', 'real'].map((id) => document.getElementById(id).toDataURL())"))


def after(page: Any, steps: int, key: str | None = None) -> tuple[str, str]:
    """What both screens show after so many single steps while a key is held."""
    if key:
        page.keyboard.down(key)
    for step in range(1, steps + 1):
        page.keyboard.press("n")
        shown = at(page, step)
    if key:
        page.keyboard.up(key)
    page.keyboard.press("r")
    at(page, 0)
    return shown


def test_keys_move_dream_and_reality_and_a_seed_is_both(served: tuple[Server, str]) -> None:
    with chromium() as context:
        page = opened(context, f"{served[1]}")
        left, right, again = (after(page, 3, key) for key in ("ArrowLeft", "ArrowRight", "ArrowLeft"))
        assert left == again
        assert left[1] != right[1]
        assert left[0] != right[0]
        assert "beside the dream" in page.inner_text("body")


def test_time_passes_by_itself_at_the_pace_of_the_game(served: tuple[Server, str]) -> None:
    with chromium() as context:
        page = opened(context, served[1])
        page.uncheck("#stop")
        page.press("body", "p")
        page.wait_for_selector("#clock:text-matches('^[1-9]')", timeout=60000)


def test_two_tabs_have_a_dream_each(served: tuple[Server, str]) -> None:
    with chromium() as context:
        one, two = opened(context, served[1]), opened(context, served[1])
        assert served[0].players == 2
        assert after(one, 2, "ArrowUp") == after(two, 2, "ArrowUp")
        two.close()
        assert after(one, 2)[1] != ""


def test_a_page_that_sends_nonsense_is_told_and_others_play_on(served: tuple[Server, str]) -> None:
    ask = """(text) => new Promise((resolve) => {
        const socket = new WebSocket(`ws://${location.host}/socket`);
        socket.onopen = () => socket.send(text);
        socket.onclose = ({ code, reason }) => resolve([code, reason]);
    })"""
    with chromium() as context:
        page = opened(context, served[1])
        assert page.evaluate(ask, "left!") == [1008, "not valid JSON"]
        assert page.evaluate(ask, " " * 5000)[0] == 1009
        assert after(page, 1)


def test_the_page_says_that_the_server_has_ended(stage: Stage) -> None:
    with chromium() as context:
        with serving(files=stage.files(Options().sampling), new_session=stage.session) as (_, port):
            page = opened(context, f"http://127.0.0.1:{port}/")
        page.wait_for_selector("#notice:text('No connection to the server')", timeout=20000)


def test_another_page_of_the_browser_cannot_play(served: tuple[Server, str], stage: Stage) -> None:
    """Cross-site: a page of another origin opens a websocket to this machine."""
    ask = """(address) => new Promise((resolve) => {
        const socket = new WebSocket(address);
        socket.onopen = () => resolve("open");
        socket.onerror = () => resolve("refused");
    })"""
    with chromium() as context, serving(new_session=stage.session) as (_, other):
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{other}/")
        assert page.evaluate(ask, f"ws{served[1][4:]}socket") == "refused"
        assert page.evaluate(ask, f"ws://127.0.0.1:{other}/socket") == "open"
    assert served[0].players == 0


def test_a_page_with_the_token_plays_and_keeps_it(stage: Stage) -> None:
    access = Access.to("0.0.0.0", 8000)
    files = stage.files(Options().sampling)
    with chromium() as context, serving(files=files, new_session=stage.session, access=access) as (_, port):
        page = opened(context, f"http://127.0.0.1:{port}/?token={access.token}")
        assert after(page, 1)
        page.reload()
        at(page, 0)
