"""The REFER layout of RRSIS-D, as RMSIN, FIANet, RS2-SAM2 and RemoteSAM read it.

    rrsisd/refs(unc).p                     pickle protocol 2 of builtins: refs with sentences
    rrsisd/instances.json                  COCO in REFER's dialect (below)
    images/rrsisd/JPEGImages/<file>
    ann_split/<ref_id>.xml                 VOC boxes as in the RRSIS-D release
    coco/instances_<split>.json            strict COCO for every other tool

The dialect: ``segmentation`` is a list with ONE compressed RLE (all targets merged, since ``REFER.getMask`` drops
pixels that two codes share), ``bbox`` is [x1, y1, x2, y2], and the category id stands under ``category_id`` and
``categories_id`` (sic). ref_id, ann_id and image_id of a ref are equal, because one loader looks images up by ref_id;
an image with several refs therefore has several image entries with one file name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from dataset_tools import atomic
from dataset_tools.categories import canonical
from dataset_tools.errors import DatasetError, MaskError
from dataset_tools.formats import coco, safe_pickle
from dataset_tools.formats.items import (
    Item,
    Items,
    Reference,
    category_ids,
    display_name,
    flat_name,
    references,
    split_of,
    write_json,
)
from dataset_tools.masks import area_of, from_coco, to_coco_rle
from dataset_tools.records import Provenance, Record, Sample, SourceImage, Target

IMAGES = "images/rrsisd/JPEGImages/"


class ReferWriter:
    """Writes the REFER layout."""

    def image_path(self, _number: int, file_name: str) -> str:
        """``images/rrsisd/JPEGImages/<file>``."""
        return IMAGES + flat_name(file_name)

    def files(self, item: Item) -> Iterator[tuple[str, bytes]]:
        """One XML file per ref."""
        for reference in references(item):
            yield f"ann_split/{reference.id:05d}.xml", _xml(item, reference).encode()

    def finish(self, root: Path, items: Items) -> None:
        """Pickle, REFER's instances and strict COCO."""
        ids = category_ids(items)
        refs = [_ref(item, reference, ids) for item in items() for reference in references(item)]
        atomic.write_bytes(root / "rrsisd" / "refs(unc).p", safe_pickle.dump(refs))
        categories = [{"id": number, "name": name, "supercategory": display_name(name)} for name, number in ids.items()]
        write_json(
            root / "rrsisd" / "instances.json",
            {"info": {"description": "RRSIS-D layout"}, "licenses": []},
            {"images": _images(items), "annotations": _annotations(items, ids), "categories": categories},
        )
        for split in coco.splits_of(items):
            coco.write_instances(root / "coco" / f"instances_{split}.json", items, split, ids, IMAGES)


def _ref(item: Item, reference: Reference, ids: dict[str, int]) -> dict[str, Any]:
    sentences = [
        {
            "sent_id": number,
            "sent": text,
            "raw": text,
            "tokens": text.lower().replace(",", " ").replace(".", " ").split(),
        }
        for number, text in zip(reference.sentence_ids, reference.sentences, strict=True)
    ]
    return {
        "ref_id": reference.id,
        "ann_id": reference.id,
        "image_id": reference.id,
        "category_id": ids[reference.record.category],
        "split": split_of(reference.record),
        "file_name": item.image_path.removeprefix(IMAGES),
        "sent_ids": list(reference.sentence_ids),
        "sentences": sentences,
    }


def _images(items: Items) -> Iterator[dict[str, Any]]:
    for item in items():
        image = item.sample.image
        for reference in references(item):
            name = item.image_path.removeprefix(IMAGES)
            yield {"id": reference.id, "file_name": name, "width": image.width, "height": image.height}


def _annotations(items: Items, ids: dict[str, int]) -> Iterator[dict[str, Any]]:
    for item in items():
        height, width = item.sample.image.height, item.sample.image.width
        for reference in references(item):
            code = {"size": [height, width], "counts": item.sample.merged(reference.record)}
            category = ids[reference.record.category]
            yield {
                "id": reference.id, "image_id": reference.id, "ref_id": reference.id, "category_id": category,
                "categories_id": category, "segmentation": [code], "iscrowd": 0,
                "area": area_of(code, height, width),
                "bbox": [int(value) for value in item.sample.box(reference.record)],
            }  # fmt: skip


def _xml(item: Item, reference: Reference) -> str:
    image = item.sample.image
    x0, y0, x1, y1 = (int(value) for value in item.sample.box(reference.record))
    sentences = "".join(f"<description>{escape(text)}</description>" for text in reference.sentences)
    return (
        f"<annotation><filename>{escape(item.image_path.removeprefix(IMAGES))}</filename>"
        f"<size><width>{image.width}</width><height>{image.height}</height><depth>3</depth></size>"
        f"<object><name>{escape(reference.record.category)}</name>"
        f"<bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox>"
        f"{sentences}</object></annotation>\n"
    )


def read(root: Path) -> Iterator[Sample]:
    """Samples of a REFER root: RRSIS-D as released, RRSIS-M-like sets, or what this module writes.

    Takes both dialects: segmentation as a list of RLEs, a dict, or polygons; either spelling of the category id.
    The pickle goes through a restricted unpickler.

    Raises:
        DatasetError: a file is missing or damaged, or ids do not fit; the message names the ref.
    """
    refs = safe_pickle.load(root / "rrsisd" / "refs(unc).p")
    file = root / "rrsisd" / "instances.json"
    try:
        content = json.loads(file.read_bytes())
        images = {entry["id"]: entry for entry in content["images"]}
        annotations = {entry["id"]: entry for entry in content["annotations"]}
        names = {entry["id"]: str(entry["name"]) for entry in content["categories"]}
    except FileNotFoundError:
        raise DatasetError(f"{file} does not exist") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{file} is not a REFER instances file: {type(error).__name__} {error}") from error
    records: dict[str, list[Record]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    for ref in refs:
        try:
            image, annotation = images[_whole(ref["image_id"])], annotations[_whole(ref["ann_id"])]
            height, width = int(image["height"]), int(image["width"])
            code = to_coco_rle(from_coco(annotation["segmentation"], height, width))
            category = names[
                _whole(ref.get("category_id", annotation.get("category_id", annotation.get("categories_id"))))
            ]
            sentences = [(entry["sent_id"], entry.get("raw") or entry["sent"]) for entry in ref["sentences"]]
        except (KeyError, TypeError, MaskError) as error:
            where = ref.get("ref_id") if isinstance(ref, dict) else ref
            raise DatasetError(f"{root}: ref {where}: {type(error).__name__} {error}") from error
        name = str(image["file_name"])
        sizes[name] = height, width
        for number, text in sentences:
            provenance = Provenance(source="refer")
            target = Target(code["counts"], int(ref["ann_id"]))
            record = Record(
                str(text), canonical(category) or category, (target,), ref.get("split"), None, provenance, int(number)
            )
            records.setdefault(name, []).append(record)
    for name, (height, width) in sizes.items():
        yield Sample(SourceImage(name, width, height, str(root / IMAGES / name)), tuple(records[name]))


def _whole(value: Any) -> Any:
    """Ids that someone wrote as text, as numbers; the validator reports them."""
    return int(value) if isinstance(value, str) and value.isdigit() else value
