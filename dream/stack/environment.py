"""The `DREAM_…` variables of a stack: those of embedded servers, and the caller's own.

`dream up` embeds each server that the caller's environment does not name:

own value of                                       not embedded
DREAM_DATABASE_URL                                 SQLite
DREAM_BROKER_URL, where it is Redis                Valkey; events go to the caller's Redis too
DREAM_BROKER_URL and DREAM_REDIS_URL               Valkey
DREAM_S3_ENDPOINT_URL, or both keys (AWS)          SeaweedFS
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from dream.errors import SettingsError
from dream.stack.ports import HOST
from dream.stack.servers import BUCKET
from dream.stack.state import DataFolder, State

__all__ = [
    "NOT_USED",
    "complete",
    "described",
    "embedded_values",
    "for_process",
    "gateway_url",
    "own_values",
    "printed",
    "uses_seaweedfs",
    "uses_valkey",
    "without_own",
]

#: Variables of servers that a caller may set: `dream up` sets them for embedded servers.
_OF_SERVERS = (
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
#: Variables that `dream up` always sets itself, because it controls its processes by them.
NOT_USED = ("DREAM_READY_FILE", "DREAM_HOST", "DREAM_SHUTDOWN_TIMEOUT_S")
_SERVERS = ("DREAM_BROKER_URL", "DREAM_REDIS_URL", "DREAM_DATABASE_URL", "DREAM_S3_ENDPOINT_URL", "DREAM_S3_BUCKET")
_KEYS = ("DREAM_S3_ACCESS_KEY", "DREAM_S3_SECRET_KEY")
_SQLITE = "sqlite:///"


# --- embedded servers


def gateway_url(state: State) -> str:
    """The URL of the gateway on this machine."""
    return f"http://{HOST}:{state.gateway_port}"


def embedded_values(folder: DataFolder, state: State) -> dict[str, str]:
    """URLs and credentials of the embedded servers and the gateway."""
    broker_url = f"redis://:{state.valkey_password}@{HOST}:{state.ports['valkey']}/0"
    return {
        "DREAM_BROKER_URL": broker_url,
        "DREAM_REDIS_URL": broker_url,
        "DREAM_DATABASE_URL": f"sqlite:///{folder.database}",
        "DREAM_S3_ENDPOINT_URL": f"http://{HOST}:{state.ports['s3']}",
        "DREAM_S3_REGION": "us-east-1",
        "DREAM_S3_ACCESS_KEY": state.s3_access_key,
        "DREAM_S3_SECRET_KEY": state.s3_secret_key,
        "DREAM_S3_BUCKET": BUCKET,
        "DREAM_S3_ADDRESSING_STYLE": "path",
        "DREAM_STAGING_DIR": str(folder.staging),
        "DREAM_JWT_SECRET": state.jwt_secret,
        "DREAM_GATEWAY_URL": gateway_url(state),
        "DREAM_HOST": HOST,
        "DREAM_PORT": str(state.gateway_port),
        "DREAM_SHUTDOWN_TIMEOUT_S": "4",
    }


# --- the caller's servers


def own_values(caller: Mapping[str, str], embedded: Mapping[str, str]) -> dict[str, str]:
    """The caller's own values, from variables or from files in `DREAM_SECRETS_DIR`.

    Parameters:
      caller: the caller's environment.
      embedded: the variables of this data folder's stack. Such a value is not the caller's own: the shell has it from
        `dream env`.

    Raises:
      SettingsError: two values contradict each other.
    """
    given = {name.upper(): value for name, value in caller.items() if value}
    folder = given.get("DREAM_SECRETS_DIR")
    files = {name: _read(Path(folder) / name.lower()) for name in _OF_SERVERS} if folder else {}
    found = {name: given.get(name) or files.get(name) or "" for name in _OF_SERVERS}
    own = {name: value for name, value in found.items() if value and value != embedded.get(name)}
    _check(own)
    if own.get("DREAM_DATABASE_URL", "").startswith(_SQLITE):
        # Absolute, because `dream env` prints it for shells in other folders.
        path = own["DREAM_DATABASE_URL"].removeprefix(_SQLITE)
        own["DREAM_DATABASE_URL"] = f"{_SQLITE}{Path.cwd() / path}"
    return own


def without_own(caller: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """The caller's environment without variables of servers, and the names of these."""
    left_out = [name for name in caller if name.upper() in (*_OF_SERVERS, "DREAM_SECRETS_DIR")]
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
            f"{there} is set and {missing[0]} is not: set both to use your own object store, or neither"
        )
    if uses_seaweedfs(own):
        for name in ("DREAM_PUBLIC_URL", "DREAM_S3_ADDRESSING_STYLE"):
            if own.get(name, "path") != "path":
                raise SettingsError(
                    f"{name} is set, but `dream up` would embed the object store: set DREAM_S3_ENDPOINT_URL (and the "
                    f"keys) to use your own, or unset {name}"
                )


