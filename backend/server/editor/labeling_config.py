"""What a Label Studio labeling config offers: image, expression, controls, labels; and what is wrong with it.

Source of the rules: the behaviour of Label Studio 1.23's editor. A ``Label`` is stored under its ``alias`` when it has
one, else under its ``value``; ``predicted_values`` (comma separated) are further names that a model may use.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import ParseError, fromstring

from dataset_tools import categories
from dataset_tools.errors import ProtocolError
from dataset_tools.expressions.lexicon import says_nothing
from dataset_tools.labelled import category_name

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

__all__ = ["Control", "Label", "LabelingConfig", "parse_labeling_config"]

OUTPUT_TAGS = ("BrushLabels", "PolygonLabels", "RectangleLabels")
PROMPT_TAGS = ("KeyPointLabels", "RectangleLabels", "BrushLabels")
_VARIABLE = re.compile(r"\$\{?(\w+)")


@dataclass(frozen=True)
class Label:
    """One label of a control.

    Attributes:
        stored: the text in Label Studio's results.
        names: ``value``, ``alias`` and ``predicted_values``, in this order, without repetitions.
    """

    stored: str
    names: tuple[str, ...]

    @property
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
        labels: its labels in document order.
        smart: whether it is a prompt tool (``smart="true"``); a missing attribute counts as True for BrushLabels,
            whose default it is in the editor, and False elsewhere.
        smart_only: whether the ordinary tool is hidden.
    """

    tag: str
    name: str
    labels: tuple[Label, ...]
    smart: bool
    smart_only: bool

    @property
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
        image_key: the task's data key that holds the image.
        expression_key: the task's data key that holds the expression.
        controls: all controls with labels for the image, in document order.
        text_controls: names of the TextArea tags for the image.
        notes: problems that do not depend on what the model knows.
    """

    image: str
    image_key: str
    expression_key: str
    controls: tuple[Control, ...]
    text_controls: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def outputs(self) -> tuple[Control, ...]:
        """The controls that get regions: brush, polygon and rectangle labels, but not those that are smart tools.

        BrushLabels are always an output. Smart rectangles are one only where there is nothing else.
        """
        usable = [control for control in self.controls if control.tag in OUTPUT_TAGS and control.labels]
        plain = [control for control in usable if control.tag == "BrushLabels" or not control.smart]
        return tuple(plain or usable)

    @property
    def labels(self) -> tuple[Label, ...]:
        """The labels of all outputs, each stored text once."""
        return tuple({label.stored: label for control in self.outputs for label in control.labels}.values())

    @property
    def takes_any_category(self) -> bool:
        """Whether the only label is a word like ``object``, which says nothing of a category."""
        return len(self.labels) == 1 and says_nothing(self.labels[0].names[0])

    @property
    def own_categories(self) -> frozenset[str]:
        """Words of the labels that are no canonical category, "Solar_Panel" as "solar panel": nouns for the parser."""
        names = {category_name(name) for label in self.labels for name in label.names}
        return frozenset(name for name in names if name not in categories.CATEGORIES and not says_nothing(name))

    def label_for(self, category: str) -> str | None:
        """The stored text of the label that names ``category`` (canonical or not) most directly, None without one."""
        ranked = [(rank, label.stored) for label in self.labels if (rank := label.distance(category)) is not None]
        return min(ranked, key=lambda pair: pair[0])[1] if ranked else None

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


@lru_cache(maxsize=256)
def parse_labeling_config(xml: str) -> LabelingConfig:
    """Read a labeling config.

    Raises:
        ProtocolError: not XML, or without an ``Image`` whose ``value`` is a task key.
    """
    try:
        root = fromstring(xml)
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise ProtocolError(f"the labeling config is not well-formed XML: {error}") from error
    elements = list(root.iter())
    targets = {e.get("toName", "") for e in elements if e.tag in (*OUTPUT_TAGS, *PROMPT_TAGS)}
    images = [e for e in elements if e.tag == "Image" and e.get("name") and _VARIABLE.search(e.get("value", ""))]
    if not images:
        raise ProtocolError('the labeling config has no <Image name="image" value="$image"/>')
    image = next((e for e in images if e.get("name") in targets), images[0])
    name, image_key = image.attrib["name"], _VARIABLE.findall(image.attrib["value"])[0]
    controls = tuple(_control(e) for e in elements if _has_labels(e) and name in e.get("toName", "").split(","))
    return LabelingConfig(
        image=name,
        image_key=image_key,
        expression_key=_expression_key(elements, image_key),
        controls=controls,
        text_controls=tuple(e.attrib["name"] for e in elements if e.tag == "TextArea" and e.get("toName") == name),
        notes=tuple(_notes(image, controls, elements)),
    )


def _has_labels(element: Element) -> bool:
    return element.tag in (*OUTPUT_TAGS, *PROMPT_TAGS) and bool(element.get("name"))


def _control(element: Element) -> Control:
    labels = []
    for tag in element.iter("Label"):
        value, alias = tag.get("value", ""), tag.get("alias", "")
        names = [value, alias, *(part.strip() for part in tag.get("predicted_values", "").split(","))]
        names = list(dict.fromkeys(filter(None, names)))
        if names:
            labels.append(Label(alias or value, tuple(names)))
    smart_only = element.get("smartOnly", "").lower() == "true"
    default = "true" if element.tag == "BrushLabels" else "false"
    smart = smart_only or element.get("smart", default).lower() == "true"
    return Control(str(element.tag), element.attrib["name"], tuple(labels), smart, smart_only)


def _expression_key(elements: list[Element], image_key: str) -> str:
    """The key shown by a Header or Text (or proposed by a TextArea); one called ``expression`` before any other."""
    keys = [
        key
        for tag in ("Header", "Text", "TextArea")
        for element in elements
        if element.tag == tag
        for key in _VARIABLE.findall(element.get("value", ""))
        if key != image_key
    ]
    return "expression" if "expression" in keys or not keys else str(keys[0])


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
        lost = [label.stored for label in control.labels if control in prompts and label.stored not in outputs]
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
            key = _VARIABLE.findall(element.attrib["value"])
            notes.append(
                f'<{element.tag} value="{element.get("value")}"> makes the key {", ".join(key)} required, images'
                ' without it cannot be imported; <Header value="Expression: $expression"/> keeps it optional'
            )
    return notes
