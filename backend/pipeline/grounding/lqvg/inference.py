"""LQVG as a grounder: the original's inference procedure from pixels and words to boxes in the image."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch

from backend.pipeline.grounding.lqvg.checkpoint import load_lqvg
from backend.pipeline.grounding.lqvg.letterbox import letterbox, normalize
from backend.pipeline.grounding.lqvg.network import LqvgNetwork
from backend.pipeline.types import Abstention, AbstentionCode, Box, Grounding, GroundingResult, Image
from dataset_tools.errors import PromptError, WeightsError
from dataset_tools.expressions.parser import parse


@dataclass(frozen=True)
class Tokenizer:
    """RoBERTa's byte-level BPE.

    Attributes:
        encode: text -> token ids with ``<s>`` and ``</s>``.
        vocabulary: number of entries; ids are below it.
    """

    encode: Callable[[str], list[int]]
    vocabulary: int

    def __call__(self, expression: str) -> list[int]:
        """Token ids of ``expression`` in the form the network was trained on: lower case, single spaces."""
        return self.encode(" ".join(expression.lower().split()))


def load_tokenizer(folder: Path) -> Tokenizer:
    """RoBERTa's byte-level BPE from ``folder`` with roberta-base's ``vocab.json`` and ``merges.txt``.

    Raises:
        WeightsError: a file is missing or unreadable, or its special tokens are not RoBERTa's.
    """
    missing = [name for name in ("vocab.json", "merges.txt") if not (folder / name).is_file()]
    if missing:
        raise WeightsError(
            f"LQVG's tokenizer needs {' and '.join(missing)} in {folder}. They belong to roberta-base "
            "(https://huggingface.co/FacebookAI/roberta-base); place them there by hand."
        )
    from transformers import RobertaTokenizer

    try:
        tokenizer = RobertaTokenizer(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"))
    except Exception as error:  # the tokenizers library raises bare Exception
        raise WeightsError(f"{folder} holds no usable byte-level BPE vocabulary: {error}") from error
    special = (tokenizer.bos_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id)
    if special != (0, 1, 2):
        raise WeightsError(
            f"{folder} is not roberta-base's vocabulary: <s>, <pad>, </s> must be 0, 1, 2 and are {special}."
        )
    return Tokenizer(lambda text: list(tokenizer(text)["input_ids"]), len(tokenizer))


class LqvgGrounder:
    """Coarse localization by LQVG; implements ``Grounder``.

    The network proposes a box per language query and the best one is the answer, as in the paper; all of them are
    offered as candidates. It always has an answer, so an abstention needs ``score_threshold``. It returns no category:
    that comes from the expression.
    """

    known_categories: frozenset[str] | None = None

    def __init__(
        self,
        network: torch.nn.Module,
        tokenizer: Tokenizer,
        image_size: int = 800,
        score_threshold: float = 0.0,
        device: str = "cpu",
    ) -> None:
        """Wrap a network.

        Args:
            network: as ``load_lqvg`` returns it.
            tokenizer: as ``load_tokenizer`` returns it.
            image_size: side of the letterbox in pixels; 800 for weights of DIOR-RSVG, 1024 for RSVG-HR.
            score_threshold: a best score below it is an abstention (``absent``).
            device: where to run, for example ``cpu`` or ``cuda:0``.

        Raises:
            WeightsError: the tokenizer has more entries than the network.
        """
        self._network = network.to(device).eval()
        self._tokenizer = tokenizer
        self._image_size = image_size
        self._score_threshold = score_threshold
        self._device = torch.device(device)
        architecture = cast(LqvgNetwork, network).architecture
        self._longest_text = architecture.text_positions - 2
        if tokenizer.vocabulary > architecture.vocabulary:
            raise WeightsError(
                f"the tokenizer has {tokenizer.vocabulary} entries, the network was trained with "
                f"{architecture.vocabulary}: give the tokenizer files that belong to these weights"
            )

    def ground(
        self,
        image: Image,
        expression: str,
        *,
        key: str | None = None,  # noqa: ARG002 - the protocol's signature
        labels: Collection[str] = (),
    ) -> GroundingResult:
        """The box for ``expression`` in ``image`` uint8[H, W, 3] RGB, with every query's box as a candidate.

        Its category is the one that the words name, canonical or one of ``labels`` (as of ``Grounder.ground``).

        Raises:
            PromptError: the expression has more word pieces than RoBERTa has positions.
        """
        query = parse(expression, labels)
        if query.is_empty:
            return _abstain("empty-expression", "The expression is empty: describe one object of the image.")
        boxes, scores = self._propose(image, expression)
        height, width = image.shape[:2]
        candidates = tuple(
            Grounding(clipped, float(scores[i]), query.category)
            for i in np.argsort(-scores, kind="stable")
            if (clipped := boxes[i].clip(width, height)).area > 0
        )
        best = int(scores.argmax())
        clipped = boxes[best].clip(width, height)
        if clipped.area <= 0:
            return _abstain(
                "absent", f"The best box for {expression!r} lies outside the image: no such object found.", candidates
            )
        if scores[best] < self._score_threshold:
            return _abstain(
                "absent",
                f"Nothing fits {expression!r}: best score {scores[best]:.2f}, at least {self._score_threshold:.2f} "
                "is asked for (score_threshold).",
                candidates,
            )
        return GroundingResult((Grounding(clipped, float(scores[best]), query.category),), candidates=candidates)

    @torch.inference_mode()
    def _propose(self, image: Image, expression: str) -> tuple[list[Box], npt.NDArray[np.float32]]:
        """Every query's box in pixels of the image, not clipped, and its score in [0, 1]."""
        token_ids = self._tokenizer(expression)
        if len(token_ids) > self._longest_text:
            raise PromptError(
                f"The expression has {len(token_ids)} word pieces, LQVG reads at most {self._longest_text}: shorten it."
            )
        square, fit = letterbox(image, self._image_size)
        pixels = torch.from_numpy(normalize(square))[None].to(self._device)
        tokens = torch.tensor([token_ids], device=self._device)
        # The borders of the letterbox count as image, as in the original: nothing is marked as padding.
        padding = torch.zeros_like(pixels[:, 0], dtype=torch.bool)
        outputs = self._network(pixels, padding, tokens, torch.ones_like(tokens))
        scores = outputs["pred_logits"].sigmoid().flatten().cpu().numpy()
        boxes = outputs["pred_boxes"].reshape(-1, 4).cpu().numpy().astype(np.float64) * self._image_size
        return [
            fit.to_image(Box(cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)) for cx, cy, w, h in boxes.tolist()
        ], scores


def load_lqvg_grounder(
    weights: Path, tokenizer: Path, image_size: int = 800, score_threshold: float = 0.0, device: str = "cpu"
) -> LqvgGrounder:
    """The grounder from a checkpoint (``.pth``) and a folder with roberta-base's ``vocab.json`` and ``merges.txt``.

    Raises:
        WeightsError: a file is missing, damaged or of another kind.
    """
    words = load_tokenizer(tokenizer)
    return LqvgGrounder(load_lqvg(weights), words, image_size, score_threshold, device)


def _abstain(code: AbstentionCode, message: str, candidates: tuple[Grounding, ...] = ()) -> GroundingResult:
    return GroundingResult((), Abstention(code, message, candidates), candidates)
