"""Who may speak to the server at all: pages of its own, under a name that is its own."""

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send


def own_host(headers: Mapping[str, str], also: str = "localhost") -> str | None:
    """The Host that was asked for, if it is an address, localhost or `also`; None otherwise.

    A page elsewhere may let its name point to this machine (DNS rebinding), but then the name shows
    here.
    """
    host = headers.get("host", "")
    try:
        name = urlsplit(f"//{host}").hostname or ""
        _ = urlsplit(f"//{host}").port
    except ValueError:
        return None
    if any(c in host for c in "/?#@\\;, '\""):
        return None
    if name in ("localhost", also):
        return host
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return None
    return host


def foreign(headers: Mapping[str, str], also: str = "localhost") -> str | None:
    """Why a socket that was asked for with these headers is none of ours; None where it is.

    A program sends no Origin, a browser always that of the page that asks.
    """
    host, origin = own_host(headers, also), headers.get("origin")
    if host is None:
        return f"the Host {headers.get('host', '')[:40]} is not this server: use its address"
    if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
        return f"the Origin {origin[:40]} is not this server: open the page that it serves"
    return None


class Guard:
    """Refuses foreign hosts, and tells browsers to run and load nothing but the server's files."""

    def __init__(self, app: ASGIApp, also: str = "localhost") -> None:
        self.app, self.also = app, also

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is ours, with the headers on every answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        host = own_host(Headers(scope=scope), self.also)
        policy = (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
            f"connect-src 'self' ws://{host} wss://{host}; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(
                    {
                        "content-security-policy": policy if host else "default-src 'none'",
                        "x-content-type-options": "nosniff",
                        "referrer-policy": "no-referrer",
                        "cross-origin-opener-policy": "same-origin",
                        "cross-origin-resource-policy": "same-origin",
                        "cache-control": "no-cache",
                    }
                )
            await send(message)

        if host is None:
            refusal = PlainTextResponse("not this server: use its address\n", 421)
            await refusal(scope, receive, guarded)
            return
        await self.app(scope, receive, guarded)
