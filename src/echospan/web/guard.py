"""Who may speak to the server: its own page, under an address or a name that it was given."""

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from websockets.datastructures import Headers

from echospan.errors import SettingError, option

LOOPBACK = "localhost"
"""The one name that is admitted without being given: it always means this machine."""


def host_name(given: str) -> str:
    """Return a host name as browsers send it: lower case, punycode, no brackets.

    Args:
        given: A name or an address, as a person gives it.

    Raises:
        SettingError: For anything else, such as a URL or a pattern.
    """
    name = given.strip().removeprefix("[").removesuffix("]").lower()
    try:
        return ipaddress.ip_address(name).compressed
    except ValueError:
        pass
    try:
        name = name.encode("idna").decode()
    except UnicodeError:
        name = ""
    if not name or not all(
        label and label.isascii() and _is_label(label) for label in name.split(".")
    ):
        raise SettingError(
            f"{option('allow_host')} is {given!r}, which is no host name",
            "give the name in the address of the page alone, such as hub.example.org: "
            "no https://, port, path or *",
        )
    return name


def _is_label(label: str) -> bool:
    return all(c.isalnum() or c in "-_" for c in label)


class Guard:
    """Decides by Host and Origin whether a request is from the server's own page.

    A page elsewhere can let a name of its own point to this machine (DNS rebinding), and can open
    a WebSocket to any address. The first shows in the Host, the second in the Origin.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        """`names`: hosts admitted beside addresses and localhost, as `host_name` returns them."""
        self.names = frozenset(names)

    def own_host(self, headers: Headers) -> str | None:
        """Return the Host header if it is an address, localhost or an admitted name, else None."""
        given = headers.get_all("Host")
        if len(given) != 1:
            return None
        (host,) = given
        name = _name_in(host)
        if name is None or not (name == LOOPBACK or name in self.names or _is_address(name)):
            return None
        return host

    def foreign(self, headers: Headers) -> str | None:
        """Return why a WebSocket with these headers is refused; None where it is admitted.

        A program sends no Origin, a browser always that of the page. A proxy may send a Host of
        its own, so an admitted name is enough in the Origin.
        """
        host = self.own_host(headers)
        if host is None:
            given = ", ".join(headers.get_all("Host"))
            return f"the Host {given[:40]} is not this server: use its address, or {_ALLOW}"
        origins = headers.get_all("Origin")
        if not origins:
            return None
        origin = ", ".join(origins)
        if origin in (f"http://{host}", f"https://{host}"):
            return None
        scheme, _, rest = origin.partition("://")
        if scheme in ("http", "https") and _name_in(rest) in self.names:
            return None
        return f"the Origin {origin[:40]} is not this server: open the page that it serves"

    def policy(self, host: str) -> str:
        """Return the content security policy of a page that was asked for under `host`."""
        # Safari before 15.4 does not take 'self' for WebSockets, so they are named.
        names = [host, *(f"{_bracketed(n)}:*" for n in sorted(self.names))]
        sockets = " ".join(f"{scheme}://{n}" for n in names for scheme in ("ws", "wss"))
        return (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
            f"connect-src 'self' {sockets}; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )


_ALLOW = "--allow-host"


def _name_in(host: str) -> str | None:
    """Return the name in `name:port`, in lower case and without brackets; None for other text."""
    if any(c in "/?#@\\;,%'\"" or c <= " " for c in host):
        return None
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port  # raises for one that is no number or too large
    except ValueError:
        return None
    name = parts.hostname or None
    if name is not None and _is_address(name):
        return ipaddress.ip_address(name).compressed
    return name


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _bracketed(name: str) -> str:
    return f"[{name}]" if ":" in name else name
