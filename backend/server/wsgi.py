"""``gunicorn backend.server.wsgi:app``: the application with settings from the environment."""

from __future__ import annotations

import logging

from backend.server.app import create_app
from backend.settings import Settings

__all__ = ["app"]

_settings = Settings.load()
logging.basicConfig(level=_settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
app = create_app(_settings)
