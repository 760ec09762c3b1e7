"""Labeling configs: those that come with this project, ``configs/labeling/<name>.xml``, and files."""

from __future__ import annotations

from pathlib import Path

from dataset_tools.errors import ConfigError

# In a source tree the configs stand beside the packages; a wheel carries them inside the backend package.
_FOLDERS = (Path(__file__).parents[1] / "configs" / "labeling", Path(__file__).parent / "configs" / "labeling")


def labeling_config_names() -> list[str]:
    """Names of the shipped labeling configs, sorted."""
    return sorted({path.stem for folder in _FOLDERS if folder.is_dir() for path in folder.glob("*.xml")})


def read_labeling_config(name: str) -> str:
    """The XML of a shipped labeling config.

    Raises:
        ConfigError: there is none of that name.
    """
    for folder in _FOLDERS:
        if (folder / f"{name}.xml").is_file():
            return (folder / f"{name}.xml").read_text(encoding="utf-8")
    raise ConfigError(f"no labeling config named {name!r}; there are: {', '.join(labeling_config_names())}")


def read_config(name: str) -> str:
    """The XML of a labeling config: a shipped one by name, or a file.

    Raises:
        ConfigError: it is neither.
    """
    if name in labeling_config_names():
        return read_labeling_config(name)
    try:
        return Path(name).read_text(encoding="utf-8")
    except OSError as error:
        names = ", ".join(labeling_config_names())
        raise ConfigError(f"no labeling config {name!r} ({error.strerror}); shipped ones: {names}") from error
