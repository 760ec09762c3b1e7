"""Where a config's weights lie, what they are, and which version of the model they make.

``REGISTRY`` lists every weight file that a shipped config names. Shipped ones lie in ``backend/weights``, others in the
weights folder (``PSLG_WEIGHTS``, default ``~/.cache/pslg/weights``); ``pslg weights`` lists, downloads and verifies
them. A hash that nobody has published is None, never invented: ``verify`` says so.

A file is hashed once; the hash stands in a record beside it together with size and modification time, so that
``model_version`` costs no reading of gigabytes and a replaced file is noticed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.pipeline.config import PipelineConfig
from backend.pipeline.weights.folders import SHIPPED_FOLDER, weights_folder
from backend.pipeline.weights.records import record, recorded_sha256, sha256_of
from dataset_tools.errors import WeightsError

__all__ = [
    "REGISTRY",
    "WeightEntry",
    "WeightFiles",
    "how_to_get",
    "locate",
    "model_version",
    "require",
    "resolve",
]


@dataclass(frozen=True)
class WeightEntry:
    """One entry of the registry.

    Attributes:
        name: what configs and ``pslg weights`` call it.
        file: path below the shipped folder or the weights folder; a folder for models of several files.
        licence: SPDX identifier or plain words.
        description: one line: what it is and which config needs it.
        url: where ``download`` fetches it; None if it is shipped or has to be placed by hand.
        hub: repository id on the Hugging Face hub, for models of several files.
        sha256: of the file, 64 hex digits; None if not published.
        size: bytes, None if not known.
        shipped: part of this repository and its wheels.
        by_hand: where to get a file that can be neither shipped nor downloaded by a plain link.
        gated: what has to be done before ``download`` is let in, for weights behind a licence to accept; else None.
        gflop: 10^9 floating point operations for one image: of 800 x 800 pixels (and 20 tokens) for a grounder, one
            embedding for a segmenter (a decode is about 1 % of one); None if not known.
    """

    name: str
    file: str
    licence: str
    description: str
    url: str | None = None
    hub: str | None = None
    sha256: str | None = None
    size: int | None = None
    shipped: bool = False
    by_hand: str | None = None
    gated: str | None = None
    gflop: float | None = None

    @property
    def path(self) -> Path:
        """Where the file is, or would be."""
        return (SHIPPED_FOLDER if self.shipped else weights_folder()) / self.file


_SAM_LICENCE = "Apache-2.0"
_SAM_URL = "https://dl.fbaipublicfiles.com/segment_anything"
_RESEARCH = "research use only (as the images they were trained on)"

_ENTRIES = (
    WeightEntry(
        "compact_segmenter",
        "compact_segmenter/model.safetensors",
        _RESEARCH,
        "small SAM for overhead images (config compact)",
        shipped=True,
        gflop=2.1,
    ),
    WeightEntry(
        "compact_grounder",
        "compact_grounder/model.safetensors",
        _RESEARCH,
        "small detector for 15 categories (config compact)",
        shipped=True,
        gflop=19.6,
    ),
    WeightEntry(
        "sam_vit_b",
        "sam_vit_b_01ec64.pth",
        _SAM_LICENCE,
        "segment-anything ViT-B (config sam_vit_b and those that end in it)",
        url=f"{_SAM_URL}/sam_vit_b_01ec64.pth",
        sha256="ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
        size=375_042_383,
        gflop=972,
    ),
    WeightEntry(
        "sam_vit_l",
        "sam_vit_l_0b3195.pth",
        _SAM_LICENCE,
        "segment-anything ViT-L (config sam_vit_l)",
        url=f"{_SAM_URL}/sam_vit_l_0b3195.pth",
        sha256="3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
        gflop=2986,
    ),
    WeightEntry(
        "sam_vit_h",
        "sam_vit_h_4b8939.pth",
        _SAM_LICENCE,
        "segment-anything ViT-H (configs sam_vit_h, lqvg_sam_vit_h)",
        url=f"{_SAM_URL}/sam_vit_h_4b8939.pth",
        sha256="a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
        size=2_564_550_879,
        gflop=5961,
    ),
    WeightEntry(
        "lqvg",
        "lqvg.pth",
        "not stated by its authors",
        "LQVG trained on DIOR-RSVG (config lqvg_sam_vit_h)",
        by_hand="the link is in the README of github.com/LANMNG/LQVG; or train one with `pslg train lqvg`",
        gflop=264,
    ),
    WeightEntry(
        "roberta_base_tokenizer",
        "roberta-base",
        "MIT",
        "tokenizer files of roberta-base: vocab.json, merges.txt (config lqvg_sam_vit_h)",
        by_hand="vocab.json and merges.txt from huggingface.co/FacebookAI/roberta-base",
    ),
    WeightEntry(
        "grounding_dino_tiny",
        "grounding-dino-tiny",
        "Apache-2.0",
        "Grounding DINO tiny, open vocabulary (config grounding_dino_sam_vit_b)",
        hub="IDEA-Research/grounding-dino-tiny",
        gflop=495,
    ),
    WeightEntry(
        "mm_grounding_dino_tiny",
        "mm_grounding_dino_tiny_o365v1_goldg_v3det",
        "Apache-2.0",
        "MM-Grounding-DINO tiny, open vocabulary (config mm_grounding_dino_sam_vit_b)",
        hub="openmmlab-community/mm_grounding_dino_tiny_o365v1_goldg_v3det",
        gflop=495,
    ),
    WeightEntry(
        "llmdet_tiny",
        "llmdet_tiny",
        "Apache-2.0",
        "LLMDet tiny, open vocabulary (config llmdet_sam_vit_b)",
        hub="iSEE-Laboratory/llmdet_tiny",
        gflop=495,
    ),
    WeightEntry(
        "edgetam",
        "EdgeTAM-hf",
        "Apache-2.0",
        "EdgeTAM of transformers, with timm (config edgetam)",
        hub="yonigozlan/EdgeTAM-hf",
        gflop=39,
    ),
    WeightEntry(
        "sam2_hiera_tiny",
        "sam2.1-hiera-tiny",
        "Apache-2.0",
        "SAM 2.1 Hiera tiny of transformers (config sam2_hiera_tiny)",
        hub="facebook/sam2.1-hiera-tiny",
        gflop=293,
    ),
    WeightEntry(
        "sam_hq_vit_b",
        "sam-hq-vit-base",
        "Apache-2.0",
        "SAM-HQ ViT-B of transformers (config sam_hq_vit_b)",
        hub="syscv-community/sam-hq-vit-base",
        gflop=972,
    ),
    WeightEntry(
        "sam3",
        "sam3",
        "SAM License (not Apache-2.0; gated)",
        "SAM 3 of transformers (configs sam3, sam3_compact); 3.4 GB of memory in float32, 2.5 with autocast",
        hub="facebook/sam3",
        gated="accept the SAM License at huggingface.co/facebook/sam3, then `hf auth login` or HF_TOKEN",
        gflop=5614,
    ),
)
REGISTRY: Mapping[str, WeightEntry] = {entry.name: entry for entry in _ENTRIES}


@dataclass(frozen=True)
class WeightFiles:
    """The files of a config, each of them there; None for what has none."""

    grounder: Path | None
    segmenter: Path
    tokenizer: Path | None


def locate(weights: str) -> Path:
    """The path behind a config's ``weights`` value, whether or not anything is there."""
    entry = REGISTRY.get(weights)
    return Path(weights).expanduser() if entry is None else entry.path


