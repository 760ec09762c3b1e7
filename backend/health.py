"""Asks the server on this machine whether it is well, with its own credentials: ``python -m backend.health``.

For the container's health check and for supervisors. It ends with status 0 where ``/health`` answers, else with 1 and
the reason on stderr.
"""

from __future__ import annotations

import sys

import requests

from backend.settings import Settings
from dataset_tools.errors import PslgError

__all__ = ["problem"]


def problem(settings: Settings, timeout: float = 2.0) -> str | None:
    """Why the server of ``settings`` on this machine is not well; None if it is.

    Args:
        settings: its port and credentials; an address on which it listens on all interfaces is asked as 127.0.0.1.
        timeout: seconds for the connection, and again for the answer.
    """
    host = "127.0.0.1" if settings.host in {"0.0.0.0", "::", "localhost"} else settings.host  # noqa: S104  # nosec B104 # compared
    address = f"http://{f'[{host}]' if ':' in host else host}:{settings.port}/health"
    with requests.Session() as session:
        session.trust_env = False  # neither a proxy nor .netrc between a server and itself
        if settings.basic_auth_user is not None and settings.basic_auth_password is not None:
            session.auth = (settings.basic_auth_user, settings.basic_auth_password.get_secret_value())
        elif settings.client_key is not None:
            session.headers["Authorization"] = f"Bearer {settings.client_key.get_secret_value()}"
        try:
            status = session.get(address, timeout=timeout).status_code
        except requests.RequestException as error:
            return f"{address} does not answer: {error}"
    return None if status == requests.codes.ok else f"{address} answers {status}"


if __name__ == "__main__":
    try:
        found = problem(Settings.load())
    except PslgError as error:
        found = str(error)
    sys.exit(found)
