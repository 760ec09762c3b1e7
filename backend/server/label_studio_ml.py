"""The labeling service as a ``LabelStudioMLBase`` subclass, for those who run their backends with label-studio-ml.

label-studio-ml is no dependency of this project: it is imported when ``model_class`` is called. Both of its class
interfaces are served:

* 1.0.9 (PyPI): ``predict(tasks, login=..., password=..., context=...)``, ``fit((), event=..., data=..., job_id=...)``
  or ``fit(items, workdir)``; one manager object keeps the model of the project that was set up last.
* 2.x (git): ``setup()``, ``predict(tasks, context, **kwargs)``, ``fit(event, data, **kwargs)``; one model object per
  request. ``label-studio-ml start`` builds its application from a class in a model file: :func:`serving_model`.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

from flask import Flask, Response, after_this_request, has_request_context

from backend.learning.retraining.replay import check_replay
from backend.server.app import answer_to
from backend.server.protocol import PredictRequest, SetupRequest, Slot, project_id, validate
from backend.server.service import LabelingService
from backend.settings import Settings

__all__ = ["create_app", "model_class", "serving_model"]

EVENTS = (
    "ANNOTATION_CREATED", "ANNOTATIONS_CREATED", "ANNOTATION_UPDATED", "ANNOTATION_DELETED", "ANNOTATIONS_DELETED",
    "TASKS_CREATED", "TASKS_DELETED", "PROJECT_UPDATED", "START_TRAINING",
)  # fmt: skip
"""What Label Studio sends; 2.x hands on four of them, so that what was deleted would stay accepted."""
T = TypeVar("T")


def serving_model(settings: Settings | None = None) -> type[Any]:
    """The class for the model file of ``label-studio-ml start``: all of it is served, trained and stored from here.

    Args:
        settings: by default those of the environment.

    Raises:
        ImportError: label-studio-ml is not installed.
        ConfigError: the state folder is of a later release, or a setting is of no use.
    """
    settings = settings or Settings.load()
    check_replay(settings.train_replay)
    service = LabelingService(settings)
    service.start()
    service.training.start()
    atexit.register(service.close)
    return model_class(service)


def _answered(work: Callable[[], T]) -> T:
    """What ``work`` gives; if it fails, the request is answered as by our own application.

    label-studio-ml makes a status of 500 with a Python traceback of every exception.
    """
    try:
        return work()
    except Exception as error:
        if has_request_context():
            answer = answer_to(error)

            @after_this_request
            def as_served(_: Response) -> Response:
                return answer

        raise


def model_class(service: LabelingService) -> type[Any]:
    """A ``LabelStudioMLBase`` subclass whose every object answers from ``service``.

    Raises:
        ImportError: label-studio-ml is not installed.
    """
    from label_studio_ml import api
    from label_studio_ml.model import LabelStudioMLBase

    if hasattr(api, "TRAIN_EVENTS"):
        api.TRAIN_EVENTS = EVENTS

    class PslgSamModel(LabelStudioMLBase):  # type: ignore[misc]
        """Holds the labeling config of its request, and what the base class keeps."""

        def __init__(self, *args: Any, label_config: str | None = None, **kwargs: Any) -> None:
            # 2.x reads the config back from a store of one per project: that of whoever wrote last.
            self._asked_with = label_config
            super().__init__(*args, label_config=label_config, **kwargs)

        def setup(self) -> None:
            """2.x: tell Label Studio the model version."""
            body = {"project": getattr(self, "project_id", None) or None, "schema": self._asked_with or ""}
            self.set("model_version", service.setup(validate(SetupRequest, body)))

        def set_extra_params(self, extra_params: Any) -> None:
            """2.x ends in an error here; nothing of ours is set this way."""

        def predict(
            self, tasks: Sequence[Mapping[str, Any]], context: Mapping[str, Any] | None = None, **_: Any
        ) -> list[Slot]:
            """One slot per task, or one prediction in answer to the prompts in ``context``."""
            body = {
                "tasks": list(tasks),
                "project": getattr(self, "project_id", None) or None,
                "label_config": self._asked_with or self.label_config or "",
                "params": {"context": context or None},  # 2.x makes {} of a request without a context
            }
            return _answered(lambda: service.predict(validate(PredictRequest, body)))

        def fit(
            self, *args: Any, event: str | None = None, data: Mapping[str, Any] | None = None, **_: Any
        ) -> dict[str, Any]:
            """Store an event; the deprecated call with annotations alone carries none and does nothing."""
            if event is None and len(args) >= 2 and isinstance(args[0], str):
                event, data = args[0], args[1]
            if event is not None:
                _answered(lambda: service.record_event({**(data or {}), "action": event}))
            return {}

    return PslgSamModel


def create_app(service: LabelingService) -> Flask:
    """label-studio-ml's own Flask application, answering from ``service``.

    Raises:
        ImportError: label-studio-ml is not installed.
    """
    from label_studio_ml import api

    service.training.start()
    model = model_class(service)
    if hasattr(api, "_manager"):
        api._manager = _manager(service, model)
    return cast(Flask, api.init_app(model))


def _manager(service: LabelingService, model: type[Any]) -> Any:
    """1.0.9's manager, made to do what 2.x does: the request's own labeling config, the service's model version.

    As it comes, it answers every project with the config of the one set up last, calls each model's version
    ``INITIAL``, so that Label Studio asks for every prediction anew, and handles events in a forked process.
    """
    from label_studio_ml.model import LabelStudioMLManager, ModelWrapper

    class Manager(LabelStudioMLManager):  # type: ignore[misc]
        @classmethod
        def fetch(cls, project: str | None = None, label_config: str | None = None, *_: Any, **__: Any) -> Any:
            body = {"project": project, "schema": label_config or ""}
            version = service.setup(validate(SetupRequest, body))
            return ModelWrapper(model=model(label_config=label_config), model_version=version)

        @classmethod
        def predict(
            cls,
            tasks: Sequence[Mapping[str, Any]],
            project: str | None = None,
            label_config: str | None = None,
            _force_reload: bool = False,
            _try_fetch: bool = True,
            **params: Any,
        ) -> tuple[list[Slot], Any]:
            answering = model(label_config=label_config)
            answering.project_id = project
            wrapper = ModelWrapper(model=answering, model_version=service.models.version(project_id(project)))
            return wrapper.model.predict(tasks, **params), wrapper

        @classmethod
        def webhook(cls, event: str, data: Mapping[str, Any]) -> dict[str, Any]:
            result: dict[str, Any] = model().fit((), event=event, data=data)
            return result

    return Manager
