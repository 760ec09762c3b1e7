"""What a Label Studio labeling config offers: image, expression, controls, labels; and what is wrong with it.

Source of the rules: the behaviour of Label Studio 1.23's editor. A ``Label`` is stored under its ``alias`` when it has
one, else under its ``value``; ``predicted_values`` (comma separated) are further names that a model may use.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import ParseError, fromstring

from dataset_tools import categories
from dataset_tools.errors import ProtocolError
from dataset_tools.expressions.lexicon import own_nouns, says_nothing
from dataset_tools.expressions.more_like import more_like
from dataset_tools.label_studio.images import variables
from dataset_tools.label_studio.learnt_nouns import in_known_words
from dataset_tools.label_studio.notes import NOTE

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

__all__ = ["Control", "Label", "LabelingConfig", "parse_labeling_config"]

OUTPUT_TAGS = ("BrushLabels", "PolygonLabels", "RectangleLabels")
PROMPT_TAGS = ("KeyPointLabels", "RectangleLabels", "BrushLabels")
_KEPT_CHARACTERS, _MOST_CHARACTERS, _MOST_CONTROLS = 100_000, 4_000_000, 200
_WORDS = ("expression", "phrase", "sentence", "caption", "query", "referring_expression", "referring", "description")
"""Names of data keys that hold the words, the likeliest first."""


@dataclass(frozen=True)
class Label:
    """One label of a control.

    Attributes:
        stored: the text in Label Studio's results.
        names: ``value``, ``alias`` and ``predicted_values``, in this order, without repetitions.
    """

    stored: str
    names: tuple[str, ...]

    @cached_property
    def categories(self) -> frozenset[str]:
        """Canonical names that this label stands for; empty for a label outside ``dataset_tools.categories``."""
        return frozenset(filter(None, map(categories.canonical, self.names)))

    def distance(self, category: str) -> int | None:
        """How directly the label names ``category`` (0 best), None if it does not.

        A car is labelled ``truck`` only where no label fits better.
        """
        if _plain(category) in map(_plain, self.names[:1]):
            return 0
        canonical, kind = categories.canonical(category), categories.kind_of(category)
        own_kind = categories.kind_of(self.names[0])
        if kind is not None and own_kind is not None:
            return 1 if kind == own_kind else 3
        if canonical is not None and categories.canonical(self.names[0]) == canonical:
            return 1
        if _plain(category) in map(_plain, self.names[1:]) or canonical in self.categories:
            return 2
        return None


@dataclass(frozen=True)
class Control:
    """One control tag that has labels.

    Attributes:
        tag: ``BrushLabels``, ``KeyPointLabels``, ...
        name: its ``name``, a region's ``from_name``.
        labels: its labels in document order; "more like this" only where it is clicked with (``KeyPointLabels``).
        smart: whether it is a prompt tool (``smart="true"``); a missing attribute counts as True for BrushLabels,
            whose default it is in the editor, and False elsewhere.
        smart_only: whether the ordinary tool is hidden.
        rotated: rectangles are the smallest around the mask, turned any way (``rotated="true"``), not upright ones.
    """

    tag: str
    name: str
    labels: tuple[Label, ...]
    smart: bool
    smart_only: bool
    rotated: bool = False

    @cached_property
    def type(self) -> str:
        """A region's ``type`` and the key of its labels: the tag in lower case."""
        return self.tag.lower()

    def has(self, stored: str) -> bool:
        """Whether a label is stored under this text."""
        return any(label.stored == stored for label in self.labels)


