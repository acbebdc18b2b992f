"""The server as it runs, on a socket of this machine."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from socket import SHUT_RDWR
from typing import Any

import pytest
from players import SlowSession, serving, start, step, unpacked
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from vqvideo.play.messages import MOST_BYTES


def wrong(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the server has complained of; the clients complain too."""
    return [record.getMessage() for record in caplog.records if not record.name.startswith("websockets")]


@contextmanager
def player(port: int) -> Iterator[ClientConnection]:
    origin: Any = f"http://127.0.0.1:{port}"
    with connect(f"ws://127.0.0.1:{port}/socket", origin=origin) as socket:
        assert json.loads(socket.recv(60)) == {"type": "ready"}
        yield socket


def asked(socket: ClientConnection, message: Any) -> dict[str, Any]:
    socket.send(json.dumps(message))
    answer = socket.recv(60)
    assert isinstance(answer, bytes)
    return unpacked(answer)[0]


def test_a_message_that_is_too_long_ends_the_websocket() -> None:
    with serving() as (_, port), player(port) as socket:
        longest = json.dumps(start()).ljust(MOST_BYTES)
        socket.send(longest)
        assert isinstance(socket.recv(60), bytes)
        socket.send(longest + " ")
        with pytest.raises(ConnectionClosed) as end:
            socket.recv(60)
        assert end.value.rcvd is not None
        assert end.value.rcvd.code == 1009


def test_a_page_that_is_sent_away_while_its_step_is_computed_is_not_answered(caplog: pytest.LogCaptureFixture) -> None:
    slow = SlowSession()
    with caplog.at_level(logging.WARNING), serving(new_session=lambda: slow) as (_, port), player(port) as socket:
        socket.send(json.dumps(start()))
        assert slow.stepping.wait(60)
        socket.send(" " * (MOST_BYTES + 1))
        with pytest.raises(ConnectionClosed):
            socket.recv(60)
        slow.let_go.set()
    assert slow.closed.is_set()
    assert wrong(caplog) == []


def test_players_who_drop_their_connection_leave_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), serving() as (served, port):
        for number in range(20):
            with player(port) as socket:
                socket.send(json.dumps(start()))
                if number % 2:
                    socket.recv(60)
                    socket.send(json.dumps(step()))
                socket.socket.shutdown(SHUT_RDWR)
        deadline = time.monotonic() + 60
        while served.players and time.monotonic() < deadline:
            time.sleep(0.02)
        assert served.players == 0
        with player(port) as socket:
            assert asked(socket, start())["type"] == "started"
    assert wrong(caplog) == []


def test_the_server_ends_while_somebody_plays(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), ExitStack() as stack:
        with serving() as (_, port):
            socket = stack.enter_context(player(port))
            asked(socket, start())
            socket.send(json.dumps(step()))
        with pytest.raises(ConnectionClosed):
            [socket.recv(60) for _ in range(2)]
    assert wrong(caplog) == []
