"""The HTTP side: routes, status codes, authentication. What they do is in ``service``."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson
from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException, NotFound

from backend.learning.retraining.replay import check_replay
from backend.server.access import Access, Refusal
from backend.server.doc_pages import doc_page, doc_pages
from backend.server.protocol import PredictRequest, SetupRequest, parse_body, validate
from backend.server.service import LabelingService
from backend.server.status_page import status_page
from backend.settings import Settings
from dataset_tools.errors import ProtocolError, PslgError, UnavailableError

__all__ = ["BodyBudget", "answer_to", "create_app"]

logger = logging.getLogger(__name__)


class BodyBudget:
    """Bytes of bodies that are held at the same time. Thread-safe.

    Args:
        most: bytes; a body that alone is larger still gets through when there is no other.
        small: bodies up to this size are not counted.
    """

    def __init__(self, most: int, small: int = 1_000_000) -> None:
        self._most = most
        self._small = small
        self._held = 0
        self._lock = threading.Lock()

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """While a body of ``size`` bytes is read and answered.

        Raises:
            UnavailableError: too many large ones are being answered.
        """
        if size <= self._small:
            yield
            return
        with self._lock:
            if self._held and self._held + size > self._most:
                raise UnavailableError(
                    f"requests of {self._held} bytes are being answered (PSLG_BODY_BYTES limits one); ask later"
                )
            self._held += size
        try:
            yield
        finally:
            with self._lock:
                self._held -= size


def create_app(settings: Settings, service: LabelingService | None = None) -> Flask:
    """The WSGI application; without a ``service`` it makes one and begins to load the models in the background.

    Raises:
        ConfigError: the state folder is of a later release, or ``train_replay`` is of no use to a training.
    """
    app = Flask("pslg")
    app.config["MAX_CONTENT_LENGTH"] = settings.body_bytes
    if service is None:
        check_replay(settings.train_replay)
        service = LabelingService(settings)
        service.start()
        service.training.start()
    app.extensions["pslg"] = service
    access = Access(settings)
    _add_routes(app, service, access, settings.body_bytes)
    _add_handlers(app, service, access)
    return app


def _add_routes(app: Flask, service: LabelingService, access: Access, body_bytes: int) -> None:
    budget = BodyBudget(4 * body_bytes)

    @contextmanager
    def body() -> Iterator[dict[str, Any]]:
        """The request's JSON; its bytes count as held until the block ends."""
        length = request.content_length
        with budget.holding(body_bytes if length is None else min(length, body_bytes)):
            yield parse_body(request.get_data(cache=False), request.content_type)

    @app.get("/health")
    def health() -> Response:
        # UP also while models load or weights are missing: Label Studio asks /setup for the rest.
        problem = service.problem
        return _json({"status": "UP", "model_class": "PslgSam", **({"problem": problem} if problem else {})})

    @app.post("/setup")
    def setup() -> Response:
        with body() as sent:
            setup_request = validate(SetupRequest, sent)
        version = service.setup(setup_request)
        host = request.headers.get("Host", "")
        if g.caller == "client" or access.is_own_name(host):
            service.connection.asked(setup_request.project_id, host, version)
        return _json({"model_version": version})

    @app.post("/predict")
    def predict() -> Response:
        with body() as sent:
            return _json({"results": service.predict(validate(PredictRequest, sent))})

    @app.post("/webhook")
    def webhook() -> Response:
        with body() as sent:
            refusal = access.training_refusal(g.caller) if sent.get("action") == "START_TRAINING" else None
            if refusal is not None:
                return _refused(refusal)
            return _json({"status": "stored", "event": service.record_event(sent)}, 201)

    @app.get("/")
    def status() -> Response:
        return Response(status_page(service), content_type="text/html; charset=utf-8")

    @app.get("/docs/<name>")
    def docs(name: str) -> Response:
        if name not in doc_pages():
            raise NotFound(f"no page {name[:80]!r}; there are {', '.join(doc_pages())}")
        return Response(doc_page(name), content_type="text/plain; charset=utf-8")

    @app.get("/versions")
    def versions() -> Response:
        return _json({"versions": service.versions()})

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(service.render_metrics(), content_type="text/plain; version=0.0.4; charset=utf-8")


def _add_handlers(app: Flask, service: LabelingService, access: Access) -> None:
    @app.before_request
    def authenticate() -> Response | None:
        g.started = time.perf_counter()
        g.caller = access.caller(request.authorization, request.headers)
        refusal = access.host_refusal(request.headers.get("Host", "")) or access.refusal(request.path, g.caller)
        return None if refusal is None else _refused(refusal)

    @app.after_request
    def account(response: Response) -> Response:
        endpoint = request.endpoint or "unknown"
        seconds = time.perf_counter() - g.started
        service.metrics.requests.labels(endpoint, str(response.status_code)).inc()
        service.metrics.seconds.labels(endpoint).observe(seconds)
        level = logging.INFO if response.status_code >= 400 else logging.DEBUG
        logger.log(level, "%s %s %d %.3f s", request.method, request.path, response.status_code, seconds)
        return response

    @app.errorhandler(Exception)
    def failed(error: Exception) -> Response:
        return answer_to(error)


def answer_to(error: Exception) -> Response:
    """Status and text for a request that failed: 400 what cannot be read, 503 what may be asked again later, 500."""
    if isinstance(error, HTTPException):
        return _json({"error": error.description}, error.code or 500)
    if isinstance(error, ProtocolError):
        logger.warning("%s: %s", request.path, error)
        return _json({"error": str(error)}, 400)
    if isinstance(error, UnavailableError):
        logger.warning("%s: %s", request.path, error)
        response = _json({"error": str(error)}, 503)
        response.headers["Retry-After"] = "10"
        return response
    logger.error("%s failed", request.path, exc_info=error)
    message = str(error) if isinstance(error, PslgError) else "internal error; the server's log has the reason"
    return _json({"error": message}, 500)


def _refused(refusal: Refusal) -> Response:
    logger.warning("%s from %s refused: %s", request.path[:80], request.remote_addr, refusal.message)
    response = _json({"error": refusal.message}, refusal.status)
    if refusal.status == 401:
        response.headers["WWW-Authenticate"] = 'Basic realm="pslg"'
    return response


def _json(value: object, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status, content_type="application/json")