@dataclass(frozen=True)
class LabelingConfig:
    """The parts of a labeling config that matter for masks.

    Attributes:
        image: name of the Image tag, a region's ``to_name``.
        image_key: the task's data key that holds the image, maybe a path (``a.b``, ``a[0].url``).
        image_value: the Image tag's ``value`` or ``valueList``, in which the key stands.
        expression_key: the task's data key that holds the expression, maybe a path.
        controls: all controls with labels for the image, in document order.
        text_controls: names of the TextArea tags for the image in which expressions may be typed.
        has_note: whether there is a TextArea ``pslg_note`` for what a pre-label has to say.
        notes: problems that do not depend on what the model knows.
        others: the same for the further images of the labeling config.
        item: which image of a list (``valueList``) is meant, None where the tag shows one.
        nouns: that the project's annotators use -> category (``learnt_nouns.meanings``); not in the XML.
    """

    image: str
    image_key: str
    image_value: str
    expression_key: str
    controls: tuple[Control, ...]
    text_controls: tuple[str, ...]
    notes: tuple[str, ...]
    has_note: bool = False
    others: tuple[LabelingConfig, ...] = ()
    item: int | None = None
    nouns: Mapping[str, str] = field(default_factory=dict, hash=False)

    def with_nouns(self, nouns: Mapping[str, str]) -> LabelingConfig:
        """The same of a project whose annotators use these nouns."""
        return replace(self, nouns=nouns, others=tuple(replace(other, nouns=nouns) for other in self.others))

    def asked(self, expression: str) -> str:
        """``expression`` in words that the lexicon or the labels hold."""
        return in_known_words(expression, self.own_categories, self.nouns).text if self.nouns else expression

    def on(self, items: Iterable[Any]) -> LabelingConfig:
        """The parts for the image that an annotator's items (points, boxes, texts) lie on.

        Raises:
            ProtocolError: they lie on several images, or on none of the labeling config's.
        """
        places = {
            (item.get("to_name"), item.get("item_index"))
            for item in items
            if isinstance(item, dict) and isinstance(item.get("to_name"), str)
        }
        if not places:
            return self
        known = {found.image: found for found in (self, *self.others)}
        name, number = next(iter(places))
        if len(places) > 1 or (name not in known and self.others):
            where = ", ".join(sorted(f"{tag} {number}" if number is not None else str(tag) for tag, number in places))
            raise ProtocolError(f"on which image this is cannot be told: {where}; there are {', '.join(known)}")
        meant, item = known.get(str(name), self), number if isinstance(number, int) else None
        return meant if item == meant.item else replace(meant, item=item)  # the same one has looked things up already

    def shows(self, region: Mapping[str, Any]) -> bool:
        """Whether a region lies on this image; one that does not say where it lies does."""
        return region.get("to_name", self.image) == self.image and region.get("item_index") in (None, self.item)

    @cached_property
    def outputs(self) -> tuple[Control, ...]:
        """The controls that get regions: brush, polygon and rectangle labels, but not those that are smart tools.

        BrushLabels are always an output. Smart rectangles are one only where there is nothing else.
        """
        usable = [control for control in self.controls if control.tag in OUTPUT_TAGS and control.labels]
        plain = [control for control in usable if control.tag == "BrushLabels" or not control.smart]
        return tuple(plain or usable)

    @cached_property
    def labels(self) -> tuple[Label, ...]:
        """The labels of all outputs, each stored text once."""
        return tuple({label.stored: label for control in self.outputs for label in control.labels}.values())

    @cached_property
    def takes_any_category(self) -> bool:
        """Whether the only label is a word like ``object``, which says nothing of a category."""
        return len(self.labels) == 1 and says_nothing(self.labels[0].names[0])

    @cached_property
    def own_categories(self) -> frozenset[str]:
        """Words of the labels that are no canonical category, "Solar_Panel" as "solar panel": nouns for the parser."""
        return own_nouns(name for label in self.labels for name in label.names)

    def label_for(self, category: str) -> str | None:
        """The stored text of the label that names ``category`` (canonical or not) most directly, None without one."""
        ranked = [(rank, label.stored) for label in self.labels if (rank := label.distance(category)) is not None]
        return min(ranked, key=lambda pair: pair[0])[1] if ranked else None

    def label_of(self, category: str | None) -> str | None:
        """The stored label for an object of a category; None when the config has none that fits, never a wrong one."""
        if category is None or self.takes_any_category:
            return self.labels[0].stored if len(self.labels) == 1 else None
        return self.label_for(category)

    def names_of(self, stored: str) -> tuple[str, ...]:
        """What the label that is stored under this text is called."""
        return next((label.names for label in self.labels if label.stored == stored), ())

    def controls_for(self, stored: str) -> tuple[Control, ...]:
        """The outputs that have a label stored under this text."""
        return tuple(control for control in self.outputs if control.has(stored))

    def problems(self, known_categories: Collection[str] | None) -> tuple[str, ...]:
        """What will not work, each with what to change; ``known_categories`` None means an open vocabulary."""
        found = list(self.notes)
        if not self.outputs:
            found.append(NO_OUTPUT)
        if known_categories is not None:
            plain = set(map(_plain, known_categories))
            strange = [
                label.stored
                for label in self.labels
                if plain.isdisjoint(map(_plain, (*label.categories, *label.names)))
            ]
            if strange and len(self.labels) > 1:
                found.append(
                    f"labels {', '.join(map(repr, strange))}: the model does not find these; expressions for them get"
                    f" no mask (clicks work). It finds: {', '.join(sorted(known_categories))}. Another wording goes"
                    ' into the label: predicted_values="..."'
                )
        return tuple(found)


