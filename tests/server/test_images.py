from __future__ import annotations

import base64
import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import SecretStr

from backend.database import Database
from backend.server.images import BytesInFlight, DecodeMemory, FairLock, TaskImages
from backend.settings import Settings
from dataset_tools.errors import ImageError
from tests.dataset_tools.label_studio.test_client import LEGACY, jwt
from tests.pictures import scene, tiff
from tests.server.conftest import Reply, Site, encode, png


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "server.sqlite3")
    yield database
    database.close()


def images(database: Database, **options: object) -> TaskImages:
    values = {"image_hosts": ("127.0.0.1",), "state_dir": Path("unused"), **options}
    if "label_studio_api_key" in options:
        values["label_studio_api_key"] = SecretStr(str(options["label_studio_api_key"]))
    settings = Settings.model_validate(values)
    return TaskImages(settings, settings.label_studio(), database)


def studio(database: Database, site: Site, token: str = LEGACY, **options: object) -> TaskImages:
    options = {"image_hosts": (), **options}
    return images(database, label_studio_url=site.url, label_studio_api_key=token, **options)


def test_an_image_by_http_is_fetched_once(database: Database, site: Site) -> None:
    url = site.put("/a.png", png(80, 60))
    source = images(database)
    image = source.load(url)
    assert image.size == (60, 80)
    assert image.identity == hashlib.sha256(png(80, 60)).hexdigest()
    assert image.pixels().shape == (60, 80, 3)
    assert source.load(url) == image
    assert site.paths() == ["/a.png"]


def test_an_image_is_kept_as_a_file_and_fetched_once(database: Database, site: Site, tmp_path: Path) -> None:
    url = site.put("/a.png", png(80, 60))
    source = images(database)
    image, path = source.keep(url, 1, tmp_path / "images")
    assert (path.name, path.read_bytes()) == (image.identity, png(80, 60))
    assert source.keep(url, 1, tmp_path / "images") == (image, path)
    assert site.paths() == ["/a.png"]
    path.unlink()
    assert source.keep(url, 1, tmp_path / "images")[1].is_file()
    site.put("/b.png", b"no image")
    with pytest.raises(ImageError):
        source.keep(site.url + "/b.png", 1, tmp_path / "images")


def test_another_process_knows_the_hash_without_fetching(database: Database, site: Site) -> None:
    url = site.put("/a.png", png())
    image = images(database).load(url)
    del site.replies["/a.png"]
    assert images(database).load(url) == image


def test_pixels_are_those_of_the_identity_or_none(database: Database, site: Site) -> None:
    url = site.put("/a.png", png(seed=1))
    source = images(database, image_memory=0)
    before = source.load(url)
    assert before.pixels().shape == (60, 80, 3)
    site.put("/a.png", png(seed=2))
    with pytest.raises(ImageError, match="another image than a moment ago"):
        before.pixels()
    after = source.load(url)  # asked again, it is the new one
    assert after.identity == hashlib.sha256(png(seed=2)).hexdigest()
    assert after.pixels().shape == (60, 80, 3)


def test_a_clock_that_was_ahead_keeps_no_image_for_ever(database: Database, site: Site) -> None:
    url = site.put("/a.png", png(seed=1))
    first = images(database).load(url)
    with database.transaction() as connection:
        connection.execute("UPDATE images SET checked_at = checked_at + 31536000")
    site.put("/a.png", png(81, seed=2))
    assert images(database).load(url).identity != first.identity


def test_a_changed_image_is_noticed_by_its_etag(database: Database, site: Site) -> None:
    url = site.put("/a.png", png(seed=1), ETag='"one"')
    source = images(database, revalidate_after=0)
    first = source.load(url)

    def conditional(headers: dict[str, str], _: bytes) -> Reply:
        assert headers["If-None-Match"] == '"one"'
        return Reply(b"", 304)

    site.replies["/a.png"] = conditional
    assert source.load(url) == first
    site.put("/a.png", png(seed=2), ETag='"two"')
    assert source.load(url) != first
    assert not np.array_equal(source.load(url).pixels(), np.asarray(Image.new("RGB", (80, 60))))


