"""The compact segmenter: segment-anything's prompt encoder and mask decoder behind a small convolutional encoder.

It sees a square window around one object instead of the whole image, so that a 20-pixel vehicle in a 1,000-pixel image
fills the encoder's input as a stadium does.
"""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import Tensor, nn
from torch.nn import functional

from backend.pipeline.segmentation.sam import Autocast, EmbeddingDtype, Engine, SamSegmenter
from backend.pipeline.segmentation.windows import window_for
from dataset_tools.errors import WeightsError

__all__ = ["ConvEncoder", "build_compact_sam", "load_compact_segmenter", "set_img_size"]

IMG_SIZE = 192
STRIDE = 8
ARCHITECTURE = "compact_sam"
CLICK_RADIUS = 3.0


class _Residual(nn.Module):
    """Two 3 x 3 convolutions with BatchNorm and a shortcut (ResNet's basic block)."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class ConvEncoder(nn.Module):
    """A residual network down to stride 32, a top-down path (FPN) up to stride 4, and one step down to stride 8.

    Stride 8 keeps the decoder four times cheaper than stride 4; the path through stride 4 hands it the fine edges.

    Args:
        img_size: side of the square input in pixels, a multiple of 32.
        embed_dim: channels of the embedding.
        widths: channels at strides 2, 4, 8, 16 and 32.
        depths: residual blocks at strides 4, 8, 16 and 32.
    """

    def __init__(
        self,
        img_size: int,
        embed_dim: int,
        widths: tuple[int, int, int, int, int],
        depths: tuple[int, int, int, int],
    ) -> None:
        super().__init__()
        self.img_size = img_size  # read by segment_anything's Sam and SamPredictor
        self.stem = nn.Sequential(
            nn.Conv2d(3, widths[0], 3, 2, 1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
            nn.Conv2d(widths[0], widths[0], 3, 1, 1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
        )
        self.stages = nn.ModuleList(
            nn.Sequential(_Residual(before, width, 2), *(_Residual(width, width) for _ in range(depth - 1)))
            for before, width, depth in zip(widths[:-1], widths[1:], depths, strict=True)
        )
        self.laterals = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, embed_dim, 1, bias=False), nn.BatchNorm2d(embed_dim)) for width in widths[1:]
        )
        self.output = nn.Sequential(
            nn.Conv2d(embed_dim, embed_dim, 3, 2, 1, bias=False),
            nn.BatchNorm2d(embed_dim),
        )

    def forward(self, x: Tensor) -> Tensor:
        """float[B, 3, S, S], normalised -> float[B, embed_dim, S / 8, S / 8]."""
        levels = []
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        top: Tensor | None = None
        for lateral, level in zip(reversed(self.laterals), reversed(levels), strict=True):
            here = lateral(level)
            if top is not None:
                here = here + functional.interpolate(top, scale_factor=2.0, mode="nearest")
            top = functional.relu(here)
        features: Tensor = self.output(top)
        return features


def build_compact_sam(
    img_size: int = IMG_SIZE,
    embed_dim: int = 128,
    widths: tuple[int, int, int, int, int] = (32, 64, 128, 192, 256),
    depths: tuple[int, int, int, int] = (2, 2, 2, 2),
    mlp_dim: int = 512,
) -> Sam:
    """A ``Sam`` of 5 million parameters with random weights; its low-resolution masks have half the input's side.

    The decoder has the single mask token only: what a lone click leaves open (how large is the object?) is a question
    of windows here, see ``replay``. Weights do not depend on ``img_size``.
    """
    side = img_size // STRIDE
    return Sam(
        image_encoder=ConvEncoder(img_size, embed_dim, widths, depths),
        prompt_encoder=PromptEncoder(
            embed_dim=embed_dim,
            image_embedding_size=(side, side),
            input_image_size=(img_size, img_size),
            mask_in_chans=16,
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=0,
            transformer=TwoWayTransformer(depth=2, embedding_dim=embed_dim, mlp_dim=mlp_dim, num_heads=8),
            transformer_dim=embed_dim,
            activation=nn.ReLU,  # half the cost of GELU here
            iou_head_depth=3,
            iou_head_hidden_dim=embed_dim,
        ),
    )


def set_img_size(sam: Sam, img_size: int) -> None:
    """Make a compact ``sam`` take square inputs of ``img_size`` pixels, a multiple of 32; its weights stay."""
    side = img_size // STRIDE
    sam.image_encoder.img_size = img_size
    sam.prompt_encoder.input_image_size = (img_size, img_size)
    sam.prompt_encoder.image_embedding_size = (side, side)
    sam.prompt_encoder.mask_input_size = (4 * side, 4 * side)


def load_compact_segmenter(
    weights: Path,
    *,
    embedding_dtype: EmbeddingDtype = "float16",
    device: str = "cpu",
    threads: int | None = None,
    autocast: Autocast = False,
    engine: Engine = "torch",
    mask_threshold: float = 0.0,
    half_turn: bool = False,
) -> SamSegmenter:
    """The compact segmenter from its safetensors file, whose metadata holds input size and dimensions.

    Args:
        weights: file written by ``pslg train compact-segmenter``.
        embedding_dtype: type of stored features, see ``SamSegmenter``.
        device: where the network runs; ``auto`` takes a GPU when there is one.
        threads: torch's threads, a setting of the whole process; None leaves it alone.
        autocast: run the encoder in half precision, see ``SamSegmenter``.
        engine: what runs the networks, see ``SamSegmenter``.
        mask_threshold, half_turn: see ``SamSegmenter``.

    Raises:
        WeightsError: the file is missing, damaged, or holds another model.
    """
    try:
        with safe_open(weights, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 - no mapping
    except OSError as error:
        raise WeightsError(f"cannot read the compact segmenter's weights {weights}: {error.strerror}") from error
    except SafetensorError as error:
        raise WeightsError(f"the weights {weights} are damaged ({error}): restore the file") from error
    if metadata.get("architecture") != ARCHITECTURE:
        raise WeightsError(
            f"{weights} holds {metadata.get('architecture', 'another model')}, not the compact segmenter "
            f"({ARCHITECTURE}): choose weights made by pslg train compact-segmenter"
        )
    sam = build_compact_sam(int(metadata["img_size"]), **json.loads(metadata["model"]))
    try:
        sam.load_state_dict(tensors)
    except RuntimeError as error:
        raise WeightsError(f"the weights {weights} do not fit the dimensions in their metadata: {error}") from error
    # Without weights_hash: a fine-tuned decoder leaves the encoder and so the embeddings on disk as they are.
    return SamSegmenter(
        sam,
        window_rule=window_for,
        embedding_dtype=embedding_dtype,
        device=device,
        threads=threads,
        autocast=autocast,
        click_radius=CLICK_RADIUS,
        engine=engine,
        mask_threshold=mask_threshold,
        half_turn=half_turn,
    )
