"""The web server of the server's tests stands in for Label Studio here too."""

from tests.server.conftest import other_site, site

__all__ = ["other_site", "site"]
