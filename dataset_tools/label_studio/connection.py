"""Calls of Label Studio's HTTP API: tokens, refusals, redirects, and what is said where it is away.

Tokens (Label Studio 1.23): a legacy token goes as ``Authorization: Token``; a personal access token (a JWT) is never
accepted itself, it is exchanged at ``/api/token/refresh/`` for an access token that lives five minutes and goes as
``Authorization: Bearer``. No token ever appears in a message or a log.
"""

from __future__ import annotations

import base64
import binascii
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any, Literal

import orjson
import requests

from dataset_tools.errors import LabelStudioError
from dataset_tools.label_studio.addresses import OWN_AUTHORITY, Route, base_address, is_under, joined, shown
from dataset_tools.label_studio.deadlines import whole

__all__ = ["CONNECT_TIMEOUT", "ApiConnection", "TokenKind", "detail", "token_kind"]

TokenKind = Literal["legacy", "personal", "access"]
CONNECT_TIMEOUT = 5.0
_REASON_BYTES = 1 << 16
_REASON_CHARACTERS = 500
_WHOLE = 5.0  # a whole call may take so many times the seconds that may pass without a byte
_FILES = ("/data/", "/storage-data/")
_RENEW_EARLY = 30.0  # seconds before the end of an access token's life at which a new one is fetched


def token_kind(token: str) -> TokenKind:
    """Which of Label Studio's tokens this is, read from its form (and, for a JWT, its ``token_type``)."""
    claims = _claims(token)
    if claims is None:
        return "legacy"
    return "access" if claims.get("token_type") == "access" else "personal"


def _claims(token: str) -> Mapping[str, Any] | None:
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = orjson.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, binascii.Error):
        return None
    return claims if isinstance(claims, dict) else None


