"""The webhooks that Label Studio registers for a connected backend: given the headers that this server wants.

Label Studio makes a webhook without headers when a backend is connected. The headers hold a secret, so they go only to
a webhook at the address under which Label Studio has just asked this server, and which it lists as a backend's.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from dataset_tools.errors import LabelStudioError
from dataset_tools.label_studio.client import LabelStudio

__all__ = ["Webhook", "WebhookSetup", "backend_webhooks"]

logger = logging.getLogger(__name__)
_AGAIN = 3600.0  # seconds after which webhooks that were right are looked at again
_SOON = 30.0  # seconds after which one that was missing, or a Label Studio that was away, is asked for again
_PROJECTS = 1000


@dataclass(frozen=True)
class Webhook:
    """A webhook at a connected backend's address.

    Attributes:
        id: Label Studio's.
        url: where it goes.
        headers: what it sends along; None where Label Studio does not say.
        active: whether it sends anything.
        actions: what it is for; empty for everything.
    """

    id: int
    url: str
    headers: Mapping[str, str] | None
    active: bool
    actions: tuple[str, ...] = ()

    def sends(self, headers: Mapping[str, str]) -> bool:
        """Whether it sends these headers."""
        own = {name.lower(): value for name, value in (self.headers or {}).items()}
        return all(own.get(name.lower()) == value for name, value in headers.items())


def backend_webhooks(studio: LabelStudio, project: int) -> Iterator[tuple[str, Webhook | None]]:
    """Each connected backend's address and its webhook, None where it has none.

    Raises:
        LabelStudioError: Label Studio is away or refuses.
    """
    hooks = {str(row.get("url")): row for row in studio.webhooks(project)}
    for row in studio.backends(project):
        url = str(row.get("url")).rstrip("/")
        hook = hooks.get(f"{url}/webhook")
        yield url, None if hook is None else _webhook(hook)


def _webhook(row: Mapping[str, Any]) -> Webhook:
    headers = row.get("headers")
    known = {str(name): str(value) for name, value in headers.items()} if isinstance(headers, dict) else None
    actions = tuple(map(str, row.get("actions") or ()))
    return Webhook(int(row["id"]), str(row.get("url")), known, bool(row.get("is_active", True)), actions)


class WebhookSetup:
    """Gives webhooks their headers, in the background. Thread-safe.

    Args:
        studio: Label Studio, None without credentials for it: nothing is done then.
        headers: what its webhooks must send; empty: nothing is done.
    """

    def __init__(self, studio: LabelStudio | None, headers: Mapping[str, str]) -> None:
        self._studio = studio
        self._headers = dict(headers)
        self._lock = threading.Lock()
        self._due: dict[int, float] = {}

    def asked(self, project: int | None, host: str) -> None:
        """Label Studio has asked for a project, at this ``host`` (with its port); returns at once.

        To be called only for requests that have shown credentials.
        """
        if self._studio is None or not self._headers or project is None:
            return
        now = time.monotonic()
        with self._lock:
            if self._due.get(project, 0.0) > now:
                return
            if len(self._due) > _PROJECTS:
                self._due.clear()
            self._due[project] = now + _SOON
        threading.Thread(target=self._set_up, args=(self._studio, project, host), name="webhooks", daemon=True).start()

    def _set_up(self, studio: LabelStudio, project: int, host: str) -> None:
        try:
            if self.set_up(studio, project, host):
                with self._lock:
                    self._due[project] = time.monotonic() + _AGAIN
        except (LabelStudioError, KeyError, TypeError, ValueError) as error:
            logger.warning("project %d: its webhook cannot be given the headers that events need: %s", project, error)

    def set_up(self, studio: LabelStudio, project: int, host: str) -> bool:
        """Give the headers to the project's webhook at ``host``; whether there is one.

        Raises:
            LabelStudioError: Label Studio is away or refuses.
        """
        found = False
        for url, hook in backend_webhooks(studio, project):
            if hook is None or urlsplit(url).netloc.lower() != host.lower():
                continue
            found = True
            if not hook.sends(self._headers):
                headers = {**(hook.headers or {}), **self._headers}
                studio.set_webhook_headers(project, hook.id, headers, hook.actions)
                logger.info("project %d: the webhook %s sends %s now", project, url, ", ".join(self._headers))
        return found
