"""Writes labeling configs that one wants to work in: the shipped ones, and one for labels of one's own.

The image takes all the room that a narrow column leaves. In the column, from top to bottom: the expression, what the
pre-label has to say, a field for further expressions, the labels to click with, and, folded, those of the other tools.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal
from xml.sax.saxutils import quoteattr

from dataset_tools.categories import CATEGORIES, KINDS
from dataset_tools.errors import ConfigError
from dataset_tools.expressions.more_like import LABEL as MORE_LIKE
from dataset_tools.expressions.more_like import more_like
from dataset_tools.label_studio.notes import NOTE

__all__ = ["COLORS", "GROUNDS", "HOTKEYS", "SHIPPED", "ConfigLabel", "Output", "labeling_config_xml"]

Output = Literal["brush", "polygon", "rectangle"]

GROUNDS: Mapping[str, tuple[int, int, int]] = MappingProxyType(
    {"asphalt": (58, 58, 60), "concrete": (205, 203, 196), "grass": (86, 112, 62), "water": (44, 72, 92)}
)
"""RGB of what lies under masks."""
COLORS = (
    "#d9163d", "#0000ff", "#007f00", "#1369bf", "#bf00ac", "#996b00", "#4c002e", "#00007f", "#0066ff", "#73200b",
    "#b2508b", "#b118f2", "#8b56bf", "#1d1659", "#bf4c00", "#d90082", "#e50000", "#99003d", "#1629d9", "#660066",
    "#113da6", "#7911a6", "#b25a50", "#990000", "#4c000f", "#99006b", "#a65b29", "#73346c",
)  # fmt: skip
"""Each farthest in CIE Lab from those before it, among colours with a contrast of 4.5 as text on white and, drawn at
half opacity, a distance of at least 20 from every ground."""
HOTKEYS = tuple("1234567890qtyasdfgjcnxzil")
"""Keys of the labels to click with, in their order; none is a tool's: those are B E H K M O P R U V W in 1.23."""
_NO_HOTKEY = "ctrl+alt+shift+f19"
"""Label Studio gives every label without a key a free one, tools' keys included. So the others have one that nobody
presses; it is not shown."""

_MORE_LIKE = f'        <Label value="{MORE_LIKE}" background="#595959" hotkey="."/>'
"""A region that is clicked with it is an example; a gray that no object's label has, and no letter is left for it."""

_STYLE = """
    .rs-row { display: flex; gap: 10px; align-items: flex-start; }
    .rs-main { flex: 1; min-width: 0; }
    .rs-side { width: 204px; flex: none; position: sticky; top: 0; overflow-y: auto;
      max-height: calc(100vh - 210px); overscroll-behavior: contain; scrollbar-width: thin; }
    .rs-side .lsf-labels { display: flex; flex-wrap: wrap; gap: 2px 3px; margin: 2px 0; }
    .rs-side .lsf-label { margin: 0; font-size: 12px; line-height: 20px; }
    .rs-side .ant-collapse .lsf-label__hotkey { display: none; }
    .rs-note { max-height: 18vh; overflow-y: auto; }
    .rs-note *, .rs-prompt * { font-size: 12px; line-height: 15px; }
    .rs-note .lsf-textarea-tag__item, .rs-prompt .lsf-textarea-tag__item { padding: 2px 4px; margin: 2px 0; }
    .rs-prompt .text-neutral-content-subtler { display: none; }
    .rs-note form, .rs-note input, .rs-note textarea, .rs-note button { display: none; }
    .rs-prompt { position: relative; }
    .lsf-main-content.lsf-requesting .rs-prompt::before { content: 'model is working...'; color: #808080;
      position: absolute; right: 4px; top: -16px; font-size: 11px; }
  """
_MANY = 12
_SIDE = {
    "brush": ("BrushLabels", "mask", "Brush, by hand"),
    "polygon": ("PolygonLabels", "polygon", "Polygon, by hand"),
    "rectangle": ("RectangleLabels", "rectangle", "Rectangle, by hand"),
}


@dataclass(frozen=True)
class ConfigLabel:
    """A label: what is shown and stored, and further names that a model's category may have for it."""

    value: str
    names: tuple[str, ...] = ()


