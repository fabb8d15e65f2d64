"""`dream up` from outside: real servers, real signals, and a look at what is left."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import httpx
import pytest
import redis
from botocore.config import Config

from dream.stack import ports as stack_ports
from dream.stack import running_variables, servers_only
from dream.stack.servers import remove_weed_sockets
from dream.stack.state import DataFolder

#: `dream up` without the parts of our own: what these tests claim concerns the servers.
SERVERS_UP = """
import logging, sys
from pathlib import Path
from dream.work.process import exit_code
from dream.stack import Stack
logging.basicConfig(level=logging.INFO)
def run():
    Stack(Path(sys.argv[1]), port=0, services=()).run(on_ready=lambda url: print("ready", url, flush=True))
    return 0
sys.exit(exit_code(run))
"""


class Up:
    """A stack that runs in a process of its own."""

    def __init__(self, argv: list[str], data: Path) -> None:
        self.data = data
        self.errors = data.with_name(f"{data.name}.err")
        with self.errors.open("ab") as errors:
            self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=errors, text=True)

    def ready(self) -> str:
        """The URL it says it is ready at."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("ready http://127.0.0.1:"), self.errors.read_text()
        return line.removeprefix("ready ").strip()

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, float]:
        """Its exit code, and how many seconds it took to end."""
        begun = time.monotonic()
        self.process.send_signal(number)
        code = self.process.wait(20)
        return code, time.monotonic() - begun

    def clear(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


OUR_PARTS = ("gateway", "scheduler", "worker")


@contextmanager
def starting(data: Path) -> Iterator[Callable[..., Up]]:
    started: list[Up] = []

    def start_one(*arguments: str) -> Up:
        argv = [sys.executable, *arguments] if arguments else [sys.executable, "-c", SERVERS_UP, str(data)]
        started.append(Up(argv, data))
        return started[-1]

    yield start_one
    for up in started:
        up.clear()
    wait_until(lambda: not processes_of(data), "the stack left processes behind")
    if state := DataFolder(data).load():
        remove_weed_sockets(state)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def start(data: Path) -> Iterator[Callable[..., Up]]:
    with starting(data) as start_one:
        yield start_one


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A stack that tests look at, and that none changes."""
    data = tmp_path_factory.mktemp("running") / "data"
    with starting(data) as start_one:
        up = start_one()
        up.ready()
        put(running_variables(data))
        yield up


def processes_of(data: Path) -> dict[int, str]:
    """The processes that name the data folder on their command line or work in it."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            environment = (entry / "environ").read_bytes().decode(errors="replace")
            folder = str((entry / "cwd").readlink())
        except OSError:  # it has just ended
            continue
        if any(str(data) in text for text in (command, environment, folder)):
            found[int(entry.name)] = command
    return found


def wait_until(condition: Callable[[], object], otherwise: str, timeout_s: float = 15) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.05)


def process_named(data: Path, program: str) -> int | None:
    return next((pid for pid, command in processes_of(data).items() if command.split()[0].endswith(program)), None)


def valkey_at(variables: dict[str, str]) -> redis.Redis:
    return redis.Redis.from_url(variables["DREAM_BROKER_URL"], socket_timeout=2)


def objects_at(variables: dict[str, str]):
    return boto3.client(
        "s3",
        endpoint_url=variables["DREAM_S3_ENDPOINT_URL"],
        region_name=variables["DREAM_S3_REGION"],
        aws_access_key_id=variables["DREAM_S3_ACCESS_KEY"],
        aws_secret_access_key=variables["DREAM_S3_SECRET_KEY"],
        config=Config(s3={"addressing_style": "path"}, connect_timeout=2, read_timeout=10),
    )


def put(variables: dict[str, str]) -> None:
    """A key in Valkey and an object in the bucket."""
    with valkey_at(variables) as valkey:
        valkey.set("kept", "yes")
    objects_at(variables).put_object(Bucket=variables["DREAM_S3_BUCKET"], Key="kept", Body=b"yes")


def assert_kept(variables: dict[str, str]) -> None:
    with valkey_at(variables) as valkey:
        assert valkey.get("kept") == b"yes"
    answer = objects_at(variables).get_object(Bucket=variables["DREAM_S3_BUCKET"], Key="kept")
    assert answer["Body"].read() == b"yes"


