"""Types of settings: each checks one kind of value, and its error says which values are allowed.

`dream.settings` puts the variable's name and value before these sentences.
"""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from ipaddress import ip_network
from typing import Annotated, Literal
from urllib.parse import parse_qsl, urlsplit
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from dream import fault_points
from dream.settings.sentinel import SentinelUrl, is_sentinel
from dream.variants import LEAST_PX, MOST_PX, VariantSpec

__all__ = [
    "LEAST_KEY_CHARACTERS",
    "LONGEST_DIRECT_S",
    "LONGEST_PATH",
    "LONGEST_SIGNED_S",
    "MAX_SIGNED_LIFE_S",
    "MAX_URL_LENGTH",
    "MOST_VARIANTS",
    "Algorithms",
    "BrokerUrl",
    "Bucket",
    "Bytes",
    "Count",
    "DatabaseUrl",
    "Fault",
    "Folder",
    "HttpUrl",
    "KeySet",
    "Lifetime",
    "Limit",
    "MediaKeys",
    "Names",
    "Networks",
    "Origins",
    "OwnersSql",
    "RedisUrl",
    "Schema",
    "Seconds",
    "SentryDsn",
    "SharedFolder",
    "Timezone",
    "Tracing",
    "Variants",
    "Widths",
    "check_package",
    "origin_of",
]

