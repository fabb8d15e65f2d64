"""The one reader of the environment: every setting, typed, documented, validated once and frozen.

`load()` reads `DREAM_…` variables (and, where `DREAM_SECRETS_DIR` names a folder, files of those names in it).
A wrong value raises `SettingsError` with one line that names the variable, its value and what it may be.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from dream import fault_points
from dream.errors import SettingsError
from dream.setting_types import (
    LONGEST_PATH,
    MAX_SIGNED_LIFE_S,
    MAX_URL_LENGTH,
    Algorithms,
    BrokerUrl,
    Bytes,
    Count,
    DatabaseUrl,
    Fault,
    Folder,
    HttpUrl,
    Lifetime,
    Limit,
    Networks,
    OwnersSql,
    RedisUrl,
    Schema,
    Seconds,
    SharedFolder,
    Timezone,
    Variants,
)

__all__ = ["MAX_URL_LENGTH", "Settings", "default_to", "is_defaulted", "load", "set_by_environment", "with_defaults"]

#: The variables that `default_to` has set, and their values.
_defaults: dict[str, str] = {}
_defaulting = threading.RLock()


class Settings(BaseSettings):
    """What can be set. Each field `x` is read from `DREAM_X`."""

    model_config = SettingsConfigDict(env_prefix="DREAM_", frozen=True, extra="ignore", env_ignore_empty=True)

    # --- where the servers are
    broker_url: BrokerUrl = Field(
        "redis://127.0.0.1:6379/0", repr=False, description="The message broker: Redis/Valkey or RabbitMQ."
    )
    redis_url: RedisUrl | None = Field(
        None, repr=False, description="Redis/Valkey for live events; the broker itself where that is Redis."
    )
    redis_prefix: str = Field(
        "dream", min_length=1, description="Prefix of every key in Redis, so that systems can share a server."
    )
    queue_prefix: str = Field(
        "", pattern=r"^([A-Za-z_][A-Za-z0-9._-]*)?$", description="Put before the names of both queues."
    )
    database_url: DatabaseUrl = Field(
        "sqlite:///dream.db", repr=False, description="SQLite (a file of our own) or PostgreSQL."
    )
    database_schema: Schema | None = Field(
        None,
        description="PostgreSQL schema for all of dream's tables; unset means where the role's `search_path` leads.",
    )
    owners_sql: OwnersSql | None = Field(
        None,
        description="Query for a project with a dreams table of its own: `:dream_id` in, `user_id, username` out.",
    )

    # --- objects
    s3_endpoint_url: HttpUrl | None = Field(None, description="S3 endpoint; unset means AWS.")
    s3_region: str = Field("us-east-1", description="S3 region.")
    s3_access_key: str | None = Field(None, description="S3 access key; unset means boto3's own search.")
    s3_secret_key: SecretStr | None = Field(None, description="S3 secret key.")
    s3_bucket: str = Field(
        "dream",
        pattern=r"^([a-z0-9]|\{username\})([a-z0-9.-]|\{username\}){0,62}$",
        description="Bucket of the pictures; with `{username}` in it, one bucket per user.",
    )
    s3_staging_bucket: str | None = Field(
        None,
        pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$",
        description="Bucket of uploaded bytes that wait for their run; `DREAM_S3_BUCKET` unless that has `{username}`.",
    )
    staging_dir: SharedFolder | None = Field(
        None,
        description="Folder that all parts share, in which uploaded bytes wait; unset means the object store.",
    )
    s3_addressing_style: Literal["auto", "path", "virtual"] = Field(
        "auto", description="`virtual` for Aliyun OSS, `path` for most self-hosted stores."
    )
    s3_connect_timeout_s: Seconds = Field(5, description="Time to connect to the object store.")
    s3_read_timeout_s: Seconds = Field(30, description="Time the object store may stay silent.")
    sign_window_s: Annotated[int, Field(ge=0, le=MAX_SIGNED_LIFE_S)] = Field(
        86400, description="How long `/media/…` redirects everybody to the same signed URL, so that browsers keep it."
    )
    media_forget_s: Annotated[int, Field(ge=0, le=MAX_SIGNED_LIFE_S)] = Field(
        300, description="How long a browser may keep that redirect; 0 means not at all."
    )
    presign_ttl_s: Annotated[int, Field(ge=1, le=MAX_SIGNED_LIFE_S)] = Field(
        300, description="In place of `DREAM_MEDIA_FORGET_S` where that is 0: life of a signed URL after its window."
    )
    public_url: HttpUrl | None = Field(
        None, description="Base URL under which the bucket is public (a CDN, say); unset means the gateway's /media."
    )
    gateway_url: HttpUrl = Field(
        "http://127.0.0.1:8000", description="Where browsers reach the gateway; the base of `/media/<key>` URLs."
    )

    # --- uploads and images
    max_upload_bytes: Bytes = Field(32 * 2**20, description="Largest file that is accepted.")
    max_files_per_upload: Count = Field(100, description="Most files in one call.")
    max_request_bytes: Bytes = Field(256 * 2**20, description="Most bytes of one upload to the gateway, all its files.")
    max_pending: Limit = Field(0, description="Most pictures that may wait or be in work, in all; 0 means no limit.")
    max_pending_per_dream: Limit = Field(0, description="The same for one dream.")
    max_pending_per_user: Limit = Field(0, description="The same for one user, counted by the gateway.")
    max_image_bytes: Bytes = Field(2**20, description="Byte budget of a processed picture.")
    max_edge_px: Annotated[int, Field(ge=16, le=16383)] = Field(
        2560, description="Longest edge of a processed picture."
    )
    output_format: Literal["auto", "jpeg", "webp", "avif"] = Field(
        "auto", description="What pictures become; auto: JPEG, or WebP where they are drawn, transparent or move."
    )
    variants: Variants = Field(
        (), description="Smaller versions of each picture: names and longest edges, as in `thumb:320,medium:1280`."
    )
    max_jpeg_pixels: Count = Field(100_000_000, description="Most pixels of a JPEG.")
    max_pixels: Count = Field(40_000_000, description="Most pixels of a picture in any other format.")
    max_source_edge_px: Count = Field(65_535, description="Longest edge of a picture that is accepted.")
    max_frames: Count = Field(300, description="Most frames of an animation.")
    max_animation_pixels: Count = Field(200_000_000, description="Most pixels of an animation, all frames together.")
    max_decoding_bytes: Bytes = Field(
        640 * 2**20, description="Most memory that a picture may take to be decoded, by its header."
    )
    max_jpeg_scans: Count = Field(100, description="Most scans of a progressive JPEG.")

    # --- the worker
    worker_threads: Count = Field(4, description="Tasks a worker runs at a time.")
    pool_size: Annotated[int, Field(ge=0)] = Field(
        0, description="Processes that work on pictures; 0 means one per CPU."
    )
    work_dir: Folder | None = Field(None, description="Folder for files in work; unset means the system's.")
    worker_poll_ms: Count = Field(200, description="How often an idle worker asks the broker.")
    app: str | None = Field(
        None,
        description="A Celery-compatible app whose tasks workers run, and the scheduler sends, beside dream's own.",
    )
    worker_name: str = Field(
        "celery@%h",
        min_length=1,
        description="What a worker calls itself; %h is the host, %n its first label, %d the rest, %p the process.",
    )
    ready_file: str | None = Field(None, description="File that a part creates once it takes work.")
    child_memory_bytes: Bytes = Field(4 * 2**30, description="Address space of a process of the pool.")

    # --- policy: 60, 90, 135, 202.5, 303.75 s; 300 s a run
    max_retries: Annotated[int, Field(ge=0)] = Field(5, description="Retries after the first run.")
    retry_first_s: Seconds = Field(60, description="Time before the first retry.")
    retry_factor: Annotated[float, Field(ge=1, le=10)] = Field(1.5, description="Growth from retry to retry.")
    retry_max_s: Seconds = Field(600, description="Longest time before a retry.")
    retry_jitter: Annotated[float, Field(ge=0, le=1)] = Field(
        0, description="Share of the delay that is added at random; 0 means exact times."
    )
    time_limit_s: Seconds = Field(300, description="Time limit of a run.")
    image_time_limit_s: Seconds = Field(60, description="Time limit of one picture in the pool.")
    lease_s: Seconds = Field(12, description="Life of a run's claim on its task.")
    lease_renew_s: Seconds = Field(4, description="How often the claim is renewed.")
    resend_after_s: Seconds = Field(60, description="A task this much overdue without a live run is sent again.")
    shutdown_timeout_s: Seconds = Field(
        30, description="Time a stopping worker gives its runs before handing them back."
    )
    unknown_task_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        60, description="How long a task that a worker does not know waits for one that does."
    )
    heartbeat_s: Seconds = Field(15, description="Silence after which a worker counts as dead for the broker.")

    # --- results
    result_ttl_s: Annotated[int, Field(ge=0)] = Field(
        86400, description="How long a task's result is kept in Redis, as Celery keeps it; 0 means for ever."
    )

    # --- the gateway
    host: str = Field("127.0.0.1", description="Address the gateway listens on.")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(8000, description="Port the gateway listens on.")
    trusted_proxies: Networks = Field(
        (), description="Addresses of proxies before the gateway, as `10.0.0.0/8`: their X-Forwarded-For is believed."
    )
    max_connections: Count = Field(10_000, description="Most connections of a gateway process.")
    max_connections_per_address: Limit = Field(0, description="The same for one client's address; 0 means half of all.")
    max_sockets_per_user: Limit = Field(0, description="Most WebSockets of one user; 0 means half of all connections.")
    max_requests_per_user_s: Limit = Field(
        100, description="Requests a second of one user; four times as many at once. 0 means no limit."
    )
    max_status_requests_per_user_s: Limit = Field(
        5, description="`request_status` and `authenticate` a second of one user, on all sockets; 0 means no limit."
    )
    head_timeout_s: Seconds = Field(10, description="Time a client has for the head of a request.")
    body_timeout_s: Seconds = Field(60, description="Time it has for the body, and 1 s more for each KiB it has sent.")
    jwt_secret: SecretStr | None = Field(None, description="Key that signs and checks tokens.")
    jwt_algorithms: Algorithms = Field(("HS256",), description="Accepted algorithms, separated by commas.")
    ping_interval_s: Seconds = Field(15, description="How often a WebSocket is pinged.")
    socket_queue_size: Count = Field(256, description="Messages a slow socket may be behind before it is cut (4008).")
    events_ttl_s: Annotated[int, Field(ge=1)] = Field(86400, description="Life of a dream's event stream.")
    events_max_length: Count = Field(300, description="Events kept per dream.")

    # --- the scheduler
    timezone: Timezone = Field("UTC", description="Time zone of the 03:00 clean-up.")
    staging_ttl_s: Seconds = Field(7 * 86400, description="Life of the staged bytes of failed uploads.")
    staging_orphan_s: Seconds = Field(48 * 3600, description="Age at which a staged object without a row is removed.")

    task_ttl_s: Lifetime = Field(
        30 * 86400, description="Life of the rows of ended tasks and of periodic entries that are gone; 0: for ever."
    )
    failed_task_ttl_s: Lifetime = Field(
        30 * 86400, description="Life of failed tasks, which `dream dlq` lists; 0 means for ever."
    )
    tombstone_ttl_s: Lifetime = Field(30 * 86400, description="Life of deleted pictures' rows; 0 means for ever.")

    # --- logs
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe level logged.")
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="`auto` is `console` on a terminal and `json` elsewhere."
    )

    # --- tests only
    fault: Fault | None = Field(
        None, description="Where a test makes a process die (`dream.fault_points`); never set it where photos matter."
    )

    @model_validator(mode="after")
    def _check_together(self) -> Settings:
        if self.is_bucket_per_user and self.s3_staging_bucket is None:
            raise ValueError("DREAM_S3_STAGING_BUCKET must be set where DREAM_S3_BUCKET has {username} in it")
        if self.database_schema is not None and self.database_url.startswith("sqlite"):
            raise ValueError("DREAM_DATABASE_SCHEMA needs PostgreSQL: SQLite has no schemas")
        if self.redis_url is None and not self.is_redis_broker:
            raise ValueError("DREAM_REDIS_URL must be set where DREAM_BROKER_URL is not Redis")
        if self.lease_renew_s * 2 > self.lease_s:
            raise ValueError("DREAM_LEASE_RENEW_S may be at most half of DREAM_LEASE_S")
        if self.signed_url_life_s > MAX_SIGNED_LIFE_S:
            forget_s, ttl_s = self.media_forget_s, self.presign_ttl_s
            rest = f"DREAM_MEDIA_FORGET_S={forget_s}" if forget_s else f"DREAM_PRESIGN_TTL_S={ttl_s}"
            raise ValueError(
                f"DREAM_SIGN_WINDOW_S={self.sign_window_s} and {rest} add "
                f"up to {self.signed_url_life_s} s: a signed URL may live for at most {MAX_SIGNED_LIFE_S} s (7 days)"
            )
        longest_name = max((len(f"_{name}") for name, _ in self.variants), default=0)
        if len(self.media_url) + LONGEST_PATH - len("/media") + longest_name > MAX_URL_LENGTH:
            raise ValueError(
                f"a URL may have at most {MAX_URL_LENGTH} characters: the base URL "
                "(DREAM_PUBLIC_URL or DREAM_GATEWAY_URL) is too long for the names in DREAM_VARIANTS"
            )
        return self

    @property
    def is_redis_broker(self) -> bool:
        """Whether the broker is Redis or Valkey, not RabbitMQ."""
        return self.broker_url.startswith(("redis", "unix"))

    @property
    def is_bucket_per_user(self) -> bool:
        return "{username}" in self.s3_bucket

    @property
    def staging_bucket(self) -> str:
        return self.s3_staging_bucket or self.s3_bucket

    @property
    def events_url(self) -> str:
        """The Redis that carries live events."""
        return self.redis_url or self.broker_url

    @property
    def signed_url_life_s(self) -> int:
        """How long a signed URL is valid from the beginning of its window."""
        return self.sign_window_s + (self.media_forget_s or self.presign_ttl_s)

    @property
    def media_url(self) -> str:
        """What a picture's canonical URL starts with; a key follows."""
        return self.public_url or f"{self.gateway_url}/media"

    @property
    def pool_processes(self) -> int:
        """How many; a CPU that this process may not use does not count."""
        return self.pool_size or (len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1)


