"""Errors of the dataset tools: the message says what happened, the value seen, and what to change."""


class DatasetToolsError(Exception):
    """Base of every error that ``dataset_tools`` raises on purpose."""


class DatasetError(DatasetToolsError):
    """A dataset folder, file or record is missing, unreadable or inconsistent."""


class MaskError(DatasetToolsError):
    """A mask, polygon or run-length code is malformed or has another size than its image."""
