"""WebDataset: tar shards, one sample per image.

    <split>-000000.tar    <key>.<png|jpg>, <key>.json {width, height, scene, refs: [{id, sentences, category, kinds,
                          bbox [x, y, width, height], mask {size, counts}, provenances}]}, a kind and a provenance
                          for each sentence

Shards hold at most 1,000 images. Their bytes depend on the content alone (no times, no user names).
"""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from dataset_tools import atomic
from dataset_tools.errors import DatasetError
from dataset_tools.formats.image_rows import STAGED, PackedWriter, read_row, refs_of
from dataset_tools.formats.items import Contents, Item, Items
from dataset_tools.records import Sample

IMAGES_PER_SHARD = 1000


class WebDatasetWriter(PackedWriter):
    """Writes tar shards."""

    def finish(self, root: Path, items: Items, contents: Contents) -> None:
        """Pack shards, then remove the staged images."""
        for split in contents.splits:
            shard: list[Item] = []
            number = 0
            for item in items():
                if refs_of(item, split):
                    shard.append(item)
                if len(shard) == IMAGES_PER_SHARD:
                    _pack(root, split, number, shard)
                    shard, number = [], number + 1
            if shard:
                _pack(root, split, number, shard)
        shutil.rmtree(root / STAGED, ignore_errors=True)


def _pack(root: Path, split: str, number: int, items: list[Item]) -> None:
    with (
        atomic.open_bytes(root / f"{split}-{number:06d}.tar") as file,
        tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for item in items:
            image = item.sample.image
            row = {
                "file_name": image.file_name, "width": image.width, "height": image.height, "scene": image.scene,
                "refs": refs_of(item, split),
            }  # fmt: skip
            key = f"{item.number:08d}"
            suffix = PurePosixPath(item.image_path).suffix
            _add(tar, f"{key}{suffix}", (root / item.image_path).read_bytes())
            _add(tar, f"{key}.json", json.dumps(row).encode())


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def read(root: Path) -> Iterator[Sample]:
    """Samples of a folder of such shards; images are unpacked into ``<root>/unpacked/``.

    Raises:
        DatasetError: no shard, or one that is damaged or of another kind.
    """
    shards = sorted(root.glob("*.tar"))
    if not shards:
        raise DatasetError(f"{root} has no <split>-<number>.tar")
    for shard in shards:
        split = shard.stem.rpartition("-")[0] or "train"
        try:
            with tarfile.open(shard) as tar:
                waiting: dict[str, tuple[str, bytes]] = {}
                for member in tar:
                    data = tar.extractfile(member)
                    key, _, suffix = member.name.partition(".")
                    if data is None or "/" in member.name:
                        raise DatasetError(f"{shard} holds {member.name!r}; flat files <key>.<suffix> were expected")
                    if suffix != "json":
                        waiting[key] = (suffix, data.read())
                        continue
                    row: dict[str, Any] = json.loads(data.read())
                    image_suffix, content = waiting.pop(key)
                    path = root / "unpacked" / f"{key}.{image_suffix}"
                    if not path.exists():
                        atomic.write_bytes(path, content)
                    yield read_row(row, split, str(path), "webdataset")
        except (tarfile.TarError, ValueError, KeyError) as error:
            raise DatasetError(f"{shard}: {type(error).__name__} {error}") from error
