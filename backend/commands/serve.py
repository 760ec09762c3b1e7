"""``pslg serve``: the ML backend behind gunicorn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from backend.database import Database
from backend.log_lines import start_logging
from backend.server.access import Access, is_loopback, require_closed
from backend.settings import Settings, is_dotless

RESEARCH_NOTE = (
    "The compact weights were trained on research images: use them for research only (see their MODEL_CARD.md)."
)


@click.command()
@click.option("--config", help="Pipeline config: a shipped one's name or a YAML file. [default: compact]")
@click.option("--host", help="Address to listen on; 0.0.0.0 for all. [default: 127.0.0.1]")
@click.option("--port", type=int, help="Port to listen on. [default: 9090]")
@click.option("--workers", type=int, help="Processes; each loads the models. [default: 1]")
@click.option("--threads", type=int, help="Request threads per process. [default: 128]")
@click.option("--model-threads", type=int, help="Threads of the numerical libraries. [default: half of the cores]")
@click.option("--state-dir", type=click.Path(path_type=Path), help="Folder for events, pre-labels, embeddings.")
@click.option("--label-studio-url", help="Where Label Studio is reached from here, with http:// or https://.")
@click.option(
    "--allow-anyone", is_flag=True, default=None, help="Serve without credentials where other machines reach."
)
def serve(**options: Any) -> None:
    """Serve the ML backend to Label Studio.

    Every option is also an environment variable PSLG_<NAME>; Label Studio's address and token are LABEL_STUDIO_URL and
    LABEL_STUDIO_API_KEY.
    """
    from gunicorn.app.base import BaseApplication

    from backend.learning.retraining.replay import check_replay
    from backend.pipeline import load_config
    from backend.server.gunicorn_settings import gunicorn_settings

    settings = Settings.load(**options)
    require_closed(settings)
    config = load_config(settings.config)  # what is wrong must end here, not in the log of a worker
    check_replay(settings.train_replay)
    start_logging(settings.log_level, settings.log_format)
    Database.of_state(settings.state_dir, can_wait=True).close()
    for line in start_notes(settings, uses_compact_weights="compact" in config.grounder.kind + config.segmenter.kind):
        click.echo(line)

    values = gunicorn_settings(settings)

    class Server(BaseApplication):  # type: ignore[misc]
        def load_config(self) -> None:
            for name, value in values.items():
                self.cfg.set(name, value)

        def load(self) -> Any:
            from backend.server.app import create_app

            return create_app(settings)

    Server().run()


def start_notes(settings: Settings, *, uses_compact_weights: bool) -> list[str]:
    """What a user should know when the server starts: the URL to paste, and what will not work."""
    host = "localhost" if settings.host in ("127.0.0.1", "::1", "0.0.0.0", "::") else settings.host  # noqa: S104  # nosec B104 # compared
    lines = [
        f"Paste into Label Studio (project > Settings > Model > Connect Model): http://{host}:{settings.port}",
    ]
    if settings.host in ("0.0.0.0", "::"):  # noqa: S104  # nosec B104 # compared
        lines.append("From another machine or container use a name or address of this one in place of localhost.")
    if is_dotless(host):
        lines.append(
            f"WARNING: {host!r} has no dot: Label Studio connects but registers no webhook for such a URL; use a name"
            f" with a dot (a network alias such as {host}.local) or the address."
        )
    if settings.label_studio_url is None or settings.label_studio_api_key is None:
        lines.append(
            "Images in Label Studio (/data/...) need LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY: "
            + ("not set." if settings.label_studio_url is None else "no key is set.")
        )
    access = Access(settings)
    if access.is_open and not is_loopback(settings.host):
        lines.append("WARNING: anyone who reaches this address can use the server (--allow-anyone).")
    if not access.takes_training:
        lines.append(
            "Start Training in Label Studio will be refused: it needs PSLG_BASIC_AUTH_USER and PSLG_BASIC_AUTH_PASSWORD"
            " (or `pslg train project`)."
        )
    if access.webhook_headers() and settings.label_studio() is None:
        names = ", ".join(access.webhook_headers())
        lines.append(
            f"Without LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY give the project's webhook its header {names} by hand"
            " (Settings > Webhooks), else annotations are not announced."
        )
    if uses_compact_weights:
        lines.append(RESEARCH_NOTE)
    return lines
