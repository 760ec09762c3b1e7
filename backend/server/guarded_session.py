"""HTTP sessions that do not connect to private addresses, so that a task's URL cannot reach into the local network.

The address is checked on the connected socket, before a byte is sent: a host name that resolves to another address the
second time does not get around it.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from typing import Any

import requests
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from dataset_tools.errors import ImageError
from dataset_tools.label_studio.deadlines import WatchedAdapter, WatchedConnection, WatchedSecureConnection

__all__ = ["guarded_session"]

IsTrusted = Callable[[str, int], bool]
"""Whether this host and port may have a private address."""


def guarded_session(is_trusted: IsTrusted) -> requests.Session:
    """A session whose connections raise ImageError for private addresses of hosts that are not trusted."""
    session = requests.Session()
    session.trust_env = False  # no .netrc credentials; a proxy would hide the address that is checked
    adapter = _GuardedAdapter(is_trusted)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session


class _GuardedAdapter(WatchedAdapter):
    def __init__(self, is_trusted: IsTrusted) -> None:
        self._is_trusted = is_trusted
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        is_trusted = self._is_trusted

        class Connection(WatchedConnection):
            def _new_conn(self) -> socket.socket:
                return _checked(super()._new_conn(), self.host, self.port or 80, is_trusted)

        class SecureConnection(WatchedSecureConnection):
            def _new_conn(self) -> socket.socket:
                return _checked(super()._new_conn(), self.host, self.port or 443, is_trusted)

        class Pool(HTTPConnectionPool):
            ConnectionCls = Connection

        class SecurePool(HTTPSConnectionPool):
            ConnectionCls = SecureConnection

        self.poolmanager.pool_classes_by_scheme = {"http": Pool, "https": SecurePool}


def _checked(connected: socket.socket, host: str, port: int, is_trusted: IsTrusted) -> socket.socket:
    address = ipaddress.ip_address(str(connected.getpeername()[0]).split("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    if (mapped or address).is_global or is_trusted(host, port):
        return connected
    connected.close()
    raise ImageError(
        f"{host}:{port} has the private address {address}, from which images are not fetched;"
        f" if it serves your images, add {host} to PSLG_IMAGE_HOSTS"
    )
