"""What an annotation says: its results in one form, each object once, and the words that each object answers.

One rule for export, report and training:

- pairs of a shape and its labels are one region, and what is not read is named;
- what several controls outline together is one object: a labeling config may have brush, polygon and rectangle labels
  side by side, and the server answers in each of them;
- words belong to regions. A suggestion carries the expression that it was found for, and keeps it when it is accepted,
  edited or refined by clicks. What was clicked, boxed or drawn without one gets the task's words only where nothing
  else can be meant; what is left is without words, which is said and never guessed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from dataset_tools import masks
from dataset_tools.categories import CATEGORIES, category_name
from dataset_tools.errors import DatasetError
from dataset_tools.expressions.more_like import more_like
from dataset_tools.expressions.parser import parse
from dataset_tools.expressions.query import Query
from dataset_tools.label_studio.learnt_nouns import in_known_words
from dataset_tools.label_studio.notes import UNDECIDED, answered, stated
from dataset_tools.label_studio.regions import Region, RegionInfo, is_accepted, read_region
from dataset_tools.label_studio.shapes import SHAPES

__all__ = [
    "BOX",
    "PREDICTED",
    "SAME_OBJECT",
    "annotations_of",
    "lines",
    "objects_of",
    "one_object_each",
    "prediction_as_annotation",
    "prompt_texts",
    "results_of",
    "unread",
    "words_of",
]

_UNREAD = ("bitmask", "bitmasklabels", "vector", "vectorlabels", "cuboid", "cuboidlabels", "magicwand")
"""Types of regions that outline something and that are not read. Key points are clicks, not outlines."""
_BESIDE = ("labels", "keypoint", "keypointlabels", "textarea", "choices", "rating", "number", "taxonomy", "datetime")
"""Types of results that may repeat the shape of the region that they belong to."""
_OUTLINE = {"rle", "points", "vertices", "imageDataURL", "radiusX", "sequence"}
"""Keys of a value that outlines something, whatever its type is called."""
_LABELLED = {kind.removesuffix("labels"): kind for kind in SHAPES}
BOX = "rectanglelabels"
"""Kind of the regions that are boxes."""
PREDICTED = "predicted"
"""Key of what is no annotation but a prediction, and ``Provenance.source`` of its objects."""
SAME_OBJECT = 0.6
"""IoU from which two outlines with one label are the same object."""
_INSIDE = 0.9  # share of an outline that the box of its object holds
_ORDER = ("brushlabels", "polygonlabels", "ellipselabels", BOX)


def annotations_of(task: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The submitted annotations of a task, those of old exports (``completions``) too; skipped ones are left out.

    Raises:
        DatasetError: they carry no results.
    """
    given = task.get("annotations") or task.get("completions") or []
    if not isinstance(given, list) or not all(isinstance(annotation, dict) for annotation in given):
        raise DatasetError(
            f"its annotations are no objects but {str(given)[:60]}: ids alone hold no masks; export the project as JSON"
        )
    annotations = [annotation for annotation in given if not annotation.get("was_cancelled")]
    # JSON_MIN and other flat exports carry no results.
    if any(not isinstance(annotation.get("result"), list) for annotation in annotations):
        raise DatasetError("its annotations have no 'result'; export the project as JSON, not as JSON-MIN")
    return [{**annotation, "result": list(results_of(annotation["result"]))} for annotation in annotations]


def prediction_as_annotation(task: Mapping[str, Any], model_version: str | None) -> list[Mapping[str, Any]]:
    """The newest prediction of a task that nobody has annotated or skipped, in the form of ``annotations_of``.

    Notes and candidates are left out. Empty if there is none, or if it found nothing.

    Args:
        task: of an export or the API.
        model_version: only predictions of this version; None takes any.

    Raises:
        DatasetError: its predictions are ids alone.
    """
    if task.get("annotations") or task.get("completions"):
        return []
    given = task.get("predictions") or []
    if not all(isinstance(one, dict) and isinstance(one.get("result"), list) for one in given):
        raise DatasetError(f"its predictions are {str(given)[:60]}, without results; read the project over the API")
    wanted = [one for one in given if model_version is None or one.get("model_version") == model_version]
    if not wanted:
        return []
    newest = max(wanted, key=lambda one: (str(one.get("created_at") or ""), int(one.get("id") or 0)))
    results = [
        {**result, "origin": "prediction"} if isinstance(result, dict) else result
        for result in results_of(answered(newest["result"]))
    ]
    parent = {"model_version": newest.get("model_version")}
    return [{"result": results, "prediction": parent, PREDICTED: True}] if results else []