def labeling_config_xml(labels: Sequence[ConfigLabel], output: Output = "brush", about: str = "") -> str:
    """A labeling config for ``labels``.

    Args:
        labels: in the order in which they are shown, different from one another.
        output: how objects are outlined.
        about: one line on top of the file.

    Raises:
        ConfigError: no label, an empty one, one that comes twice, or "more like this", which every config has.
    """
    values = [label.value.strip() for label in labels]
    if not values or not all(values):
        raise ConfigError("a labeling config needs at least one label, and none may be empty")
    twice = sorted({value for value in values if values.count(value) > 1})
    if twice:
        raise ConfigError(f"each label once: {', '.join(map(repr, twice))} is there more than once")
    if any(more_like(value) is not None for value in values):
        raise ConfigError(f"every labeling config has {MORE_LIKE!r} to click with; it cannot be an object's label")
    tag, name, title = _SIDE[output]
    smart = 'smart="true" smartOnly="true"'
    search = ""
    if len(values) > _MANY:
        search = (
            '\n      <Filter name="find" toName="point" minlength="0" hotkey="shift+f" placeholder="find a label"/>'
        )
    comment = f"<!-- {about} -->\n" if about else ""
    return f"""{comment}<View>
  <Style>{_STYLE}</Style>
  <View className="rs-row">
    <View className="rs-main">
      <Image name="image" value="$image" maxWidth="100%" zoom="true" zoomControl="true" rotateControl="false"/>
    </View>
    <View className="rs-side">
      <Header value="Expression: $expression" size="6"/>
      <View className="rs-note">
        <TextArea name="{NOTE}" toName="image" editable="false" required="false"/>
      </View>
      <View className="rs-prompt">
        <TextArea name="prompt" toName="image" editable="true" rows="1" showSubmitButton="true"
                  placeholder="further expression, Enter"/>
      </View>
      <Header value="Click (Alt: not this)" size="6"/>{search}
      <KeyPointLabels name="point" toName="image" {smart}>
{_labels(labels, HOTKEYS)}
{_MORE_LIKE}
      </KeyPointLabels>
      <Collapse>
        <Panel value="Box around it">
          <RectangleLabels name="box" toName="image" {smart}>
{_labels(labels)}
          </RectangleLabels>
        </Panel>
        <Panel value="{title}">
          <{tag} name="{name}" toName="image" smart="false">
{_labels(labels)}
          </{tag}>
        </Panel>
      </Collapse>
    </View>
  </View>
</View>
"""


def _labels(labels: Sequence[ConfigLabel], hotkeys: Sequence[str] = ()) -> str:
    indent = " " * (8 if hotkeys else 12)
    lines = []
    for number, label in enumerate(labels):
        line = f'{indent}<Label value={quoteattr(label.value.strip())} background="{COLORS[number % len(COLORS)]}"'
        if label.names:
            line += f" predicted_values={quoteattr(','.join(label.names))}"
        key = hotkeys[number] if number < len(hotkeys) else _NO_HOTKEY
        lines.append(f'{line} hotkey="{key}"/>')
    return "\n".join(lines)


def _all_categories() -> list[ConfigLabel]:
    return [ConfigLabel(category.display) for category in CATEGORIES.values()]


def _of_compact() -> list[ConfigLabel]:
    """What the compact grounder is trained to find: NWPU's ten, building, those that later data brought, the kinds."""
    nwpu = "airplane ship storagetank baseballfield tenniscourt basketballcourt groundtrackfield harbor bridge vehicle"
    later = "building helicopter swimmingpool roundabout soccerfield"
    named = [CATEGORIES[name].display for name in f"{nwpu} {later}".split()]
    return [*map(ConfigLabel, named), *map(ConfigLabel, KINDS)]


SHIPPED: Mapping[str, Callable[[], str]] = MappingProxyType(
    {
        "rrsisd": lambda: labeling_config_xml(
            _all_categories(), about="RRSIS-D's 20 categories and what later data brought, as brush masks."
        ),
        "compact": lambda: labeling_config_xml(_of_compact(), about="The 17 categories of the compact grounder."),
        "polygons": lambda: labeling_config_xml(
            _of_compact(), "polygon", "The compact grounder's categories, outlined by polygons in place of a brush."
        ),
        "buildings": lambda: labeling_config_xml(
            [ConfigLabel("building")], about="Buildings only: with one label it need not be named in the expression."
        ),
        "minimal": lambda: labeling_config_xml(
            [ConfigLabel("object")], about="Any category under one label: expressions, clicks and boxes."
        ),
    }
)
"""What writes each file of ``configs/labeling``."""
