"""The `DREAM_…` variables that point a process at a stack."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from dream.stack.own import KNOWN, NOT_USED
from dream.stack.ports import HOST
from dream.stack.servers import BUCKET
from dream.stack.state import DataFolder, State

__all__ = ["for_part", "gateway_url", "variables"]


def gateway_url(state: State) -> str:
    return f"http://{HOST}:{state.gateway_port}"


def variables(folder: DataFolder, state: State) -> dict[str, str]:
    """Addresses of the embedded servers and the gateway, and the keys to them."""
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


def for_part(caller: Mapping[str, str], stack: Mapping[str, str]) -> dict[str, str]:
    """A part's environment: the caller's, so that its policy stays, then the stack's (`dream.stack.own`).

    A proxy of the caller's is for the world outside: the stack's own servers are reached directly.
    """
    # Compared in upper case, because both `DREAM_PORT` and `dream_port` are read.
    environment = {name: value for name, value in caller.items() if name.upper() not in {*stack, *KNOWN, *NOT_USED}}
    environment.update(stack)
    if sys.stderr.isatty():  # the parts write into files, which `dream up` copies to its own standard error
        environment.setdefault("DREAM_LOG_FORMAT", "console")
    exempt = environment.get("no_proxy") or environment.get("NO_PROXY")
    for name in ("no_proxy", "NO_PROXY"):
        environment[name] = f"{exempt},{HOST}" if exempt else HOST
    return environment