NO_OUTPUT = (
    "no usable control for masks: add BrushLabels, PolygonLabels or RectangleLabels with at least one Label and"
    " toName set to the Image"
)


def _plain(name: str) -> str:
    return re.sub(r"[\s_\-]+", "", name).casefold()


def parse_labeling_config(xml: str) -> LabelingConfig:
    """Read a labeling config.

    Raises:
        ProtocolError: not XML, too large, or without an ``Image`` whose ``value`` is a task key.
    """
    if len(xml) > _KEPT_CHARACTERS:
        return _parsed(xml)  # few are so long; kept ones would take memory by their length
    return _kept(xml)


@lru_cache(maxsize=256)
def _kept(xml: str) -> LabelingConfig:
    return _parsed(xml)


def _parsed(xml: str) -> LabelingConfig:
    if len(xml) > _MOST_CHARACTERS:
        raise ProtocolError(f"the labeling config has {len(xml)} characters, more than {_MOST_CHARACTERS}")
    try:
        root = fromstring(xml)
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise ProtocolError(f"the labeling config is not well-formed XML: {error}") from error
    elements = list(root.iter())
    controls = sum(e.tag in (*OUTPUT_TAGS, *PROMPT_TAGS) for e in elements)
    if controls > _MOST_CONTROLS:
        raise ProtocolError(f"the labeling config has {controls} controls with labels, more than {_MOST_CONTROLS}")
    targets = [name for e in elements if e.tag in (*OUTPUT_TAGS, *PROMPT_TAGS) for name in _targets(e)]
    images = [e for e in elements if e.tag == "Image" and e.get("name") and variables(_value(e))]
    if not images:
        raise ProtocolError('the labeling config has no <Image name="image" value="$image"/>')
    labelled = [e for e in images if e.get("name") in targets] or images[:1]
    first, *others = (_of_image(element, elements) for element in labelled)
    notes = first.notes
    if others:
        names = ", ".join(found.image for found in (first, *others))
        notes += (
            f"{len(labelled)} images are labelled ({names}): clicks are answered on the image they lie on,"
            f" expressions are pre-labelled on {first.image!r} only",
        )
    return replace(first, notes=notes, others=tuple(others))


def _of_image(image: Element, elements: list[Element]) -> LabelingConfig:
    name, keys = image.attrib["name"], variables(_value(image))
    controls = tuple(_control(e) for e in elements if _has_labels(e) and name in _targets(e))
    expression_key, doubts = _expression_key(elements, keys)
    texts = [e.attrib["name"] for e in elements if e.tag == "TextArea" and e.get("name") and name in _targets(e)]
    return LabelingConfig(
        image=name,
        image_key=keys[0],
        image_value=_value(image),
        expression_key=expression_key,
        controls=controls,
        text_controls=tuple(text for text in texts if text != NOTE),
        has_note=NOTE in texts,
        notes=(*_notes(image, controls, elements), *doubts),
    )


