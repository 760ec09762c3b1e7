from __future__ import annotations

import re
from pathlib import Path

import pytest

from backend.settings import Settings
from dataset_tools.errors import ConfigError


def test_environment_is_read_and_options_win(tmp_path: Path) -> None:
    environ = {
        "PSLG_PORT": "9191",
        "PSLG_THREADS": "128",
        "PSLG_STATE_DIR": str(tmp_path),
        "PSLG_IMAGE_HOSTS": "tiles.example.org, *.cdn.example.org",
        "LABEL_STUDIO_HOST": "http://localhost:8080/",
        "LABEL_STUDIO_ACCESS_TOKEN": "abc",
        "PSLG_DATA": "/elsewhere",
    }
    settings = Settings.load(environ, port=9292, host=None)
    assert (settings.port, settings.host, settings.state_dir) == (9292, "127.0.0.1", tmp_path)
    assert settings.image_hosts == ("tiles.example.org", "*.cdn.example.org")
    assert settings.label_studio_url == "http://localhost:8080"


def test_settings_reach_another_process_whole(tmp_path: Path) -> None:
    settings = Settings.load(
        {"LABEL_STUDIO_ACCESS_TOKEN": "abc"}, state_dir=tmp_path, train_minutes=2, image_hosts="a,b"
    )
    assert Settings.load(settings.environment()) == settings
    assert Settings.load(Settings().environment()) == Settings()


def test_label_studio_url_comes_before_its_older_name() -> None:
    environ = {"LABEL_STUDIO_HOST": "http://old:1", "LABEL_STUDIO_URL": "http://new:2"}
    assert Settings.load(environ).label_studio_url == "http://new:2"


def test_every_problem_is_reported_at_once_without_secrets() -> None:
    environ = {
        "PSLG_PORT": "99999",
        "PSLG_DEADLINE": "soon",
        "PSLG_DEADLNE": "80",
        "LABEL_STUDIO_URL": "localhost:8080",
    }
    with pytest.raises(ConfigError) as caught:
        Settings.load(environ)
    message = str(caught.value)
    for part in ("PSLG_PORT", "99999", "PSLG_DEADLINE", "'soon'", "did you mean PSLG_DEADLINE", "http://"):
        assert part in message


def test_half_of_the_basic_credentials_is_a_problem_and_stays_secret() -> None:
    with pytest.raises(ConfigError, match="both or neither") as caught:
        Settings.load({"PSLG_BASIC_AUTH_PASSWORD": "swordfish"})
    assert "swordfish" not in str(caught.value)


def test_secrets_do_not_show() -> None:
    settings = Settings.load({"LABEL_STUDIO_API_KEY": "swordfish", "LABEL_STUDIO_URL": "http://a.b"})
    assert "swordfish" not in repr(settings)
    assert "swordfish" not in str(settings.model_dump())


def test_a_url_with_credentials_is_refused_without_repeating_them() -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.load({"LABEL_STUDIO_URL": "http://user:swordfish@host.org"})
    assert "swordfish" not in str(caught.value)


def test_too_few_threads_for_the_queues_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"PSLG_THREADS: 40 .* PSLG_CLICK_QUEUE 64"):
        Settings.load({"PSLG_THREADS": "40"})


def test_bands_are_three_numbers() -> None:
    assert Settings.load({"PSLG_BANDS": "4, 3,2"}).bands == "4,3,2"
    with pytest.raises(ConfigError, match=r"PSLG_BANDS: .*'4,3' is not three bands"):
        Settings.load({"PSLG_BANDS": "4,3"})


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        (
            "LABEL_STUDIO_URL",
            "http://ls.example.org/projects/3/data?tab=1",
            "own address would be http://ls.example.org$",
        ),
        ("LABEL_STUDIO_URL", "http://ls.example.org/ls/#", "own address would be http://ls.example.org/ls$"),
        ("LABEL_STUDIO_URL", "http://a.example\\\\@b.example", "backslash"),
        ("LABEL_STUDIO_URL", "http://me:swordfish@b.example", "user name"),
        ("PSLG_CA_BUNDLE", "/nowhere/ca.pem", "does not exist"),
        ("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem", "does not exist"),
        ("PSLG_PROXY", "proxy:3128", "http://host:port"),
    ],
)
def test_addresses_and_files_that_cannot_work_are_refused_at_start(variable: str, value: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.load({variable: value})
    assert variable in str(caught.value)
    assert re.search(reason.rstrip("$"), str(caught.value))
    assert "swordfish" not in str(caught.value)


def test_the_settings_make_the_client(tmp_path: Path) -> None:
    own = tmp_path / "ca.pem"
    own.touch()
    environ = {
        "LABEL_STUDIO_URL": "https://host/ls/", "LABEL_STUDIO_API_KEY": "abc", "PSLG_CA_BUNDLE": str(own),
        "PSLG_PROXY": "http://me:word@proxy:3128", "PSLG_NO_PROXY": "host",
    }  # fmt: skip
    settings = Settings.load(environ)
    studio = settings.label_studio()
    assert studio is not None
    assert studio.url == "https://host/ls"
    assert studio.route == settings.route()
    assert (settings.route().ca_bundle, settings.route().no_proxy) == (own, ("host",))
    assert Settings.load(settings.environment()) == settings
    assert Settings.load({"LABEL_STUDIO_URL": "https://host"}).label_studio() is None
    with pytest.raises(ConfigError, match="pslg sync needs LABEL_STUDIO_URL"):
        Settings.load({}).require_label_studio("pslg sync")
