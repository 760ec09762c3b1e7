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

import io
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from dataset_tools import atomic
from dataset_tools.categories import canonical
from dataset_tools.errors import DatasetError, MaskError
from dataset_tools.formats import coco
from dataset_tools.formats.coco_rows import image_size
from dataset_tools.formats.items import (
    Contents,
    Item,
    Items,
    Reference,
    category_rows,
    flat_name,
    references,
    split_of,
    write_json,
)
from dataset_tools.formats.left_out import LeftOut, Report, refuse
from dataset_tools.masks import area_of, box_of, rle_of
from dataset_tools.records import Provenance, Record, Sample, SourceImage, Target

IMAGES = "images/rrsisd/JPEGImages/"


class ReferWriter:
    """Writes the REFER layout: one sentence per ref as RRSIS-D does, or ``grouped`` by object.

    Loaders differ on several sentences of a ref: FIANet picks one at random, SegEarth-R1 reads only the first.
    """

    def __init__(self, grouped: bool = False) -> None:
        self._grouped = grouped

    def _references(self, item: Item) -> list[Reference]:
        return references(item, self._grouped)

    def image_path(self, _number: int, file_name: str, _split: str) -> str:
        """``images/rrsisd/JPEGImages/<file>``."""
        return IMAGES + flat_name(file_name)

    def files(self, item: Item) -> Iterator[tuple[str, bytes]]:
        """One XML file per ref."""
        for reference in self._references(item):
            yield f"ann_split/{reference.id:05d}.xml", _xml(item, reference).encode()

    def finish(self, root: Path, items: Items, contents: Contents) -> None:
        """Pickle, REFER's instances and strict COCO."""
        ids = contents.category_ids
        refs: list[dict[str, Any]] = []
        images: list[dict[str, Any]] = []
        # Refs and images are small and known when the annotations are through: the export is read once, not thrice.
        write_json(
            root / "rrsisd" / "instances.json",
            {"info": {"description": "RRSIS-D layout"}, "licenses": []},
            {
                "annotations": self._annotations(items, ids, refs, images),
                "images": images,
                "categories": category_rows(ids),
            },
        )
        atomic.write_bytes(root / "rrsisd" / "refs(unc).p", dump_refs(refs))
        for split in contents.splits:
            coco.write_instances(root / "coco" / f"instances_{split}.json", items, split, ids, IMAGES)

    def _annotations(
        self, items: Items, ids: dict[str, int], refs: list[dict[str, Any]], images: list[dict[str, Any]]
    ) -> Iterator[dict[str, Any]]:
        """The annotation of every ref; ``refs`` and ``images`` receive what belongs to it."""
        for item in items():
            height, width = item.sample.image.height, item.sample.image.width
            for reference in self._references(item):
                ref = _ref(item, reference, ids)
                refs.append(ref)
                images.append({"id": reference.id, "file_name": ref["file_name"], "width": width, "height": height})
                code = {"size": [height, width], "counts": item.sample.merged(reference.record)}
                category = ref["category_id"]
                yield {
                    "id": reference.id, "image_id": reference.id, "ref_id": reference.id, "category_id": category,
                    "categories_id": category, "segmentation": [code], "iscrowd": 0,
                    "area": area_of(code, height, width),
                    "bbox": list(map(int, box_of(code, height, width))),
                }  # fmt: skip


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


def _xml(item: Item, reference: Reference) -> str:
    image = item.sample.image
    x0, y0, x1, y1 = map(int, item.sample.box(reference.record))
    sentences = "".join(f"<description>{escape(text)}</description>" for text in reference.sentences)
    return (
        f"<annotation><filename>{escape(item.image_path.removeprefix(IMAGES))}</filename>"
        f"<size><width>{image.width}</width><height>{image.height}</height><depth>3</depth></size>"
        f"<object><name>{escape(reference.record.category)}</name>"
        f"<bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox>"
        f"{sentences}</object></annotation>\n"
    )