#: A stored URL is one string of at most this many characters (docs/contract.md, "URLs and keys").
MAX_URL_LENGTH = 255
#: The longest life of a signed URL by Signature Version 4.
MAX_SIGNED_LIFE_S = 7 * 86400
#: The longest path that follows a base URL: `/media/dreams/20260101/<32 hex>.<ext>`.
LONGEST_PATH = len("/media/dreams/20260101/") + 32 + len(".jpeg")
#: The longest life of the URLs of a direct upload: a day. The nightly sweep of an older release, which does not know
#: these uploads, spares staged bytes for two.
LONGEST_DIRECT_S = 86400
#: The longest life of a signed URL of the gateway's own: a year.
LONGEST_SIGNED_S = 366 * 86400
#: An HMAC key that is shorter than its hash can be guessed (RFC 7518, 3.2).
LEAST_KEY_CHARACTERS = 32
#: Variants of one picture that settings may name.
MOST_VARIANTS = 30
_REDIS = {"redis", "rediss", "sentinel", "sentinels", "unix"}
#: Options of redis-py that name files.
_TLS_FILES = {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"}
#: A parameter in SQL, as SQLAlchemy finds it: `:name`, and neither a cast (`::name`) nor an escaped one.
_PARAMETER = re.compile(r"(?<![:\w\\]):(\w+)(?!:)")

#: An origin as browsers send it, perhaps with `*.` before its host.
_ORIGIN = re.compile(r"https?://((\*\.)?[a-z0-9-]+(\.[a-z0-9-]+)*|\[[0-9a-f:]+\])(:[0-9]{1,5})?")


def _broker_url(value: str) -> str:
    scheme = value.partition("://")[0]
    if scheme in {"amqp", "amqps"}:
        check_package("pika", "amqp://", "rabbitmq")
        _check_port(value)
        return value
    if scheme not in _REDIS:
        raise ValueError(
            "it must start with redis://, rediss://, sentinel://, sentinels://, unix://, amqp:// or amqps://"
        )
    return _redis_url(value)


def _redis_url(value: str) -> str:
    if value.partition("://")[0] not in _REDIS:
        raise ValueError("it must start with redis://, rediss://, sentinel://, sentinels:// or unix://")
    if is_sentinel(value):
        SentinelUrl.parse(value)
    else:
        _check_port(value)
    for name, path in parse_qsl(urlsplit(value).query):
        if name.removeprefix("sentinel_") in _TLS_FILES and not os.access(path, os.R_OK):
            raise ValueError(f"the file of {name} cannot be read: {path}")
    return value


_ENCODE = "percent-encode a password or name with one of :/?#@, as in p%40ss%2F1 for p@ss/1"
#: What ends the server in an address.
_END_OF_SERVER = re.compile("[/#]")


def _check_port(url: str) -> None:
    try:
        _ = urlsplit(url).port
    except ValueError:
        raise ValueError(f"the port must be a number; {_ENCODE}") from None
    _check_password(url)


def _check_password(url: str) -> None:
    """Check that no `/` or `#` of a password ends the server: the `@` before the host would follow it."""
    scheme, _, rest = url.partition("://")
    _, *more = _END_OF_SERVER.split(rest.partition("?")[0], maxsplit=1)
    if scheme != "unix" and "@" in "".join(more):
        raise ValueError(f"an @ stands behind the first / or # after the host; {_ENCODE}")


def check_package(name: str, scheme: str, extra: str) -> None:
    """Check that the package for a kind of URL or another value is installed. Extras of the distribution bring it.

    Raises:
      ValueError: it is not; the text says how to install it.
    """
    try:
        found = find_spec(name)
    except ModuleNotFoundError:  # a package above it is missing
        found = None
    if found is None:
        raise ValueError(f"{scheme} needs the package {name}: pip install 'dream-pictures[{extra}]'")


def _database_url(value: str) -> str:
    backend = value.partition("://")[0].split("+")[0]
    if backend not in {"sqlite", "postgresql", "postgres"}:
        raise ValueError("it must start with sqlite:/// or postgresql://")
    if backend != "sqlite":
        check_package("psycopg", "postgresql://", "postgres")
        _check_password(value)
    if value.startswith("sqlite") and not value.partition(":///")[2]:
        raise ValueError("it must name a file, as in sqlite:///dream.db: all processes share it")
    return value


def _schema(value: str) -> str:
    if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", value) or value.startswith("pg_") or value == "information_schema":
        raise ValueError(
            "it must be 1 to 63 of a-z, 0-9 and _, begin with no digit, and be no schema of PostgreSQL's own (pg_…)"
        )
    return value


def _owners_sql(value: str) -> str:
    names = set(_PARAMETER.findall(value))
    if names != {"dream_id"}:
        unknown = "".join(f", and :{name} is none" for name in sorted(names - {"dream_id"})[:1])
        raise ValueError(f"it must have the parameter :dream_id and no other{unknown}")
    return value


def _folder(value: str) -> str:
    if not os.access(value, os.W_OK | os.X_OK) or not os.path.isdir(value):  # noqa: PTH112
        raise ValueError("it must be a folder that is there and may be written to")
    return value


def _shared_folder(value: str) -> str:
    if not os.path.isabs(value):  # noqa: PTH117
        raise ValueError("it must be an absolute path: parts start in different folders")
    return value


def _http_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.netloc:
        raise ValueError("it must start with http:// or https:// and name a host")
    if parts.query or parts.fragment:
        raise ValueError("it may have no ? and no #, for a path follows it")
    if " " in value or not value.isprintable():
        raise ValueError("it may have no spaces: write them as %20")
    if len(value) + LONGEST_PATH > MAX_URL_LENGTH:
        raise ValueError(f"it may have at most {MAX_URL_LENGTH - LONGEST_PATH} characters")
    return value.rstrip("/")


def _sentry_dsn(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.username or not parts.path.rpartition("/")[2].isdecimal():
        raise ValueError("it must be a DSN of Sentry, as in https://key@host/1")
    return value


def _tracing(value: str) -> str:
    if value == "otlp":
        check_package("opentelemetry.exporter.otlp.proto.http", "it", "otel")
    return value


def _timezone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError):
        raise ValueError("it must be a name from the time zone database, such as UTC or Europe/Berlin") from None
    return value


def _algorithms(value: object) -> object:
    names = tuple(name.strip() for name in value.split(",")) if isinstance(value, str) else value
    if not names or "none" in {str(name).lower() for name in names}:  # type: ignore[attr-defined]
        raise ValueError("it must name signing algorithms such as HS256, separated by commas, and never none")
    return names


def origin_of(url: str, subdomain: str = "") -> str:
    """The origin of a URL: scheme, host and port."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{subdomain}{parts.netloc.rpartition('@')[2]}"


def _origins(value: object) -> object:
    origins = tuple(each.strip() for each in value.split(",")) if isinstance(value, str) else value
    for each in origins if isinstance(origins, tuple) else ():
        if not _ORIGIN.fullmatch(each):
            raise ValueError(
                "it must be origins as browsers send them, separated by commas: https://app.example.org, "
                "https://*.example.org or http://127.0.0.1:5173, in small letters and without a path"
            )
    return origins


def _key_set(value: str) -> str:
    parts = urlsplit(value)
    is_here = parts.scheme == "http" and parts.hostname in {"localhost", "127.0.0.1", "::1"}
    if "://" in value and not (parts.scheme == "https" and parts.hostname) and not is_here:
        raise ValueError("it must be a file, or an address that starts with https://")
    return value


def _names(value: object) -> object:
    names = tuple(name.strip() for name in value.split(",")) if isinstance(value, str) else value
    if isinstance(names, tuple) and not all(names):
        raise ValueError("it must be names, separated by commas, and none may be empty")
    return names


def _media_keys(value: SecretStr) -> SecretStr:
    keys = [key.strip() for key in value.get_secret_value().split(",")]
    if min(map(len, keys)) < LEAST_KEY_CHARACTERS:
        raise ValueError(f"each key, separated by commas, must have at least {LEAST_KEY_CHARACTERS} characters")
    return SecretStr(",".join(keys))


def _networks(value: object) -> object:
    names = [name.strip() for name in value.split(",")] if isinstance(value, str) else value
    try:
        return tuple(str(ip_network(name)) for name in names)  # type: ignore[attr-defined]
    except ValueError as error:
        raise ValueError(
            f"it must be IP addresses or networks, separated by commas, as in 127.0.0.1,10.0.0.0/8 ({error})"
        ) from None


def _variants(value: object) -> object:
    if not isinstance(value, str):
        return value
    variants = tuple(VariantSpec.parse(item) for item in value.split(","))
    if len({variant.name for variant in variants}) < len(variants):
        raise ValueError("each name may be there once")
    if len(variants) > MOST_VARIANTS:
        raise ValueError(f"it may have at most {MOST_VARIANTS} variants")
    return variants


def _widths(value: object) -> object:
    if not isinstance(value, str):
        return value
    given = [item.strip() for item in value.split(",")]
    if not all(re.fullmatch(r"[0-9]{1,5}", item) and LEAST_PX <= int(item) <= MOST_PX for item in given):
        raise ValueError(
            f"it must be widths in pixels, {LEAST_PX} to {MOST_PX}, separated by commas, as in 320,640,1280"
        )
    widths = tuple(sorted({int(item) for item in given}))
    if len(widths) < len(given):
        raise ValueError("each width may be there once")
    if len(widths) > MOST_VARIANTS:
        raise ValueError(f"it may have at most {MOST_VARIANTS} widths")
    return widths


def _bucket(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", value):
        raise ValueError("it must have 3 to 63 of a-z, 0-9, . and -, and begin and end with a letter or a digit")
    return value


def _fault(value: str) -> str:
    fault_points.parse(value)
    return value


BrokerUrl = Annotated[str, AfterValidator(_broker_url)]
RedisUrl = Annotated[str, AfterValidator(_redis_url)]
DatabaseUrl = Annotated[str, AfterValidator(_database_url)]
Schema = Annotated[str, AfterValidator(_schema)]
OwnersSql = Annotated[str, AfterValidator(_owners_sql)]
Folder = Annotated[str, AfterValidator(_folder)]
Bucket = Annotated[str, AfterValidator(_bucket)]
SharedFolder = Annotated[str, AfterValidator(_shared_folder)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
SentryDsn = Annotated[str, AfterValidator(_sentry_dsn)]
Tracing = Annotated[Literal["off", "otlp"], AfterValidator(_tracing)]
Timezone = Annotated[str, AfterValidator(_timezone)]
Algorithms = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_algorithms)]
KeySet = Annotated[str, AfterValidator(_key_set)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_names)]
MediaKeys = Annotated[SecretStr, AfterValidator(_media_keys)]
Origins = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_origins)]
Networks = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_networks)]
Variants = Annotated[tuple[VariantSpec, ...], NoDecode, BeforeValidator(_variants)]
Widths = Annotated[tuple[int, ...], NoDecode, BeforeValidator(_widths)]
Fault = Annotated[str, AfterValidator(_fault)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
#: Seconds for which rows are kept; 0 means for ever. At most a century, so that every database can count back.
Lifetime = Annotated[float, Field(ge=0, le=3_155_760_000, allow_inf_nan=False)]
Bytes = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Limit = Annotated[int, Field(ge=0)]