def answers(variables: dict[str, str]) -> bool:
    try:
        assert_kept(variables)
    except Exception:  # noqa: BLE001 (whatever a server that is being started again answers with)
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_all_of_it_and_the_next_start_has_the_same_data(start, data, number) -> None:
    first = start()
    first.ready()
    before = running_variables(data)
    put(before)

    code, took_s = first.stop(number)

    assert code == 0, first.errors.read_text()
    assert took_s < 10
    assert processes_of(data) == {}

    start().ready()
    assert running_variables(data) == before | {
        name: running_variables(data)[name] for name in ("DREAM_PORT", "DREAM_GATEWAY_URL")
    }
    assert_kept(before)


def test_nothing_stays_when_it_is_killed_and_the_next_start_goes_on_with_its_data(start, data) -> None:
    first = start()
    first.ready()
    before = running_variables(data)
    put(before)

    first.stop(signal.SIGKILL)

    start().ready()  # at once: it waits for the last of the first
    assert_kept(before)


@pytest.mark.slow
def test_a_server_that_is_killed_is_started_again_on_the_same_port_with_the_same_data(start, data) -> None:
    up = start()
    up.ready()
    variables = running_variables(data)
    put(variables)

    for program in ("valkey-server", "weed"):
        killed = process_named(data, program)
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda killed=killed: killed not in processes_of(data), f"{program} did not end")
        wait_until(lambda: answers(variables), f"{program} was not started again")
        assert process_named(data, program) != killed


@pytest.mark.slow
def test_a_second_one_on_the_same_folder_is_refused_in_one_line(running: Up) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "dream", "up", "--port", "0", "--data", str(running.data)],
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert second.returncode == 1
    reason = f"a stack is already running on {running.data} (process {running.process.pid})"
    assert second.stderr.splitlines() == [f"dream: {reason}; stop it, or name another folder with --data"]
    assert running.process.poll() is None


def test_a_gateway_port_that_is_taken_is_told_in_one_line(data, tmp_path) -> None:
    with socket.create_server((stack_ports.HOST, 0)) as taken:
        port = taken.getsockname()[1]
        run = subprocess.run(
            [sys.executable, "-m", "dream", "up", "--port", str(port), "--data", str(data)],
            capture_output=True,
            text=True,
            timeout=30,
        )

    assert run.returncode == 1
    (said,) = run.stderr.splitlines()
    assert said.startswith(f"dream: port {port} is taken; choose another: --port N")
    assert processes_of(data) == {}


@pytest.mark.slow
def test_dream_env_points_a_shell_at_the_stack_that_runs_and_fails_where_none_does(start, data) -> None:
    script = f'eval "$({sys.executable} -m dream env --data {data})" && echo "$DREAM_BROKER_URL"'
    up = start()
    up.ready()

    shell = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, timeout=30)
    assert shell.stdout.strip() == running_variables(data)["DREAM_BROKER_URL"]

    up.stop()
    after = subprocess.run(
        [sys.executable, "-m", "dream", "env", "--data", str(data)], capture_output=True, text=True, timeout=30
    )
    assert (after.returncode, after.stdout) == (1, "")
    assert after.stderr.splitlines() == [f"dream: no stack is running on {data}; start one with `dream up`"]


def test_servers_only_gives_both_servers_and_takes_them_away(data) -> None:
    with servers_only(data) as variables:
        put(variables)
        assert_kept(variables)
        assert process_named(data, "weed")

    assert processes_of(data) == {}


def test_secrets_are_in_private_files_and_on_no_command_line(running: Up) -> None:
    data = running.data
    variables = running_variables(data)
    secret_names = ("DREAM_S3_SECRET_KEY", "DREAM_JWT_SECRET", "DREAM_BROKER_URL")
    password = variables["DREAM_BROKER_URL"].split(":")[2].split("@")[0]
    secrets = [variables[name] for name in secret_names] + [password]

    assert data.stat().st_mode & 0o777 == 0o700
    for name in ("stack.json", "valkey/valkey.conf", "weed/s3.json", "weed/security.toml", "weed/node.pem"):
        assert (data / name).stat().st_mode & 0o777 == 0o600
    commands = " ".join(processes_of(data).values())
    assert not [secret for secret in secrets if secret in commands]


