"""``gunicorn backend.server.wsgi:app``: the application with settings from the environment."""

from __future__ import annotations

from backend.log_lines import start_logging
from backend.server.app import create_app
from backend.settings import Settings

__all__ = ["app"]

_settings = Settings.load()
start_logging(_settings.log_level, _settings.log_format)
app = create_app(_settings)
