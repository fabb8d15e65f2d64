"""The list of all settings: name, type, default and description of each, and the rules between them.

A new setting is a field here and a line in docs/settings.md, which tests hold together. `dream.settings.types` has the
types, `dream.settings` reads the environment.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from fnmatch import fnmatch
from functools import cached_property
from typing import Annotated, Literal

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from dream.settings.types import (
    LEAST_KEY_CHARACTERS,
    LONGEST_DIRECT_S,
    LONGEST_PATH,
    LONGEST_SIGNED_S,
    MAX_SIGNED_LIFE_S,
    MAX_URL_LENGTH,
    MOST_VARIANTS,
    Algorithms,
    BrokerUrl,
    Bucket,
    Bytes,
    Count,
    DatabaseUrl,
    Fault,
    Folder,
    HttpUrl,
    KeySet,
    Lifetime,
    Limit,
    MediaKeys,
    Names,
    Networks,
    Origins,
    OwnersSql,
    RedisUrl,
    Schema,
    Seconds,
    SentryDsn,
    SharedFolder,
    Timezone,
    Tracing,
    Variants,
    Widths,
)
from dream.variants import FULL, VariantSpec

__all__ = ["Settings"]


class Settings(BaseSettings):
    """Every setting. The field `x` is read from the variable `DREAM_X`."""

    model_config = SettingsConfigDict(env_prefix="DREAM_", frozen=True, extra="ignore", env_ignore_empty=True)

    # --- where the servers are
    broker_url: BrokerUrl = Field(
        "redis://127.0.0.1:6379/0", repr=False, description="The message broker: Redis/Valkey or RabbitMQ."
    )
    redis_url: RedisUrl | None = Field(
        None, repr=False, description="Redis/Valkey for events and results; unset means the broker."
    )
    redis_prefix: str = Field(
        "dream", min_length=1, description="Prefix of every key in Redis, so that systems can share a server."
    )
    queue_prefix: str = Field(
        "", pattern=r"^([A-Za-z_][A-Za-z0-9._-]*)?$", description="Prefix of the names of both queues."
    )
    database_url: DatabaseUrl = Field(
        "sqlite:///dream.db", repr=False, description="SQLite (a file of our own) or PostgreSQL."
    )
    database_schema: Schema | None = Field(
        None,
        description="PostgreSQL schema of all of dream's tables; unset means the first of the role's `search_path`.",
    )
    database_pgbouncer: bool = Field(
        False, description="Whether `DREAM_DATABASE_URL` names a PgBouncer in transaction mode."
    )
    database_pool_size: Limit = Field(
        0,
        description="Connections to PostgreSQL that a process keeps; 0: 5, or one more than `DREAM_WORKER_THREADS`.",
    )
    database_pool_overflow: Limit = Field(10, description="Further connections under load, closed after their use.")
    database_pool_timeout_s: Seconds = Field(30, description="Time that a call waits for a free connection.")
    database_connect_timeout_s: Annotated[int, Field(ge=2)] = Field(5, description="Time to connect to PostgreSQL.")
    database_statement_timeout_s: Annotated[int, Field(ge=1)] = Field(
        30, description="Longest time of a statement in PostgreSQL; migrations may take longer."
    )
    database_recycle_s: Seconds = Field(3600, description="Age at which a connection to PostgreSQL is replaced.")
    owners_sql: OwnersSql | None = Field(
        None,
        description="Query for the owner in a project's own table: `:dream_id` in, `user_id, username` out.",
    )

    # --- objects
    s3_endpoint_url: HttpUrl | None = Field(None, description="S3 endpoint; unset means AWS.")
    s3_region: str = Field("us-east-1", description="S3 region.")
    s3_access_key: str | None = Field(
        None, description="S3 access key; unset means that boto3 finds credentials by itself."
    )
    s3_secret_key: SecretStr | None = Field(None, description="S3 secret key.")
    s3_bucket: str = Field(
        "dream",
        pattern=r"^([a-z0-9]|\{username\})([a-z0-9.-]|\{username\}){0,62}$",
        description="Bucket of the pictures; with `{username}` in it, one bucket per user.",
    )
    s3_staging_bucket: Bucket | None = Field(
        None,
        description="Bucket of staged bytes; unset means `DREAM_S3_BUCKET`, which then has no `{username}`.",
    )
    keep_originals: bool = Field(
        False, description="Whether each uploaded file is kept as it came, for its owner and for remakes."
    )
    originals_bucket: Bucket | None = Field(
        None,
        description="Private bucket of kept originals; never the bucket that the public reads.",
    )
    staging_dir: SharedFolder | None = Field(
        None,
        description="Folder for staged bytes that all services share; unset means the object store.",
    )
    s3_addressing_style: Literal["auto", "path", "virtual"] = Field(
        "auto", description="`virtual` for Aliyun OSS, `path` for most self-hosted stores."
    )
    s3_connect_timeout_s: Seconds = Field(5, description="Time to connect to the object store.")
    s3_read_timeout_s: Seconds = Field(30, description="Longest silence of the object store during a call.")
    sign_window_s: Annotated[int, Field(ge=0, le=MAX_SIGNED_LIFE_S)] = Field(
        86400,
        description="Time for which `/media/…` redirects everybody to the same presigned URL, so browsers keep it.",
    )
    media_forget_s: Annotated[int, Field(ge=0, le=MAX_SIGNED_LIFE_S)] = Field(
        300, description="Time for which a browser may keep that redirect; 0 means not at all."
    )
    presign_ttl_s: Annotated[int, Field(ge=1, le=MAX_SIGNED_LIFE_S)] = Field(
        300, description="Life of a presigned URL after its window, if `DREAM_MEDIA_FORGET_S` is 0."
    )
    media_mode: Literal["redirect", "accel", "proxy"] = Field(
        "redirect",
        description="`/media/…` redirects to the object store, nginx serves it (`accel`), or the gateway (`proxy`).",
    )
    media_cache: Literal["private", "public"] = Field(
        "private", description="With `DREAM_MEDIA_MODE=proxy`: whether only browsers keep pictures, or a CDN too."
    )
    media_memory_bytes: Limit = Field(
        64 * 2**20,
        description="Most memory of a gateway process for pictures, with `DREAM_MEDIA_MODE=proxy`; 0 means none.",
    )
    media_access: Literal["link", "signed", "owner"] = Field(
        "link",
        description="`/media/…` is for everybody with the URL, with a signed URL, or for the dream's owner alone.",
    )
    media_keys: MediaKeys | None = Field(
        None, description="Keys of signed URLs and cookies, with commas: the first signs, all are accepted."
    )
    media_ttl_s: Annotated[int, Field(ge=1, le=LONGEST_SIGNED_S)] = Field(
        3600, description="Time for which a signed URL of a picture is valid, at least; at most half as long again."
    )
    public_url: HttpUrl | None = Field(
        None, description="Public base URL of the bucket, a CDN's for example; unset means the gateway's /media."
    )
    gateway_url: HttpUrl = Field(
        "http://127.0.0.1:8000", description="The gateway's address for browsers; the base of `/media/<key>` URLs."
    )

    # --- uploads and images
    max_upload_bytes: Bytes = Field(32 * 2**20, description="Largest accepted file.")
    max_files_per_upload: Count = Field(100, description="Most files in one call.")
    direct_upload_ttl_s: Annotated[int, Field(ge=0, le=LONGEST_DIRECT_S)] = Field(
        3600,
        description="Life of the URLs of a direct upload, whose files clients put into the object store; 0: off.",
    )
    max_request_bytes: Bytes = Field(
        256 * 2**20, description="Most bytes of one upload to the gateway, all files together."
    )
    max_pending: Limit = Field(0, description="Most unfinished pictures, in all; 0 means no limit.")
    max_pending_per_dream: Limit = Field(0, description="The same for one dream.")
    max_pending_per_user: Limit = Field(0, description="The same for one user, counted by the gateway.")
    max_stored_bytes_per_user: Limit = Field(
        0, description="Most stored bytes of one user: pictures, variants, originals; 0 means no limit."
    )
    max_image_bytes: Bytes = Field(2**20, description="Byte budget of a processed picture.")
    max_edge_px: Annotated[int, Field(ge=16, le=16383)] = Field(
        2560, description="Longest edge of a processed picture."
    )
    output_format: Literal["auto", "jpeg", "webp", "avif"] = Field(
        "auto",
        description="Format of results; auto: WebP if transparent, animated or a drawing that fits, else JPEG.",
    )
    hdr: Literal["keep", "drop"] = Field(
        "keep", description="Gain maps of phones' photos: `keep` them in JPEGs from 640 pixels on, or `drop` them."
    )
    variants: Variants = Field(
        (), description="Variants of each picture, as in `thumb:320,card:640x480:cover,hero:1920x:webp:80`."
    )
    widths: Widths = Field(
        (), description="Widths in pixels in which each picture is stored too, as in `320,640,1280,1920`."
    )
    keep_facts: Literal["none", "taken_at", "all"] = Field(
        "none", description="Facts about a photo that its row keeps for its owner: when, or also where and with what."
    )
    keep_copyright: bool = Field(
        False, description="Whether results carry the creator, copyright notice and licence of the uploaded file."
    )
    lazy_variants: Variants = Field(
        (), description="Further variants, in the same form, made when a visitor first asks for them by `?v=<name>`."
    )
    variant_wait_s: Annotated[float, Field(ge=0, le=60, allow_inf_nan=False)] = Field(
        3, description="Time that a visitor waits for such a variant; then a larger one, or the picture, answers."
    )
    max_variants_awaited: Limit = Field(
        100, description="Variants that a gateway process waits for at a time; for more, larger ones answer."
    )
    max_variants_per_picture: Count = Field(
        100, description="Most stored variants of one picture; no further one is made when asked for."
    )
    negotiate: bool = Field(
        False, description="Whether `/media/…` answers with AVIF, WebP or JPEG by the header `Accept`."
    )
    max_jpeg_pixels: Count = Field(100_000_000, description="Most pixels of a JPEG.")
    max_pixels: Count = Field(40_000_000, description="Most pixels of a picture in any other format.")
    max_source_edge_px: Count = Field(65_535, description="Longest edge of an accepted picture.")
    max_frames: Count = Field(300, description="Most frames of an animation.")
    max_animation_pixels: Count = Field(200_000_000, description="Most pixels of an animation, all frames together.")
    max_decoding_bytes: Bytes = Field(
        640 * 2**20, description="Most memory for decoding a picture, computed from its header."
    )
    max_jpeg_scans: Count = Field(100, description="Most scans of a progressive JPEG.")

    # --- the worker
    worker_threads: Count = Field(4, description="Tasks that a worker runs at a time.")
    pool_size: Annotated[int, Field(ge=0)] = Field(0, description="Processes in a worker's pool; 0 means one per CPU.")
    work_dir: Folder | None = Field(None, description="Folder for files during a run; unset means the system's.")
    worker_poll_ms: Count = Field(200, description="Interval at which an idle worker asks the broker.")
    app: str | None = Field(
        None,
        description="A Celery-compatible app: workers run its tasks, the scheduler its timetable, beside dream's own.",
    )
    worker_name: str = Field(
        "celery@%h",
        min_length=1,
        description="Name of a worker; %h is the host, %n its first label, %d the rest, %p the process.",
    )
    ready_file: str | None = Field(None, description="File that a service creates when it is ready for work.")
    child_memory_bytes: Bytes = Field(4 * 2**30, description="Address space of a process of the pool.")
    child_max_pictures: Limit = Field(
        1000, description="Pictures after which a process of the pool is renewed; 0 means never."
    )
    child_max_rss_bytes: Limit = Field(
        2**30, description="Resident memory at which it is renewed, after a picture; 0 means never."
    )

    # --- policy: 60, 90, 135, 202.5, 303.75 s; 300 s a run
    max_retries: Annotated[int, Field(ge=0)] = Field(5, description="Retries after the first run.")
    retry_first_s: Seconds = Field(60, description="Time before the first retry.")
    retry_factor: Annotated[float, Field(ge=1, le=10)] = Field(1.5, description="Factor between two successive waits.")
    retry_max_s: Seconds = Field(600, description="Longest time before a retry.")
    retry_jitter: Annotated[float, Field(ge=0, le=1)] = Field(
        0, description="Random extra wait as a share of the time; 0 means exact times."
    )
    time_limit_s: Seconds = Field(300, description="Time limit of a run.")
    image_time_limit_s: Seconds = Field(60, description="Time limit of one picture in the pool.")
    lease_s: Seconds = Field(12, description="Length of a run's lease on its task.")
    lease_renew_s: Seconds = Field(4, description="Interval at which the worker renews the lease.")
    resend_after_s: Seconds = Field(
        60, description="The scheduler resends a task that is overdue by this time and has no live run."
    )
    shutdown_timeout_s: Seconds = Field(
        30, description="Time that a stopping worker gives its runs before it requeues their messages."
    )
    unknown_task_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        60, description="Time for which an unknown task waits for a worker that knows it."
    )
    heartbeat_s: Seconds = Field(15, description="Silence after which a worker counts as dead.")

    # --- results
    result_ttl_s: Annotated[int, Field(ge=0)] = Field(
        86400, description="Time for which Redis keeps a task's result; 0 means for ever."
    )

    # --- the gateway
    host: str = Field("127.0.0.1", description="Address that the gateway listens on.")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(8000, description="Port that the gateway listens on.")
    gateway_workers: Annotated[int, Field(ge=1, le=64)] = Field(
        1, description="Processes of the gateway, on one port; one for each core that it may use."
    )
    trusted_proxies: Networks = Field(
        (), description="Proxies before the gateway, as `10.0.0.0/8`: it believes their X-Forwarded-For."
    )
    allowed_origins: Origins = Field(
        (),
        description="Sites whose pages may open WebSockets and read answers, such as `https://app.example.org`.",
    )
    max_connections: Count = Field(10_000, description="Most connections of a gateway process.")
    max_connections_per_address: Limit = Field(0, description="The same for one address; 0 means half of all.")
    max_sockets_per_user: Limit = Field(0, description="Most WebSockets of one user; 0 means half of all connections.")
    max_requests_per_user_s: Limit = Field(
        100, description="Requests a second of one user; four times as many at once. 0 means no limit."
    )
    max_status_requests_per_user_s: Limit = Field(
        5, description="`request_status` and `authenticate` a second of one user, on all sockets; 0 means no limit."
    )
    head_timeout_s: Seconds = Field(10, description="Time that a client has for the head of a request.")
    body_timeout_s: Seconds = Field(
        60, description="Time for the body, and 1 s more for each KiB that the client has sent."
    )
    jwt_secret: SecretStr | None = Field(None, description="Key that signs and checks tokens.")
    jwt_old_secret: SecretStr | None = Field(
        None, description="The key before it, which checks tokens until the last of them has expired."
    )
    jwt_key_file: str | None = Field(
        None, description="File of public keys (PEM) that check tokens; a line `kid: name` before a key names it."
    )
    jwt_jwks: KeySet | None = Field(
        None, description="The issuer's set of public keys (JWKS): a file, or an https:// address."
    )
    jwt_algorithms: Algorithms = Field(
        ("HS256",), description="Accepted algorithms, separated by commas; unset means the usual one of each key."
    )
    jwt_audience: Names = Field((), description="Accepted `aud` of tokens, separated by commas; empty means any.")
    jwt_issuer: Names = Field((), description="Accepted `iss` of tokens, separated by commas; empty means any.")
    jwt_user_claim: str = Field("user_id", min_length=1, description="The claim that names the user, such as `sub`.")
    operator_claim: str = Field(
        "dream_operator", min_length=1, description="The claim that makes a token's user an operator when it is `true`."
    )
    token_blacklist: Literal["dream", "simplejwt"] = Field(
        "dream", description="Tables of revoked tokens: dream's own, or those of Django simplejwt's `token_blacklist`."
    )
    ping_interval_s: Seconds = Field(15, description="Interval at which the gateway pings a WebSocket.")
    socket_queue_size: Count = Field(
        256, description="Messages of 4 KiB that a slow client may be behind before the gateway cuts it (4008)."
    )
    max_unread_bytes: Bytes = Field(
        256 * 2**20,
        description="Most bytes that all clients of a gateway process together may leave unread after a snapshot.",
    )
    events_ttl_s: Annotated[int, Field(ge=1)] = Field(86400, description="Life of a dream's event stream.")
    events_max_length: Count = Field(300, description="Events kept per dream.")

    # --- the scheduler
    timezone: Timezone = Field("UTC", description="Time zone of the 03:00 clean-up.")
    staging_ttl_s: Seconds = Field(7 * 86400, description="Life of the staged bytes of failed uploads.")
    staging_orphan_s: Seconds = Field(
        48 * 3600, description="Age at which the nightly sweep removes staged bytes without a row."
    )

    task_ttl_s: Lifetime = Field(
        30 * 86400, description="Life of the rows of ended tasks and of forgotten periodic entries; 0 means for ever."
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

    # --- traces
    tracing: Tracing = Field(
        "off", description="`otlp` sends traces to an OpenTelemetry collector; the variables `OTEL_…` say where."
    )

    # --- metrics
    metrics_host: str = Field("127.0.0.1", min_length=1, description="Address on which a service serves its metrics.")
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = Field(
        0, description="Port of `/metrics`, for Prometheus; 0 means no metrics. Services may share one port on a host."
    )
    metrics_dir: str | None = Field(
        None, description="Folder in which the processes of a service count together; unset means the system's."
    )

    # --- error reports
    sentry_dsn: SentryDsn | None = Field(
        None, repr=False, description="DSN of a project in Sentry, to which dream's own processes report errors."
    )

    # --- tests only
    fault: Fault | None = Field(
        None, description="The fault point of a test (`dream.fault_points`); never set it in production."
    )

    @model_validator(mode="after")
    def _check_together(self) -> Settings:
        if self.is_bucket_per_user and self.s3_staging_bucket is None:
            raise ValueError("DREAM_S3_STAGING_BUCKET must be set where DREAM_S3_BUCKET has {username} in it")
        self._check_originals()
        if self.media_mode == "accel" and self.is_bucket_per_user and self.s3_addressing_style != "path":
            raise ValueError(
                "DREAM_MEDIA_MODE=accel needs DREAM_S3_ADDRESSING_STYLE=path where DREAM_S3_BUCKET has {username} "
                "in it: nginx asks one host"
            )
        self._check_media()
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
        self._check_variants()
        return self

    def _check_variants(self) -> None:
        names = [variant.name for variant in (*self.variants, *self.lazy_variants)]
        if taken := {rung.name for rung in self.ladder}.intersection(names):
            raise ValueError(
                f"DREAM_VARIANTS and DREAM_LAZY_VARIANTS may not name {min(taken)}: "
                "DREAM_WIDTHS makes a variant of this name"
            )
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"DREAM_VARIANTS and DREAM_LAZY_VARIANTS both name {min(twice)}: one of them may name it")
        if self.negotiate and FULL in names:
            raise ValueError(
                f"DREAM_NEGOTIATE=yes keeps the name {FULL} for the picture itself: give that variant another name"
            )
        if len(self.named_variants) > MOST_VARIANTS:
            raise ValueError(
                f"DREAM_VARIANTS, DREAM_LAZY_VARIANTS and DREAM_WIDTHS make {len(self.named_variants)} variants: "
                f"together they may make {MOST_VARIANTS}"
            )
        names = [*self.named_variants, *([FULL] if self.negotiate else ())]
        longest_name = max((len(f"_{name}") for name in names), default=0)
        if len(self.media_url) + LONGEST_PATH - len("/media") + longest_name > MAX_URL_LENGTH:
            raise ValueError(
                f"a URL may have at most {MAX_URL_LENGTH} characters: the base URL (DREAM_PUBLIC_URL or "
                "DREAM_GATEWAY_URL) is too long for the names in DREAM_VARIANTS, DREAM_LAZY_VARIANTS and DREAM_WIDTHS"
            )

    @cached_property
    def named_variants(self) -> Mapping[str, VariantSpec]:
        """Every variant that a visitor may ask for, by its name."""
        return {variant.name: variant for variant in (*self.upload_variants, *self.lazy_variants)}

    def _check_media(self) -> None:
        """Check who may see pictures, and who may keep them.

        Raises:
          ValueError: two settings contradict each other.
        """
        access = f"DREAM_MEDIA_ACCESS={self.media_access}"
        if self.media_access != "link" and self.public_url is not None:
            raise ValueError(f"{access} cannot protect pictures that DREAM_PUBLIC_URL makes public: unset one of them")
        if self.media_access != "link" and self.media_keys is None:
            raise ValueError(f"{access} needs DREAM_MEDIA_KEYS: keys of at least {LEAST_KEY_CHARACTERS} characters")
        if self.media_cache == "public" and self.media_mode != "proxy":
            raise ValueError("DREAM_MEDIA_CACHE=public needs DREAM_MEDIA_MODE=proxy")
        if self.media_cache == "public" and self.media_access == "owner":
            raise ValueError(f"{access} needs DREAM_MEDIA_CACHE=private: a CDN would show the pictures to everybody")

    def _check_originals(self) -> None:
        bucket = self.originals_bucket
        if bucket is None:
            if self.keep_originals:
                raise ValueError("DREAM_ORIGINALS_BUCKET must be set where DREAM_KEEP_ORIGINALS is yes")
            return
        if self.public_url is not None and bucket == self.s3_bucket:
            raise ValueError(
                "DREAM_ORIGINALS_BUCKET must be another bucket than DREAM_S3_BUCKET where DREAM_PUBLIC_URL is set: "
                "originals are private, and that bucket is public"
            )
        of_user = self.s3_bucket.replace("{username}", "*")
        if bucket.startswith("dreamlog-") or (self.is_bucket_per_user and fnmatch(bucket, of_user)):
            raise ValueError(
                f"DREAM_ORIGINALS_BUCKET={bucket} may be the bucket of a user ({self.s3_bucket} or dreamlog-…): "
                "choose a name that is nobody's"
            )

    @property
    def is_redis_broker(self) -> bool:
        """Whether the broker is Redis or Valkey, not RabbitMQ."""
        return not self.broker_url.startswith("amqp")

    @property
    def is_bucket_per_user(self) -> bool:
        return "{username}" in self.s3_bucket

    @property
    def staging_bucket(self) -> str:
        return self.s3_staging_bucket or self.s3_bucket

    @property
    def events_url(self) -> str:
        """The Redis of events and results."""
        return self.redis_url or self.broker_url

    @property
    def signed_url_life_s(self) -> int:
        """Seconds for which a signed URL is valid, from the beginning of its window."""
        return self.sign_window_s + (self.media_forget_s or self.presign_ttl_s)

    @property
    def media_url(self) -> str:
        """The beginning of each picture's canonical URL; `/` and the key follow."""
        return self.public_url or f"{self.gateway_url}/media"

    @property
    def ladder(self) -> tuple[VariantSpec, ...]:
        """The variants of `DREAM_WIDTHS`."""
        return tuple(map(VariantSpec.rung, self.widths))

    @property
    def upload_variants(self) -> tuple[VariantSpec, ...]:
        """The variants that an upload's run makes."""
        return self.variants + self.ladder

    @property
    def database_connections(self) -> int:
        """The connections to PostgreSQL that a process keeps: each thread of a worker may need one at a time."""
        return self.database_pool_size or max(5, self.worker_threads + 1)

    @property
    def pool_processes(self) -> int:
        """The number of processes in the pool. A CPU that this process may not use does not count."""
        return self.pool_size or (len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1)
