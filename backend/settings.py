"""Settings of the server: one frozen object, read from the environment and the command line.

Every field ``name`` is the variable ``PSLG_NAME``; Label Studio's address and token have the names that Label Studio's
own tools use. All problems are reported at once, when the settings are read.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError, field_validator

from backend.state import StateFolder
from dataset_tools.errors import ConfigError

if TYPE_CHECKING:
    from dataset_tools.label_studio.addresses import Route
    from dataset_tools.label_studio.client import LabelStudio

__all__ = ["NOT_SETTINGS", "Settings", "is_dotless"]

PREFIX = "PSLG_"
ALIASES: Mapping[str, tuple[str, ...]] = {
    "label_studio_url": ("LABEL_STUDIO_URL", "LABEL_STUDIO_HOST"),
    "label_studio_api_key": ("LABEL_STUDIO_API_KEY", "LABEL_STUDIO_ACCESS_TOKEN"),
    "ca_bundle": ("REQUESTS_CA_BUNDLE",),
}
NOT_SETTINGS: Mapping[str, str] = {
    "PSLG_WEIGHTS": "folder for downloaded weights",
    "PSLG_LABEL_STUDIO": "the label-studio program, for the demo and the tests",
    "PSLG_LABEL_STUDIO_ML": "Python of the label-studio-ml environment, for the tests",
    "PSLG_CHROMIUM": "the browser, for the tests",
    "PSLG_DATA": "folder with research images, for the tests",
    "PSLG_REQUIRE": "what the tests must not skip",
}
"""Variables with our prefix that are no settings of the server."""
# What Pillow takes for a decompression bomb.
_PILLOW_PIXELS = 89_478_485
_SPARE_THREADS = 8


def _comma_separated(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip().lower() for part in value.split(",") if part.strip())
    return value


def _default_state_dir() -> Path:
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "pslg"


class Settings(BaseModel):
    """What the server does; nothing here changes a mask that a given model makes, except the clean-up sizes.

    Attributes:
        config: pipeline config, the name of a shipped one or the path of a YAML file.
        host: address to listen on.
        port: port to listen on.
        workers: server processes; each loads the models.
        threads: request threads per process; waiting requests hold one, so at least
            ``click_queue`` + ``batch_limit`` + 8.
        model_threads: threads of the numerical libraries per process; None leaves them at half of the cores.
        state_dir: folder for the event log, computed pre-labels and embeddings.
        label_studio_url: where Label Studio is reached from this machine, with http:// or https://.
        label_studio_api_key: a personal access token or a legacy token of Label Studio.
        ca_bundle: certificates that https hosts are checked with, a file or a folder; None for the usual ones.
        proxy: http proxy through which Label Studio and image hosts are reached; None reaches them directly. A proxy
            looks up host names itself, so that only names and addresses that look private are refused.
        no_proxy: hosts that are reached directly although there is a proxy, ``*.example.org`` allowed.
        name_connection: call the connection in Label Studio after the model version that answers, without which the
            Data Manager's column "Prediction score" stays empty.
        basic_auth_user: when set with the password, Label Studio must send them.
        basic_auth_password: see ``basic_auth_user``.
        webhook_secret: what the webhook of Label Studio must send in its header ``X-Pslg-Secret``.
        client_key: other clients may send it as ``Authorization: Bearer`` in place of Basic credentials.
        allow_anyone: serve without credentials at an address that other machines reach.
        served_hosts: names under which the server is asked (Host header), ``*.example.org`` allowed. Empty: addresses,
            ``localhost`` and the machine's own name; with credentials, any.
        body_bytes: largest body of a request.
        deadline: seconds after which a batch returns what it has; Label Studio itself gives up after 100.
        prelabel_fetchers: images fetched at the same time for opened tasks, and as many for
            batches; of one host two fewer.
        click_queue: clicks waiting or running in a process, beyond which they are refused: as many annotators can click
            at the same moment.
        batch_limit: batch requests in a process at the same time, beyond which the answer is 503.
        image_hosts: hosts images may come from besides Label Studio, ``*.example.org`` allowed. Empty: every host with
            a public address. Hosts with private addresses are reached only when they are named here.
        image_bytes: largest image file.
        image_pixels: largest image, in pixels.
        bands: of images with more than three bands, those to show as red, green and blue, counted from 1, as 4,3,2;
            None shows the first three.
        fetch_timeout: seconds without a byte after which fetching an image fails.
        revalidate_after: seconds after which an image's URL is asked whether its content has changed.
        image_memory: bytes of decoded images kept in memory.
        decode_memory: bytes that images may take while they are decoded, all together; one that needs more is refused.
        embedding_disk: bytes of embeddings kept on disk.
        embedding_memory: bytes of embeddings kept in memory.
        prelabel_rows: computed expressions kept on disk.
        speck_area: parts of a mask with fewer pixels are removed.
        hole_area: holes of a mask with fewer pixels are filled.
        polygon_tolerance: largest distance in pixels between a mask's contour and its polygon.
        rle_warning_bytes: size of a region's brush code in JSON above which a warning is logged.
        train_every: accepted masks of a project after which it is trained on them; 0 for never by itself.
        train_steps: steps of a training's mask decoder; the grounder makes as many, far shorter ones.
        train_minutes: time that the mask decoder's steps may take, at most; None for as long as it takes, and then the
            same training gives the same version.
        train_held_out: share of a project's labelled images that the promotion gate measures on, never trained on.
        gate_objects, gate_images: held-out objects, and images that hold them, from which on the promotion gate
            decides; before, a new version waits.
        max_objects: objects of one expression that go to Label Studio, the most certain ones; a version that finds
            more is never promoted.
        candidates: objects that are offered as candidates where several fit an expression alike, at most; 0 for none.
        train_replay: dataset folder (parts train and val) whose images keep a training from forgetting; None
            draws scenes.
        train_disk: bytes kept on disk of what frozen parts of the models make of training images; saves time.
        keep_versions: trained versions kept of a project beside the one that serves and the one before it.
        train_threads: threads of a training process.
        train_nice: what is added to a training process's niceness, so that clicks go first.
        version_memory: promoted model versions held in memory per process.
        log_level: of the server's own log.
        log_format: ``text``, or ``json`` for one object a line.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: str = "compact"
    host: str = "127.0.0.1"
    port: int = Field(default=9090, ge=1, le=65535)
    workers: int = Field(default=1, ge=1, le=64)
    threads: int = Field(default=128, ge=4, le=1024)
    model_threads: int | None = Field(default=None, ge=1, le=256)
    state_dir: Path = Field(default_factory=_default_state_dir)
    label_studio_url: str | None = None
    label_studio_api_key: SecretStr | None = None
    ca_bundle: Path | None = None
    proxy: str | None = None
    no_proxy: Annotated[tuple[str, ...], BeforeValidator(_comma_separated)] = ()
    name_connection: bool = True
    basic_auth_user: str | None = None
    basic_auth_password: SecretStr | None = None
    webhook_secret: SecretStr | None = Field(default=None, min_length=8)
    client_key: SecretStr | None = Field(default=None, min_length=8)
    allow_anyone: bool = False
    served_hosts: Annotated[tuple[str, ...], BeforeValidator(_comma_separated)] = ()
    body_bytes: int = Field(default=64_000_000, ge=1_000, le=1 << 30)
    deadline: float = Field(default=80.0, gt=0, le=3600)
    prelabel_fetchers: int = Field(default=4, ge=1, le=64)
    click_queue: int = Field(default=64, ge=1, le=512)
    batch_limit: int = Field(default=16, ge=1, le=512)
    image_hosts: Annotated[tuple[str, ...], BeforeValidator(_comma_separated)] = ()
    image_bytes: int = Field(default=256_000_000, ge=1)
    image_pixels: int = Field(default=50_000_000, ge=1, le=_PILLOW_PIXELS)
    bands: str | None = None
    fetch_timeout: float = Field(default=20.0, gt=0, le=600)
    revalidate_after: float = Field(default=600.0, ge=0)
    image_memory: int = Field(default=128_000_000, ge=0)
    decode_memory: int = Field(default=1_000_000_000, ge=1)
    embedding_disk: int = Field(default=10_000_000_000, ge=0)
    embedding_memory: int = Field(default=128_000_000, ge=0)
    prelabel_rows: int = Field(default=200_000, ge=1)
    speck_area: int = Field(default=16, ge=0)
    hole_area: int = Field(default=16, ge=0)
    polygon_tolerance: float = Field(default=1.0, ge=0)
    rle_warning_bytes: int = Field(default=1_000_000, ge=1)
    train_every: int = Field(default=0, ge=0)
    train_steps: int = Field(default=100, ge=1)
    train_minutes: float | None = Field(default=None, gt=0)
    train_held_out: float = Field(default=0.2, gt=0, lt=1)
    gate_objects: int = Field(default=10, ge=1)
    gate_images: int = Field(default=5, ge=1)
    max_objects: int = Field(default=100, ge=1)
    candidates: int = Field(default=4, ge=0, le=20)
    train_replay: Path | None = None
    train_disk: int = Field(default=1_500_000_000, ge=0)
    keep_versions: int = Field(default=3, ge=0)
    train_threads: int = Field(default=1, ge=1, le=256)
    train_nice: int = Field(default=15, ge=0, le=19)
    version_memory: int = Field(default=4, ge=1, le=256)
    log_level: str = Field(default="INFO", pattern=r"^(DEBUG|INFO|WARNING|ERROR)$")
    log_format: Literal["text", "json"] = "text"

    @field_validator("label_studio_url")
    @classmethod
    def _absolute_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        from dataset_tools.label_studio.addresses import base_address

        return base_address(value)

    @field_validator("proxy")
    @classmethod
    def _proxy_address(cls, value: str | None) -> str | None:
        from dataset_tools.label_studio.addresses import require_proxy

        return None if value is None else require_proxy(value)

    @field_validator("ca_bundle")
    @classmethod
    def _readable(cls, value: Path | None) -> Path | None:
        if value is not None and not value.expanduser().exists():
            raise ValueError("does not exist; it is a file with certificates (PEM)")
        return None if value is None else value.expanduser()

    @field_validator("webhook_secret", "client_key")
    @classmethod
    def _sendable(cls, value: SecretStr | None) -> SecretStr | None:
        text = "" if value is None else value.get_secret_value()
        if not all("!" <= char <= "~" for char in text):
            raise ValueError("must be of letters, digits and signs that a header takes: ASCII, without spaces")
        return value

    @field_validator("bands")
    @classmethod
    def _three_bands(cls, value: str | None) -> str | None:
        from dataset_tools.image_files import parse_bands

        return None if value is None else ",".join(map(str, parse_bands(value)))

    @field_validator("state_dir", "train_replay")
    @classmethod
    def _expand_user(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser()

    @property
    def most_clicks(self) -> int:
        """Clicks at the same time with those that wait for images from elsewhere: each holds a thread."""
        return self.threads - self.batch_limit - _SPARE_THREADS

    @property
    def threads_of_models(self) -> int:
        """Threads of the numerical libraries in this process."""
        return self.model_threads or max(1, (os.cpu_count() or 2) // 2)

    @property
    def state(self) -> StateFolder:
        """Names of the files in ``state_dir``."""
        return StateFolder(self.state_dir)

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, **options: Any) -> Settings:
        """Settings from ``environ`` (the process environment), overridden by those ``options`` that are not None.

        Raises:
            ConfigError: one or more settings cannot work; all of them are listed with variable, value and reason.
        """
        environ = os.environ if environ is None else environ
        values: dict[str, Any] = {}
        problems: list[str] = []
        for field in cls.model_fields:
            for variable in (PREFIX + field.upper(), *ALIASES.get(field, ())):
                if environ.get(variable, "").strip():
                    values.setdefault(field, environ[variable].strip())
        known = [PREFIX + field.upper() for field in cls.model_fields]
        for variable in sorted(environ):
            if variable.upper().startswith(PREFIX) and variable not in known and variable not in NOT_SETTINGS:
                close = difflib.get_close_matches(variable.upper(), known, n=1, cutoff=0.6)
                meant = f"did you mean {close[0]}?" if close else "docs/settings.md lists those there are"
                problems.append(f"{variable}: unknown setting; {meant}")
        values.update({name: value for name, value in options.items() if value is not None})
        settings: Settings | None = None
        try:
            settings = cls.model_validate(values)
        except ValidationError as error:
            problems += [_problem(item["loc"], item["msg"], item["input"]) for item in error.errors()]
        if settings is not None and (settings.basic_auth_user is None) != (settings.basic_auth_password is None):
            problems.append("PSLG_BASIC_AUTH_USER, PSLG_BASIC_AUTH_PASSWORD: set both or neither")
        if settings is not None and settings.threads < settings.click_queue + settings.batch_limit + _SPARE_THREADS:
            problems.append(
                f"PSLG_THREADS: {settings.threads} is too few for PSLG_CLICK_QUEUE {settings.click_queue} and"
                f" PSLG_BATCH_LIMIT {settings.batch_limit}: waiting requests hold a thread each, and {_SPARE_THREADS}"
                " must stay free for /health and /setup"
            )
        if settings is None or problems:
            raise ConfigError("the settings cannot work:\n" + "\n".join(f"  {line}" for line in problems))
        return settings

    def route(self) -> Route:
        """How Label Studio and image hosts are reached."""
        from dataset_tools.label_studio.addresses import Route

        return Route(self.ca_bundle, self.proxy, self.no_proxy)

    def label_studio(self) -> LabelStudio | None:
        """A client for the Label Studio of these settings; None without URL or token."""
        from dataset_tools.label_studio.client import LabelStudio

        if self.label_studio_url is None or self.label_studio_api_key is None:
            return None
        token = self.label_studio_api_key.get_secret_value()
        return LabelStudio(self.label_studio_url, token, self.fetch_timeout, self.route())

    def require_label_studio(self, command: str) -> LabelStudio:
        """The same for a command that cannot do without.

        Raises:
            ConfigError: URL or token is not set.
        """
        studio = self.label_studio()
        if studio is None:
            raise ConfigError(f"{command} needs LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY")
        return studio

    def environment(self) -> dict[str, str]:
        """Variables from which ``load`` makes these settings in another process; tokens and passwords among them."""
        values: dict[str, str] = {}
        for field in type(self).model_fields:
            value = getattr(self, field)
            if isinstance(value, SecretStr):
                value = value.get_secret_value()
            if isinstance(value, tuple):
                value = ",".join(value)
            if value is not None and value != "":
                values[PREFIX + field.upper()] = str(value)
        return values


def _problem(location: tuple[int | str, ...], message: str, value: object) -> str:
    field = str(location[0]) if location else "settings"
    names = " or ".join((PREFIX + field.upper(), *ALIASES.get(field, ())))
    secret = any(word in field for word in ("key", "password", "secret")) or field == "proxy" or "@" in str(value)
    return f"{names}: {message} (value {'hidden' if secret else repr(value)})"


def is_dotless(host: str) -> bool:
    """Whether Label Studio registers no webhook for this host name: it wants a dot, ``localhost`` or an address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return "." not in host and host != "localhost"
    return False
