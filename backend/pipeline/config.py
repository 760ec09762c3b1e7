"""Pipeline configs: which grounder, which segmenter, which stages, and with which numbers.

A config is a YAML file (``configs/<name>.yaml``). Its keys are checked all at once; every problem is reported with
the key, the value seen and the choices. Reading a config imports neither torch nor any model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator

from backend.pipeline import options as adapter_options
from dataset_tools import categories
from dataset_tools.errors import ConfigError

__all__ = [
    "BoundaryConfig",
    "ForegroundPointsConfig",
    "GrounderConfig",
    "LogisticConfig",
    "PipelineConfig",
    "ScoreConfig",
    "SegmenterConfig",
    "config_names",
    "config_path",
    "load_config",
]

# In a source tree the configs stand beside the packages; a wheel carries them inside the backend package.
_FOLDERS = (Path(__file__).resolve().parents[2] / "configs", Path(__file__).resolve().parents[1] / "configs")

# Adapters: kind -> "module:function". A grounder's function is called as f(weights=..., device=..., **options), a
# segmenter's as f(weights, device=..., embedding_dtype=..., **options); weights is a file or a folder. A grounder that
# has none (a service) takes no parameter of that name, and need not take a device either.
GROUNDERS: Mapping[str, str] = {
    "compact": "backend.pipeline.grounding.compact.grounder:load_compact_grounder",
    "compact-vlm": "backend.pipeline.grounding.vlm.settling:load_settled",
    "lqvg": "backend.pipeline.grounding.lqvg:load_lqvg_grounder",
    "florence2": "backend.pipeline.grounding.florence2:load_florence2",
    "grounding-dino": "backend.pipeline.grounding.grounding_dino:load_grounding_dino",
    "omdet-turbo": "backend.pipeline.grounding.class_list:load_omdet_turbo",
    "owlv2": "backend.pipeline.grounding.class_list:load_owlv2",
    "sam3": "backend.pipeline.grounding.sam3:load_sam3",
    "vlm": "backend.pipeline.grounding.vlm:load_vlm",
}
EXEMPLARS: Mapping[str, str] = {
    "compact": "backend.pipeline.grounding.compact.exemplars:matcher_of",
}
"""Kinds of grounders that find more like given objects: f(grounder) gives the ``ExemplarMatcher``."""
SEGMENTERS: Mapping[str, str] = {
    "compact-sam": "backend.pipeline.segmentation.compact_sam:load_compact_segmenter",
    "sam": "backend.pipeline.segmentation.vit_sam:load_sam",
    "sam3-tracker": "backend.pipeline.segmentation.sam3_tracker:load_sam3_tracker",
    "hf-sam": "backend.pipeline.segmentation.hf_sam:load_hf_sam",
}


class _Section(BaseModel):
    """Frozen, and strict about unknown keys: a misspelt key must not be silently without effect."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _canonical(names: tuple[str, ...]) -> tuple[str, ...]:
    resolved = []
    for name in names:
        category = categories.canonical(name)
        if category is None:
            raise ValueError(f"unknown category {name!r}; choices: {', '.join(categories.CATEGORIES)}")
        resolved.append(category)
    return tuple(sorted(set(resolved)))


def _kind_in(registry: Mapping[str, str]) -> Callable[[str], str]:
    def check(kind: str) -> str:
        if kind not in registry:
            raise ValueError(f"unknown kind; choices: {', '.join(registry)}")
        return kind

    return check


ScorePart = Literal["grounding", "predicted_iou", "stability"]
"""The parts of a score that every pre-label has; all but the first are the segmenter's, and known of clicks too."""

Options = Annotated[dict[str, Any], AfterValidator(adapter_options.checked)]
CanonicalCategories = Annotated[tuple[str, ...], AfterValidator(_canonical)]


class GrounderConfig(_Section):
    """Coarse localization (arXiv 2506.10503, stage 1).

    Attributes:
        kind: which grounder.
        weights: a name in the weights registry (``pslg weights list``) or the path of a file or folder of one's own;
            what begins with ``./`` lies beside the config's file. None for a grounder that has none (a service).
        tokenizer: the same for the tokenizer's folder, for grounders that come without one (LQVG).
        options: handed to the grounder's loader as keywords (thresholds, input size); all of them change masks, save
            those whose values the environment gives (``options``).
    """

    kind: Annotated[str, AfterValidator(_kind_in(GROUNDERS))]
    weights: str | None = None
    tokenizer: str | None = None
    options: Options = Field(default_factory=dict)


