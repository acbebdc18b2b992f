"""The page of a tiny world in headless Chromium, from a plain static server. Slow: a browser starts for each test."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dreamt_sites import LENGTH, python_codes, tiny_site
from pages import chromium, need_runtime, served
from PIL import Image

pytestmark = pytest.mark.slow
SEED = 7


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("page") / "site"
    return folder, tiny_site(folder, need_runtime())


@pytest.fixture
def address(site: tuple[Path, dict[str, Any]]) -> Iterator[str]:
    with served(site[0]) as address:
        yield address


def opened(context: Any, address: str) -> Any:
    """A page that shows the newest frame of its context."""
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector("#clock:text('s')", timeout=60000)
    return page


def reset(page: Any) -> None:
    page.keyboard.press("r")
    page.wait_for_selector("#clock:text('0.0 s')")


def after(page: Any, steps: int) -> str:
    """The picture after so many single steps more."""
    page.bring_to_front()
    for _ in range(steps):
        before = float(page.inner_text("#clock").split()[0])
        page.keyboard.press("n")
        page.wait_for_selector(f"#clock:text('{before + 0.2:.1f} s')", timeout=20000)
    return page.evaluate("document.getElementById('dream').toDataURL()")


def test_page_and_python_agree_token_by_token(site: tuple[Path, dict[str, Any]], address: str, tmp_path: Path) -> None:
    actions = [[[step % 5], [step % 5]] for step in range(20)]
    sampling = {"temperature": 1.0, "top_p": 0.9, "guidance": 1.5}
    dream = """async ([actions, sampling, seed]) => {
        const site = await (await fetch("site.json")).json();
        const { Engine } = await import("./worker-engine.js");
        const engine = new Engine(site);
        const answer = () => new Promise((resolve) => (engine.onmessage = (m) => m.type === "progress" || resolve(m)));
        await answer();
        const codes = [];
        engine.post({ type: "start", dream: 1, start: 0, seed });
        await answer();
        for (const [at, acting] of actions.entries()) {
            engine.post({ type: "step", dream: 1, step: at + 1, actions: acting, sampling });
            codes.push((await answer()).codes);
        }
        engine.close();
        return codes;
    }"""
    with chromium() as context:
        codes = opened(context, f"{address}?paused").evaluate(dream, [actions, sampling, SEED])
    assert codes == python_codes(tmp_path, site[1], actions, sampling, SEED)


def test_a_seed_is_a_dream_and_keys_change_it(address: str) -> None:
    with chromium() as context:
        page = opened(context, f"{address}?paused&seed={SEED}&start=1")
        first, second = after(page, 1), after(page, 3)
        reset(page)
        assert (after(page, 1), after(page, 3)) == (first, second)

        # Other tabs dream for themselves.
        tabs = [opened(context, f"{address}?paused&seed={seed}&start=1") for seed in (SEED, SEED + 1)]
        same, other = (after(tab, 4) for tab in tabs)
        assert (same == second, other == second) == (True, False)

        steered = {}
        for key in ("ArrowLeft", "ArrowRight"):
            page.bring_to_front()
            reset(page)
            page.keyboard.down(key)
            steered[key] = after(page, 3)
            page.keyboard.up(key)
        assert len({*steered.values(), second}) == 3


def test_it_plays_at_once_on_a_phone_and_follows_a_finger(address: str) -> None:
    with chromium(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True) as context:
        page = opened(context, address)
        page.wait_for_selector("html[data-first-dream]", state="attached")
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        left = page.locator("#pad button", has_text="left")
        left.dispatch_event("pointerdown", {"pointerId": 1})
        page.wait_for_selector("#pad button.held")


def test_who_wants_less_motion_starts_the_dream(address: str) -> None:
    with chromium(reduced_motion="reduce") as context:
        page = opened(context, address)
        assert page.inner_text("#pause") == "Play"
        page.click("#pause")
        page.wait_for_selector("html[data-first-dream]", state="attached")


def test_a_recording_is_replayed_beside_the_dream_and_downloaded(address: str) -> None:
    with chromium(accept_downloads=True) as context:
        page = opened(context, f"{address}?replay=1&paused")
        page.uncheck("#stop")
        page.click("#pause")
        page.wait_for_selector("#notice:text('recorded actions end here')", timeout=30000)
        assert page.is_visible("#real")
        shown, real = (
            page.evaluate(f"[...document.getElementById('{name}').getContext('2d').getImageData(0, 0, 16, 16).data]")
            for name in ("dream", "real")
        )
        assert len(set(real)) > 4
        with page.expect_download() as download:
            page.click("#download")
        picture = Image.open(io.BytesIO(Path(download.value.path()).read_bytes()))
        assert picture.n_frames == 2 * LENGTH
        picture.seek(2 * LENGTH - 1)
        np.testing.assert_array_equal(np.asarray(picture.convert("RGBA")).ravel(), shown)


OLD_BROWSER = "WebAssembly.validate = () => false;\n"


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("damage", "step.onnx.gz is damaged"),
        ("remove", "decoder.onnx.gz is missing beside this page (the server says 404)"),
        ("no site", "site.json is missing beside this page"),
        ("old", "too old to compute the dream: it knows no WebAssembly SIMD"),
    ],
)
def test_what_is_wrong_is_said_on_the_page(
    harm: str, said: str, site: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder = shutil.copytree(site[0], tmp_path / "site")
    if harm == "damage":
        data = bytearray((folder / "step.onnx.gz").read_bytes())
        data[len(data) // 2] ^= 1
        (folder / "step.onnx.gz").write_bytes(data)
    elif harm == "old":
        worker = folder / "worker.js"
        worker.write_text(OLD_BROWSER + worker.read_text())
    else:
        (folder / {"remove": "decoder.onnx.gz", "no site": "site.json"}[harm]).unlink()
    with served(folder) as address, chromium() as context:
        page = context.new_page()
        page.goto(address)
        page.wait_for_selector("#notice.error", timeout=60000)
        assert said in page.inner_text("#notice")
