"""Who may reach the server.

A server on the loopback is not private: any page in the same browser can open a websocket to it, and a name that
resolves to 127.0.0.1 (DNS rebinding) passes for its own. So the names by which it is called are compared in full.
"""

from __future__ import annotations

import ipaddress
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection


@dataclass(frozen=True)
class Access:
    """What a connection must show."""

    hosts: frozenset[str] = frozenset()
    """What its Host header may be, name and port in lower case; empty: anything, since there is a token."""
    token: str | None = None
    """What its address must hold as ?token=, or its cookie, which the page gets with its first file; None: nothing."""
    cookie: str = "token"
    """Name of the cookie. All servers of a machine share its cookies, whatever their ports are."""

    @classmethod
    def to(cls, host: str, port: int) -> Access:
        """For a server that is bound to this address: only by its own names, or with a token if others can reach it."""
        if is_loopback(host):
            return cls(frozenset(f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]", url_host(host))))
        return cls(token=secrets.token_urlsafe(24), cookie=f"token-{port}")

    def refusal(self, connection: HTTPConnection) -> str | None:
        """Why a request, or a websocket that is about to open, is refused; None: it may pass."""
        hosts = connection.headers.getlist("host")
        if len(hosts) != 1 or (self.hosts and hosts[0].lower() not in self.hosts):
            return f"unknown Host: open the page as http://{min(self.hosts, default='')}"
        origins = connection.headers.getlist("origin")
        if origins and origins != [f"http://{hosts[0]}"]:
            return "another page may not connect to this one"
        if connection.scope["type"] == "websocket" and not origins and self.token is None:
            return "a websocket without Origin: only the page may open one"
        shown = connection.query_params.get("token") or connection.cookies.get(self.cookie, "")
        if self.token and not self._holds(shown):
            return "the token is missing or wrong: open the address that the terminal shows"
        return None

    def _holds(self, token: str) -> bool:
        # As bytes: text that is not ASCII would be a TypeError.
        return secrets.compare_digest(token.encode(), (self.token or "").encode())


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def url_host(host: str) -> str:
    """An address as it stands in a URL."""
    return f"[{host}]" if ":" in host else host.lower()
