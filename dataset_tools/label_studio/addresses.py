"""Addresses from tasks and settings: which of them are taken, where they lead, and how that host is reached.

One parse decides: what is looked at is the address as it will be connected to (``requests``' prepared one), never the
text that somebody wrote. Texts that two parsers read differently are refused.
"""

from __future__ import annotations

import fnmatch
import ipaddress
import os
import re
import socket
import unicodedata
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urljoin, urlsplit

import requests

from dataset_tools.label_studio.deadlines import WatchedAdapter

__all__ = [
    "OWN_AUTHORITY",
    "Origin",
    "Route",
    "base_address",
    "checked",
    "has_odd_characters",
    "is_public",
    "is_under",
    "joined",
    "may_be_private",
    "origin",
    "require_proxy",
    "shown",
]

OWN_AUTHORITY = "for a certificate authority of your own, set PSLG_CA_BUNDLE to the file with its certificate"
"""What helps where a certificate is not trusted (``Route.ca_bundle``)."""
_WEB = re.compile(r"https?://([^/?#]*)", re.IGNORECASE)
_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]*:[0-9a-f:.]*")
_PAGES = re.compile(r"/(projects|tasks|user|organization|people|api)(/.*)?$")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Origin(NamedTuple):
    """Scheme, host (small letters) and port."""

    scheme: str
    host: str
    port: int


@dataclass(frozen=True)
class Route:
    """How hosts are reached. No variable of the environment and no .netrc has a say besides.

    Attributes:
        ca_bundle: certificates that https hosts are checked with (a file, or a folder of hashed ones), None for the
            usual ones.
        proxy: address of an http proxy for every host but those of ``no_proxy``; None for none.
        no_proxy: hosts that are reached directly, ``*.example.org`` allowed.
    """

    ca_bundle: Path | None = None
    proxy: str | None = None
    no_proxy: tuple[str, ...] = ()

    @classmethod
    def from_environment(cls) -> Route:
        """Of ``PSLG_CA_BUNDLE`` (else ``REQUESTS_CA_BUNDLE``), ``PSLG_PROXY`` and ``PSLG_NO_PROXY``.

        Raises:
            ValueError: one of them cannot work.
        """
        bundle = os.environ.get("PSLG_CA_BUNDLE") or os.environ.get("REQUESTS_CA_BUNDLE")
        direct = (part.strip().lower() for part in os.environ.get("PSLG_NO_PROXY", "").split(","))
        route = cls(
            Path(bundle).expanduser() if bundle else None,
            os.environ.get("PSLG_PROXY") or None,
            tuple(filter(None, direct)),
        )
        if route.proxy is not None:
            require_proxy(route.proxy)
        if route.ca_bundle is not None and not route.ca_bundle.exists():
            raise ValueError(f"PSLG_CA_BUNDLE (or REQUESTS_CA_BUNDLE): {route.ca_bundle} does not exist")
        return route

    def session(self) -> requests.Session:
        """A session that goes this way; one per thread."""
        session = requests.Session()
        for scheme in ("http://", "https://"):
            session.mount(scheme, WatchedAdapter())
        return self.prepare(session)

    def prepare(self, session: requests.Session) -> requests.Session:
        """``session``, going this way."""
        session.trust_env = False  # a .netrc would replace the token
        # Label Studio gives whoever shows the token a session's cookie, and a cookie goes to every port of its host.
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        session.verify = True if self.ca_bundle is None else str(self.ca_bundle)
        return session

    def proxies(self, address: str) -> dict[str, str]:
        """What ``requests`` takes as ``proxies`` for this address; empty where it is reached directly."""
        if self.proxy is None or any(fnmatch.fnmatchcase(origin(address).host, host) for host in self.no_proxy):
            return {}
        return {"http": self.proxy, "https": self.proxy}


def checked(url: str) -> str:
    """The address that a request to ``url`` is sent to, in the one form in which it is looked at and connected to.

    Raises:
        ValueError: it is no http(s) address, carries a user name, or can be read in two ways.
    """
    if has_odd_characters(url) or url != url.strip():
        raise ValueError(f"the address {shown(url)!r} has a backslash, a control character or a space around it")
    match = _WEB.match(url)
    if match is None:
        raise ValueError(f"{shown(url)!r} is no address with http:// or https://")
    if "@" in match[1]:
        raise ValueError(f"the address {shown(url)!r} carries a user name")
    try:
        address = _prepared(url)
        parts = urlsplit(address)
        host, settled = parts.hostname or "", _prepared(address) == address
        known = parts.port is None or 0 < parts.port < 65536
    except (requests.RequestException, ValueError):
        raise ValueError(f"the address {shown(url)!r} names no host that can be asked") from None
    if not known or "@" in parts.netloc or not _HOST.fullmatch(host):
        raise ValueError(f"the address {shown(url)!r} names no host that can be asked")
    if not settled:  # e.g. %2e%2e, which becomes .. only on the way
        raise ValueError(f"the path of {shown(url)!r} can be read in two ways")
    return address


