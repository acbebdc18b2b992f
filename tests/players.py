"""A tiny world that is played, for the tests of the server."""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tiny_models import FIVE, SIZE, noise_frames, tiny_world

from vqvideo.data.clips import StartClips
from vqvideo.envs.tiny_world import TinyWorld
from vqvideo.errors import InputError
from vqvideo.play.access import Access
from vqvideo.play.game import Game
from vqvideo.play.reality import Reality
from vqvideo.play.server import Server, bind, runner
from vqvideo.play.session import Session
from vqvideo.world import WorldModel

FILES = {"index.html": b"<p>page", "app.js": b"0", "site.json": b"{}"}
HOST = "127.0.0.1:8000"
HEADERS = {"Host": HOST, "Origin": f"http://{HOST}"}
CONTEXT = 2


def clips(count: int = 2) -> StartClips:
    """Of noise."""
    return StartClips(noise_frames(count, 9), torch.ones(count, 8, 1), torch.zeros(count, 8))


@cache
def world() -> WorldModel:
    """One whose dreams cannot be guided."""
    return tiny_world(action_dropout=0.0)


def session(game: Game | None = None) -> Session:
    """Of a tiny world."""
    return Session(world(), clips(), CONTEXT, game)


def tiny_game(**options: Any) -> Game:
    """The real TinyWorld, whose actions are those of the tiny world."""
    return Game(Reality(partial(TinyWorld, SIZE), FIVE), **options)


def server(**options: Any) -> Server:
    """On the loopback, without a real game."""
    return Server(**({"files": FILES, "new_session": session, "access": Access.to("127.0.0.1", 8000)} | options))


class SlowSession:
    """Steps that last until they are let go."""

    def __init__(self) -> None:
        self.stepping, self.let_go, self.closed = threading.Event(), threading.Event(), threading.Event()

    def start(self, message: Any) -> Any:
        self.stepping.set()
        assert self.let_go.wait(60)
        assert not self.closed.is_set()
        raise InputError("let go")

    def close(self) -> None:
        self.closed.set()


@contextmanager
def serving(**options: Any) -> Iterator[tuple[Server, int]]:
    """A server and its port. What goes wrong in it is logged."""
    with bind("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        assert listening.getsockname()[0] == "127.0.0.1"
        served = server(**({"access": Access.to("127.0.0.1", port), "most_players": 20} | options))
        running = runner(served.app())
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield served, port
        finally:
            running.should_exit = True
            thread.join(60)
            assert not thread.is_alive()
            assert served.players == 0


def start(dream: int = 1, start: int = 0, seed: int = 0) -> dict[str, Any]:
    """What a page sends to begin."""
    return {"type": "start", "dream": dream, "start": start, "seed": seed}


def step(number: int = 1, action: float = 1, dream: int = 1, **others: Any) -> dict[str, Any]:
    """What a page sends to go on."""
    sampling = {"temperature": 1, "top_p": 0.9, "guidance": 1}
    record = {"type": "step", "dream": dream, "step": number, "actions": [[action]] * 2, "sampling": sampling}
    return record | others


def unpacked(answer: bytes) -> tuple[dict[str, Any], NDArray[np.uint8], NDArray[np.uint8] | None]:
    """Fields, dreamt frames and real ones (n, h, w, 3) of an answer, as a page reads it."""
    (size,) = struct.unpack_from("<I", answer)
    fields = json.loads(answer[4 : 4 + size])
    shape = (fields["count"], SIZE, SIZE, 3)
    end = 4 + size + fields["frames_bytes"]
    frames = np.frombuffer(answer[4 + size : end], np.uint8).reshape(shape)
    if "real_bytes" not in fields:
        assert len(answer) == end
        return fields, frames, None
    assert len(answer) == end + fields["real_bytes"]
    return fields, frames, np.frombuffer(answer[end:], np.uint8).reshape(shape)
