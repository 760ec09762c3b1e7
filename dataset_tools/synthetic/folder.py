"""Write scenes as a ``coco_jsonl`` folder."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2

from dataset_tools.atomic import write_bytes, write_text
from dataset_tools.errors import DatasetError
from dataset_tools.geometry import Box
from dataset_tools.masks import to_coco_rle
from dataset_tools.synthetic.expressions import SCENE_CATEGORIES, SceneExpression, expressions
from dataset_tools.synthetic.scenes import Scene


def write(
    folder: str | Path,
    scenes: Iterable[Scene | tuple[Scene, Sequence[SceneExpression]]],
    seed: int = 0,
    split: Sequence[float] | None = None,
) -> Path:
    """Write ``scenes`` as images/, annotations.json, expressions.jsonl (and split.json); see ``formats.coco_jsonl``.

    Args:
        folder: created if missing; existing files of these names are replaced.
        scenes: scenes, or pairs of a scene and the expressions to keep of it; one scene is in memory at a time.
        seed: chooses the expressions where none are given, see ``expressions``.
        split: shares of train, val and test, e.g. (0.7, 0.1, 0.2); scenes are dealt in their order. None writes none.

    Returns:
        ``folder`` as a path.

    Raises:
        DatasetError: an image cannot be encoded.
    """
    folder = Path(folder)
    ids = {name: number for number, name in enumerate(SCENE_CATEGORIES, start=1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    lines: list[dict[str, Any]] = []
    for number, item in enumerate(scenes, start=1):
        scene, chosen = item if isinstance(item, tuple) else (item, expressions(item, seed))
        height, width = scene.image.shape[:2]
        name = f"{number:05d}.png"
        encoded, data = cv2.imencode(".png", scene.image[:, :, ::-1])
        if not encoded:
            raise DatasetError(f"scene {number} of {width} x {height} pixels cannot be encoded as PNG")
        write_bytes(folder / "images" / name, data.tobytes())
        images.append({"id": number, "file_name": name, "width": width, "height": height, "theme": scene.theme})
        first = len(annotations) + 1
        for shape in scene.objects:
            x0, y0, x1, y1 = shape.box
            entry = {
                "id": len(annotations) + 1, "image_id": number, "category_id": ids[shape.category],
                "segmentation": to_coco_rle(shape.mask), "area": int(shape.mask.sum()),
                "bbox": [x0, y0, x1 - x0, y1 - y0], "iscrowd": 0, "color": shape.color,
            }  # fmt: skip
            annotations.append(entry)
        for target in chosen:
            line = {
                "id": len(lines), "image": name, "category": target.category, "expression": target.expression,
                "kind": target.kind, "ann_ids": [first + index for index in target.targets],
                "bbox": _union([scene.objects[index].box for index in target.targets]),
            }  # fmt: skip
            lines.append(line)
    categories = [{"id": number, "name": name, "supercategory": ""} for name, number in ids.items()]
    info = {"description": "scenes drawn by dataset_tools.synthetic", "seed": seed}
    content = {"info": info, "images": images, "annotations": annotations, "categories": categories}
    write_text(folder / "annotations.json", json.dumps(content))
    write_text(folder / "expressions.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    if split is not None:
        names = [image["file_name"] for image in images]
        cuts = [round(sum(split[:k]) / sum(split) * len(names)) for k in range(4)]
        parts = {part: names[cuts[k] : cuts[k + 1]] for k, part in enumerate(("train", "val", "test"))}
        write_text(folder / "split.json", json.dumps(parts, indent=1))
    return folder


def _union(boxes: list[Box]) -> list[float] | None:
    """The box [x0, y0, x1, y1] around all ``boxes``, None without any."""
    if not boxes:
        return None
    x0, y0, x1, y1 = zip(*boxes, strict=True)
    return [min(x0), min(y0), max(x1), max(y1)]
