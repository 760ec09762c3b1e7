from __future__ import annotations

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
    with pytest.raises(ConfigError, match=r"PSLG_THREADS: 40 .* PSLG_CLICK_QUEUE 32"):
        Settings.load({"PSLG_THREADS": "40"})
