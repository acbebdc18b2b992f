"""What tests of pages need: a static server, Chromium, node. A test is skipped, and says what to install, without."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from vqvideo.export import runtime
from vqvideo.export.page import page_files

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def need_runtime() -> dict[str, bytes]:
    """The files of onnxruntime-web out of the cache; tests fetch nothing."""
    if not all((runtime.cache() / name).is_file() for name in runtime.FILES):
        pytest.skip(f"needs {runtime.PACKAGE} in {runtime.cache()}: python scripts/export_web.py fetches it")
    return runtime.runtime()


@contextmanager
def chromium(**context: Any) -> Iterator[Any]:
    """A browser context of Playwright, whose pages fail the test for what their scripts do not catch."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs pip install playwright")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("needs Chromium: apt install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser.new_context(**context)
        browser.close()


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a plain static server."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()
    thread.join(timeout=10)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass

    def handle(self) -> None:
        # A browser that closes a page does not wait for its files.
        with suppress(ConnectionError):
            super().handle()


def node(folder: Path, code: str, *more: str) -> Any:
    """What a module prints as JSON that lies beside the files of the page in `folder`."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("needs Node.js 20 or later")
    for name, data in page_files().items():
        (folder / name).write_bytes(data)
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "main.js").write_text(code)
    ran = subprocess.run(
        [found, "main.js", *more], cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)