def results_of(results: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """The results with every pair of a shape (``<Brush>``) and its labels (``<Labels>``) as one labelled region.

    The two of a pair share their id; a plain shape whose label was never chosen has no label. Notes are left out, and
    candidates are settled (``notes.stated``).
    """
    labels = {
        str(result["id"]): result["value"]["labels"]
        for result in results
        if isinstance(result, dict)
        and result.get("type") == "labels"
        and result.get("id") is not None
        and isinstance(result.get("value"), dict)
        and isinstance(result["value"].get("labels"), list)
    }
    for result in stated(results):
        if not isinstance(result, dict):
            continue
        kind = _LABELLED.get(str(result.get("type")))
        if kind is not None and isinstance(result.get("value"), dict):
            found = labels.get(str(result.get("id")), [])
            yield {**result, "type": kind, "value": {**result["value"], kind: found}}
        else:
            yield result


def unread(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """The types of regions that outline something and are not read, each once."""
    return sorted({str(result.get("type")) for result in results if _outlines(result)})


def _outlines(result: Mapping[str, Any]) -> bool:
    kind, value = str(result.get("type")), result.get("value")
    if kind in SHAPES or kind in (*_BESIDE, UNDECIDED):
        return False
    return kind in _UNREAD or (isinstance(value, dict) and bool(_OUTLINE & value.keys()))


def objects_of(annotation: Mapping[str, Any]) -> list[Region]:
    """The accepted regions of an annotation of :func:`annotations_of`, each object once, none of them empty.

    Raises:
        DatasetError: a region has no size, was drawn on a rotated view, or its coordinates are unusable.
        MaskError: a mask is damaged.
    """
    regions = [read_region(result, annotation) for result in annotation["result"] if is_accepted(result)]
    return one_object_each([region for region in regions if region.area])


def one_object_each(regions: Sequence[Region]) -> list[Region]:
    """The regions with those left out that outline an object another region outlines better, in their order.

    Of one label on one image: a rectangle that holds at least 90 % of an outline is that object's box; outlines are
    one object from an IoU of 0.6, and so are a brush region and the polygons of its parts; brush goes before polygon,
    ellipse and rectangle, the later before the earlier. Two regions with different words of their own both stay.
    """
    kept: list[tuple[int, Region]] = []
    for number, region in sorted(enumerate(regions), key=lambda pair: (_ORDER.index(pair[1].kind), -pair[0])):
        same = next((k for k, (_, known) in enumerate(kept) if _is_same(known, region)), None)
        if same is None:
            kept.append((number, region))
        elif kept[same][1].expression is None and region.expression is not None:
            kept[same] = (kept[same][0], replace(kept[same][1], expression=region.expression))
    for brush in [region for _, region in kept if region.kind == "brushlabels"]:
        parts = [number for number, region in kept if _is_part(brush, region)]
        if parts and masks.iou_of(masks.union_of([regions[n].rle for n in parts]), brush.rle) >= SAME_OBJECT:
            kept = [(number, region) for number, region in kept if number not in parts]
    return [region for _, region in sorted(kept, key=lambda pair: pair[0])]


def _comparable(known: Region, region: Region) -> bool:
    words = {known.expression, region.expression} - {None}
    place = (known.image, known.item, known.label, known.size)
    return place == (region.image, region.item, region.label, region.size) and len(words) < 2


def _is_same(known: Region, region: Region) -> bool:
    """Whether ``region`` outlines the object of ``known``, which goes before it."""
    if not _comparable(known, region):
        return False
    if region.kind == BOX != known.kind:
        return masks.share_of(known.rle, region.rle) >= _INSIDE
    return masks.iou_of(known.rle, region.rle) >= SAME_OBJECT


def _is_part(brush: Region, region: Region) -> bool:
    return (
        region.kind == "polygonlabels"
        and _comparable(brush, region)
        and masks.share_of(region.rle, brush.rle) >= _INSIDE
    )


def words_of(
    regions: Sequence[RegionInfo],
    results: Sequence[Mapping[str, Any]],
    texts: Sequence[str],
    own: Collection[str] = (),
    nouns: Mapping[str, str] | None = None,
) -> list[str | None]:
    """The expression of every region of one image in one annotation; None for one without words.

    In this order: what was typed for the region itself (a per-region TextArea); the expression that it was suggested
    for, which for the prediction of another model is the task's only text; a text of the task that no region was
    suggested for, if the region is the only one that it can mean, or all are meant ("all the ships", where those that
    the model missed count too). Where the task's data has no text, what was typed in the prompt stands in for it.

    Args:
        regions: the accepted regions.
        results: the annotation's results; texts that were typed are looked for in them.
        texts: the expressions in the task's data.
        own: the project's labels that are no canonical category, as ``categories.category_name`` spells them: words of
            the texts may name them.
        nouns: that the project's annotators use -> category (``learnt_nouns.meanings``).
    """
    typed = _typed(results)
    found = [typed.get(str(region.id)) or region.expression for region in regions]
    spelled = {_plain(text): text for text in texts}
    found = [None if text is None else spelled.get(_plain(text), text) for text in found]
    if len(texts) == 1 and texts[0] not in found:
        found = [
            texts[0] if text is None and _was_predicted(region) else text
            for region, text in zip(regions, found, strict=True)
        ]
    claimed = {_plain(text) for text in found if text is not None}
    asked = list(texts) or [text for text in prompt_texts(results) if _plain(text) not in claimed][:1]
    if len(regions) == len(asked) == 1:  # nothing else can be meant, whatever the words
        return [found[0] or asked[0]]
    queries = {text: parse(in_known_words(text, own, nouns or {}).text, own) for text in asked}
    for text, query in queries.items():
        if _plain(text) in claimed and not query.is_all:
            continue
        meant = [number for number in _meant(regions, query, alone=len(queries) == 1) if found[number] is None]
        rivals = [other for other in queries.values() if other.category == query.category]
        if not meant or (len(queries) > 1 and len(rivals) > 1):
            continue
        if len(meant) == 1 or query.is_all:
            for number in meant:
                found[number] = text
    return found


def prompt_texts(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """The texts typed for the whole image (the prompt), the newest first; "more like this" is none of them."""
    shapes = {str(result.get("id")) for result in results if is_accepted(result)}
    return [
        text
        for result in reversed(results)
        if result.get("type") == "textarea" and str(result.get("id")) not in shapes
        for text in reversed(lines(result))
        if more_like(text) is None
    ]


def _typed(results: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Place id -> the newest text typed for it: a per-region TextArea shares the id of its region."""
    shapes = {str(result.get("id")) for result in results if is_accepted(result)}
    own = {
        str(result.get("id")): [text for text in lines(result) if more_like(text) is None]
        for result in results
        if result.get("type") == "textarea" and str(result.get("id")) in shapes
    }
    return {identity: texts[-1] for identity, texts in own.items() if texts}


def lines(result: Mapping[str, Any]) -> list[str]:
    """The texts of a result, without blanks around them."""
    value = result.get("value")
    text = value.get("text") if isinstance(value, dict) else None
    parts = [text] if isinstance(text, str) else text if isinstance(text, list) else []
    return [part.strip() for part in parts if isinstance(part, str) and part.strip()]


def _meant(regions: Sequence[RegionInfo], query: Query, *, alone: bool) -> list[int]:
    """Numbers of the regions that the words may mean, by their labels.

    Where the task has no other words (``alone``) a label that is no known category ("object") does not speak against
    it.
    """
    named = [number for number, region in enumerate(regions) if category_name(region.label or "") == query.category]
    if not alone or (named and query.category is not None):
        return named
    return [
        number
        for number, region in enumerate(regions)
        if query.category is None or region.label is None or region.label not in CATEGORIES
    ]


def _was_predicted(region: RegionInfo) -> bool:
    """Whether it is another model's answer to the task: a prediction that carries none of our own words."""
    return region.origin in ("prediction", "prediction-changed") and region.clicks is None


def _plain(text: str) -> str:
    return " ".join(text.split())