def _read(given: Mapping[str, object]) -> Settings:
    secrets_dir = os.environ.get("DREAM_SECRETS_DIR") or None
    if secrets_dir is not None and not Path(secrets_dir).is_dir():
        raise SettingsError(f"DREAM_SECRETS_DIR={secrets_dir!r} is wrong: it must be a folder")
    try:
        return Settings(_secrets_dir=secrets_dir, **given)  # type: ignore[arg-type, call-arg]
    except ValidationError as error:
        raise SettingsError(_one_line(error)) from None


@lru_cache(maxsize=1)
def load() -> Settings:
    """Read and check the environment, once a process.

    Raises:
      SettingsError: one line for the first wrong value.
    """
    settings = _read({})
    fault_points.arm(settings.fault)
    return settings


def set_by_environment() -> frozenset[str]:
    """The settings that the environment has by itself, without `default_to`."""
    with _defaulting:
        ours = {name.removeprefix("DREAM_").lower() for name in _ours()}
        return frozenset(load().model_fields_set - ours)


def is_defaulted() -> bool:
    """Whether values of `default_to` are in force."""
    return bool(_ours())


def default_to(**values: object) -> None:
    """Set values where the environment sets none, in this process and in those that it starts.

    They replace the values of an earlier call.

    Raises:
      SettingsError: see `load`.
    """
    with _defaulting:
        unset = values.keys() - set_by_environment()
        new, before = {f"DREAM_{name.upper()}": str(values[name]) for name in unset}, _ours()
        if new == before:
            return
        _replace(before, new)
        try:
            load()
        except SettingsError:  # a wrong one is refused, and not kept
            _replace(new, before)
            raise


