"""Predictions for tasks outside of a server: what ``pslg prelabel --tasks`` runs, here or on a cluster's machines."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from backend.server.answers.predictions import notes_of
from backend.server.editor.labeling_config import parse_labeling_config
from backend.server.editor.prompts import read_task
from backend.server.protocol import Prediction, Task
from backend.server.service import LabelingService
from backend.settings import Settings
from backend.turns import Priority
from dataset_tools.errors import ConfigError
from dataset_tools.label_studio.notes import note_lines

__all__ = ["TaskPredictor"]


class TaskPredictor:
    """A loaded service for one labeling config. Thread-safe; what was computed before comes from its state folder.

    Args:
        settings: which models, where state is kept, how images are fetched.
        labeling_config: Label Studio's XML.

    Raises:
        ConfigError: the models cannot be loaded.
        ProtocolError: the labeling config cannot be read.
    """

    def __init__(self, settings: Settings, labeling_config: str) -> None:
        parse_labeling_config(labeling_config)  # what cannot be read fails before anything is loaded
        self._labeling_config = labeling_config
        self._service = LabelingService(settings)
        self._service.start()
        if not self._service.model.wait():
            problem = str(self._service.model.problem)
            self.close()
            raise ConfigError(problem)
        self._service.catch_up(None)

    @property
    def version(self) -> str:
        """The model version of the predictions for tasks of no project of this state folder."""
        return self._service.model.pipeline().model_version

    def predict(self, row: dict[str, Any]) -> tuple[Prediction, str]:
        """The prediction for a task as Label Studio exports it, and its note (``notes.note_lines``).

        A task that says which ``project`` it is of is answered as the server of this state folder answers that project:
        by its promoted version, with the lessons that it made, and the nouns of its annotators known. Its regions' ids
        follow from the task and the model version: whoever computes it again gets the same bytes.

        Raises:
            PslgError: the image cannot be had, or the task is malformed.
        """
        task = Task.model_validate(row)
        project = row.get("project")
        project = project if isinstance(project, int) else None
        pipeline = self._service.models.pipeline(project)
        config = self._service.labeling_config(self._labeling_config, project)
        query, prelabeler = read_task(task, config), self._service.prelabeler
        answers = prelabeler.expressions.answers(pipeline, query, config, Priority.EDITOR)
        prediction = _with_own_ids(prelabeler.predictions.of(pipeline, query, answers, config), row)
        return prediction, note_lines(notes_of(query, answers, config))

    def close(self) -> None:
        """Cancel waiting work and close the files."""
        self._service.close()


def _with_own_ids(prediction: Prediction, row: dict[str, Any]) -> Prediction:
    """The prediction with ids made from the task instead of drawn; regions that share one go on sharing it."""
    seed = json.dumps([row, prediction["model_version"]], sort_keys=True)
    ids: dict[str, str] = {}
    for region in prediction["result"]:
        text = f"{seed}{len(ids)}"
        ids.setdefault(region["id"], hashlib.sha256(text.encode()).hexdigest()[: len(region["id"])])
    return {**prediction, "result": [{**region, "id": ids[region["id"]]} for region in prediction["result"]]}
