"""Pages are one file, everything given to them is escaped, numbers stand to the right."""

from __future__ import annotations

import numpy as np

from dataset_tools import html_page
from dataset_tools.html_page import Markup

HOSTILE = "<script>alert('x')</script> & \""


def test_every_text_is_escaped_and_every_part_is_kept() -> None:
    sections = [
        (HOSTILE, html_page.table((HOSTILE,), [(HOSTILE, 12345, 0.5, None)])),
        ("picture", html_page.card(html_page.picture(np.zeros((2, 3, 3), np.uint8), HOSTILE), HOSTILE, HOSTILE)),
        ("plot", html_page.plot(b"png", HOSTILE)),
        ("own", Markup("<p>{}</p>").format(HOSTILE)),
    ]
    page = html_page.page(HOSTILE, HOSTILE, sections)
    assert page.startswith("<!doctype html>")
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 11
    assert '<td class="n">12,345</td><td class="n">0.5</td><td>None</td>' in page
    assert page.count("<img ") == 2
    assert 'class="plot"' in page