def read(root: Path, left_out: Report = refuse) -> Iterator[Sample]:
    """Samples of a REFER root: RRSIS-D as released, RRSIS-M-like sets, or what this module writes.

    Takes both dialects: segmentation as a list of RLEs, a dict, or polygons; either spelling of the category id. A list
    of ``ann_id`` (gRefCOCO) names several targets, an empty one none. The pickle goes through a restricted unpickler.

    Args:
        root: the folder.
        left_out: receives every ref and sentence that cannot be used; by default the first one ends the reading.

    Raises:
        DatasetError: a file is missing or damaged; the message names it.
    """
    refs = load_refs(root / "rrsisd" / "refs(unc).p")
    if not isinstance(refs, list):
        raise DatasetError(
            f"{root / 'rrsisd' / 'refs(unc).p'} must hold a list of refs, it holds {type(refs).__name__}"
        )
    file = root / "rrsisd" / "instances.json"
    try:
        content = json.loads(file.read_bytes())
        images = {entry["id"]: entry for entry in content["images"]}
        annotations = {entry["id"]: entry for entry in content["annotations"]}
        names = {entry["id"]: str(entry["name"]) for entry in content["categories"]}
    except FileNotFoundError:
        raise DatasetError(f"{file} does not exist") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DatasetError(f"{file} is not a REFER instances file: {type(error).__name__} {error}") from error
    records: dict[str, list[Record]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    for position, ref in enumerate(refs):
        where = ref_name(ref, position)
        try:
            image = images[_whole(ref["image_id"])]
            name, size = str(image["file_name"]), image_size(image["width"], image["height"])
            if size is None:
                raise MaskError(f"{name!r} has the size {image['width']!r} x {image['height']!r}")
            targets, category = _targets(ref, annotations, size[::-1])
            category = names[_whole(category)]
            sentences = list(ref.get("sentences") or [])
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, MaskError) as error:
            left_out(LeftOut(where, _reason(error)))
            continue
        sizes[name] = size[::-1]
        if not sentences:
            left_out(LeftOut(where, "sentences is empty", name, "refer-sentences"))
        for place, sentence in enumerate(sentences):
            text, number = _sentence(sentence)
            if not text:
                why = f"sentence {place + 1} is {sentence!r:.120}"
                left_out(LeftOut(where, why, name, "expression-empty"))
                continue
            provenance = Provenance(source="refer")
            split = ref.get("split") if isinstance(ref.get("split"), str) else None
            record = Record(text, canonical(category) or category, targets, split, None, provenance, number)
            records.setdefault(name, []).append(record)
    for name, (height, width) in sizes.items():
        if name in records:
            yield Sample(SourceImage(name, width, height, str(root / IMAGES / name)), tuple(records[name]))


def ref_name(ref: Any, position: int) -> str:
    """How messages call a ref."""
    return f"ref {ref.get('ref_id', position)}" if isinstance(ref, dict) else f"entry {position}"


def _targets(
    ref: dict[str, Any], annotations: dict[Any, dict[str, Any]], size: tuple[int, int]
) -> tuple[tuple[Target, ...], Any]:
    """The targets of a ref, and its category's id."""
    ids = ref["ann_id"] if isinstance(ref["ann_id"], list | tuple) else [ref["ann_id"]]
    targets = []
    category = ref.get("category_id")
    for identity in map(_whole, ids):
        annotation = annotations[identity]
        code = rle_of(annotation["segmentation"], *size)
        targets.append(Target(code["counts"], int(identity)))
        if category is None:
            category = annotation.get("category_id", annotation.get("categories_id"))
    return tuple(targets), category


def _sentence(sentence: Any) -> tuple[str, int | None]:
    """The words of an entry of ``sentences`` and their id; no words where there is nothing usable."""
    if isinstance(sentence, str):
        return sentence, None
    if not isinstance(sentence, dict):
        return "", None
    text, number = sentence.get("raw") or sentence.get("sent"), _whole(sentence.get("sent_id"))
    return text if isinstance(text, str) else "", number if isinstance(number, int) else None


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"{error} is not there"
    return str(error)


def _whole(value: Any) -> Any:
    """Ids that someone wrote as text, as numbers; the validator reports them."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


class _PlainUnpickler(pickle.Unpickler):
    """Refuses every global: lists, dicts, tuples, strings and numbers need none."""

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "numpy":
            raise pickle.UnpicklingError(
                f"it holds numpy values ({module}.{name}); loaders index by builtin numbers: write int(id) for each id"
            )
        raise pickle.UnpicklingError(f"it wants to load {module}.{name}")


def load_refs(path: Path) -> Any:
    """The content of a pickle that holds nothing but builtin containers, strings and numbers.

    Raises:
        DatasetError: the file is missing, damaged, or holds anything else (such a pickle can run any code).
    """
    try:
        return _PlainUnpickler(io.BytesIO(path.read_bytes()), encoding="utf-8").load()
    except FileNotFoundError:
        raise DatasetError(f"{path} does not exist") from None
    except Exception as error:  # damaged pickles raise almost anything
        raise DatasetError(f"{path} is not a pickle of plain lists, dicts, strings and numbers: {error}") from error


def dump_refs(value: Any) -> bytes:
    """``value`` as pickle protocol 2, which Python 2 loaders of the field read too.

    Raises:
        DatasetError: ``value`` holds something other than builtins, which loaders could not index or load.
    """
    data = pickle.dumps(value, protocol=2)
    try:
        _PlainUnpickler(io.BytesIO(data)).load()
    except pickle.UnpicklingError as error:
        raise DatasetError(f"only plain builtins can be written: {error}") from error
    return data
