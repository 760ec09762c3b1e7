"""The labeling service as a ``LabelStudioMLBase`` subclass, for those who run their backends with label-studio-ml.

label-studio-ml is no dependency of this project: it is imported when ``model_class`` is called. Both of its class
interfaces are served:

* 1.0.9 (PyPI): ``predict(tasks, login=..., password=..., context=...)``, ``fit((), event=..., data=..., job_id=...)``
  or ``fit(items, workdir)``; one manager object keeps the model of the project that was set up last.
* 2.x (git): ``setup()``, ``predict(tasks, context, **kwargs)``, ``fit(event, data, **kwargs)``; one model object per
  request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from flask import Flask

from backend.server.protocol import PredictRequest, SetupRequest, Slot, project_id, validate
from backend.server.service import LabelingService

__all__ = ["create_app", "model_class"]


def model_class(service: LabelingService) -> type[Any]:
    """A ``LabelStudioMLBase`` subclass whose every object answers from ``service``.

    Raises:
        ImportError: label-studio-ml is not installed.
    """
    from label_studio_ml.model import LabelStudioMLBase

    class PslgSamModel(LabelStudioMLBase):  # type: ignore[misc]
        """Holds nothing but what the base class keeps: the labeling config of its request."""

        def setup(self) -> None:
            """2.x: tell Label Studio the model version."""
            self.set("model_version", service.models.version(project_id(getattr(self, "project_id", None))))

        def predict(
            self, tasks: Sequence[Mapping[str, Any]], context: Mapping[str, Any] | None = None, **_: Any
        ) -> list[Slot]:
            """One slot per task, or one prediction in answer to the prompts in ``context``."""
            body = {
                "tasks": list(tasks),
                "project": getattr(self, "project_id", None) or None,
                "label_config": self.label_config or "",
                "params": {"context": context},
            }
            return service.predict(validate(PredictRequest, body))

        def fit(
            self, *args: Any, event: str | None = None, data: Mapping[str, Any] | None = None, **_: Any
        ) -> dict[str, Any]:
            """Store an event; the deprecated call with annotations alone carries none and does nothing."""
            if event is None and len(args) >= 2 and isinstance(args[0], str):
                event, data = args[0], args[1]
            if event is not None:
                service.record_event({**(data or {}), "action": event})
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
