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
    """What its address must hold as ?token=; None: nothing."""

    @classmethod
    def to(cls, host: str, port: int) -> Access:
        """For a server that is bound to this address: only by its own names, or with a token if others can reach it."""
        if is_loopback(host):
            return cls(frozenset(f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]", url_host(host))))
        return cls(token=secrets.token_urlsafe(24))

    def refusal(self, connection: HTTPConnection, secret: bool) -> str | None:
        """Why a connection is refused; None: it may pass.

        Args:
            connection: a request, or a websocket that is about to open.
            secret: whether it must show the token. What the page is made of is no secret.
        """
        hosts = connection.headers.getlist("host")
        if len(hosts) != 1 or (self.hosts and hosts[0].lower() not in self.hosts):
            return f"unknown Host: open the page as http://{min(self.hosts, default='')}"
        origins = connection.headers.getlist("origin")
        if origins and origins != [f"http://{hosts[0]}"]:
            return "another page may not connect to this one"
        if connection.scope["type"] == "websocket" and not origins and self.token is None:
            return "a websocket without Origin: only the page may open one"
        if secret and self.token and not self._shown(connection.query_params.get("token", "")):
            return "the token is missing or wrong: open the address that the terminal shows"
        return None

    def _shown(self, token: str) -> bool:
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
