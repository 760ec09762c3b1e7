"""HTML pages that open offline: one file, styles and pictures inside, no script."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape

import cv2
import numpy as np
import numpy.typing as npt

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1c2126; background: #f6f7f8; margin: 0 auto; max-width: 1100px;
  padding: 24px; }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 32px 0 8px; }
table { border-collapse: collapse; background: #fff; } th, td { padding: 4px 10px; border-bottom: 1px solid #e3e6e8;
  text-align: left; vertical-align: top; } td.n { text-align: right; font-variant-numeric: tabular-nums; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(320px, 1fr)); gap: 12px; }
.card { background: #fff; border: 1px solid #e3e6e8; border-radius: 6px; padding: 10px; font-size: 13px; }
.card img { width: 100%; display: block; border-radius: 4px; margin-bottom: 6px; }
.error { color: #b3261e; font-weight: 600; } .warning { color: #9a6700; font-weight: 600; }
.plot { max-width: 100%; background: #fff; border: 1px solid #e3e6e8; border-radius: 6px; } .dim { color: #667; }
"""


def page(title: str, subtitle: str, sections: Iterable[tuple[str, str]]) -> str:
    """A whole page; ``sections`` are (heading, HTML) pairs, everything else is escaped here."""
    body = "\n".join(f"<h2>{escape(heading)}</h2>\n{content}" for heading, content in sections)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>\n'
        f'<body><h1>{escape(title)}</h1><div class="dim">{escape(subtitle)}</div>\n{body}\n</body></html>\n'
    )


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; numbers are set to the right."""
    cells = "".join(f"<th>{escape(text)}</th>" for text in head)
    lines = (
        "<tr>"
        + "".join(
            f'<td class="n">{value:,}</td>' if isinstance(value, int | float) else f"<td>{escape(str(value))}</td>"
            for value in row
        )
        + "</tr>"
        for row in rows
    )
    return f"<table><tr>{cells}</tr>{''.join(lines)}</table>"


def picture(image: npt.NDArray[np.uint8], alt: str) -> str:
    """An image uint8[H, W, 3] RGB as an element with its data inside (JPEG)."""
    _, data = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
    return f'<img alt="{escape(alt)}" src="data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}">'


def plot(png: bytes, alt: str) -> str:
    """A plot's PNG as an element with its data inside."""
    return f'<img class="plot" alt="{escape(alt)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def card(inside: str, text: str, kind: str = "") -> str:
    """A box with a picture (an element) above a text; ``kind`` colours the text (``error``, ``warning``)."""
    return f'<div class="card">{inside}<span class="{escape(kind)}">{escape(text)}</span></div>'