def listening_addresses(pids: set[int]) -> list[str]:
    """The local addresses, as the kernel writes them (`0100007F:1F90`), on which these processes listen."""
    inodes = {
        link.readlink().name.removeprefix("socket:[").rstrip("]")
        for pid in pids
        for link in Path(f"/proc/{pid}/fd").iterdir()
        if link.is_symlink() and str(link.readlink()).startswith("socket:[")
    }
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return [row[1] for row in rows if row[3] == "0A" and row[9] in inodes]


def test_nothing_listens_beyond_loopback(running: Up) -> None:
    addresses = listening_addresses(set(processes_of(running.data)))

    assert len(addresses) >= 6
    assert [address for address in addresses if not address.startswith("0100007F:")] == []


@pytest.mark.parametrize("is_encrypted", [False, True], ids=["plain", "TLS"])
def test_only_s3_answers_a_stranger_on_this_machine_and_it_refuses(running: Up, is_encrypted: bool) -> None:
    weed = process_named(running.data, "weed")
    assert weed is not None
    ports = {int(address.split(":")[1], 16) for address in listening_addresses({weed})}
    state = DataFolder(running.data).load()
    assert state is not None
    assert len(ports) >= 9
    assert state.ports["filer"] in ports

    given = {port: answer for port in ports if (answer := answer_to_a_stranger(port, is_encrypted))}

    s3 = {} if is_encrypted else {state.ports["s3"]: 403}
    assert {port: status for port, status in given.items() if status != 400} == s3


@pytest.mark.slow
def test_seaweedfs_own_shell_is_a_stranger_too(running: Up, tmp_path: Path) -> None:
    state = DataFolder(running.data).load()
    assert state is not None
    servers = [f"-{name}=127.0.0.1:{state.ports[name]}" for name in ("master", "filer")]

    shell = subprocess.run(
        ["timeout", "5", Path(sys.executable).with_name("weed"), "shell", *servers],
        input="fs.ls /buckets/dream\n",
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert "kept" not in shell.stdout + shell.stderr
    assert shell.returncode != 0


def answer_to_a_stranger(port: int, is_encrypted: bool) -> int | None:
    """The status that a request without credentials for all objects gets, or None where it gets no answer."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = (
        http.client.HTTPSConnection("127.0.0.1", port, timeout=3, context=context)
        if is_encrypted
        else http.client.HTTPConnection("127.0.0.1", port, timeout=3)
    )
    try:
        connection.request("GET", "/buckets/dream/kept")
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


# --- with the parts of our own


def part_of(data: Path, name: str) -> int | None:
    """The process that `dream up` started as this part: the oldest, where it has children of its own."""
    found = [pid for pid, command in processes_of(data).items() if command.rstrip().endswith(f"-m dream {name}")]
    return min(found, default=None)


def gateway_is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=2, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.mark.slow
def test_dream_up_is_ready_once_every_part_answers_and_a_signal_stops_all_of_it(start, data) -> None:
    up = start("-m", "dream", "up", "--port", "0", "--data", str(data))
    url = up.ready()

    assert gateway_is_ready(url)
    assert all(part_of(data, name) for name in OUR_PARTS)
    assert all((data / "run" / f"{name}.ready").exists() for name in ("scheduler", "worker"))

    code, took_s = up.stop()

    assert code == 0, up.errors.read_text()
    assert took_s < 10
    assert processes_of(data) == {}


@pytest.mark.slow
def test_a_part_of_ours_that_is_killed_is_started_again_and_nothing_outlives_dream_up(start, data) -> None:
    up = start("-m", "dream", "up", "--port", "0", "--data", str(data))
    url = up.ready()

    for name in OUR_PARTS:
        killed = part_of(data, name)
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        wait_until(
            lambda name=name, killed=killed: part_of(data, name) not in (None, killed), f"{name} did not come back"
        )
    wait_until(lambda: gateway_is_ready(url), "the gateway did not come back")

    up.stop(signal.SIGKILL)

    wait_until(lambda: not processes_of(data), "processes outlived dream up", timeout_s=3)


@pytest.mark.slow
def test_a_wrong_setting_is_one_line_that_names_it_and_nothing_stays(data) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "dream", "up", "--port", "0", "--data", str(data)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "DREAM_MAX_RETRIES": "many"},
    )

    assert run.returncode == 2
    assert len(run.stderr.splitlines()) == 1
    assert run.stderr.startswith("dream: DREAM_MAX_RETRIES='many' is wrong: ")
    assert run.stdout == ""
    assert processes_of(data) == {}