def _value(image: Element) -> str:
    return image.get("valueList") or image.get("value") or ""


def _targets(control: Element) -> list[str]:
    return [name.strip() for name in control.get("toName", "").split(",")]


def _has_labels(element: Element) -> bool:
    return element.tag in (*OUTPUT_TAGS, *PROMPT_TAGS) and bool(element.get("name"))


def _control(element: Element) -> Control:
    labels = []
    for tag in element.iter("Label"):
        value, alias = tag.get("value", ""), tag.get("alias", "")
        names = [value, alias, *(part.strip() for part in tag.get("predicted_values", "").split(","))]
        names = list(dict.fromkeys(filter(None, names)))
        if names and (element.tag == "KeyPointLabels" or more_like(alias or value) is None):
            labels.append(Label(alias or value, tuple(names)))
    smart_only = element.get("smartOnly", "").lower() == "true"
    default = "true" if element.tag == "BrushLabels" else "false"
    smart = smart_only or element.get("smart", default).lower() == "true"
    rotated = element.get("rotated", "").lower() == "true"
    return Control(str(element.tag), element.attrib["name"], tuple(labels), smart, smart_only, rotated)


def _expression_key(elements: list[Element], image_keys: list[str]) -> tuple[str, list[str]]:
    """The key shown by a Header or Text (or proposed by a TextArea), and what is doubtful about it.

    One called like words goes before any other; of several others none is taken.
    """
    keys = [
        key
        for tag in ("Header", "Text", "TextArea")
        for element in elements
        if element.tag == tag
        for key in variables(element.get("value", ""))
        if key not in (*image_keys, NOTE)
    ]
    for word in _WORDS:
        for key in keys:
            if re.split(r"[.\[\]]+", key.rstrip("]"))[-1].lower() == word:
                return key, []
    if len(set(keys)) < 2:
        return (keys[0] if keys else "expression"), []
    shown = ", ".join(f"${key}" for key in dict.fromkeys(keys))
    return "expression", [
        f"which of {shown} is the expression cannot be told, the key 'expression' is read; call one of them"
        f" {', '.join(_WORDS[:4])}"
    ]


def _notes(image: Element, controls: tuple[Control, ...], elements: list[Element]) -> list[str]:
    notes = []
    outputs = {label.stored for control in controls if control.tag in OUTPUT_TAGS for label in control.labels}
    prompts = [c for c in controls if c.smart and c.tag in ("KeyPointLabels", "RectangleLabels")]
    if not prompts:
        notes.append(
            "no smart control: clicks cannot refine masks; add KeyPointLabels (and RectangleLabels) with"
            ' smart="true" smartOnly="true"'
        )
    for control in controls:
        if control.tag == "BrushLabels" and control.smart:
            notes.append(
                f'BrushLabels {control.name!r} is a smart tool by default, which sends strokes; set smart="false"'
            )
        if control in prompts and not control.smart_only:
            notes.append(
                f"{control.tag} {control.name!r} has an ordinary tool too, whose clicks send nothing;"
                ' set smartOnly="true"'
            )
        lost = [
            label.stored
            for label in control.labels
            if control in prompts and label.stored not in outputs and more_like(label.stored) is None
        ]
        if lost:
            notes.append(
                f"{control.tag} {control.name!r} has labels {', '.join(map(repr, lost))} that no BrushLabels,"
                " PolygonLabels or RectangleLabels has: clicks with them give no mask"
            )
        if not control.labels:
            notes.append(f"{control.tag} {control.name!r} has no Label")
    if image.get("rotateControl", "").lower() == "true":
        notes.append('the Image has rotateControl="true": masks are for the image as it is stored; set it to "false"')
    for element in elements:
        if element.tag in ("Text", "TextArea") and "$" in element.get("value", ""):
            key = variables(element.attrib["value"])
            notes.append(
                f'<{element.tag} value="{element.get("value")}"> makes the key {", ".join(key)} required, images'
                ' without it cannot be imported; <Header value="Expression: $expression"/> keeps it optional'
            )
    return notes
