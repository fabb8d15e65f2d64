"""What a setting may be: a type for each kind of value, whose error says what is allowed.

Pydantic puts these sentences behind the variable's name (`dream.settings`).
"""

from __future__ import annotations

import os
import re
from ipaddress import ip_network
from typing import Annotated
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import NoDecode

from dream import fault_points

__all__ = [
    "LONGEST_PATH",
    "MAX_SIGNED_LIFE_S",
    "MAX_URL_LENGTH",
    "Algorithms",
    "BrokerUrl",
    "Bytes",
    "Count",
    "DatabaseUrl",
    "Fault",
    "Folder",
    "HttpUrl",
    "Lifetime",
    "Limit",
    "Networks",
    "OwnersSql",
    "RedisUrl",
    "Schema",
    "Seconds",
    "SharedFolder",
    "Timezone",
    "Variants",
]

#: A stored URL is one string of at most this many characters (docs/contract.md, "URLs and keys").
MAX_URL_LENGTH = 255
#: The longest life of a signed URL by Signature Version 4.
MAX_SIGNED_LIFE_S = 7 * 86400
#: The longest path that follows a base URL: `/media/dreams/20260101/<32 hex>.<ext>`.
LONGEST_PATH = len("/media/dreams/20260101/") + 32 + len(".jpeg")
#: `thumb:320`: a name, which becomes part of keys and URLs, and a longest edge in pixels.
_VARIANT = re.compile(r"(?P<name>[a-z0-9_-]{1,32}):(?P<edge_px>[0-9]{1,5})")
_MOST_VARIANTS = 10
#: A parameter in SQL, as SQLAlchemy finds it: `:name`, and neither a cast (`::name`) nor an escaped one.
_PARAMETER = re.compile(r"(?<![:\w\\]):(\w+)(?!:)")


def _broker_url(value: str) -> str:
    if urlsplit(value).scheme not in {"redis", "rediss", "unix", "amqp", "amqps"}:
        raise ValueError("it must start with redis://, rediss://, unix://, amqp:// or amqps://")
    return value


def _redis_url(value: str) -> str:
    if urlsplit(value).scheme not in {"redis", "rediss", "unix"}:
        raise ValueError("it must start with redis://, rediss:// or unix://")
    return value


def _database_url(value: str) -> str:
    if urlsplit(value).scheme.split("+")[0] not in {"sqlite", "postgresql", "postgres"}:
        raise ValueError("it must start with sqlite:/// or postgresql://")
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
    if len(value) + LONGEST_PATH > MAX_URL_LENGTH:
        raise ValueError(f"it may have at most {MAX_URL_LENGTH - LONGEST_PATH} characters")
    return value.rstrip("/")


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
    found = [_VARIANT.fullmatch(item.strip()) for item in value.split(",")]
    variants = tuple((match["name"], int(match["edge_px"])) for match in found if match)
    if len(variants) < len(found) or not all(16 <= edge_px <= 16383 for _, edge_px in variants):
        raise ValueError(
            "it must be names with their longest edges in pixels, as in thumb:320,medium:1280; "
            "a name is 1 to 32 of a-z, 0-9, _ and -, an edge 16 to 16383"
        )
    if len({name for name, _ in variants}) < len(variants):
        raise ValueError("each name may be there once")
    if len(variants) > _MOST_VARIANTS:
        raise ValueError(f"it may have at most {_MOST_VARIANTS} variants")
    return variants


def _fault(value: str) -> str:
    fault_points.parse(value)
    return value


BrokerUrl = Annotated[str, AfterValidator(_broker_url)]
RedisUrl = Annotated[str, AfterValidator(_redis_url)]
DatabaseUrl = Annotated[str, AfterValidator(_database_url)]
Schema = Annotated[str, AfterValidator(_schema)]
OwnersSql = Annotated[str, AfterValidator(_owners_sql)]
Folder = Annotated[str, AfterValidator(_folder)]
SharedFolder = Annotated[str, AfterValidator(_shared_folder)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
Timezone = Annotated[str, AfterValidator(_timezone)]
Algorithms = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_algorithms)]
Networks = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_networks)]
Variants = Annotated[tuple[tuple[str, int], ...], NoDecode, BeforeValidator(_variants)]
Fault = Annotated[str, AfterValidator(_fault)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
#: Seconds for which rows are kept; 0 means for ever. At most a century, so that every database can count back.
Lifetime = Annotated[float, Field(ge=0, le=3_155_760_000, allow_inf_nan=False)]
Bytes = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Limit = Annotated[int, Field(ge=0)]
