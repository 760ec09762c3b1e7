"""The one tree of errors of the project, for ``dataset_tools`` and ``backend`` alike.

A message says what happened, the value seen, and what to change, so that it can be shown to a user as it is.
"""

UNUSABLE = (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError)
"""What code raises of content that has another form than it should; files come from anywhere."""


class PslgError(Exception):
    """Base of every error that this project raises on purpose."""


class ConfigError(PslgError):
    """A setting or a pipeline config cannot work; the message names the key, its value and the choices."""


class WeightsError(PslgError):
    """Weights are missing, damaged, or of another kind than the config asks for."""


class ImageError(PslgError):
    """An image cannot be read, is too large, or cannot be fetched."""


class MaskError(PslgError):
    """A mask, polygon or run-length code is malformed or has another size than its image."""


class DatasetError(PslgError):
    """A dataset folder, file or record is missing, unreadable or inconsistent."""


class PromptError(PslgError):
    """A prompt (point, box, mask) is malformed or lies outside the image."""


class ProtocolError(PslgError):
    """A Label Studio request does not have the form that docs/protocol.md describes; answered with status 400."""


class LabelStudioError(PslgError):
    """Label Studio is away or refused a call; the message carries the status and what to set."""


class UnavailableError(PslgError):
    """The service cannot answer now (weights missing, model loading, queue full); answered with status 503."""
