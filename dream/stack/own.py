"""The caller's own servers: `dream up` uses those that the environment names, and embeds the others.

own value of                                       not embedded
DREAM_DATABASE_URL                                 SQLite
DREAM_BROKER_URL, where it is Redis                Valkey, and events go there too
DREAM_BROKER_URL and DREAM_REDIS_URL               Valkey
DREAM_S3_ENDPOINT_URL, or both keys (AWS)          SeaweedFS
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dream.errors import SettingsError

__all__ = ["KNOWN", "NOT_USED", "complete", "described", "own_values", "uses_seaweedfs", "uses_valkey", "without_own"]

#: Variables of servers: those that `dream up` would set otherwise, and those that go with them.
KNOWN = (
    "DREAM_BROKER_URL",
    "DREAM_REDIS_URL",
    "DREAM_REDIS_PREFIX",
    "DREAM_QUEUE_PREFIX",
    "DREAM_DATABASE_URL",
    "DREAM_DATABASE_SCHEMA",
    "DREAM_OWNERS_SQL",
    "DREAM_S3_ENDPOINT_URL",
    "DREAM_S3_REGION",
    "DREAM_S3_ACCESS_KEY",
    "DREAM_S3_SECRET_KEY",
    "DREAM_S3_BUCKET",
    "DREAM_S3_STAGING_BUCKET",
    "DREAM_S3_ADDRESSING_STYLE",
    "DREAM_STAGING_DIR",
    "DREAM_PUBLIC_URL",
    "DREAM_JWT_SECRET",
    "DREAM_GATEWAY_URL",
)
#: Variables that `dream up` always sets itself: it starts, stops and asks the parts by them.
NOT_USED = ("DREAM_READY_FILE", "DREAM_HOST", "DREAM_SHUTDOWN_TIMEOUT_S")
_SERVERS = ("DREAM_BROKER_URL", "DREAM_REDIS_URL", "DREAM_DATABASE_URL", "DREAM_S3_ENDPOINT_URL", "DREAM_S3_BUCKET")
_KEYS = ("DREAM_S3_ACCESS_KEY", "DREAM_S3_SECRET_KEY")
_SQLITE = "sqlite:///"


def own_values(caller: Mapping[str, str], embedded: Mapping[str, str]) -> dict[str, str]:
    """The values that the caller has set, in variables or in files of `DREAM_SECRETS_DIR`.

    Parameters:
      embedded: the variables of a stack on this data folder. These values are not the caller's own: a shell may have
        them from `dream env`.

    Raises:
      SettingsError: values that do not go together.
    """
    given = {name.upper(): value for name, value in caller.items() if value}
    folder = given.get("DREAM_SECRETS_DIR")
    files = {name: _read(Path(folder) / name.lower()) for name in KNOWN} if folder else {}
    found = {name: given.get(name) or files.get(name) or "" for name in KNOWN}
    own = {name: value for name, value in found.items() if value and value != embedded.get(name)}
    _check(own)
    if own.get("DREAM_DATABASE_URL", "").startswith(_SQLITE):
        # Absolute, because `dream env` gives it to shells in other folders.
        path = own["DREAM_DATABASE_URL"].removeprefix(_SQLITE)
        own["DREAM_DATABASE_URL"] = f"{_SQLITE}{Path.cwd() / path}"
    return own


def without_own(caller: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """The caller's environment without own servers, and the names that were left out."""
    left_out = [name for name in caller if name.upper() in (*KNOWN, "DREAM_SECRETS_DIR")]
    return {name: value for name, value in caller.items() if name not in left_out}, left_out


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _check(own: Mapping[str, str]) -> None:
    missing = [name for name in _KEYS if name not in own]
    if len(missing) == 1:
        there = next(name for name in _KEYS if name in own)
        raise SettingsError(
            f"{there} is set and {missing[0]} is not: set both for an object store of your own, or neither"
        )
    if uses_seaweedfs(own):
        for name in ("DREAM_PUBLIC_URL", "DREAM_S3_ADDRESSING_STYLE"):
            if own.get(name, "path") != "path":
                raise SettingsError(
                    f"{name} is set, but `dream up` would embed the object store: set DREAM_S3_ENDPOINT_URL (and the "
                    f"keys) to use your own, or unset {name}"
                )


def uses_valkey(own: Mapping[str, str]) -> bool:
    """Whether a Valkey is embedded, as broker or for events."""
    broker = own.get("DREAM_BROKER_URL", "")
    return not broker or (not _is_redis(broker) and "DREAM_REDIS_URL" not in own)


def uses_seaweedfs(own: Mapping[str, str]) -> bool:
    """Whether the object store is embedded."""
    return "DREAM_S3_ENDPOINT_URL" not in own and not all(name in own for name in _KEYS)


def _is_redis(url: str) -> bool:
    return url.startswith(("redis", "unix"))


def complete(own: Mapping[str, str], embedded: Mapping[str, str]) -> dict[str, str]:
    """The variables of a stack: the caller's own, and those of embedded servers for the others."""
    left = dict(embedded)
    if not uses_seaweedfs(own):
        left = {name: value for name, value in left.items() if not name.startswith("DREAM_S3_")}
    if _is_redis(own.get("DREAM_BROKER_URL", "")):
        left.pop("DREAM_REDIS_URL", None)
    return {**left, **own}


def described(own: Mapping[str, str]) -> tuple[str, str]:
    """Which servers are embedded and which are the caller's, for people: without user names and passwords."""
    parts = {
        "Valkey": uses_valkey(own),
        "SQLite": "DREAM_DATABASE_URL" not in own,
        "SeaweedFS": uses_seaweedfs(own),
    }
    embedded = ", ".join(name for name, is_used in parts.items() if is_used) or "nothing"
    yours = ", ".join(f"{name}={_without_user(own[name])}" for name in _SERVERS if name in own)
    others = ", ".join(name for name in KNOWN if name in own and name not in _SERVERS)
    return embedded, ", ".join(filter(None, (yours, others)))


def _without_user(url: str) -> str:
    """A URL without user and password. The last `@` ends them: a password may hold a slash, so a parser would err."""
    scheme, _, rest = url.partition("://")
    _, at, place = rest.rpartition("@")
    return f"{scheme}://***@{place}" if at else url
