"""HTML pages that open offline: one file, styles and pictures inside, no script.

Parts are ``Markup``; every other text is escaped by the template, or by ``Markup.format``.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from functools import cache

import cv2
import jinja2
import numpy as np
import numpy.typing as npt
from markupsafe import Markup

__all__ = ["Markup", "card", "page", "picture", "plot", "plot_text", "table"]


def page(title: str, subtitle: str, sections: Iterable[tuple[str, Markup]]) -> str:
    """A whole page; ``sections`` are (heading, content) pairs."""
    return _template().render(title=title, subtitle=subtitle, sections=sections)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> Markup:
    """A table; numbers are set to the right."""
    return _part("table", head, rows)


def picture(image: npt.NDArray[np.uint8], alt: str) -> Markup:
    """An image uint8[H, W, 3] RGB as an element with its data inside (JPEG)."""
    _, data = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
    return _part("image", base64.b64encode(data.tobytes()).decode(), "jpeg", alt, "")


def plot(png: bytes, alt: str) -> Markup:
    """A plot's PNG as an element with its data inside."""
    return _part("image", base64.b64encode(png).decode(), "png", alt, "plot")


def card(inside: Markup, text: str, kind: str = "") -> Markup:
    """A box with a picture (an element) above a text; ``kind`` colours the text (``error``, ``warning``)."""
    return _part("card", inside, text, kind)


def _part(macro: str, *arguments: object) -> Markup:
    part = getattr(_template().module, macro)(*arguments)
    assert isinstance(part, Markup)  # noqa: S101 - autoescape makes it so
    return part


@cache
def _template() -> jinja2.Template:
    loader = jinja2.PackageLoader("dataset_tools")
    return jinja2.Environment(loader=loader, autoescape=True, keep_trailing_newline=True).get_template("page.html")


def plot_text(text: object) -> str:
    """A name for a plot of matplotlib, where dollars would begin a formula."""
    return str(text).replace("$", r"\$")
