"""The HTTP side: routes, status codes, authentication. What they do is in ``service``."""

from __future__ import annotations

import hmac
import logging
import time

import orjson
from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException

from backend.learning.retraining.replay import check_replay
from backend.server.protocol import PredictRequest, SetupRequest, parse_body, validate
from backend.server.service import LabelingService
from backend.settings import Settings
from dataset_tools.errors import ProtocolError, PslgError, UnavailableError

__all__ = ["answer_to", "create_app"]

logger = logging.getLogger(__name__)

# Requests grow with stored predictions and annotations, to several MB each; this only stops nonsense.
MAX_BODY = 1 << 30


def create_app(settings: Settings, service: LabelingService | None = None) -> Flask:
    """The WSGI application; without a ``service`` it makes one and begins to load the models in the background.

    Raises:
        ConfigError: the state folder is of a later release, or ``train_replay`` is of no use to a training.
    """
    app = Flask("pslg")
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    if service is None:
        check_replay(settings.train_replay)
        service = LabelingService(settings)
        service.start()
        service.training.start()
    app.extensions["pslg"] = service
    _add_routes(app, service)
    _add_handlers(app, service, settings)
    return app


def _add_routes(app: Flask, service: LabelingService) -> None:
    @app.get("/health")
    def health() -> Response:
        # UP also while models load or weights are missing: Label Studio asks /setup for the rest.
        problem = service.models.problem
        return _json({"status": "UP", "model_class": "PslgSam", **({"problem": problem} if problem else {})})

    @app.post("/setup")
    def setup() -> Response:
        setup_request = validate(SetupRequest, parse_body(request.get_data(cache=False), request.content_type))
        return _json({"model_version": service.setup(setup_request)})

    @app.post("/predict")
    def predict() -> Response:
        body = parse_body(request.get_data(cache=False), request.content_type)
        return _json({"results": service.predict(validate(PredictRequest, body))})

    @app.post("/webhook")
    def webhook() -> Response:
        body = parse_body(request.get_data(cache=False), request.content_type)
        return _json({"status": "stored", "event": service.record_event(body)}, 201)

    @app.get("/versions")
    def versions() -> Response:
        return _json({"versions": service.versions()})

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(service.render_metrics(), content_type="text/plain; version=0.0.4; charset=utf-8")


def _add_handlers(app: Flask, service: LabelingService, settings: Settings) -> None:
    @app.before_request
    def authenticate() -> Response | None:
        g.started = time.perf_counter()
        # Label Studio sends its Basic credentials everywhere except on webhooks.
        if settings.basic_auth_user is None or settings.basic_auth_password is None or request.path == "/webhook":
            return None
        given = request.authorization
        user, password = (given.username or "", given.password or "") if given and given.type == "basic" else ("", "")
        right_user = hmac.compare_digest(user.encode(), settings.basic_auth_user.encode())
        right_password = hmac.compare_digest(
            password.encode(), settings.basic_auth_password.get_secret_value().encode()
        )
        if right_user and right_password:
            return None
        refusal = _json({"error": "Basic credentials are missing or wrong: set them where the model is connected"}, 401)
        refusal.headers["WWW-Authenticate"] = 'Basic realm="pslg"'
        return refusal

    @app.after_request
    def account(response: Response) -> Response:
        endpoint = request.endpoint or "unknown"
        seconds = time.perf_counter() - g.started
        service.metrics.requests.labels(endpoint, str(response.status_code)).inc()
        service.metrics.seconds.labels(endpoint).observe(seconds)
        level = logging.INFO if endpoint == "predict" or response.status_code >= 400 else logging.DEBUG
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


def _json(value: object, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status, content_type="application/json")
