"""The pages of docs/, shown by the server at ``/docs/<name>``: what its messages name can be read where it runs."""

from __future__ import annotations

from pathlib import Path

__all__ = ["doc_page", "doc_pages"]

# In a source tree they stand beside the packages; a wheel carries them inside the backend package.
_FOLDERS = (Path(__file__).parents[2] / "docs", Path(__file__).parents[1] / "docs")


def doc_pages() -> dict[str, str]:
    """Title by file name, in the order of the names."""
    return {path.name: _title(path) for folder in _FOLDERS for path in sorted(folder.glob("*.md"))}


def doc_page(name: str) -> str:
    """The Markdown of a page that ``doc_pages`` names."""
    return next(path for folder in _FOLDERS if (path := folder / name).is_file()).read_text(encoding="utf-8")


def _title(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        return file.readline().lstrip("# ").strip() or path.stem