@pytest.mark.parametrize("path", ["/data/upload/2/9391f062-scene_one.png", "/data/local-files/?d=rs/local%20scene.png"])
def test_paths_of_label_studio_get_the_token(database: Database, site: Site, path: str) -> None:
    site.put(path, png())
    studio(database, site).load(path)
    assert site.seen[0][1] == path
    assert site.seen[0][2]["Authorization"] == f"Token {LEGACY}"


def test_a_personal_token_is_exchanged_for_an_image(database: Database, site: Site) -> None:
    access = jwt("access")
    site.put("/api/token/refresh/", f'{{"access": "{access}"}}'.encode())
    site.put("/data/upload/1/a.png", png())
    studio(database, site, jwt("refresh")).load("/data/upload/1/a.png")
    assert site.seen[-1][2]["Authorization"] == f"Bearer {access}"


def test_no_token_leaves_label_studios_origin(database: Database, site: Site, other_site: Site) -> None:
    url = other_site.put("/a.png", png())
    studio(database, site, image_hosts=("127.0.0.1",)).load(url)
    assert "Authorization" not in other_site.seen[0][2]


def test_no_cookie_leaves_label_studios_origin(database: Database, site: Site, other_site: Site) -> None:
    """Label Studio answers a token with a session's cookie; a cookie knows hosts, and no ports."""
    cookie = {"Set-Cookie": "sessionid=as-good-as-the-token; Path=/"}
    to = {"Location": other_site.put("/b.png", png()), **cookie}
    site.replies["/data/upload/1/a.png"] = Reply(status=302, headers=to)
    site.replies["/data/upload/1/c.png"] = Reply(png(), headers=cookie)
    source = studio(database, site, image_hosts=("127.0.0.1",))
    source.load("/data/upload/1/c.png")
    source.load("/data/upload/1/a.png")
    source.load(other_site.put("/d.png", png(seed=1)))
    assert len(other_site.seen) == 2
    assert all("Cookie" not in headers for _, _, headers, _ in site.seen + other_site.seen)


def test_the_token_is_dropped_at_a_redirect_and_not_taken_up_again(
    database: Database, site: Site, other_site: Site
) -> None:
    site.replies["/data/upload/1/a.png"] = Reply(status=302, headers={"Location": other_site.url + "/b.png"})
    other_site.replies["/b.png"] = Reply(status=302, headers={"Location": site.url + "/c.png"})
    site.put("/c.png", png())
    studio(database, site, image_hosts=("127.0.0.1",)).load("/data/upload/1/a.png")
    assert "Authorization" in site.seen[0][2]
    assert "Authorization" not in other_site.seen[0][2]
    assert "Authorization" not in site.seen[1][2]


@pytest.mark.parametrize("scheme", ["s3", "gs", "azure-blob"])
def test_storage_uris_go_through_label_studio(database: Database, site: Site, other_site: Site, scheme: str) -> None:
    uri = f"{scheme}://bucket/ä/scene 1.png"
    encoded = base64.urlsafe_b64encode(uri.encode()).decode()
    signed = other_site.put("/bucket/scene.png?signature=secret", png())
    site.replies[f"/tasks/12/presign/?fileuri={encoded}"] = Reply(status=303, headers={"Location": signed})
    source = studio(database, site, image_hosts=("127.0.0.1",))
    assert source.load(uri, 12).size == (60, 80)
    assert "Authorization" not in other_site.seen[0][2]


def test_storage_uris_without_credentials_say_what_is_missing(database: Database) -> None:
    with pytest.raises(ImageError, match="LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY"):
        images(database).load("s3://bucket/a.png", 1)


def test_a_private_address_is_refused_before_anything_is_sent(database: Database, site: Site) -> None:
    url = site.put("/a.png", png())
    with pytest.raises(ImageError, match=r"private address 127\.0\.0\.1.*PSLG_IMAGE_HOSTS"):
        images(database, image_hosts=()).load(url)
    assert site.seen == []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with pytest.raises(ImageError, match="private address"):
            images(database, image_hosts=()).load(f"http://localhost:{listener.getsockname()[1]}/a.png")
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):  # nor is it connected to
            listener.accept()