def with_defaults(*, alone: bool, **values: object) -> Settings:
    """The settings as after `default_to`, but without a change to this process.

    Parameters:
      alone: ignore the values of `default_to`.

    Raises:
      SettingsError: see `load`.
    """
    others = {name.removeprefix("DREAM_").lower() for name in _ours()} if alone else set()
    given = {name: Settings.model_fields[name].get_default() for name in others}
    operators = set_by_environment()
    return _read({**given, **{name: value for name, value in values.items() if name not in operators}})


def _ours() -> dict[str, str]:
    """The variables that `default_to` has set and nobody has changed since."""
    return {name: value for name, value in _defaults.items() if os.environ.get(name) == value}


def _replace(before: Mapping[str, str], new: Mapping[str, str]) -> None:
    for name in before.keys() - new.keys():
        del os.environ[name]
    os.environ.update(new)
    _defaults.clear()
    _defaults.update(new)
    load.cache_clear()


def _one_line(error: ValidationError) -> str:
    first = error.errors()[0]
    reason = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        return reason
    name = f"DREAM_{str(first['loc'][0]).upper()}"
    # Passwords in URLs are secrets too.
    shown = "(hidden)" if "SECRET" in name else re.sub(r"://[^/\s]*@", "://***@", repr(first["input"]))
    return f"{name}={shown} is wrong: {reason[:1].lower()}{reason[1:]}"
