"""The batch commands are tested against the same small server and site as the server itself."""

from tests.server.conftest import service, settings, site

__all__ = ["service", "settings", "site"]