def test_a_redirect_to_a_private_address_is_refused(database: Database, site: Site, other_site: Site) -> None:
    site.replies["/data/upload/1/a.png"] = Reply(status=302, headers={"Location": other_site.put("/b.png", png())})
    with pytest.raises(ImageError, match="private address"):
        studio(database, site).load("/data/upload/1/a.png")
    assert other_site.seen == []


def test_only_hosts_of_the_list_are_asked(database: Database, site: Site) -> None:
    with pytest.raises(ImageError, match="not allowed"):
        images(database, image_hosts=("tiles.example.org",)).load(site.put("/a.png", png()))


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/a.png", "scene.png", "", "javascript:1"])
def test_other_schemes_are_refused(database: Database, site: Site, url: str) -> None:
    with pytest.raises(ImageError):
        studio(database, site).load(url)


def test_a_redirect_to_another_scheme_is_refused(database: Database, site: Site) -> None:
    site.replies["/a.png"] = Reply(status=302, headers={"Location": "file:///etc/passwd"})
    with pytest.raises(ImageError, match="file:"):
        images(database).load(site.url + "/a.png")


def test_endless_redirects_end(database: Database, site: Site) -> None:
    site.replies["/a.png"] = Reply(status=302, headers={"Location": "/a.png"})
    with pytest.raises(ImageError, match="redirects more than"):
        images(database).load(site.url + "/a.png")


def test_a_large_file_is_refused_by_its_announced_size(database: Database, site: Site) -> None:
    url = site.put("/a.png", png())
    with pytest.raises(ImageError, match="PSLG_IMAGE_BYTES"):
        images(database, image_bytes=100).load(url)


def test_a_refused_legacy_token_says_what_to_do(database: Database, site: Site) -> None:
    detail = b'{"detail": "legacy token authentication has been disabled for this organization"}'
    site.replies["/data/upload/1/a.png"] = Reply(detail, 401)
    with pytest.raises(ImageError, match="personal access token") as caught:
        studio(database, site).load("/data/upload/1/a.png")
    assert LEGACY not in str(caught.value)


def test_without_a_url_or_token_the_message_names_the_variable(database: Database, site: Site) -> None:
    with pytest.raises(ImageError, match="LABEL_STUDIO_URL"):
        images(database).load("/data/upload/1/a.png")
    with pytest.raises(ImageError, match="LABEL_STUDIO_API_KEY"):
        images(database, label_studio_url=site.url).load("/data/upload/1/a.png")


def test_signatures_do_not_show_in_messages(database: Database, site: Site) -> None:
    with pytest.raises(ImageError) as caught:
        images(database).load(site.url + "/a.png?signature=swordfish")
    assert "swordfish" not in str(caught.value)


def test_two_label_studios_do_not_share_paths(database: Database, site: Site, other_site: Site) -> None:
    site.put("/data/upload/1/a.png", encode(Image.new("RGB", (10, 10))))
    other_site.put("/data/upload/1/a.png", encode(Image.new("RGB", (20, 20))))
    assert studio(database, site).load("/data/upload/1/a.png").size == (10, 10)
    assert studio(database, other_site).load("/data/upload/1/a.png").size == (20, 20)


def test_other_bands_are_another_picture(database: Database, site: Site) -> None:
    values = scene(5)
    url = site.put("/bands.tif", tiff(values, planarconfig="contig"))
    first = images(database).load(url)
    assert np.array_equal(first.pixels(), values[:, :, :3])
    other = images(database, bands="5,4,3").load(url)
    assert np.array_equal(other.pixels(), values[:, :, [4, 3, 2]])
    # Or embeddings and pre-labels of the old bands would answer for the new ones.
    assert other.identity != first.identity
    assert images(database).load(url).identity == first.identity


