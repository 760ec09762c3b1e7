"""What Label Studio keeps about this server, set as the server needs it: webhooks' headers, the connection's name.

Label Studio makes a webhook without headers when a backend is connected. The headers hold a secret, so they go only to
a webhook at the address under which Label Studio has just asked this server, and which it lists as a backend's.

The connection is named after the model version that answers: Label Studio 1.23 fills the Data Manager's column
"Prediction score" only from predictions whose version has the name of the project's model, and that is a connection's.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from backend.server.models.project_models import UNAVAILABLE
from dataset_tools.errors import LabelStudioError
from dataset_tools.label_studio.client import LabelStudio

__all__ = ["ConnectionSetup", "Webhook", "backend_webhooks"]

logger = logging.getLogger(__name__)
_AGAIN = 3600.0  # seconds after which what was right is looked at again
_SOON = 30.0  # seconds after which what was missing, or a Label Studio that was away, is asked for again
# Seconds before each look: Label Studio asks before it has stored a new connection, and names its project's model last.
_LOOKS = (2.0, 5.0, 15.0)
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


class ConnectionSetup:
    """Sets it, in the background. Thread-safe.

    Args:
        studio: Label Studio, None without credentials for it: nothing is done then.
        headers: what its webhooks must send; empty: they are left alone.
        named: whether connections are named after the model version.
    """

    def __init__(self, studio: LabelStudio | None, headers: Mapping[str, str], *, named: bool = True) -> None:
        self._studio = studio
        self._headers = dict(headers)
        self._named = named
        self._lock = threading.Lock()
        self._due: dict[tuple[int, str], float] = {}
        self._told: dict[int, str] = {}
        self._former: dict[int, set[str]] = {}
        self._turn = threading.Lock()

    def asked(self, project: int | None, host: str, version: str) -> None:
        """Label Studio has asked for a project, at this ``host`` (with its port), and was told ``version``.

        Returns at once. To be called only for requests that have shown credentials.
        """
        if self._studio is None or not (self._headers or self._named) or project is None:
            return
        now = time.monotonic()
        with self._lock:
            if self._due.get((project, version), 0.0) > now:
                return
            if len(self._due) > _PROJECTS:
                self._due.clear()
            self._due[project, version] = now + _SOON
            self._told[project] = version
        arguments = (self._studio, project, host, version)
        threading.Thread(target=self._set_up, args=arguments, name="connection", daemon=True).start()

    def _set_up(self, studio: LabelStudio, project: int, host: str, version: str) -> None:
        for seconds in _LOOKS:
            time.sleep(seconds)
            try:
                # One at a time, and only for the newest version: after a promotion the looks of several versions are
                # under way, and each would take the name back, or find the project following a name that it never saw.
                with self._turn:
                    if self._told.get(project) != version:
                        return
                    former = self._former.setdefault(project, set())
                    settled = self.set_up(studio, project, host, version, former)
            except (LabelStudioError, KeyError, TypeError, ValueError) as error:
                logger.warning(
                    "project %d: its webhook and the connection's name cannot be set: %s; set them by hand: pslg doctor"
                    " says which",
                    project,
                    error,
                )
                return
            if settled:
                with self._lock:
                    self._due = {key: due for key, due in self._due.items() if key[0] != project}
                    self._due[project, version] = time.monotonic() + _AGAIN
                    self._former.pop(project, None)
                return

    def set_up(
        self, studio: LabelStudio, project: int, host: str, version: str, former: set[str] | None = None
    ) -> bool:
        """Set what the project's connections at ``host`` need; whether there are any and nothing was left to be set.

        Args:
            studio: Label Studio.
            project: its project.
            host: the address of this server, as Label Studio asks it.
            version: the model version that answers the project.
            former: names that the connection had in earlier looks; this one's are added.

        Raises:
            LabelStudioError: Label Studio is away or refuses.
        """
        former = set() if former is None else former
        found, changed = False, False
        given = self._give_headers(studio, project, host)  # first: without its secret an event is lost, a name is not
        for row in studio.backends(project):
            if urlsplit(str(row.get("url"))).netloc.lower() != host.lower():
                continue
            found = True
            if self._named and str(row.get("title")) != version and not version.endswith(UNAVAILABLE):
                former.add(str(row.get("title")))
                studio.rename_backend(project, row, version)
                logger.info("project %d: the connection %r is called %s now", project, row.get("title"), version)
                changed = True
        if former and studio.follow_backend(project, former - {version}, version):
            changed = True
        return given and found and not changed

    def _give_headers(self, studio: LabelStudio, project: int, host: str) -> bool:
        """Whether the project's webhook at ``host`` is there, where one is needed, and has its headers now."""
        if not self._headers:
            return True
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
