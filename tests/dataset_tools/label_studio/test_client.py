from __future__ import annotations

import base64
import json
import time

import pytest

from dataset_tools.errors import LabelStudioError
from dataset_tools.label_studio.client import LabelStudio
from dataset_tools.label_studio.connection import token_kind
from tests.server.conftest import Reply, Site


def jwt(kind: str, life: float = 300.0, mark: str = "") -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    now = time.time()
    claims = {"token_type": kind, "iat": now, "exp": now + life, "mark": mark}
    return f"{part({'alg': 'HS256'})}.{part(claims)}.c2lnbmF0dXJl"


LEGACY = "0123456789abcdef0123456789abcdef01234567"
WHOAMI = "/api/current-user/whoami"


def bearer_only(*tokens: str) -> object:
    def answer(headers: dict[str, str], _: bytes) -> Reply:
        if headers.get("Authorization") in {f"Bearer {token}" for token in tokens}:
            return Reply(b'{"id": 1}')
        return Reply(b'{"detail": "Given token not valid for any token type"}', 401)

    return answer


@pytest.mark.parametrize(
    ("token", "kind"),
    [(LEGACY, "legacy"), (jwt("refresh"), "personal"), (jwt("access"), "access"), ("a.b.c", "legacy")],
)
def test_kinds_of_tokens(token: str, kind: str) -> None:
    assert token_kind(token) == kind


def test_a_legacy_token_goes_as_token(site: Site) -> None:
    site.put(WHOAMI, b'{"id": 1}')
    LabelStudio(site.url, LEGACY).whoami()
    assert site.seen[0][2]["Authorization"] == f"Token {LEGACY}"


def test_a_personal_token_is_exchanged_once_and_renewed_when_it_ends(site: Site) -> None:
    personal = jwt("refresh")
    lives = iter([300.0, 10.0, 300.0])
    issued: list[str] = []

    def exchange(_: dict[str, str], body: bytes) -> Reply:
        assert json.loads(body) == {"refresh": personal}
        issued.append(jwt("access", next(lives), str(len(issued))))
        return Reply(json.dumps({"access": issued[-1]}).encode())

    site.replies["/api/token/refresh/"] = exchange
    site.replies[WHOAMI] = lambda headers, body: bearer_only(*issued)(headers, body)  # type: ignore[operator]
    studio = LabelStudio(site.url, personal)
    studio.whoami()
    studio.whoami()
    assert len(issued) == 1
    site.replies[WHOAMI] = lambda headers, body: bearer_only(*issued[1:])(headers, body)  # type: ignore[operator]
    studio.whoami()  # refused although it should live: renewed at once, this one for ten seconds only
    assert len(issued) == 2
    studio.whoami()  # ten seconds are less than the margin: renewed before use
    assert len(issued) == 3


def test_a_refused_legacy_token_is_explained_without_showing_it(site: Site) -> None:
    detail = "legacy token authentication has been disabled for this organization"
    site.replies[WHOAMI] = Reply(json.dumps({"detail": detail}).encode(), 401)
    with pytest.raises(LabelStudioError) as caught:
        LabelStudio(site.url, LEGACY).whoami()
    message = str(caught.value)
    assert detail in message
    assert "personal access token" in message
    assert "Authorization: Token" in message
    assert LEGACY not in message


def test_a_personal_token_that_is_not_exchanged_is_explained(site: Site) -> None:
    site.replies["/api/token/refresh/"] = Reply(b'{"detail": "Token is blacklisted"}', 401)
    with pytest.raises(LabelStudioError, match=r"Token is blacklisted.*create a new one"):
        LabelStudio(site.url, jwt("refresh")).whoami()


def test_an_absent_label_studio_is_explained() -> None:
    with pytest.raises(LabelStudioError, match="LABEL_STUDIO_URL"):
        LabelStudio("http://127.0.0.1:9", LEGACY).whoami()


def test_predictions_are_found_by_their_version(site: Site) -> None:
    site.put("/api/predictions/?task=7", json.dumps([{"model_version": "compact-1"}]).encode())
    studio = LabelStudio(site.url, LEGACY)
    assert studio.has_prediction(7, "compact-1")
    assert not studio.has_prediction(7, "compact-2")
