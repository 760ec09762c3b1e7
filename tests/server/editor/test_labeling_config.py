from __future__ import annotations

from typing import Any

import pytest

from backend.labeling_configs import labeling_config_names, read_labeling_config
from backend.server.editor.labeling_config import parse_labeling_config
from backend.server.editor.prompts import read_task
from backend.server.protocol import Task
from dataset_tools import categories
from dataset_tools.errors import ImageError, ProtocolError
from tests.server.conftest import LABEL_CONFIG


def config(body: str, image: str = '<Image name="image" value="$image"/>') -> str:
    return f"<View>{image}{body}</View>"


BRUSH = '<BrushLabels name="mask" toName="image" smart="false"><Label value="building"/></BrushLabels>'


def test_a_usual_config() -> None:
    found = parse_labeling_config(LABEL_CONFIG)
    assert (found.image, found.image_key, found.expression_key) == ("image", "image", "expression")
    assert [control.name for control in found.outputs] == ["mask"]
    assert found.text_controls == ("prompt",)
    assert found.label_for("ship") == "ship"
    assert found.label_for("harbor") is None


@pytest.mark.parametrize(
    ("body", "key"),
    [
        ('<Header value="Expression: $expression"/>', "expression"),
        ('<Text name="t" value="$sentence"/>', "sentence"),
        ('<Header value="Scene $scene, find ${phrase}"/>', "phrase"),
        ('<Header value="$scene"/><Header value="$meta.caption"/>', "meta.caption"),
        ('<Header value="Find: $meta.expression."/>', "meta.expression"),
        ('<Header value="$scene"/><Header value="$title"/>', "expression"),
        ('<Header value="$title"/><Text name="t" value="$expression"/>', "expression"),
        ("", "expression"),
        ('<Header value="$image"/>', "expression"),
    ],
)
def test_the_expression_key(body: str, key: str) -> None:
    assert parse_labeling_config(config(body + BRUSH)).expression_key == key


@pytest.mark.parametrize(
    ("label", "category", "stored"),
    [
        ('<Label value="Storage Tanks"/>', "storagetank", "Storage Tanks"),
        ('<Label value="Roofs" alias="building"/>', "building", "building"),
        ('<Label value="Dächer" predicted_values="building, house"/>', "building", "Dächer"),
        ('<Label value="Wharf things" alias="w" predicted_values="harbor"/>', "harbor", "w"),
        ('<Label value="pool"/>', "pool", "pool"),
        ('<Label value="pool"/>', "ship", None),
    ],
)
def test_a_label_is_found_by_value_alias_and_predicted_values(label: str, category: str, stored: str | None) -> None:
    found = parse_labeling_config(
        config(f'<BrushLabels name="m" toName="image"><Label value="x"/>{label}</BrushLabels>')
    )
    assert found.label_for(category) == stored


def test_the_most_direct_name_wins_whatever_the_order() -> None:
    labels = '<Label value="boats" predicted_values="ship"/><Label value="ship"/>'
    assert (
        parse_labeling_config(config(f'<BrushLabels name="m" toName="image">{labels}</BrushLabels>')).label_for("ship")
        == "ship"
    )


def test_smart_rectangles_are_prompts_and_plain_ones_outputs() -> None:
    box = '<RectangleLabels name="box" toName="image" {}><Label value="building"/></RectangleLabels>'
    assert [c.name for c in parse_labeling_config(config(BRUSH + box.format('smart="true"'))).outputs] == ["mask"]
    assert [c.name for c in parse_labeling_config(config(BRUSH + box.format(""))).outputs] == ["mask", "box"]
    assert [c.name for c in parse_labeling_config(config(box.format('smart="true"'))).outputs] == ["box"]


def test_controls_of_another_image_do_not_count() -> None:
    other = (
        '<Image name="other" value="$other"/><PolygonLabels name="p" toName="other"><Label value="x"/></PolygonLabels>'
    )
    found = parse_labeling_config(config(other + BRUSH))
    assert found.image == "image"
    assert [control.name for control in found.outputs] == ["mask"]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("", "no usable control"),
        (BRUSH, "no smart control"),
        (BRUSH.replace(' smart="false"', ""), 'smart="false"'),
        (
            BRUSH + '<KeyPointLabels name="p" toName="image" smart="true"><Label value="building"/></KeyPointLabels>',
            "Only",
        ),
        (
            BRUSH + '<KeyPointLabels name="p" toName="image" smart="true"><Label value="ship"/></KeyPointLabels>',
            "'ship' that no BrushLabels",
        ),
        ('<BrushLabels name="m" toName="image"/>', "no Label"),
        (BRUSH + '<Text name="t" value="$expression"/>', "required"),
        (BRUSH.replace("</Brush", '<Label value="lagoon"/></Brush'), "'lagoon': the model does not find"),
    ],
)
def test_what_cannot_work_is_explained(body: str, problem: str) -> None:
    found = parse_labeling_config(config(body)).problems(frozenset({"building", "ship"}))
    assert any(problem in line for line in found), found


TWO = (
    '<View><Image name="before" value="$pre"/><Image name="after" value="$post"/>'
    '<BrushLabels name="m1" toName="before" smart="false"><Label value="ship"/></BrushLabels>'
    '<BrushLabels name="m2" toName="after" smart="false"><Label value="ship"/></BrushLabels></View>'
)


