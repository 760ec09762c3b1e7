"""Which addresses are taken, and whose they are: looked at as they are connected to."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_tools.label_studio.addresses import (
    Route,
    base_address,
    checked,
    is_public,
    is_under,
    joined,
    may_be_private,
    origin,
    shown,
)

LS = "http://ls.example.org:8080"

TRICKS = [
    "http://evil.example:9112\\@ls.example.org:8080/data/x.png",
    "http://evil.example\\\\@ls.example.org:8080/data/x.png",
    "http:\\\\ls.example.org:8080/data/x.png",
    "http://ls.example.org:8080\\@evil.example/data/x.png",
    "http://ls.example.org:8080@evil.example/data/x.png",
    "http://user:word@ls.example.org:8080/data/x.png",
    "http://@ls.example.org:8080/data/x.png",
    "http:ls.example.org/x.png",
    "http:/ls.example.org/x.png",
    "http:///ls.example.org/x.png",
    "http://",
    "//ls.example.org/x.png",
    "///ls.example.org/x.png",
    "ht\ttp://ls.example.org/x.png",
    "http://ls.exam\tple.org/x.png",
    "http://ls.example.org\n.evil.example/x.png",
    "http://ls.example.org/data/\r\nX: y",
    "http://ls.example.org/data/\x00.png",
    "http://ls.example.org/data/\x7f.png",
    "http://ls.example.org/data/\x85.png",
    "http://ls.example.org/data/\u2028.png",
    "http://ls.example.org/data/\ud800.png",
    " http://ls.example.org/x.png",
    "http://ls.example.org/x.png\u00a0",
    "http://ls example.org/x.png",
    "http://ls.example.org:80:80/x.png",
    "http://ls.example.org:99999/x.png",
    "http://ls.example.org:-1/x.png",
    "http://ls.example.org:８０/x.png",
    "http://ls.example.org:8080abc/x.png",
    "http://[::1/x.png",
    "http://::1/x.png",
    "http://[::1]evil/x.png",
    "http://[fe80::1%25eth0]/x.png",
    "http://[v1.x]/x.png",
    "http://evil.c\u2100.example/x.png",
    "http://ls\u3002example\u3002org/x.png",
    "http://１２７.0.0.1/x.png",
    "http://ls.example.org%00.evil.example/x.png",
    "http://ls.example.org%2f.evil.example/x.png",
    "http://ls.example.org/data/a/../b/%2e%2e/c",
    "ftp://ls.example.org/x.png",
    "file:///etc/passwd",
    "javascript:alert(1)",
    "",
]


@pytest.mark.parametrize("url", TRICKS)
def test_addresses_that_can_be_read_in_two_ways_are_refused(url: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the words differ
        checked(url)
    with pytest.raises(ValueError):  # noqa: PT011
        base_address(url)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("HTTP://LS.Example.ORG:8080/data/A.png", "http://ls.example.org:8080/data/A.png"),
        ("https://h/b c.png?d=x y", "https://h/b%20c.png?d=x%20y"),
        ("https://ä.example/ü.png", "https://xn--4ca.example/%C3%BC.png"),
        ("http://[::1]:80/x", "http://[::1]:80/x"),
        ("http://h/a?u=//b@c", "http://h/a?u=//b@c"),
        ("http://h//double/@x", "http://h//double/@x"),
    ],
)
def test_ordinary_addresses_are_taken(url: str, address: str) -> None:
    assert checked(url) == address
    assert checked(address) == address


@given(st.text(max_size=30), st.text(max_size=10))
def test_what_is_taken_leads_where_it_says(text: str, more: str) -> None:
    """The origin of an address is that of the connection: requests' and urllib3's own reading of it."""
    import urllib3

    for url in (f"http://{text}", f"http://ls.example.org{text}/{more}", f"http://{text}@ls.example.org/{more}"):
        try:
            address = checked(url)
        except ValueError:
            continue
        there = urllib3.util.parse_url(address)
        assert origin(address) == (there.scheme, str(there.host).strip("[]"), there.port or 80)
        assert "@" not in str(there.netloc)


@pytest.mark.parametrize(
    ("address", "ours"),
    [
        (f"{LS}/data/upload/1/a.png", True),
        (f"{LS}/storage-data/uploaded/?filepath=upload/1/a.png", True),
        ("http://LS.example.org:8080/data/a.png", True),
        (f"{LS}/api/projects/5/export", False),
        (f"{LS}/data", False),
        (f"{LS}/database/a.png", False),
        (f"{LS}/Data/a.png", False),
        (f"{LS}//data/a.png", False),
        (f"{LS}/data/../api/projects/5/export", False),
        (f"{LS}/data/..%2fapi/projects/5/export", False),
        (f"{LS}/data/%252e%252e/api/projects/5/export", False),
        (f"{LS}/data/..;/api/projects/5/export", False),
        (f"{LS}/data/..%5capi", False),
        (f"{LS}/data/%00/api", False),
        ("https://ls.example.org:8080/data/a.png", False),
        ("http://ls.example.org/data/a.png", False),
        ("http://ls.example.org:8081/data/a.png", False),
        ("http://ls.example.org.:8080/data/a.png", False),
        ("http://ls.example.org.evil.example:8080/data/a.png", False),
        ("http://evil.example/data/a.png#@ls.example.org:8080", False),
        ("http://evil.example/?@ls.example.org:8080/data/a.png", False),
    ],
)
def test_only_files_of_label_studio_are_its_own(address: str, ours: bool) -> None:
    assert is_under(checked(address), LS, ("/data/", "/storage-data/")) is ours


def test_another_way_to_write_an_address_is_not_the_same_host() -> None:
    for host in ("0x7f.0.0.1", "2130706433", "127.1", "[::ffff:127.0.0.1]", "localhost"):
        assert not is_under(checked(f"http://{host}/data/a"), "http://127.0.0.1", ("/data/",))


def test_a_path_in_front_belongs_to_the_address() -> None:
    base = base_address("https://host/ls/")
    assert base == "https://host/ls"
    assert is_under(checked("https://host/ls/data/a.png"), base, ("/data/",))
    assert not is_under(checked("https://host/data/a.png"), base, ("/data/",))
    assert not is_under(checked("https://host/lsx/data/a.png"), base, ("/data/",))


@pytest.mark.parametrize(
    "url",
    [
        "http://ls.example.org/ls/projects/3/data?tab=4",
        "http://ls.example.org/ls/projects/",
        "http://ls.example.org/ls/#",
        "http://ls.example.org/ls/#/x",
        "http://ls.example.org/ls?",
        "http://ls.example.org/ls/?page=1",
        "http://ls.example.org/ls/user/account",
        "http://ls.example.org/ls/api/version",
    ],
)
def test_addresses_pasted_from_the_browser_are_refused_with_the_right_one(url: str) -> None:
    with pytest.raises(ValueError, match=r"one of its pages.*would be http://ls\.example\.org/ls$"):
        base_address(url)


@pytest.mark.parametrize(
    "location", ["//evil.example/x", "/\\evil.example", "http:\\\\evil", "http:evil", "\thttp://e/x"]
)
def test_odd_redirects_are_not_followed(location: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        joined(f"{LS}/data/a.png", location)


def test_redirects_are_joined_as_browsers_do() -> None:
    assert joined(f"{LS}/data/a.png", "/b.png") == f"{LS}/b.png"
    assert joined(f"{LS}/data/a.png", "b.png?x=1") == f"{LS}/data/b.png?x=1"
    assert joined(f"{LS}/data/a.png", "HTTPS://CDN.example/b") == "https://cdn.example/b"


def test_messages_show_neither_signatures_nor_names() -> None:
    assert shown("https://me:word@h/a?signature=swordfish") == "https://h/a"


def test_a_proxy_is_used_but_for_some_hosts() -> None:
    route = Route(proxy="http://proxy:3128", no_proxy=("ls.example.org", "*.local"))
    assert route.proxies(f"{LS}/x") == {}
    assert route.proxies("http://tiles.local/x") == {}
    assert route.proxies("https://cdn.example/x")["https"] == "http://proxy:3128"


def test_the_environment_says_the_route(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("PSLG_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "PSLG_PROXY", "PSLG_NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert Route.from_environment() == Route()
    own, usual = tmp_path / "own.pem", tmp_path / "usual.pem"
    own.touch()
    usual.touch()
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(usual))
    assert Route.from_environment().ca_bundle == usual
    monkeypatch.setenv("PSLG_CA_BUNDLE", str(own))
    monkeypatch.setenv("PSLG_PROXY", "http://proxy:3128")
    monkeypatch.setenv("PSLG_NO_PROXY", "a.example, B.example")
    assert Route.from_environment() == Route(own, "http://proxy:3128", ("a.example", "b.example"))
    monkeypatch.setenv("PSLG_CA_BUNDLE", str(tmp_path / "none.pem"))
    with pytest.raises(ValueError, match="does not exist"):
        Route.from_environment()


@pytest.mark.parametrize(
    ("host", "private"),
    [("10.0.0.1", True), ("0x7f000001", True), ("127.1", True), ("::ffff:10.0.0.1", True), ("localhost", True),
     ("db", True), ("printer.local", True), ("8.8.8.8", False), ("cdn.example.org", False)],
)  # fmt: skip
def test_hosts_that_look_private(host: str, private: bool) -> None:
    assert may_be_private(host) is private


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2001:4860:4860::8888", True),
        ("64:ff9b::8.8.8.8", True),
        ("64:ff9b::10.0.0.1", False),
        ("64:ff9b::169.254.169.254", False),
        ("2002:0a00:0001::1", False),  # 6to4 of 10.0.0.1
        ("2002:7f00:0001::1", False),
        ("::ffff:192.168.1.1", False),
        ("::1", False),
        ("fd00::1", False),
        ("100.64.0.1", False),
    ],
)
def test_an_ipv6_address_that_stands_for_a_private_one_is_private(address: str, public: bool) -> None:
    assert is_public(ipaddress.ip_address(address)) is public
