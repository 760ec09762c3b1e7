"""For ``gunicorn -c python:backend.server.gunicorn_config backend.server.wsgi:app``; settings from the environment."""

from __future__ import annotations

from backend.server.access import require_closed
from backend.server.gunicorn_settings import gunicorn_settings
from backend.settings import Settings

_settings = Settings.load()
require_closed(_settings)
globals().update(gunicorn_settings(_settings))  # gunicorn reads a module's names