def test_the_parts_of_the_image_that_the_items_lie_on() -> None:
    found = parse_labeling_config(TWO)
    after = found.on([{"to_name": "after"}])
    assert (after.image, after.image_key, [control.name for control in after.outputs]) == ("after", "post", ["m2"])
    assert found.on([{"to_name": "before"}]).image == "before"
    assert any("2 images are labelled (before, after)" in note for note in found.problems(None))
    for items in ([{"to_name": "middle"}], [{"to_name": "before"}, {"to_name": "after"}]):
        with pytest.raises(ProtocolError, match="on which image this is cannot be told"):
            found.on(items)


def test_texts_of_which_none_is_called_like_words_are_no_expression() -> None:
    notes = parse_labeling_config(config('<Header value="$scene"/><Header value="$title"/>' + BRUSH)).notes
    assert any("which of $scene, $title is the expression cannot be told" in note for note in notes)


@pytest.mark.parametrize(
    ("image", "data", "url"),
    [
        ('value="$a.b"', {"a": {"b": "/data/x.png"}}, "/data/x.png"),
        ('value="$a[1].url"', {"a": [{}, {"url": "/data/x.png"}]}, "/data/x.png"),
        ('value="${a}"', {"a": "/data/x.png"}, "/data/x.png"),
        ('value="https://host/$a/$b.png"', {"a": "x", "b": {"png": 7}}, "https://host/x/7"),
        ('valueList="$pages"', {"pages": ["/data/x.png"]}, "/data/x.png"),
    ],
)
def test_every_form_of_a_value_is_read(image: str, data: dict[str, Any], url: str) -> None:
    found = parse_labeling_config(config(BRUSH, f'<Image name="image" {image}/>'))
    assert read_task(Task(data=data), found).url == url


def test_a_page_of_a_list_is_named_by_the_items() -> None:
    found = parse_labeling_config(config(BRUSH, '<Image name="image" valueList="$pages"/>'))
    task = Task(data={"pages": ["/data/x.png", "/data/y.png"], "meta": {}})
    assert read_task(task, found.on([{"to_name": "image", "item_index": 1}])).url == "/data/y.png"
    with pytest.raises(ImageError, match="2 images under 'pages', and it cannot be told"):
        read_task(task, found)
    second = found.on([{"to_name": "image", "item_index": 1}])
    assert second.shows({"to_name": "image", "item_index": 1})
    assert not second.shows({"to_name": "image", "item_index": 0})


@pytest.mark.parametrize(
    "xml",
    ["", "<View>", "<View/>", '<View><Text name="t" value="$x"/></View>', '<View><Image name="i"/></View>'],
)
def test_a_config_without_image_or_xml_is_refused(xml: str) -> None:
    with pytest.raises(ProtocolError):
        parse_labeling_config(xml)


def test_entity_bombs_are_refused() -> None:
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaa">]><View><Image name="i" value="$i"/>&a;</View>'
    with pytest.raises(ProtocolError):
        parse_labeling_config(bomb)


@pytest.mark.parametrize("name", labeling_config_names())
def test_shipped_configs_have_no_problem(name: str) -> None:
    assert parse_labeling_config(read_labeling_config(name)).problems(frozenset(categories.CATEGORIES)) == ()


def test_the_label_to_find_more_with_is_clicked_with_and_is_no_object_s() -> None:
    like = '<Label value="more like this"/>'
    tools = "".join(
        f'<{tag} name="{tag}" toName="image" {smart}><Label value="hull"/>{like}</{tag}>'
        for tag, smart in (("KeyPointLabels", 'smart="true" smartOnly="true"'), ("BrushLabels", 'smart="false"'))
    )
    found = parse_labeling_config(config(tools))
    assert [label.stored for label in found.labels] == ["hull"]
    assert found.own_categories == {"hull"}
    assert found.problems({"hull"}) == ()
    one = parse_labeling_config(config(tools.replace("hull", "object")))
    assert one.takes_any_category
    alone = f'<KeyPointLabels name="more" toName="image" smart="true" smartOnly="true">{like}</KeyPointLabels>'
    assert parse_labeling_config(config(alone + BRUSH)).problems({"building"}) == ()


def test_the_rrsisd_config_has_a_label_for_every_category() -> None:
    found = parse_labeling_config(read_labeling_config("rrsisd"))
    assert all(found.label_for(category) for category in categories.CATEGORIES)


def test_a_label_that_the_model_learnt_in_a_project_is_no_problem() -> None:
    body = '<BrushLabels name="mask" toName="image" smart="false"><Label value="Solar_Panel"/><Label value="ship"/>'
    found = parse_labeling_config(config(body + "</BrushLabels>"))
    assert any("Solar_Panel" in problem for problem in found.problems({"ship"}))
    assert not any("Solar_Panel" in problem for problem in found.problems({"ship", "solar panel"}))
    assert found.label_for("solar panel") == "Solar_Panel"


def test_kinds_of_vehicles_get_the_label_that_fits_best() -> None:
    both = config('<BrushLabels name="m" toName="image"><Label value="car"/><Label value="truck"/></BrushLabels>')
    one = config('<BrushLabels name="m" toName="image"><Label value="car"/><Label value="vehicle"/></BrushLabels>')
    assert parse_labeling_config(both).label_for("large vehicle") == "truck"
    assert parse_labeling_config(both).label_for("small vehicle") == "car"
    assert parse_labeling_config(one).label_for("large vehicle") == "vehicle"


def test_rectangles_may_be_turned_when_the_config_says_so() -> None:
    body = '<View><Image name="i" value="$image"/>{}</View>'
    tag = '<RectangleLabels name="box" toName="i"{}><Label value="ship"/></RectangleLabels>'
    for attribute, rotated in (("", False), (' rotated="true"', True), (' rotated="no"', False)):
        (control,) = parse_labeling_config(body.format(tag.format(attribute))).controls
        assert control.rotated is rotated
