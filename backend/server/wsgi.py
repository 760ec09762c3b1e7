"""The application with settings from the environment, for gunicorn without ``pslg serve``:

    gunicorn -c python:backend.server.gunicorn_config backend.server.wsgi:app

Under a gunicorn with other workers it does not start: half-sent requests would hold their threads.
"""

from __future__ import annotations

from backend.log_lines import start_logging
from backend.server.access import require_closed
from backend.server.app import create_app
from backend.server.whole_requests import WholeRequestWorker
from backend.settings import Settings

__all__ = ["app"]

_settings = Settings.load()
WholeRequestWorker.require(_settings.threads)
for _host in WholeRequestWorker.addresses:
    require_closed(_settings.model_copy(update={"host": _host}))
start_logging(_settings.log_level, _settings.log_format)
app = create_app(_settings)