def test_a_hostile_address_gets_neither_the_token_nor_past_the_hosts(
    database: Database, site: Site, other_site: Site
) -> None:
    ours, theirs = (there.url.removeprefix("http://") for there in (site, other_site))
    other_site.put("/a.png", png())
    source = studio(database, site, image_hosts=("tiles.example.org",))
    for url in (
        f"http://{theirs}\\@{ours}/a.png",
        f"http://{ours}@{theirs}/a.png",
        f"//{theirs}/a.png",
        f"http://{theirs}/a.png",
    ):
        with pytest.raises(ImageError):
            source.load(url, 1).pixels()
        with pytest.raises(ImageError):
            source.keep(url, 1, Path("unused"))
    assert other_site.seen == []


def test_a_task_cannot_make_the_server_call_the_api(database: Database, site: Site) -> None:
    source = studio(database, site)
    for url in ("/api/projects/99/export", "/data/../api/projects/99/export", f"{site.url}/api/tasks/1/"):
        with pytest.raises(ImageError):
            source.load(url, 1).pixels()
    with pytest.raises(ImageError, match="not the id of a task"):
        source.load("s3://bucket/a.png", "../../api/projects/5/export?x=").pixels()
    assert all("Authorization" not in headers for _, _, headers, _ in site.seen)


def test_names_that_look_private_are_not_asked_of_a_proxy(database: Database, other_site: Site) -> None:
    source = images(database, image_hosts=(), proxy=other_site.url)
    for host in ("169.254.169.254", "0x7f000001", "metadata", "db.internal"):
        with pytest.raises(ImageError, match="PSLG_IMAGE_HOSTS"):
            source.load(f"http://{host}/a.png").pixels()
    assert other_site.seen == []
    other_site.replies["http://tiles.example.org/a.png"] = Reply(png())
    assert source.load("http://tiles.example.org/a.png").size == (60, 80)


def test_an_image_of_the_same_length_is_not_taken_for_the_same(database: Database, site: Site) -> None:
    before, after = (tiff(np.full((40, 50, 3), value, np.uint8)) for value in (10, 200))
    assert len(before) == len(after)
    url = site.put("/a.tif", before)
    source = images(database, revalidate_after=0.0)
    first = source.load(url)
    site.put("/a.tif", after)
    second = source.load(url)
    assert second.identity == hashlib.sha256(after).hexdigest() != first.identity
    assert second.pixels()[0, 0].tolist() == [200] * 3
    fresh = images(database, image_memory=0)
    site.put("/a.tif", before)
    with pytest.raises(ImageError, match="another image than a moment ago"):
        fresh.load(url).pixels()


@pytest.mark.parametrize(
    "url", ["http://[::1", "http://[::1]:x/a.png", "http://a:99999999/b", "http:///x", "http://%00/"]
)
def test_an_address_that_is_none_is_refused_in_a_line(database: Database, url: str) -> None:
    with pytest.raises(ImageError):
        images(database).load(url)


def test_a_fair_lock_is_had_in_the_order_of_coming() -> None:
    lock, had = FairLock(), []

    def take(number: int) -> None:
        with lock:
            had.append(number)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(5)]
    with lock:
        for number, thread in enumerate(threads):
            thread.start()
            while len(lock._line) < number + 2:
                time.sleep(0.01)
    for thread in threads:
        thread.join(30)
    assert had == [0, 1, 2, 3, 4]


def test_bytes_in_flight_are_bounded_together() -> None:
    budget = BytesInFlight(100)
    with budget.account() as alone:
        alone(90)
        alone(90)  # one image may be larger than the bound, if it is the only one
        with budget.account() as other, pytest.raises(ImageError, match="PSLG_IMAGE_BYTES"):
            other(1)
    with budget.account() as one, budget.account() as two:
        one(50)
        two(50)
        with pytest.raises(ImageError):
            one(1)
    assert budget._held == 0


def test_decoding_waits_for_memory_and_refuses_what_never_fits() -> None:
    memory = DecodeMemory(100)
    with pytest.raises(ImageError, match="PSLG_DECODE_MEMORY"), memory.holding(101):
        pass
    order: list[str] = []
    entered = threading.Event()

    def large() -> None:
        entered.set()
        with memory.holding(80):
            order.append("large")

    with memory.holding(60):
        thread = threading.Thread(target=large)
        thread.start()
        entered.wait(30)
        order.append("first")
    thread.join(30)
    assert order == ["first", "large"]