class SegmenterConfig(_Section):
    """Fine segmentation (arXiv 2506.10503, stage 2): the promptable model.

    Attributes:
        kind: which adapter.
        weights: a name in the weights registry or the path of a file or folder of one's own.
        embedding_dtype: what embeddings are rounded to before first use; float32 doubles their size on disk.
        engine: what runs the networks of kinds compact-sam, sam and hf-sam: torch, or openvino (the extra of that
            name), which is several times faster on many CPUs. In float32 the masks are the same, so that it does not
            count as a change of the model; with the option ``autocast`` it does.
        options: the same for the segmenter's loader.
    """

    kind: Annotated[str, AfterValidator(_kind_in(SEGMENTERS))]
    weights: str
    embedding_dtype: Literal["float16", "float32"] = "float16"
    engine: Literal["torch", "openvino"] = "torch"
    options: Options = Field(default_factory=dict)


class _Refinement(_Section):
    """A stage that some categories do without."""

    enabled: bool = True
    skip_categories: CanonicalCategories = ()

    def applies_to(self, category: str | None) -> bool:
        """Whether an object of canonical name ``category`` goes through the stage."""
        return self.enabled and categories.KINDS.get(category or "", category) not in self.skip_categories


class ForegroundPointsConfig(_Refinement):
    """Clustering-based foreground points, CFPG (``foreground_points``).

    Attributes:
        enabled: whether boxes get a point prompt at all.
        skip_categories: categories for which measurements on the validation split showed no gain; they get no point.
        foreground: how the foreground cluster is told from the background (``foreground_points.ForegroundRule``).
        min_area: smallest region that may give the point, as a share of the box's area.
        marker_ratio: watershed markers are where the distance to the background reaches this share of the largest
            distance in the same connected component.
        seed: of the K-means++ initialisation.
    """

    foreground: Literal["border-majority", "contrast", "smaller"] = "border-majority"
    min_area: float = Field(default=0.25, gt=0, lt=1)
    marker_ratio: float = Field(default=0.6, gt=0, lt=1)
    seed: int = 0


class BoundaryConfig(_Refinement):
    """Mask boundary optimization, MBO (``boundary``).

    Attributes:
        enabled: whether masks are optimized at all.
        skip_categories: categories for which measurements on the validation split showed no gain.
        band: half width of the undecided band around the mask's contour, as a share of the square root of its area.
        max_iterations: cap on the graph cuts; the loop ends earlier when no label changes.
        min_agreement: IoU of the optimized and the given mask below which the given one is kept.
        seed: of the mixtures' initialisation.
    """

    band: float = Field(default=0.04, gt=0, lt=1)
    max_iterations: int = Field(default=10, ge=1, le=100)
    min_agreement: float = Field(default=0.8, ge=0, le=1)
    seed: int = 0


class LogisticConfig(_Section):
    """A logistic model over the log odds of a pre-label's parts (``scores``).

    Attributes:
        offset: log odds where every part is as likely as not.
        weights: part -> weight. None is negative: a better part must never lower the score.
    """

    offset: float
    weights: dict[ScorePart, Annotated[float, Field(ge=0)]]


class ScoreConfig(_Section):
    """What makes a pre-label's score a probability (``scores``); written by ``pslg calibrate-score``.

    Attributes:
        accepted_iou: IoU with the truth from which a mask counts as accepted unchanged.
        found: whether the right object was found.
        outlined: whether an object that was found is outlined so well.
        clicked: whether the mask after clicks or a drawn box is so good; it knows no ``grounding``. None: the number
            beside a click's suggestion is the segmenter's own predicted IoU.
    """

    accepted_iou: float = Field(default=0.85, gt=0.5, lt=1)
    found: LogisticConfig
    outlined: LogisticConfig
    clicked: LogisticConfig | None = None

    @field_validator("clicked")
    @classmethod
    def _without_a_grounder(cls, value: LogisticConfig | None) -> LogisticConfig | None:
        if value is not None and "grounding" in value.weights:
            raise ValueError("clicks have no part grounding; give predicted_iou and stability only")
        return value


