"""A grounder without weights: a service over HTTP that answers with boxes, as somebody would add one."""

from __future__ import annotations

import cv2
import requests
from pydantic import SecretStr

from backend.pipeline.types import Abstention, Box, Grounding, GroundingResult, Image


class ServiceGrounder:
    """Sends image and expression to ``url`` and takes boxes (x0, y0, x1, y1 in pixels, score) from its answer."""

    known_categories: frozenset[str] | None = None

    def __init__(self, url: str, key: SecretStr) -> None:
        self._url = url
        self._key = key

    def ground(self, image: Image, expression: str, *, key: str | None = None, labels: object = ()) -> GroundingResult:
        """The service's boxes."""
        _, png = cv2.imencode(".png", image[:, :, ::-1])
        headers = {"Authorization": f"Bearer {self._key.get_secret_value()}"}
        parts = {"expression": expression}
        answer = requests.post(self._url, files={"image": png.tobytes()}, data=parts, headers=headers, timeout=10)
        answer.raise_for_status()
        found = tuple(Grounding(Box(*box[:4]), box[4], None) for box in answer.json()["boxes"])
        return GroundingResult(found, None if found else Abstention("absent", "the service found nothing"))


def load_service_grounder(url: SecretStr, api_key: SecretStr, path: str = "/boxes") -> ServiceGrounder:
    """The grounder of a service; ``url`` and ``api_key`` come from the environment."""
    return ServiceGrounder(url.get_secret_value() + path, api_key)
