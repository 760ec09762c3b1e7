"""Which hosts are asked for images, whoever wrote their addresses: the one guard for tasks and for scenes.

Private addresses are not connected to, so that an address cannot reach into the local network. The address is checked
once more on the connected socket, before a byte is sent: a host name that resolves to another address the second time
does not get around it.
"""

from __future__ import annotations

import contextlib
import fnmatch
import ipaddress
import os
import socket
from collections.abc import Callable
from typing import Any

import requests
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from dataset_tools.errors import ImageError
from dataset_tools.label_studio.addresses import Route, base_address, is_public, may_be_private, origin
from dataset_tools.label_studio.deadlines import WatchedAdapter, WatchedConnection, WatchedSecureConnection

__all__ = ["HostRules"]

_IsTrusted = Callable[[str, int], bool]


class HostRules:
    """Says which addresses are asked, and makes sessions that hold to it.

    Args:
        hosts: those images may come from besides Label Studio, ``*.example.org`` allowed; empty: every host with a
            public address. A host that is named may have a private one.
        base: Label Studio's address, which is always trusted; None without one.
        route: how hosts are reached.
    """

    def __init__(self, hosts: tuple[str, ...], base: str | None, route: Route) -> None:
        self._hosts = hosts
        self._base = base
        self._route = route

    @classmethod
    def from_environment(cls, route: Route) -> HostRules:
        """Of ``PSLG_IMAGE_HOSTS`` and ``LABEL_STUDIO_URL`` (or ``PSLG_LABEL_STUDIO_URL``).

        Raises:
            ValueError: Label Studio's address cannot be one.
        """
        hosts = (part.strip().lower() for part in os.environ.get("PSLG_IMAGE_HOSTS", "").split(","))
        url = os.environ.get("PSLG_LABEL_STUDIO_URL") or os.environ.get("LABEL_STUDIO_URL")
        return cls(tuple(filter(None, hosts)), base_address(url) if url else None, route)

    def require_allowed(self, address: str) -> None:
        """Check a ``addresses.checked`` address before it is asked.

        Raises:
            ImageError: images do not come from there; names the setting.
        """
        scheme, host, port = origin(address)
        if self._hosts and not _matches(host, self._hosts) and not self._is_label_studio(scheme, host, port):
            raise ImageError(f"images from {host} are not allowed; PSLG_IMAGE_HOSTS names {', '.join(self._hosts)}")
        # The session looks at connected addresses; behind a proxy there is only the name.
        if self._route.proxies(address) and may_be_private(host) and not self._is_trusted(host, port):
            raise ImageError(
                f"{host} is a name or address of a local network, from which images are not fetched;"
                f" if it serves your images, add {host} to PSLG_IMAGE_HOSTS"
            )

    def session(self) -> requests.Session:
        """A session whose connections raise ImageError for private addresses of hosts that are not trusted."""
        session = requests.Session()
        session.trust_env = False  # no .netrc credentials; a proxy would hide the address that is checked
        adapter = _GuardedAdapter(self._is_trusted)
        session.mount("http://", adapter)
        session.mount("https://", adapter)
        return self._route.prepare(session)

    def _is_label_studio(self, scheme: str, host: str, port: int) -> bool:
        return self._base is not None and origin(self._base) == (scheme, host, port)

    def _is_trusted(self, host: str, port: int) -> bool:
        return _matches(host.lower(), self._hosts) or (
            self._base is not None and origin(self._base)[1:] == (host.lower(), port)
        )


def _matches(host: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(host, pattern) for pattern in patterns)


class _GuardedAdapter(WatchedAdapter):
    def __init__(self, is_trusted: _IsTrusted) -> None:
        self._is_trusted = is_trusted
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        is_trusted = self._is_trusted

        class Connection(WatchedConnection):
            def _new_conn(self) -> socket.socket:
                port = self.port or self.default_port
                if not is_trusted(self.host, port):
                    _require_public(self.host, port)
                return _checked(super()._new_conn(), self.host, port, is_trusted)

        class SecureConnection(Connection, WatchedSecureConnection):
            pass

        class Pool(HTTPConnectionPool):
            ConnectionCls = Connection

        class SecurePool(HTTPSConnectionPool):
            ConnectionCls = SecureConnection

        self.poolmanager.pool_classes_by_scheme = {"http": Pool, "https": SecurePool}


def _require_public(host: str, port: int) -> None:
    """Look where ``host`` is before it is connected to; what cannot be found out fails when it is connected to."""
    with contextlib.suppress(OSError, UnicodeError):
        for *_, address in socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM):
            _require_public_address(str(address[0]), host, port)


def _checked(connected: socket.socket, host: str, port: int, is_trusted: _IsTrusted) -> socket.socket:
    if not is_trusted(host, port):
        try:
            _require_public_address(str(connected.getpeername()[0]), host, port)
        except ImageError:
            connected.close()
            raise
    return connected


def _require_public_address(found: str, host: str, port: int) -> None:
    address = ipaddress.ip_address(found.split("%")[0])
    if not is_public(address):
        raise ImageError(
            f"{host}:{port} has the private address {address}, from which images are not fetched;"
            f" if it serves your images, add {host} to PSLG_IMAGE_HOSTS"
        )
