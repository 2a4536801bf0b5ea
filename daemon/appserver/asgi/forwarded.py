"""X-Forwarded-* and X-Request-ID: believed from proxies that the operator trusts, dropped from all others.

A peer on a UNIX socket has passed the socket's file mode, so `unix` stands in the default list; uvicorn and granian
look only at addresses and so ignore these fields exactly where nginx sits on the same host.
"""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from appserver.wire.engine import Headers

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

# ipaddress is imported where an address is met that is not literally one of the trusted: that takes 3 ms, and behind a
# proxy on the same host, or without one, no start needs it.
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1"})

_FIELDS: Final = frozenset(
    {
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-prefix",
        b"x-forwarded-proto",
        b"x-real-ip",
        b"x-request-id",
    }
)
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._~+/=:@-]{1,128}")
_SCHEMES: Final = {b"http": "http", b"https": "https", b"ws": "http", b"wss": "https"}


class Origin(NamedTuple):
    """What a request says of the client behind the proxies; None where it says nothing that can be believed."""

    headers: Headers
    client: str | None
    scheme: str | None
    request_id: str | None


class Trust:
    """The proxies that are believed.

    Args:
        entries: Addresses, CIDR networks, `unix` for peers on UNIX sockets, `*` for everybody.

    Raises:
        ValueError: An entry is none of these.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        names = set(entries)
        self.everybody = "*" in names
        self.unix = self.everybody or "unix" in names
        self._names = names - {"*", "unix"}
        self._networks: tuple[IPv4Network | IPv6Network, ...] | None = None
        if self._names - _LOOPBACK:
            self._networks = self._parse()

    def _parse(self) -> "tuple[IPv4Network | IPv6Network, ...]":
        from ipaddress import ip_network  # noqa: PLC0415 - see _LOOPBACK

        return tuple(ip_network(name, strict=False) for name in self._names)

    def trusts(self, address: str) -> bool:
        """Whether a peer at this address, as text, is believed; what is no address is not."""
        if self.everybody or address in self._names:
            return True
        from ipaddress import IPv6Address, ip_address  # noqa: PLC0415 - see _LOOPBACK

        try:
            parsed = ip_address(address)
        except ValueError:
            return False
        if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped
        if self._networks is None:
            self._networks = self._parse()
        return any(parsed in network for network in self._networks)

    def client(self, hops: bytes) -> str | None:
        """The client in an X-Forwarded-For: from the right, the first hop that no trusted proxy has added."""
        from ipaddress import ip_address  # noqa: PLC0415 - see _LOOPBACK

        client = None
        for hop in reversed(hops.split(b",")):
            address = _without_port(hop.strip().decode("latin-1"))
            try:
                ip_address(address)
            except ValueError:
                break  # "unknown", an obfuscated name, or rubbish: whoever is left of it cannot be believed either
            client = address
            if not self.everybody and not self.trusts(address):
                break
        return client


def _without_port(hop: str) -> str:
    """An address without brackets and port, as some proxies (Azure, HAProxy options) add them."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop


def _is_disguised(name: bytes) -> bool:
    """A name that an application which maps fields as CGI does (RFC 3875 section 4.1.18) takes for one of ours."""
    return name.replace(b"_", b"-") in _FIELDS and name not in _FIELDS


# Names that have been looked at and speak for nobody. Bounded, because clients may make names up.
_harmless: Final[set[bytes]] = set()
_HARMLESS_LIMIT: Final = 1024
_NAME_LIMIT: Final = 64


def is_forwarded(headers: Headers) -> bool:
    """Whether some field speaks for another host, or could be taken for one that does."""
    for name, _ in headers:
        if name not in _harmless:
            if name.replace(b"_", b"-") in _FIELDS:
                return True
            if len(_harmless) < _HARMLESS_LIMIT and len(name) <= _NAME_LIMIT:
                _harmless.add(name)
    return False


def drop_forwarded(headers: Headers) -> Headers:
    """The fields without any that speak for another host: what a peer that is not trusted gets to say."""
    return [field for field in headers if field[0].replace(b"_", b"-") not in _FIELDS]


def read_forwarded(headers: Headers, trust: Trust) -> Origin:
    """What a trusted peer says of the client."""
    hops: list[bytes] = []
    scheme = request_id = None
    disguised = False
    for name, value in headers:
        if name not in _FIELDS:
            disguised = disguised or (name.find(b"_") >= 0 and _is_disguised(name))
        elif name == b"x-forwarded-for":
            hops.append(value)
        elif name == b"x-forwarded-proto":
            # The last, and of it the rightmost, is the trusted peer's own word; the others came with the request.
            scheme = _SCHEMES.get(value.rpartition(b",")[2].strip().lower())
        elif name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            request_id = value.decode("ascii")
    if disguised:
        headers = [field for field in headers if not _is_disguised(field[0])]
    return Origin(headers, trust.client(b",".join(hops)) if hops else None, scheme, request_id)