def _prepared(url: str) -> str:
    request = requests.PreparedRequest()
    request.prepare_url(url, None)
    return str(request.url)


def joined(address: str, location: str) -> str:
    """Where a redirect from ``address`` leads, :func:`checked`.

    Raises:
        ValueError: ``location`` is not taken; ``//host`` is not, either.
    """
    if has_odd_characters(location) or location.startswith("//"):
        raise ValueError(f"a redirect to {shown(location)!r} is not followed")
    scheme = urlsplit(location).scheme.lower()
    if scheme and not _WEB.match(location):
        raise ValueError(f"redirected to {scheme}:, which is not fetched")
    return checked(urljoin(address, location))


def origin(address: str) -> Origin:
    """Scheme, host and port (the scheme's own where none is named) of a :func:`checked` address."""
    parts = urlsplit(address)
    return Origin(parts.scheme, parts.hostname or "", parts.port or _DEFAULT_PORTS[parts.scheme])


def base_address(url: str) -> str:
    """The address of a Label Studio, without a slash at its end; it may have a path (``https://host/ls``).

    Raises:
        ValueError: it is no such address, or that of one of its pages, as copied from a browser.
    """
    address = checked(url)
    parts = urlsplit(address)
    page = _PAGES.search(parts.path)
    if page or "?" in url or "#" in url:
        path = parts.path[: page.start()] if page else parts.path
        raise ValueError(
            f"{shown(url)!r} is one of its pages; Label Studio's own address would be"
            f" {parts.scheme}://{parts.netloc}{path.rstrip('/')}"
        )
    if not is_under(address, address, ("",)):
        raise ValueError(f"the path of {shown(url)!r} has dots for folders")
    return address.rstrip("/")


def require_proxy(url: str) -> str:
    """The address of a proxy as it is; it may carry a user name and a password.

    Raises:
        ValueError: it is no such address.
    """
    if not re.fullmatch(r"https?://([^/?#@\s]*@)?[^/?#@\s]+/?", url):
        raise ValueError("a proxy is named as http://host:port (or http://user:password@host:port)")
    return url


def is_under(address: str, base: str, folders: tuple[str, ...]) -> bool:
    """Whether ``address`` has the origin of ``base`` and lies below one of ``folders`` (``/data/``) of its path."""
    if origin(address) != origin(base):
        return False
    path, prefix = urlsplit(address).path, urlsplit(base).path.rstrip("/")
    # A server in between may undo the percent signs once more: look at what they may become, too.
    while (plain := unquote(path)) != path:
        path = plain
    if has_odd_characters(path) or any(part.split(";")[0] in (".", "..") for part in path.split("/")):
        return False
    return any(path.startswith(prefix + folder) for folder in folders)


def has_odd_characters(text: str) -> bool:
    """Whether ``text`` has characters that parsers of addresses skip, or take for a slash."""
    return any(char == "\\" or unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in text)


def may_be_private(host: str) -> bool:
    """Whether a host name is, by its looks, one of the local network: no name is looked up for that.

    Meant for hosts that a proxy connects to, where no connected address can be looked at.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        try:  # 127.1, 0x7f000001, 2130706433: other ways to write an address
            address = ipaddress.ip_address(socket.inet_aton(host))
        except (OSError, ValueError):
            return "." not in host.strip(".") or host.rstrip(".").endswith((".localhost", ".local", ".internal"))
    return not is_public(address)


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether an address is one of the public internet, with the IPv4 address that an IPv6 one may stand for."""
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF).is_global
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if inner is not None:
            return inner.is_global
    return address.is_global


def shown(url: str) -> str:
    """An address for messages: without the query, which may be a signature, and without a user's name."""
    text = re.sub(r"^([^/?#]*//)?[^/?#]*@", r"\1", url.partition("?")[0].partition("#")[0])
    return text if len(text) <= 200 else f"{text[:200]}..."
