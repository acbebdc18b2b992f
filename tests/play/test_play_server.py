"""The server of the page: who may come in, what it answers, and that it goes on whatever is sent to it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from players import FILES, HEADERS, HOST, SlowSession, server, session, start, step, unpacked
from starlette.testclient import TestClient, WebSocketDenialResponse, WebSocketTestSession
from tiny_models import film_world, noise_frames

from vqvideo.data.clips import StartClips
from vqvideo.errors import InputError
from vqvideo.play.access import Access
from vqvideo.play.server import Server, bind
from vqvideo.play.session import Session


@contextmanager
def playing(served: Server | None = None, query: str = "", **headers: str) -> Iterator[WebSocketTestSession]:
    """A websocket that has said that it is ready."""
    client = TestClient((served or server()).app())
    with client.websocket_connect(f"/socket{query}", headers=HEADERS | headers) as socket:
        assert socket.receive_json() == {"type": "ready"}
        yield socket


def asked(socket: WebSocketTestSession, message: Any) -> Any:
    """What comes back: the parts of an answer, or the text of an error."""
    socket.send_json(message)
    event = socket.receive()
    return unpacked(event["bytes"]) if event.get("bytes") is not None else json.loads(event["text"])["message"]


def end_of(socket: WebSocketTestSession) -> tuple[int, str]:
    """Code and reason with which the server closes a websocket, whatever it has sent before."""
    while (event := socket.receive())["type"] != "websocket.close":
        pass
    return event["code"], event["reason"]


# ---------------------------------------------------------------- playing


def test_equal_seeds_dream_equally_and_actions_make_a_difference() -> None:
    def dream(seed: int, action: float) -> bytes:
        with playing() as socket:
            asked(socket, start(seed=seed))
            answers = [asked(socket, step(number, action)) for number in (1, 2, 3)]
        assert [fields["step"] for fields, *_ in answers] == [1, 2, 3]
        return b"".join(frames.tobytes() for _, frames, _ in answers)

    assert dream(5, 1) == dream(5, 1)
    assert dream(5, 1) != dream(6, 1)
    assert dream(5, 1) != dream(5, 3)


def test_an_answer_says_what_the_model_thinks() -> None:
    with playing() as socket:
        fields, first, real = asked(socket, start(dream=7, start=1))
        assert fields == {"type": "started", "dream": 7, "count": 1, "frames_bytes": first.nbytes}
        fields, frames, _ = asked(socket, step(dream=7))
    assert (fields["dream"], fields["count"], real) == (7, 2, None)
    assert 0 <= fields["termination"] <= 1
    assert 0 < fields["entropy"] < np.log(16)
    assert len(frames) == 2


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"type": "stop"}, "message type 'stop'"),
        (start(start=2), "start 2, expected 0 to 1"),
        (start(seed=-1), "seed -1"),
        ({"type": "start", "dream": 1}, "start"),
        (step(number=3), "expected step 1 of dream 1"),
        (step(dream=2), "expected step 1 of dream 1"),
        (step(action=5), "expected a whole number from 0 to 4"),
        (step(action=0.5), "expected a whole number"),
        (step(actions=[[1]]), "expected 2 of 1 numbers"),
        (step(actions=[[1], [1, 2]]), "expected 2 of 1 numbers"),
        (step(actions="left"), "expected a list"),
        (step(sampling={"temperature": -1}), "temperature is -1"),
        (step(sampling={"guidance": 2}), "guidance is 2"),
        (step(sampling={"heat": 1}), "heat is not a setting"),
    ],
)
def test_a_wrong_message_is_answered_and_the_dream_stays_where_it_was(message: Any, expected: str) -> None:
    with playing() as socket:
        asked(socket, start())
        assert expected in asked(socket, message)
        assert asked(socket, step())[0]["step"] == 1


def test_a_step_before_a_start_is_refused() -> None:
    with playing() as socket:
        assert "start a dream first" in asked(socket, step())


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"type": NaN}', "[" * 2000, "\ud7ff"])
def test_what_no_page_sends_ends_the_websocket_and_not_the_server(text: str) -> None:
    served = server()
    with playing(served) as socket:
        socket.send_text(text)
        assert end_of(socket)[0] == 1008
    with playing(served) as socket:
        assert asked(socket, start())[0]["type"] == "started"


def test_bytes_are_refused() -> None:
    with playing() as socket:
        socket.send_bytes(b"{}")
        assert end_of(socket) == (1003, "bytes, expected JSON text")


def test_a_world_without_actions_is_watched() -> None:
    films = StartClips(noise_frames(1, 9), torch.zeros(1, 8, 0), torch.zeros(1, 8))
    with playing(server(new_session=lambda: Session(film_world(), films, 2))) as socket:
        asked(socket, start())
        assert asked(socket, step(actions=[[], []]))[0]["step"] == 1


# ---------------------------------------------------------------- many, at once, and gone


def test_a_flood_of_messages_ends_the_websocket() -> None:
    slow = SlowSession()
    with playing(server(new_session=lambda: slow)) as socket:
        for _ in range(100):
            socket.send_json(start())
        slow.let_go.set()
        code, reason = end_of(socket)
    assert code == 1008
    assert "wait for the answers" in reason
    assert slow.closed.wait(60)


def test_who_leaves_in_mid_step_leaves_nothing_running() -> None:
    slow, served = SlowSession(), server(new_session=lambda: slow)
    with playing(served) as socket:
        socket.send_json(start())
        assert slow.stepping.wait(60)
        threading.Timer(0.1, slow.let_go.set).start()
    assert slow.closed.is_set()
    assert served.players == 0


def test_more_players_than_there_is_room_for_are_sent_away() -> None:
    served = server(most_players=2)
    with playing(served), playing(served):
        client = TestClient(served.app())
        with client.websocket_connect("/socket", headers=HEADERS) as third:
            code, reason = end_of(third)
        assert code == 1013
        assert "2 are playing" in reason
    with playing(served) as socket:
        assert asked(socket, start())[0]["type"] == "started"


def test_two_players_have_a_dream_each() -> None:
    served = server()
    with playing(served) as one, playing(served) as two:
        asked(one, start(seed=1))
        asked(two, start(seed=1))
        steps = [(asked(one, step(number, 1)), asked(two, step(number, 1))) for number in (1, 2)]
    assert all(np.array_equal(first[1], second[1]) for first, second in steps)


def test_a_player_who_does_nothing_makes_room() -> None:
    with playing(server(idle_seconds=0.01)) as socket:
        assert "nothing was played" in end_of(socket)[1]


def test_a_mistake_of_ours_is_told_without_its_details(caplog: pytest.LogCaptureFixture) -> None:
    broken = session()
    broken.start = lambda message: 1 / 0  # type: ignore[method-assign]
    with playing(server(new_session=lambda: broken)) as socket:
        socket.send_json(start())
        assert end_of(socket)[0] == 1011
    assert "ZeroDivisionError" in caplog.text


# ---------------------------------------------------------------- who may come in

OTHERS = ["http://evil", "null", "http://127.0.0.1", "http://127.0.0.1.evil:8000", "http://127.0.0.1:8001", "file://"]
OTHERS += ["https://127.0.0.1:8000", "http://localhost:8000", "http://[::1]:8000", "http://127.0.0.1:8000@evil", ""]


@pytest.mark.parametrize("origin", OTHERS)
def test_another_page_cannot_open_a_websocket(origin: str) -> None:
    with pytest.raises(WebSocketDenialResponse) as refused, playing(Origin=origin):
        pass
    assert refused.value.status_code == 403


def test_who_is_no_page_cannot_open_a_websocket() -> None:
    client = TestClient(server().app())
    with pytest.raises(WebSocketDenialResponse), client.websocket_connect("/socket", headers={"Host": HOST}):
        pass


@pytest.mark.parametrize("host", ["evil", "evil:8000", "127.0.0.1", "127.0.0.1:80", "127.0.0.1.evil:8000", ""])
def test_a_name_that_only_resolves_to_this_machine_gets_nothing(host: str) -> None:
    """DNS rebinding: the origin is then that of the name, and fits."""
    with pytest.raises(WebSocketDenialResponse) as refused, playing(Host=host, Origin=f"http://{host}"):
        pass
    assert refused.value.status_code == 403
    assert TestClient(server().app()).get("/site.json", headers={"Host": host}).status_code == 403


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "LOCALHOST:8000", "[::1]:8000"])
def test_this_machine_by_each_of_its_names_comes_in(host: str) -> None:
    with playing(Host=host, Origin=f"http://{host}") as socket:
        assert asked(socket, start())[0]["type"] == "started"


def test_elsewhere_the_token_counts() -> None:
    served = server(access=Access.to("0.0.0.0", 8000))
    token, client = served.access.token, TestClient(served.app())
    assert token is not None
    assert len(token) >= 32
    assert token != Access.to("0.0.0.0", 8000).token
    for query in ("", "?token=", f"?token={token[:-1]}", f"?token={token}x", "?token=%C3%A9"):
        with pytest.raises(WebSocketDenialResponse), playing(served, query):
            pass
        assert client.get(f"/{query}").status_code == client.get(f"/site.json{query}").status_code == 403
    with pytest.raises(WebSocketDenialResponse), playing(served, f"?token={token}", Origin="http://evil"):
        pass
    with playing(served, f"?token={token}") as socket:
        assert asked(socket, start())[0]["type"] == "started"
    assert client.get(f"/?token={token}").content == FILES["index.html"]
    assert client.get("/site.json").content == FILES["site.json"], "the cookie that came with the page counts"
    assert TestClient(served.app(), cookies={"token-8001": token}).get("/site.json").status_code == 403


def test_only_the_files_of_the_page_are_served() -> None:
    client = TestClient(server().app())
    get = lambda path: client.get(path, headers={"Host": HOST})  # noqa: E731
    assert get("/").content == FILES["index.html"]
    assert get("/app.js").headers["content-type"].startswith(("text/javascript", "application/javascript"))
    for path in ("/etc/passwd", "/../pyproject.toml", "/%2e%2e/pyproject.toml", "//etc/passwd", "/app.js/", "/socket"):
        assert get(path).status_code == 404, path
    assert client.post("/", headers={"Host": HOST}).status_code == 405


def test_a_port_that_is_in_use_is_an_error_that_says_what_to_do() -> None:
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=rf"127\.0\.0\.1:{port}: .*--port 0"):
            bind("127.0.0.1", port)
    with pytest.raises(InputError, match=r"cannot listen on 203\.0\.113\.1"):
        bind("203.0.113.1", 8000)