def uses_valkey(own: Mapping[str, str]) -> bool:
    """Whether Valkey is embedded, as broker or for events."""
    broker = own.get("DREAM_BROKER_URL", "")
    return not broker or (not _is_redis(broker) and "DREAM_REDIS_URL" not in own)


def uses_seaweedfs(own: Mapping[str, str]) -> bool:
    """Whether the object store is embedded."""
    return "DREAM_S3_ENDPOINT_URL" not in own and not all(name in own for name in _KEYS)


def _is_redis(url: str) -> bool:
    return url.startswith(("redis", "sentinel", "unix"))


def complete(own: Mapping[str, str], embedded: Mapping[str, str]) -> dict[str, str]:
    """The variables of a stack: the caller's own values, completed by those of embedded servers."""
    left = dict(embedded)
    if not uses_seaweedfs(own):
        left = {name: value for name, value in left.items() if not name.startswith("DREAM_S3_")}
    if _is_redis(own.get("DREAM_BROKER_URL", "")):
        left.pop("DREAM_REDIS_URL", None)
    return {**left, **own}


def printed(caller: Mapping[str, str], stack: Mapping[str, str]) -> dict[str, str]:
    """The variables of `dream env`: those of the stack, and the caller's others, which its processes have too."""
    others = {
        name.upper(): value
        for name, value in caller.items()
        if value and name.upper().startswith("DREAM_") and name.upper() not in {*_OF_SERVERS, *NOT_USED}
    }
    if "DREAM_SECRETS_DIR" in others:  # for shells in other folders
        others["DREAM_SECRETS_DIR"] = str(Path.cwd() / others["DREAM_SECRETS_DIR"])
    return {**others, **stack}


def described(own: Mapping[str, str]) -> tuple[str, str]:
    """Name the embedded servers and the caller's, without user names and passwords."""
    servers = {
        "Valkey": uses_valkey(own),
        "SQLite": "DREAM_DATABASE_URL" not in own,
        "SeaweedFS": uses_seaweedfs(own),
    }
    embedded = ", ".join(name for name, is_used in servers.items() if is_used) or "nothing"
    yours = ", ".join(f"{name}={_without_user(own[name])}" for name in _SERVERS if name in own)
    others = ", ".join(name for name in _OF_SERVERS if name in own and name not in _SERVERS)
    return embedded, ", ".join(filter(None, (yours, others)))


def _without_user(url: str) -> str:
    """The URL without user and password. The last `@` ends these, because a password may contain a slash."""
    scheme, _, rest = url.partition("://")
    _, at, place = rest.rpartition("@")
    return f"{scheme}://***@{place}" if at else url


# --- a process of the stack


def for_process(caller: Mapping[str, str], stack: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process: the caller's variables, overridden by the stack's.

    A proxy of the caller serves for other hosts; the stack's servers are reached directly.
    """
    # In upper case, because the settings accept both `DREAM_PORT` and `dream_port`.
    environment = {
        name: value for name, value in caller.items() if name.upper() not in {*stack, *_OF_SERVERS, *NOT_USED}
    }
    environment.update(stack)
    if sys.stderr.isatty():  # `dream up` copies the log files to its own standard error
        environment.setdefault("DREAM_LOG_FORMAT", "console")
    exempt = environment.get("no_proxy") or environment.get("NO_PROXY")
    for name in ("no_proxy", "NO_PROXY"):
        environment[name] = f"{exempt},{HOST}" if exempt else HOST
    return environment