class ApiConnection:
    """Calls one Label Studio with one token, which goes nowhere else. Thread-safe.

    Args:
        url: its base URL, with http:// or https://, and its path if it has one (``https://host/ls``).
        token: personal access token, legacy token or access token.
        timeout: seconds without a byte after which a call fails.
        route: how it is reached.

    Raises:
        LabelStudioError: the address cannot be Label Studio's, or the token none.
    """

    def __init__(self, url: str, token: str, timeout: float = 20.0, route: Route | None = None) -> None:
        try:
            self.url = base_address(url)
        except ValueError as error:
            raise LabelStudioError(f"Label Studio's address does not work: {error}") from None
        if not (token.isascii() and token.isprintable() and token == token.strip() and token):
            raise LabelStudioError("the token of Label Studio has characters that no token has; copy it once more")
        self.kind: TokenKind = token_kind(token)
        self.route = route or Route()
        self._token = token
        self._timeout = timeout
        self._access = token if self.kind == "access" else ""
        self._access_until = 0.0 if self.kind == "personal" else float("inf")
        self._lock = threading.Lock()
        self._local = threading.local()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(url={self.url!r}, kind={self.kind!r})"

    def may_have_token(self, address: str) -> bool:
        """Whether a file at this ``addresses.checked`` address may be asked for with the token.

        Only what Label Studio serves under ``/data/`` and ``/storage-data/``, at its own scheme, host and port: a task
        must not make us call its API for whoever wrote the task.
        """
        return is_under(address, self.url, _FILES)

    def headers(self, *, renew: bool = False) -> dict[str, str]:
        """The Authorization header for a call now; ``renew`` fetches a new access token although the old one may live.

        Raises:
            LabelStudioError: the exchange of a personal access token failed.
        """
        if self.kind == "legacy":
            return {"Authorization": f"Token {self._token}"}
        if self.kind == "personal":
            with self._lock:
                if renew or time.monotonic() >= self._access_until:
                    self._exchange()
        return {"Authorization": f"Bearer {self._access}"}

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        files: Sequence[tuple[str, bytes]] = (),
        timeout: float | None = None,
    ) -> Any:
        """One API call; the answer's JSON, None when it has no body.

        Args:
            method: GET, POST, ...
            path: below Label Studio's address, with a query if need be; ids in it must be quoted.
            body: sent as JSON.
            files: (name, content) of files that are sent in place of a body.
            timeout: seconds without a byte after which the call fails; None for the client's own.

        Raises:
            LabelStudioError: Label Studio is away or refuses; says what was tried and what to set.
        """
        found, answer = self._call(method, path, body, timeout, files)
        if not found:
            raise LabelStudioError(f"{method} {path} at {self.url}: 404; there is no such thing: {answer}")
        return answer

    def find(self, path: str) -> Any:
        """The JSON that a GET of ``path`` gives, None where Label Studio has nothing there (404).

        Raises:
            LabelStudioError: like :meth:`call`.
        """
        found, answer = self._call("GET", path, None, None)
        return answer if found else None

    def _call(
        self,
        method: str,
        path: str,
        body: object,
        timeout: float | None,
        files: Sequence[tuple[str, bytes]] = (),
    ) -> tuple[bool, Any]:
        """(whether it is there, its JSON or else the reason)."""
        url = f"{self.url}{path}"
        data = None if body is None else orjson.dumps(body)
        response = self._send(method, url, data, self.headers(), timeout, files)
        if response.status_code == 401 and self.kind == "personal":
            response = self._send(method, url, data, self.headers(renew=True), timeout, files)
        if response.status_code == 401:
            raise LabelStudioError(self.refusal(path, response))
        if response.status_code == 404 and _json(response) is not None:
            return False, detail(response)
        if response.is_redirect:
            raise LabelStudioError(
                f"Label Studio at {self.url} redirects {path} to {self._shown_redirect(response)}; the token does not"
                " follow redirects: set LABEL_STUDIO_URL to the address that Label Studio has itself"
            )
        if not response.ok:
            raise LabelStudioError(f"{method} {path} at {self.url}: {response.status_code} {detail(response)}")
        if not response.content:
            return True, None
        answer = _json(response)
        if answer is None:
            raise LabelStudioError(
                f"{method} {path} at {self.url} answered {response.text[:80]!r}, which is not Label Studio's JSON;"
                " LABEL_STUDIO_URL must be the address of Label Studio itself"
            )
        return True, answer

    def _shown_redirect(self, response: requests.Response) -> str:
        try:
            return shown(joined(str(response.url), response.headers["Location"]))
        except ValueError:
            return "an address that is not taken"

    def clock_ahead(self) -> float | None:
        """Seconds by which Label Studio's clock is ahead of this machine's, to about a second; None if it does not say.

        Raises:
            LabelStudioError: it is away.
        """
        before = time.time()
        response = self._send("GET", f"{self.url}/api/current-user/whoami", None, self.headers(), None)
        between = (before + time.time()) / 2
        try:
            return parsedate_to_datetime(response.headers.get("Date", "")).timestamp() - between
        except ValueError:
            return None

    def refusal(self, what: str, response: requests.Response) -> str:
        """What a 401 means for this kind of token, and what to set."""
        header = (
            "Authorization: Token <legacy token>" if self.kind == "legacy" else "Authorization: Bearer <access token>"
        )
        advice = {
            "legacy": "Legacy tokens are off by default in Label Studio: create a personal access token (Account &"
            " Settings > Personal Access Token), or allow legacy tokens (Organization > API Tokens Settings).",
            "personal": "The personal access token was exchanged, but its access token is refused: create a new"
            " personal access token (Account & Settings > Personal Access Token).",
            "access": "Access tokens live five minutes and cannot be renewed: use the personal access token itself.",
        }[self.kind]
        return (
            f"Label Studio at {self.url} answered 401 to {what} (sent: {header}): {detail(response)}."
            f" {advice} Then set LABEL_STUDIO_API_KEY."
        )

    def _exchange(self) -> None:
        data = orjson.dumps({"refresh": self._token})
        response = self._send("POST", f"{self.url}/api/token/refresh/", data, {}, None)
        answer = _json(response)
        if not response.ok or not isinstance(answer, dict) or not isinstance(answer.get("access"), str):
            raise LabelStudioError(
                f"Label Studio at {self.url} does not exchange the personal access token (POST /api/token/refresh/):"
                f" {response.status_code} {detail(response)}. It may be revoked, expired or of another Label Studio:"
                " create a new one (Account & Settings > Personal Access Token) and set LABEL_STUDIO_API_KEY."
            )
        self._access = answer["access"]
        claims = _claims(self._access) or {}
        # Only the difference of the two claims is used: the clocks of the two machines need not agree.
        life = float(claims.get("exp", 300)) - float(claims.get("iat", 0)) if "iat" in claims else 300.0
        self._access_until = time.monotonic() + max(0.0, life - _RENEW_EARLY)

    def _send(
        self,
        method: str,
        url: str,
        data: bytes | None,
        headers: Mapping[str, str],
        timeout: float | None,
        files: Sequence[tuple[str, bytes]] = (),
    ) -> requests.Response:
        session = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = self.route.session()
        sent = {**headers, "Content-Type": "application/json"} if data is not None else dict(headers)
        through = ""
        try:
            parts = [(f"file{number}", file) for number, file in enumerate(files)]
            request = session.prepare_request(requests.Request(method, url, data=data, headers=sent, files=parts))
            if not is_under(str(request.url), self.url, ("/",)):
                raise LabelStudioError(f"{method} {shown(url)!r} would leave {self.url}; the token stays there")
            proxies = self.route.proxies(str(request.url))
            through = f" through the proxy {shown(proxies['http'])}" if proxies else ""
            with whole(_WHOLE * (timeout or self._timeout)) as deadline:
                answer: requests.Response = session.send(
                    request,
                    timeout=(CONNECT_TIMEOUT, timeout or self._timeout),
                    allow_redirects=False,
                    proxies=proxies,
                    verify=session.verify,
                )
            if deadline.passed:  # an answer that was cut may look like a short one
                raise requests.Timeout
        except requests.exceptions.SSLError as error:
            raise LabelStudioError(
                f"Label Studio at {self.url} shows a certificate that is not trusted ({error}); {OWN_AUTHORITY}"
            ) from error
        except requests.RequestException as error:
            raise LabelStudioError(
                f"Label Studio at {self.url} cannot be reached{through} ({type(error).__name__}); check"
                " LABEL_STUDIO_URL: inside a container, localhost is the container itself"
            ) from error
        return answer


def _json(response: requests.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return None


def detail(response: requests.Response) -> str:
    """The reason in Label Studio's error body, shortened; of a body that is not read yet only the beginning is."""
    try:
        body = orjson.loads(next(response.iter_content(_REASON_BYTES), b""))
    except (ValueError, requests.RequestException):
        return response.reason or ""
    if not isinstance(body, dict):
        return ""
    parts = [body.get("detail") or body.get("error") or "", *_texts(body.get("validation_errors"))]
    return ": ".join(str(part) for part in parts if part)[:_REASON_CHARACTERS].rstrip(".")


def _texts(value: Any) -> Iterator[str]:
    """The sentences of Label Studio's ``validation_errors``, which lie in lists by field."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from (text if key == "non_field_errors" else f"{key}: {text}" for text in _texts(item))
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif value:
        yield " ".join(str(value).split())