class PipelineConfig(_Section):
    """One pipeline.

    Attributes:
        name: the config's name, first part of ``model_version``.
        description: one line for ``pslg doctor``.
        grounder: stage 1.
        segmenter: the promptable model of stage 2.
        foreground_points: CFPG.
        boundary: MBO.
        mask_from: ``segmenter``: the promptable model outlines what is in a box; ``grounder``: a grounder that finds
            masks as well as boxes (SAM 3) has the last word, and CFPG has nothing to prompt.
        score: what makes scores probabilities; None: the geometric mean of their parts. No mask depends on it, so that
            it is no change of the model.
        device: ``auto`` takes a GPU when there is one; does not count as a change of the model.
        threads: threads of the numerical libraries, None leaves them alone; does not count as a change either.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.]*$")
    description: str = ""
    grounder: GrounderConfig
    segmenter: SegmenterConfig
    foreground_points: ForegroundPointsConfig = ForegroundPointsConfig()
    boundary: BoundaryConfig = BoundaryConfig()
    mask_from: Literal["grounder", "segmenter"] = "segmenter"
    score: ScoreConfig | None = None
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$")
    threads: int | None = Field(default=None, ge=1)

    def ablated(self, *, foreground_points: bool = True, boundary: bool = True) -> PipelineConfig:
        """This config with stages switched off for every category; a True leaves the stage as configured."""
        update: dict[str, Any] = {}
        if not foreground_points:
            update["foreground_points"] = self.foreground_points.model_copy(update={"enabled": False})
        if not boundary:
            update["boundary"] = self.boundary.model_copy(update={"enabled": False})
        return self.model_copy(update=update)

    def mask_relevant(self) -> dict[str, Any]:
        """The keys that change masks, as plain JSON values: what ``model_version`` is computed over."""
        values = self.model_dump(mode="json", exclude={"name", "description", "score", "device", "threads"})
        for stage in ("grounder", "segmenter"):
            del values[stage]["weights"]  # the sha256 of the file counts, not what the file is called
            values[stage]["options"] = adapter_options.mask_relevant(values[stage]["options"])
        del values["grounder"]["tokenizer"]
        if values["segmenter"]["engine"] == "torch" or not self.segmenter.options.get("autocast"):
            del values["segmenter"]["engine"]  # torch goes unnamed, as in the versions before there was a choice
        if values["mask_from"] == "segmenter":
            del values["mask_from"]  # unnamed for the same reason
        for stage in ("foreground_points", "boundary"):
            if not values[stage]["enabled"]:
                values[stage] = {"enabled": False}
        return values


def config_names() -> list[str]:
    """Names of the shipped configs, sorted."""
    return sorted({path.stem for folder in _FOLDERS if folder.is_dir() for path in folder.glob("*.yaml")})


def load_config(config: str | Path) -> PipelineConfig:
    """Read a config by the name of a shipped one (``compact``) or by the path of a YAML file.

    Raises:
        ConfigError: no such config, not YAML, or keys that cannot work (all of them listed).
    """
    path = config_path(config)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read the pipeline config {path}: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"the pipeline config {path} must be a mapping of keys, got {type(values).__name__}")
    values.setdefault("name", path.stem)
    _resolve_beside(values, path.parent)
    try:
        return PipelineConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"the pipeline config {path} cannot work:\n{_problems(error)}") from error


def _resolve_beside(values: dict[str, Any], folder: Path) -> None:
    """Weights that begin with ``./`` lie beside the config: a folder of both may be moved."""
    for name in ("grounder", "segmenter"):
        section = values.get(name)
        if not isinstance(section, dict):
            continue
        for key in ("weights", "tokenizer"):
            value = section.get(key)
            if isinstance(value, str) and value.startswith("./"):
                section[key] = str((folder / value).resolve())


def config_path(config: str | Path) -> Path:
    """The file of a config: of a shipped one by its name, or the given path; raises ConfigError if there is none."""
    text = str(config)
    if isinstance(config, Path) or text.endswith((".yaml", ".yml")) or "/" in text:
        path = Path(config)
        if not path.is_file():
            raise ConfigError(f"no pipeline config at {path}; shipped configs: {', '.join(config_names())}")
        return path
    for folder in _FOLDERS:
        if (folder / f"{text}.yaml").is_file():
            return folder / f"{text}.yaml"
    raise ConfigError(
        f"no pipeline config named {text!r}; choose one of {', '.join(config_names())}, or give the path of a YAML file"
    )


def _problems(error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"]) or "(whole file)"
        if problem["type"] == "missing":
            lines.append(f"  {key}: missing; every config needs it")
        elif problem["type"] == "extra_forbidden":
            shown = "" if adapter_options.names_a_secret(key) else f" (value {problem['input']!r})"
            lines.append(f"  {key}: unknown key{shown}; keys here: {_keys_at(problem['loc'])}")
        elif problem["loc"][-1] == "options" and problem["type"] == "value_error":
            lines.append(f"  {key}: {problem['msg']}")  # the value may be a secret
        else:
            lines.append(f"  {key}: {problem['msg']} (value {problem['input']!r})")
    return "\n".join(lines)


def _keys_at(location: tuple[int | str, ...]) -> str:
    model: type[BaseModel] = PipelineConfig
    for part in location[:-1]:
        annotation = model.model_fields[str(part)].annotation
        annotation = next((one for one in get_args(annotation) if one is not type(None)), annotation)
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            break
        model = annotation
    return ", ".join(model.model_fields)