def resolve(config: PipelineConfig) -> WeightFiles:
    """The weight files of ``config``.

    Raises:
        WeightsError: one is not there; the message names the file and how to get it.
    """
    grounder, tokenizer = config.grounder.weights, config.grounder.tokenizer
    return WeightFiles(
        grounder=None if grounder is None else require(grounder),
        segmenter=require(config.segmenter.weights),
        tokenizer=None if tokenizer is None else require(tokenizer),
    )


def require(weights: str) -> Path:
    """The path behind a config's ``weights`` value; raises WeightsError, saying what to do, if nothing is there."""
    path = locate(weights)
    if path.exists():
        return path
    raise WeightsError(f"no weights {weights!r} at {path}: {how_to_get(weights)}")


def how_to_get(weights: str) -> str:
    """What a user has to do to have ``weights``, in one sentence."""
    entry = REGISTRY.get(weights)
    if entry is None:
        return f"give the path of a file or folder that exists, or one of {', '.join(REGISTRY)}"
    if entry.shipped:
        return (
            "this file is part of the repository and its wheels; this copy is incomplete (git checkout, or reinstall)"
        )
    if entry.by_hand:
        return f"place it there by hand ({entry.by_hand})"
    source = entry.url or f"huggingface.co/{entry.hub}"
    first = f"{entry.gated}; then " if entry.gated else ""
    return f"{first}run `pslg weights download {entry.name}`, or place {source} there by hand"


def model_version(config: PipelineConfig, *, hash_missing: bool = True) -> str:
    """``<config>-<8 hex>`` over the sha256 of each weight and the config keys that change masks.

    Args:
        config: whose version.
        hash_missing: hash (and record) files without a valid record, which reads them once; otherwise they raise.

    Raises:
        WeightsError: a file is missing, or has no record and ``hash_missing`` is off.
    """
    files = resolve(config)
    content: dict[str, Any] = config.mask_relevant()
    for role, path in (("grounder", files.grounder), ("segmenter", files.segmenter), ("tokenizer", files.tokenizer)):
        if path is None:
            continue
        if path.is_relative_to(SHIPPED_FOLDER):
            digest: str | None = sha256_of(path)  # some megabytes: no record can be out of date
        else:
            digest = recorded_sha256(path) or (record(path) if hash_missing else None)
        if digest is None:
            raise WeightsError(f"{path} has not been hashed yet: run `pslg weights verify`")
        content[f"{role}_sha256"] = digest
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return f"{config.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
