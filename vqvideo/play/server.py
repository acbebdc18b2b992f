"""The server: the files of a page, and a websocket for each player."""

from __future__ import annotations

import logging
import mimetypes
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from vqvideo.errors import InputError, MissingExtraError
from vqvideo.play.access import Access, url_host
from vqvideo.play.messages import MOST_BYTES, MalformedError, Start, packed, parsed
from vqvideo.play.session import Session

try:
    import anyio
    import uvicorn
    import websockets  # noqa: F401  which uvicorn takes
    from anyio import to_thread
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse, Response
    from starlette.routing import Route, WebSocketRoute
    from starlette.websockets import WebSocket, WebSocketDisconnect
except ModuleNotFoundError as error:
    raise MissingExtraError(error, "play") from error

INDEX = "index.html"
SOCKET = "socket"
"""Path of the websocket."""
WAITING = 32
"""Messages of a player that may wait for their turn; a page sends the next one after the answer."""
SEND_SECONDS = 20.0
"""After which a page that does not read what it asked for is left."""
UNSUPPORTED, POLICY, BROKEN, LATER = 1003, 1008, 1011, 1013
"""Codes of a websocket's end (RFC 6455 and its registry)."""
_GONE = (WebSocketDisconnect, RuntimeError)
"""What sending raises when the other side has closed: the second where a message of it was the reason."""
_HEADERS = {
    "Cache-Control": "no-store",
    # What the page may load, it says itself; that it may not be framed, it cannot.
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

logger = logging.getLogger(__name__)


@dataclass
class Server:
    """What `app` serves."""

    files: Mapping[str, bytes]
    """The page by name; nothing else is ever served."""
    new_session: Callable[[], Session]
    """Makes what a player plays."""
    access: Access
    """Who may come in."""
    most_players: int = 4
    """At once."""
    idle_seconds: float = 600.0
    """After which a player who does nothing makes room for others."""
    players: int = 0
    """How many there are."""

    def app(self) -> Starlette:
        """The ASGI application."""
        return Starlette(routes=[WebSocketRoute(f"/{SOCKET}", self._play), Route("/{name:path}", self._file)])

    async def _file(self, request: Request) -> Response:
        name = request.path_params["name"] or INDEX
        if why := self.access.refusal(request):
            return PlainTextResponse(why, 403, _HEADERS)
        if name not in self.files:
            return PlainTextResponse("no such file", 404, _HEADERS)
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        response = Response(self.files[name], 200, _HEADERS, kind)
        if name == INDEX and self.access.token:
            # With which the page gets its other files.
            response.set_cookie(self.access.cookie, self.access.token, httponly=True, samesite="strict")
        return response

    async def _play(self, websocket: WebSocket) -> None:
        try:
            if why := self.access.refusal(websocket):
                return await websocket.send_denial_response(PlainTextResponse(why, 403))
            await websocket.accept()
            if self.players >= self.most_players:
                reason = f"{self.players} are playing already, which is the most: come back later"
                return await websocket.close(LATER, reason)
        except _GONE:
            return None
        self.players += 1
        try:
            await Player(websocket, self.new_session(), self.idle_seconds).play()
        finally:
            self.players -= 1


class Player:
    """One websocket, and the session that it plays."""

    def __init__(self, websocket: WebSocket, session: Session, idle_seconds: float) -> None:
        self.websocket, self.session, self.idle_seconds = websocket, session, idle_seconds
        self._put, self._inbox = anyio.create_memory_object_stream[str](WAITING)
        self._tasks = anyio.create_task_group()
        self._farewell: tuple[int, str] | None = None

    async def play(self) -> None:
        """Answers what the page asks for, until one of both goes. A step that is being computed then ends first, and
        its session is closed.
        """
        try:
            async with self._tasks, self._put, self._inbox:
                self._tasks.start_soon(self._listen)
                await self._answer()
        finally:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(self.session.close)
        if self._farewell is not None:
            with suppress(*_GONE):
                await self.websocket.close(*self._farewell)

    async def _listen(self) -> None:
        """Takes messages in, also while a step is computed: that is how a page that goes is noticed."""
        while (event := await self.websocket.receive())["type"] != "websocket.disconnect":
            if event.get("text") is None:
                return self._end(UNSUPPORTED, "bytes, expected JSON text")
            try:
                self._put.send_nowait(event["text"])
            except anyio.WouldBlock:
                return self._end(POLICY, f"more than {WAITING} messages at once: wait for the answers")
        return self._tasks.cancel_scope.cancel()

    def _end(self, code: int, reason: str) -> None:
        self._farewell = code, reason
        self._tasks.cancel_scope.cancel()

    async def _answer(self) -> None:
        await self._say({"type": "ready"})
        while True:
            try:
                with anyio.fail_after(self.idle_seconds):
                    text = await self._inbox.receive()
            except TimeoutError:
                return self._end(1000, f"nothing was played for {self.idle_seconds:g} s: load the page again")
            try:
                await self._say(await to_thread.run_sync(self._replied, text))
            except MalformedError as error:
                return self._end(POLICY, str(error))
            except InputError as error:
                await self._say({"type": "error", "message": str(error), "fatal": False})
            except Exception:
                logger.exception("a player's session broke down")
                return self._end(BROKEN, "the server made a mistake: its terminal says which")

    async def _say(self, message: bytes | dict[str, Any]) -> None:
        try:
            with anyio.fail_after(SEND_SECONDS):
                if isinstance(message, bytes):
                    await self.websocket.send_bytes(message)
                else:
                    await self.websocket.send_json(message)
        except TimeoutError:
            self._end(POLICY, "the answers are not read")
        except _GONE:
            self._tasks.cancel_scope.cancel()

    def _replied(self, text: str) -> bytes:
        message = parsed(text)
        answer = self.session.start(message) if isinstance(message, Start) else self.session.step(message)
        return packed(*answer)


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0 takes any that is free.

    Raises:
        InputError: the port is in use or not allowed, or this machine has no such address.
    """
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise InputError(
            f"cannot listen on {url_host(host)}:{port}: {error.strerror or error}. Take another port, such as "
            f"--port {port + 1 if 1023 < port < 65535 else 8001}, or --port 0 for any that is free"
        ) from error


def runner(app: Starlette, action_bytes: int = 0) -> uvicorn.Server:
    """What runs an application: `run(sockets=[bind(...)])` does until Ctrl-C or SIGTERM, which it raises when all
    sessions have ended.

    Args:
        app: what to serve.
        action_bytes: of the actions in a message, at most.
    """
    return uvicorn.Server(
        uvicorn.Config(
            app,
            ws="websockets-sansio",
            ws_max_size=MOST_BYTES + action_bytes,
            ws_per_message_deflate=False,
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            lifespan="off",
            timeout_graceful_shutdown=10,
        )
    )
