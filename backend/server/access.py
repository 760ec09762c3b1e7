"""Who may ask for what: credentials of requests, and the names under which the server is asked.

Label Studio sends Basic credentials with everything but events: those carry only the headers of their webhook
(``webhook_headers``). All comparisons take the same time, whatever is sent.
"""

from __future__ import annotations

import fnmatch
import hmac
import ipaddress
import re
import socket
from dataclasses import dataclass
from typing import Literal

from pydantic import SecretStr
from werkzeug.datastructures import Authorization, Headers

from backend.settings import Settings
from dataset_tools.errors import ConfigError

__all__ = ["SECRET_HEADER", "Access", "Refusal", "is_loopback", "require_closed"]

SECRET_HEADER = "X-Pslg-Secret"  # noqa: S105 - the header's name
Caller = Literal["anyone", "events", "client"]


@dataclass(frozen=True)
class Refusal:
    """Why a request is not answered, with the HTTP status."""

    status: int
    message: str


class Access:
    """The rules of one server.

    ======================================  ===================================================================
    ``/webhook`` with an event               the secret in ``X-Pslg-Secret``, Basic credentials, or the client key
    ``/webhook`` with START_TRAINING         Basic credentials or the client key; with none of the three set: anyone
    everything else                          Basic credentials or the client key; with neither set: anyone
    ======================================  ===================================================================
    """

    def __init__(self, settings: Settings) -> None:
        self._user = settings.basic_auth_user
        self._password = settings.basic_auth_password
        self._key = settings.client_key
        self._secret = settings.webhook_secret
        self._hosts = settings.served_hosts
        self._names = {"localhost", settings.host.lower(), socket.gethostname().lower()}

    @property
    def is_open(self) -> bool:
        """Whether anyone who reaches the port can ask for masks."""
        return self._user is None and self._key is None

    @property
    def takes_training(self) -> bool:
        """Whether Label Studio's button "Start Training" can work: it can send Basic credentials or nothing."""
        return self._user is not None or (self._key is None and self._secret is None)

    def caller(self, authorization: Authorization | None, headers: Headers) -> Caller:
        """What the credentials of a request are good for."""
        known: Caller = "anyone"
        if _equal(headers.get(SECRET_HEADER) or "", self._secret):
            known = "events"
        kind = "" if authorization is None else authorization.type
        if authorization is not None and kind == "bearer" and _equal(authorization.token or "", self._key):
            known = "client"
        if authorization is not None and kind == "basic" and self._user is not None:
            right_user = _same(authorization.username or "", self._user)
            if _equal(authorization.password or "", self._password) and right_user:
                known = "client"
        return known

    def refusal(self, path: str, caller: Caller) -> Refusal | None:
        """Why a request is not even read, None if it is."""
        if caller == "client":
            return None
        if path == "/webhook":
            if caller == "events" or (self.is_open and self._secret is None):
                return None
            return Refusal(
                401,
                f"events need the header {SECRET_HEADER} with PSLG_WEBHOOK_SECRET, or Basic credentials, in their"
                f" webhook (Settings > Webhooks); {_TRAINING}",
            )
        if self.is_open:
            return None
        return Refusal(401, "Basic credentials are missing or wrong: set them where the model is connected")

    def training_refusal(self, caller: Caller) -> Refusal | None:
        """Why this caller may not start a training, None if it may."""
        return None if caller == "client" or (self.is_open and self._secret is None) else Refusal(401, _TRAINING)

    def host_refusal(self, host: str) -> Refusal | None:
        """Why a request to this Host header is not answered: a page of a foreign site whose name leads here.

        Where credentials are wanted such a page has none; so without PSLG_SERVED_HOSTS every name is taken there.
        """
        if self._hosts or self.is_open:
            name = _hostname(host)
            own = name is not None and (_is_address(name) or name in self._names or name.endswith(".localhost"))
            if not own and not (name and any(fnmatch.fnmatchcase(name, pattern) for pattern in self._hosts)):
                return Refusal(
                    421, f"{host[:200]!r} is not known as a name of this server; PSLG_SERVED_HOSTS names those it has"
                )
        return None

    def is_own_name(self, host: str) -> bool:
        """Whether this Host header is certainly this machine: a loopback address, or one of PSLG_SERVED_HOSTS."""
        name = _hostname(host)
        if name is None:
            return False
        if _is_address(name):
            return ipaddress.ip_address(name).is_loopback
        return name == "localhost" or any(fnmatch.fnmatchcase(name, pattern) for pattern in self._hosts)

    def webhook_headers(self) -> dict[str, str]:
        """What a webhook of Label Studio must send; empty where nothing is wanted."""
        if self._secret is not None:
            return {SECRET_HEADER: self._secret.get_secret_value()}
        if self._user is not None and self._password is not None:
            basic = Authorization("basic", {"username": self._user, "password": self._password.get_secret_value()})
            return {"Authorization": basic.to_header()}
        return {}


_TRAINING = (
    "Start Training needs Basic credentials (PSLG_BASIC_AUTH_USER, PSLG_BASIC_AUTH_PASSWORD, and the same where the"
    " model is connected): Label Studio can send nothing else with it"
)


def _equal(given: str, secret: SecretStr | None) -> bool:
    return secret is not None and _same(given, secret.get_secret_value())


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), wanted.encode("utf-8", "surrogatepass"))


def _hostname(host: str) -> str | None:
    """The name in a Host header, in small letters; None where it is no such header."""
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?", host)
    return None if match is None else match[1].strip("[]").rstrip(".").lower()


def require_closed(settings: Settings) -> None:
    """Raise ConfigError if other machines could use the server without credentials, unless that is wanted."""
    if settings.allow_anyone or not Access(settings).is_open or is_loopback(settings.host):
        return
    raise ConfigError(
        f"at {settings.host} other machines could use this server without credentials: set PSLG_BASIC_AUTH_USER and"
        " PSLG_BASIC_AUTH_PASSWORD (and the same in Label Studio, where the model is connected), listen on 127.0.0.1,"
        " or say --allow-anyone (PSLG_ALLOW_ANYONE=1)"
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
