"""A reader of REFER roots with the public loaders' own rules, written from their description and not from our writer.

It does what RMSIN's ``refer.py`` and dataset class do, and fails where they would: dicts indexed by builtin ids, mask
decoding by pycocotools' RLE functions, sentences zipped with sentence ids, images by the name in instances.json.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from pycocotools import mask as rle_tools


class MiniRefer:
    """Index of a REFER root of the dataset ``rrsisd``, split by ``unc``."""

    def __init__(self, root: Path, dataset: str = "rrsisd", split_by: str = "unc") -> None:
        if dataset != "rrsisd":
            raise SystemExit("No refer dataset is called " + dataset)
        with (root / dataset / f"refs({split_by}).p").open("rb") as file:
            self.protocol_header = file.read(2)
            file.seek(0)
            refs = pickle.load(file)  # noqa: S301 - made by the test itself
        instances = json.loads((root / dataset / "instances.json").read_text())
        self.image_folder = root / "images" / dataset / "JPEGImages"
        self.anns = {ann["id"]: ann for ann in instances["annotations"]}
        self.imgs = {img["id"]: img for img in instances["images"]}
        self.cats = {cat["id"]: cat["name"] for cat in instances["categories"]}
        self.refs = {ref["ref_id"]: ref for ref in refs}
        self.sents = {sent["sent_id"]: sent for ref in refs for sent in ref["sentences"]}
        # createIndex of refer.py looks every one of these up and raises KeyError otherwise.
        self.ref_to_ann = {ref["ref_id"]: self.anns[ref["ann_id"]] for ref in refs}
        self.ref_to_img = {ref["ref_id"]: self.imgs[ref["image_id"]] for ref in refs}
        for ref in refs:
            self.cats[ref["category_id"]]
            self.imgs[ref["ref_id"]]  # one loader indexes images by ref_id
            for key in ("ref_id", "ann_id", "image_id", "category_id"):
                assert type(ref[key]) is int

    def ref_ids(self, split: str) -> list[int]:
        """As getRefIds: an unknown split gives nothing, without an error."""
        return [ref_id for ref_id, ref in self.refs.items() if ref["split"] == split]

    def get_mask(self, ref_id: int) -> npt.NDArray[np.uint8]:
        """As REFER.getMask: a list of RLE dicts, pixels that two of them share are dropped."""
        ann, image = self.ref_to_ann[ref_id], self.ref_to_img[ref_id]
        segmentation = ann["segmentation"]
        if isinstance(segmentation[0], list):
            codes: Any = rle_tools.frPyObjects(segmentation, image["height"], image["width"])
        else:
            codes = segmentation
            for code in codes:
                if not isinstance(code["counts"], bytes):
                    code["counts"] = code["counts"].encode()
        height, width = codes[0]["size"]
        total = np.zeros((height, width), np.int64)
        for code in codes:
            total += decode(code)
        return np.asarray(total == 1, np.uint8)

    def items(self, split: str) -> list[tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], list[str]]]:
        """As RMSIN's dataset: (image, target, sentences) of every ref; the raw text, zipped with the sentence ids."""
        found = []
        for ref_id in self.ref_ids(split):
            ref = self.refs[ref_id]
            image = np.asarray(Image.open(self.image_folder / self.ref_to_img[ref_id]["file_name"]))
            target = self.get_mask(ref_id)
            assert image.shape == (*target.shape, 3)
            sentences = [sent["raw"] for sent, _ in zip(ref["sentences"], ref["sent_ids"], strict=False)]
            found.append((image, target, sentences))
        return found


def decode(code: dict[str, Any]) -> npt.NDArray[np.int64]:
    """COCO's compressed RLE, decoded here once more: runs down the columns, differences from the fourth on."""
    counts: list[int] = []
    position, text = 0, code["counts"]
    while position < len(text):
        value, shift, more = 0, 0, True
        while more:
            digit = text[position] - 48
            value |= (digit & 0x1F) << shift
            more = bool(digit & 0x20)
            position += 1
            shift += 5
            if not more and digit & 0x10:
                value |= -1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
    height, width = code["size"]
    flat = np.repeat(np.arange(len(counts)) % 2, counts)
    return flat.reshape(width, height).T.astype(np.int64)
