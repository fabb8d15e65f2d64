"""The gateway as a process of its own, spoken to from outside: real sockets, Valkey, SeaweedFS and database."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
import redis
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from dream.db import Base, Database, DreamImage, DreamTask, images
from dream.db.dreams import give_to
from dream.messages import PROCESS_IMAGES, ImageState, ImageUpdate, UpdateStatus, VariantRef
from dream.notifications import Publisher
from dream.settings import Settings
from dream.storage import Storage
from tests.conftest import environment_in, prepare, settings_from, wait_for

SECRET = "a secret of the tests, 32 bytes or more"
OWNER, STRANGER = 11, 22
DREAM, OTHER_DREAM = 7, 8
KEY = "dreams/20260101/" + "0" * 32 + ".jpg"
START = "from dream.gateway.server import run; from dream.log import configure; from dream.settings import load\n"
START += "configure(load()); raise SystemExit(run(load()))"


def token(user_id: Any = OWNER, *, lasts_s: float = 60, **claims: Any) -> str:
    return jwt.encode({"user_id": user_id, "exp": time.time() + lasts_s, **claims}, SECRET, "HS256")


class Gateway:
    """A running gateway and what tests need around it."""

    def __init__(self, environment: dict[str, str], settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.database = Database(settings)
        self.publisher = Publisher(settings)
        self.log = folder / "gateway.log"
        self._ready = folder / "ready"
        self._ready.unlink(missing_ok=True)
        own = {"DREAM_JWT_SECRET": SECRET, "DREAM_READY_FILE": str(self._ready)}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", START],
                env={**os.environ, "DREAM_PORT": "0", **environment, **own},
                stderr=log,
            )

    def __enter__(self) -> Gateway:
        wait_for(lambda: self._ready.exists() or self.process.poll() is not None, what="the gateway")
        assert self.process.poll() is None, self.log.read_text()
        self.port = int(self._ready.read_text())
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=20)
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()
        self.process.terminate()
        try:
            self.process.wait(10)
        finally:
            self.process.kill()
            self.process.wait()
            self.publisher.close()
            self.database.dispose()

    @contextmanager
    def socket(
        self, query: str = "", *, dream_id: Any = DREAM, slash: str = "/", **how: Any
    ) -> Iterator[ClientConnection]:
        address = f"ws://127.0.0.1:{self.port}/ws/dream-images/{dream_id}{slash}{query}"
        with connect(address, open_timeout=20, **how) as websocket:
            yield websocket

    @contextmanager
    def watching(self, **how: Any) -> Iterator[ClientConnection]:
        """A socket that is connected and greeted."""
        with self.socket(f"?token={token()}", **how) as websocket:
            assert receive(websocket)["type"] == "connection_established"
            yield websocket

    def publish(self, progress: int = 1, *, dream_id: int = DREAM, message: str | None = None) -> None:
        event = ImageUpdate(
            dream_id=dream_id, status=UpdateStatus.PROCESSING, progress=progress, message=message, task_id="t"
        )
        assert self.publisher.publish(event)

    def add_image(self, state: ImageState = ImageState.COMPLETED, *, number: int = 0, dream_id: int = DREAM) -> int:
        key = KEY.replace("0" * 32, f"{number:032x}")
        with self.database.begin() as session:
            if session.get(DreamTask, f"task{number}") is None:
                session.add(DreamTask(id=f"task{number}", name=PROCESS_IMAGES, args=[]))
                session.flush()
            image = DreamImage(
                dream_id=dream_id, task_id=f"task{number}", index=0, position=number, filename=f"{number}.jpg"
            )
            image.state, image.storage_key, image.bucket = state, key, self.settings.s3_bucket
            image.url = f"{self.settings.media_url}/{key}" if state is ImageState.COMPLETED else None
            image.error = "not a picture" if state is ImageState.FAILED else None
            session.add(image)
            session.flush()
            return image.id


def receive(websocket: ClientConnection, *, skip: tuple[str, ...] = ("ping",)) -> dict[str, Any]:
    while True:
        message: dict[str, Any] = json.loads(websocket.recv(timeout=20))
        if message["type"] not in skip:
            return message


def closing_code(websocket: ClientConnection) -> int | None:
    """Read until the server closes, and say with which code."""
    with suppress(ConnectionClosed):
        while True:
            websocket.recv(timeout=20)
    return websocket.close_code


def auth(value: str | None = None) -> dict[str, str]:
    return {"Authorization": f"Bearer {value or token()}"}


@pytest.fixture
def start(
    environment: dict[str, str], settings_of: Callable[..., Settings], settings: Settings, tmp_path: Path
) -> Callable[..., Gateway]:
    """Make a gateway with a dream of OWNER's and one of STRANGER's."""

    def make(**changes: str) -> Gateway:
        own = {**environment, "DREAM_PORT": "0", **{f"DREAM_{name.upper()}": value for name, value in changes.items()}}
        gateway = Gateway(own, settings_of(own), tmp_path)
        with gateway.database.begin() as session:
            give_to(session, DREAM, OWNER, "olga")
            give_to(session, OTHER_DREAM, STRANGER, "sam")
        return gateway

    return make


@contextmanager
def running(folder: Path, servers: dict[str, str], **changes: str) -> Iterator[Gateway]:
    # The variables of the servers name one port for all.
    environment = {**environment_in(folder, servers), "DREAM_PORT": "0", **changes}
    with Gateway(environment, prepare(settings_from(environment)), folder) as gateway:
        yield gateway


def emptied(gateway: Gateway) -> Gateway:
    """A gateway with nothing left of other tests, and with a dream of OWNER's and one of STRANGER's."""
    settings, storage = gateway.settings, Storage(gateway.settings)
    with gateway.database.begin() as session:
        for table in reversed(Base.metadata.sorted_tables):
            session.execute(table.delete())
        give_to(session, DREAM, OWNER, "olga")
        give_to(session, OTHER_DREAM, STRANGER, "sam")
    storage.delete(settings.s3_bucket, [key for key, _ in storage.list_keys(settings.s3_bucket, "")])
    with redis.Redis.from_url(settings.events_url) as client:
        for key in client.scan_iter(f"{settings.redis_prefix}:*"):
            client.delete(key)
    return gateway


@pytest.fixture(scope="module")
def plain(servers: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One process for all tests that change no setting: to start one takes a second."""
    with running(tmp_path_factory.mktemp("gateway"), servers) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def limited(servers: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    limits = {
        "DREAM_MAX_UPLOAD_BYTES": "1000",
        "DREAM_MAX_FILES_PER_UPLOAD": "4",
        "DREAM_MAX_REQUEST_BYTES": "100000",
    }
    with running(tmp_path_factory.mktemp("limited"), servers, **limits) as gateway:
        yield gateway


@pytest.fixture
def gateway(plain: Gateway) -> Gateway:
    return emptied(plain)


@pytest.fixture
def strict(limited: Gateway) -> Gateway:
    """A gateway that takes little."""
    return emptied(limited)


# --- sockets


@pytest.mark.parametrize("slash", ["/", ""])
def test_a_query_token_opens_the_socket(gateway: Gateway, slash: str) -> None:
    """With the owner's token in the query the socket is greeted, with its dream as a number."""
    with gateway.socket(f"?token={token()}", slash=slash) as websocket:
        greeting = receive(websocket)
    assert greeting["type"] == "connection_established"
    assert greeting["dream_id"] == DREAM
    assert isinstance(greeting["message"], str)


@pytest.mark.parametrize("prefix", ["Bearer ", ""])
def test_a_first_message_opens_the_socket(gateway: Gateway, prefix: str) -> None:
    """Older clients authenticate by their first message, with `Bearer` or bare."""
    with gateway.socket() as websocket:
        websocket.send(json.dumps({"type": "authenticate", "token": prefix + token(str(OWNER))}))
        assert receive(websocket)["type"] == "connection_established"


@pytest.mark.parametrize(
    "bad",
    [
        "nonsense",
        token(STRANGER),
        token(lasts_s=-1),
        jwt.encode({"user_id": OWNER}, SECRET),
        jwt.encode({"user_id": OWNER, "exp": 2**33}, SECRET + "!"),
        jwt.encode({"exp": 2**33}, SECRET),
        jwt.encode({"user_id": OWNER, "exp": 2**33}, None, "none"),
        token(token_type="refresh"),
    ],
    ids=["nonsense", "stranger", "expired", "no exp", "other key", "no user", "unsigned", "refresh"],
)
def test_other_tokens_close_with_4001(gateway: Gateway, bad: str) -> None:
    """A token that is wrong in any way, by query or by message, closes the socket with 4001."""
    with gateway.socket(f"?token={bad}") as websocket:
        assert closing_code(websocket) == 4001
    with gateway.socket() as websocket:
        websocket.send(json.dumps({"type": "authenticate", "token": bad}))
        assert closing_code(websocket) == 4001


@pytest.mark.parametrize("dream_id", [999, 0, 9999999999999999999])
def test_a_dream_that_is_not_there_closes_with_4001(gateway: Gateway, dream_id: int) -> None:
    """Nobody owns a dream that does not exist."""
    with gateway.socket(f"?token={token()}", dream_id=dream_id) as websocket:
        assert closing_code(websocket) == 4001


@pytest.mark.parametrize("first", ['{"type": "ping"}', "nonsense", '{"type": "authenticate"}'])
def test_a_first_message_without_token_closes_with_4001(gateway: Gateway, first: str) -> None:
    with gateway.socket() as websocket:
        websocket.send(first)
        assert closing_code(websocket) == 4001


def test_events_of_the_dream_arrive_and_no_others(gateway: Gateway) -> None:
    """An event reaches every socket of its dream, with its fields, `seq` and a number as `dream_id`."""
    with gateway.watching() as first, gateway.watching() as second:
        gateway.publish(dream_id=OTHER_DREAM)
        gateway.publish(40, message="half way")
        for websocket in (first, second):
            event = receive(websocket)
            assert (event["dream_id"], event["status"], event["progress"]) == (DREAM, "processing", 40)
            assert (event["message"], event["images"], event["task_id"]) == ("half way", [], "t")
            assert event["seq"]


def test_since_gives_what_was_missed(gateway: Gateway) -> None:
    """A client that comes back with the last `seq` it saw gets what followed, in order, then goes on live."""
    with gateway.watching() as websocket:
        gateway.publish(1)
        seq = receive(websocket)["seq"]
    for number in (2, 3):
        gateway.publish(number)
    with gateway.socket(f"?token={token()}&since={seq}") as websocket:
        assert receive(websocket)["type"] == "connection_established"
        gateway.publish(4)
        assert [receive(websocket)["progress"] for _ in range(3)] == [2, 3, 4]


def test_since_beyond_the_stream_gives_a_snapshot(gateway: Gateway) -> None:
    """Where the stream does not reach back, the client gets what the database has."""
    image_id = gateway.add_image()
    with gateway.socket(f"?token={token()}&since=5-0") as websocket:
        receive(websocket)
        snapshot = receive(websocket)
    assert snapshot["status"] == "completed"
    assert [image["id"] for image in snapshot["images"]] == [image_id]


def test_request_status_is_answered_from_the_database(gateway: Gateway) -> None:
    """The answer lists finished pictures, says `processing` while any is in work, and `failed` where all failed."""
    with gateway.watching() as websocket:

        def status() -> dict[str, Any]:
            websocket.send('{"type": "request_status"}')
            return receive(websocket)

        assert (status()["status"], status()["images"]) == ("completed", [])
        gateway.add_image(ImageState.FAILED, number=1)
        assert status()["status"] == "failed"
        done = gateway.add_image(number=2)
        answer = status()
        assert answer["status"] == "completed"
        url = f"{gateway.settings.media_url}/{KEY.replace('0' * 32, f'{2:032x}')}"
        assert answer["images"] == [{"id": done, "url": url, "position": 2}]
        assert answer["errors"] == [{"name": "1.jpg", "position": 1, "error": "not a picture"}]
        gateway.add_image(ImageState.PENDING, number=3)
        assert status()["status"] == "processing"


def test_malformed_messages_get_an_error_and_the_socket_stays(gateway: Gateway) -> None:
    """Whatever a client says wrongly is answered with `error`; `ping` gets `pong`, `pong` gets nothing."""
    with gateway.watching() as websocket:
        odd = ["nonsense", "[]", "{}", '{"type": 5}', '{"type": "x"}', b"\xff\xfe", "[" * 20000]
        for message in odd:
            websocket.send(message)
            assert receive(websocket)["type"] == "error", message
        websocket.send('{"type": "pong"}')
        websocket.send('{"type": "ping"}')
        answer = receive(websocket)
        assert answer["type"] == "pong"
        assert abs(answer["timestamp"] - time.time()) < 5


def test_an_oversized_message_ends_the_socket(gateway: Gateway) -> None:
    with gateway.watching() as websocket:
        websocket.send("x" * 100_000)
        assert closing_code(websocket) == 1009


def test_pings_come_and_an_expired_token_closes(start: Callable[..., Gateway]) -> None:
    """The server pings with a time; a token that ends meanwhile closes the socket with 4001 at the next ping."""
    with start(ping_interval_s="0.3") as gateway, gateway.socket(f"?token={token(lasts_s=2)}") as websocket:
        receive(websocket)
        ping = receive(websocket, skip=())
        assert ping["type"] == "ping"
        assert abs(ping["timestamp"] - time.time()) < 5
        assert closing_code(websocket) == 4001


def test_logging_out_closes_sockets_and_refuses_the_token(start: Callable[..., Gateway]) -> None:
    """A revoked token ends its sockets at the next ping and opens nothing more; to revoke it again is no error."""
    own = token(jti="j1")
    with start(ping_interval_s="0.3") as gateway, gateway.socket(f"?token={own}") as websocket:
        receive(websocket)
        assert gateway.http.post("/api/auth/logout", headers=auth(own)).status_code == 204
        assert closing_code(websocket) == 4001
        assert gateway.http.post("/api/auth/logout", headers=auth(own)).status_code == 204
        answer = gateway.http.get(f"/api/dreams/{DREAM}/images", headers=auth(own))
        assert (answer.status_code, answer.json()) == (401, {"error": "the token was revoked"})
        answer = gateway.http.post("/api/auth/logout", headers=auth())
        assert answer.status_code == 400
        assert "jti" in answer.json()["error"]


def test_a_slow_socket_is_cut_and_holds_up_nobody(start: Callable[..., Gateway]) -> None:
    """A client that reads nothing is cut with 4008; another of the same dream gets every event meanwhile."""
    progress: list[int] = []

    def read(websocket: ClientConnection) -> None:
        while len(progress) < 400:
            progress.append(receive(websocket)["progress"])

    with (
        start(socket_queue_size="16") as gateway,
        gateway.watching() as quick,
        gateway.socket(f"?token={token()}", max_queue=1) as slow,
    ):
        reader = threading.Thread(target=read, args=(quick,))
        reader.start()
        for number in range(400):
            gateway.publish(number, message="x" * 50_000)
            wait_for(lambda sent=number: len(progress) >= sent - 8 or not reader.is_alive())
        reader.join(30)
        assert progress == list(range(400))
        assert closing_code(slow) == 4008


def test_a_client_that_never_reads_leaves_no_connection(start: Callable[..., Gateway]) -> None:
    """A cut client's connection is dropped, though it never takes the close frame."""
    with start(socket_queue_size="4") as gateway, socket.create_connection(("127.0.0.1", gateway.port)) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.sendall(
            f"GET /ws/dream-images/{DREAM}/?token={token()} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        assert b"101" in raw.recv(200)

        def is_cut() -> bool:
            gateway.publish(message="x" * 500_000)
            return '"code": 4008' in gateway.log.read_text()

        wait_for(is_cut, 30, "the cut")
        wait_for(lambda: _is_reset(raw), 15, "the end of the connection")


def _is_reset(raw: socket.socket) -> bool:
    try:
        raw.send(b"\x8a\x80\0\0\0\0")  # a pong
    except OSError:
        return True
    return False


def test_a_stop_closes_sockets_with_1001_and_ends_the_process(start: Callable[..., Gateway]) -> None:
    """SIGTERM: every socket is told 1001, and the process ends with 0 within seconds."""
    with start() as gateway:
        with gateway.watching() as websocket:
            began = time.monotonic()
            gateway.process.send_signal(signal.SIGTERM)
            assert closing_code(websocket) == 1001
        assert gateway.process.wait(10) == 0
        assert time.monotonic() - began < 8


def test_the_log_never_shows_a_token(start: Callable[..., Gateway]) -> None:
    """Requests and sockets are logged by their path alone."""
    own = token()
    with start() as gateway:
        with gateway.socket(f"?token={own}") as websocket:
            receive(websocket)
        gateway.http.get(f"/healthz?token={own}")
        gateway.http.get(f"/api/dreams/{DREAM}/images", headers=auth(own))
        wait_for(lambda: "socket_closed" in gateway.log.read_text())
        assert '"path": "/healthz"' in gateway.log.read_text()
        assert own not in gateway.log.read_text()
        assert own.split(".")[2] not in gateway.log.read_text()


# --- REST


def staged(gateway: Gateway) -> int:
    return len(list(Storage(gateway.settings).list_keys(gateway.settings.staging_bucket, "staging/")))


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        ({}, [0, 0]),
        ({"positions": ["3", "9"]}, [3, 9]),
        ({"positions": "3,9"}, [3, 9]),
        ({"positions": "[3, 9]"}, [3, 9]),
    ],
    ids=["none", "repeated", "commas", "json"],
)
def test_an_upload_is_accepted_with_its_positions(
    gateway: Gateway, positions: dict[str, Any], expected: list[int]
) -> None:
    """202 names the task; rows and staged bytes are there, with names and positions in the order of the form."""
    files = [("files", ("ä.jpg", b"one")), ("images", ("b.jpg", b"two" * 1_000_000))]
    answer = gateway.http.post(f"/api/dreams/{DREAM}/images", files=files, data=positions, headers=auth())
    assert answer.status_code == 202, answer.text
    listed = gateway.http.get(f"/api/dreams/{DREAM}/images", headers=auth()).json()
    assert [image["position"] for image in listed] == expected
    assert [image["filename"] for image in listed] == ["ä.jpg", "b.jpg"]
    assert {image["task_id"] for image in listed} == {answer.json()["task_id"]}
    assert {image["state"] for image in listed} == {"pending"}
    assert staged(gateway) == 2


#: The first file is whole.
CUT_OFF = b"".join(
    b'--b\r\nContent-Disposition: form-data; name="files"; filename="%b"\r\n\r\n%b' % part
    for part in ((b"a.jpg", b"whole\r\n"), (b"b.jpg", b"ha"))
)


@pytest.mark.parametrize(
    ("status", "form"),
    [
        (413, {"files": [("files", ("big.jpg", b"x" * 1001))]}),
        (413, {"files": [("files", ("ok.jpg", b"x")), ("files", ("big.jpg", b"x" * 50_000))]}),
        (413, {"files": [("files", (f"{n}.jpg", b"x")) for n in range(5)]}),
        (413, {"files": [("files", ("big.jpg", b"x" * 3_000_000))]}),
        (400, {"files": [("other", ("", b""))]}),
        (400, {"files": [("files", ("empty.jpg", b""))]}),
        (400, {"files": [("files", ("a.jpg", b"x"))], "data": {"positions": "1,2"}}),
        (400, {"files": [("files", ("a.jpg", b"x"))], "data": {"positions": "one"}}),
        (400, {"files": [("files", ("a.jpg", b"x"))], "data": {"positions": str(2**40)}}),
        (400, {"content": b"nonsense", "headers": {"Content-Type": "multipart/form-data; boundary=b"}}),
        (400, {"content": b"nonsense", "headers": {"Content-Type": "multipart/form-data"}}),
        (400, {"content": CUT_OFF, "headers": {"Content-Type": "multipart/form-data; boundary=b"}}),
        (415, {"json": {}}),
    ],
    ids=[
        "file",
        "second file",
        "count",
        "length",
        "none",
        "empty",
        "positions",
        "word",
        "range",
        "form",
        "boundary",
        "cut off",
        "json",
    ],
)
def test_a_wrong_upload_is_refused_and_leaves_nothing(strict: Gateway, status: int, form: dict[str, Any]) -> None:
    """What is too large, too many or malformed is one clear sentence; neither rows nor bytes stay behind."""
    own = {**form, "headers": {**form.get("headers", {}), **auth()}}
    answer = strict.http.post(f"/api/dreams/{DREAM}/images", **own)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]
    assert strict.http.get(f"/api/dreams/{DREAM}/images", headers=auth()).json() == []
    assert staged(strict) == 0


def test_a_user_with_too_much_waiting_is_told_to_come_back(start: Callable[..., Gateway]) -> None:
    """429 with Retry-After, before the bytes are read; what waits already stays."""
    files = [("files", ("a.jpg", b"x"))]
    with start(max_pending_per_user="2") as gateway:
        address = f"/api/dreams/{DREAM}/images"
        assert gateway.http.post(address, files=files * 2, headers=auth()).status_code == 202
        refused = gateway.http.post(address, files=files, headers=auth())
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) > 0
        assert "DREAM_MAX_PENDING_PER_USER" in refused.json()["error"]
        assert staged(gateway) == 2


def test_an_upload_of_unknown_length_is_counted_while_it_is_read(start: Callable[..., Gateway]) -> None:
    """A chunked upload is refused once it has passed the limit, and nothing stays behind."""
    head = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=b", **auth()}
    with start(max_request_bytes="100000") as gateway:
        body = (head, *[b"x" * 65536] * 20)
        answer = gateway.http.post(f"/api/dreams/{DREAM}/images", content=iter(body), headers=headers)
        assert answer.status_code == 413
        assert "100000 bytes" in answer.json()["error"]
        assert staged(gateway) == 0


def test_only_the_owner_may_touch_a_dream(gateway: Gateway) -> None:
    """401 without a token, 403 for a stranger, 404 where there is no such dream: for each method."""
    image_id = gateway.add_image()
    for method, path in (("GET", ""), ("POST", ""), ("DELETE", f"/{image_id}")):
        for headers, dream_id, status in (({}, DREAM, 401), (auth(token(STRANGER)), DREAM, 403), (auth(), 999, 404)):
            answer = gateway.http.request(method, f"/api/dreams/{dream_id}/images{path}", headers=headers)
            assert answer.status_code == status, (method, path)
            assert set(answer.json()) == {"error"}


def test_deleting_an_image_hides_it_at_once(gateway: Gateway) -> None:
    """202 with a task; the picture is gone from the list and from /media; other dreams' images are 404."""
    image_id, other = gateway.add_image(), gateway.add_image(number=1, dream_id=OTHER_DREAM)
    assert gateway.http.get(f"/media/{KEY}").status_code == 302
    assert gateway.http.delete(f"/api/dreams/{DREAM}/images/{other}", headers=auth()).status_code == 404
    answer = gateway.http.delete(f"/api/dreams/{DREAM}/images/{image_id}", headers=auth())
    assert answer.status_code == 202
    assert answer.json()["task_id"]
    assert gateway.http.get(f"/api/dreams/{DREAM}/images", headers=auth()).json() == []
    assert gateway.http.get(f"/media/{KEY}").status_code == 404
    assert gateway.http.delete(f"/api/dreams/{DREAM}/images/{image_id}", headers=auth()).status_code == 404


def test_media_knows_the_variants_of_a_picture_for_as_long_as_it_is_there(gateway: Gateway) -> None:
    """They are listed with the picture, redirect to a GET that works, and are 404 from its deletion on."""
    image_id = gateway.add_image()
    key, other = KEY.replace(".jpg", "_thumb.jpg"), KEY.replace(".jpg", "_other.jpg")
    thumb = VariantRef(
        name="thumb",
        url=f"{gateway.settings.media_url}/{key}",
        width_px=32,
        height_px=24,
        size_bytes=5,
        content_type="image/jpeg",
    )
    with gateway.database.begin() as session:
        image = images.by_id(session, DREAM, image_id)
        assert image is not None
        image.variants = [thumb]
    Storage(gateway.settings).put_bytes(gateway.settings.s3_bucket, key, b"thumb")
    (listed,) = gateway.http.get(f"/api/dreams/{DREAM}/images", headers=auth()).json()
    assert listed["variants"] == [thumb]
    assert httpx.get(gateway.http.get(f"/media/{key}").headers["location"]).content == b"thumb"
    for unknown in (other, key.replace(".jpg", ".webp"), KEY.replace(".jpg", "_.jpg")):
        assert gateway.http.get(f"/media/{unknown}").status_code == 404, unknown
    assert gateway.http.delete(f"/api/dreams/{DREAM}/images/{image_id}", headers=auth()).status_code == 202
    assert gateway.http.get(f"/media/{key}").status_code == 404


def test_media_redirects_to_a_get_that_works(gateway: Gateway) -> None:
    """A finished picture's URL leads to its bytes; the redirect may be kept for less time than it is valid."""
    gateway.add_image()
    Storage(gateway.settings).put_bytes(gateway.settings.s3_bucket, KEY, b"bytes")
    answer = gateway.http.get(f"/media/{KEY}")
    assert answer.status_code == 302
    assert answer.headers["cache-control"] == "no-store"
    assert httpx.get(answer.headers["location"]).content == b"bytes"


@pytest.mark.parametrize(
    "state", [ImageState.PENDING, ImageState.FAILED, ImageState.DELETING, ImageState.DELETED, None]
)
def test_media_is_404_for_what_is_not_finished(gateway: Gateway, state: ImageState | None) -> None:
    if state is not None:
        gateway.add_image(state)
    for key in (KEY, "x", "../../etc/passwd", "%00"):
        assert gateway.http.get(f"/media/{key}").status_code == 404


def test_unknown_addresses_and_methods_are_json(gateway: Gateway) -> None:
    """Errors of the router are sentences in JSON, too; CORS is off."""
    for method, path, status in (("GET", "/nowhere", 404), ("PUT", "/healthz", 405), ("GET", "/static/x", 404)):
        answer = gateway.http.request(method, path, headers={"Origin": "http://elsewhere"})
        assert (answer.status_code, set(answer.json())) == (status, {"error"})
        assert "access-control-allow-origin" not in answer.headers


def test_health_and_readiness(start: Callable[..., Gateway], settings: Settings) -> None:
    """`/healthz` says that the process is up; `/readyz` says which server is away, with Retry-After."""
    with start() as gateway:
        assert gateway.http.get("/healthz").json() == {"status": "ok"}
        assert gateway.http.get("/readyz").json() == {"status": "ok", "database": "ok", "redis": "ok", "bucket": "ok"}
    with start(s3_bucket="missing-bucket", redis_url="redis://127.0.0.1:1/0") as gateway:
        answer = gateway.http.get("/readyz")
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert answer.json()["error"] == "not ready: redis, bucket"
        assert answer.json()["database"] == "ok"


def test_sockets_work_without_redis(start: Callable[..., Gateway]) -> None:
    """Without Redis a socket is greeted, answers and pings all the same; events are a courtesy."""
    with start(redis_url="redis://127.0.0.1:1/0") as gateway, gateway.watching() as websocket:
        websocket.send('{"type": "request_status"}')
        assert receive(websocket)["status"] == "completed"


def test_an_upload_without_the_object_store_is_503(start: Callable[..., Gateway]) -> None:
    """503 with Retry-After where the store is away, and no rows."""
    with start(s3_endpoint_url="http://127.0.0.1:1", s3_connect_timeout_s="0.5") as gateway:
        files = [("files", ("a.jpg", b"one"))]
        answer = gateway.http.post(f"/api/dreams/{DREAM}/images", files=files, headers=auth())
        assert (answer.status_code, set(answer.json())) == (503, {"error"})
        assert int(answer.headers["retry-after"]) > 0
        with gateway.database.read() as session:
            assert images.list_images(session, DREAM) == []


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"DREAM_JWT_SECRET": ""}, "DREAM_JWT_SECRET is missing"),
        ({"DREAM_JWT_ALGORITHMS": "HS256,RS256"}, "DREAM_JWT_ALGORITHMS=HS256,RS256 is wrong"),
        ({"DREAM_JWT_ALGORITHMS": "XX1"}, "XX1 is not known"),
        ({"DREAM_PORT": "1", "DREAM_HOST": "192.0.2.1"}, "cannot be listened on"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_gateway_with_wrong_settings_does_not_start(
    environment: dict[str, str], variables: dict[str, str], expected: str
) -> None:
    """One line says what is wrong, before anything is served."""
    ended = subprocess.run(
        [sys.executable, "-c", START],
        env={**os.environ, **environment, "DREAM_JWT_SECRET": SECRET, **variables},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert ended.returncode != 0
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith("dream.errors.SettingsError: ")
    assert expected in last


def test_the_page_is_protected(gateway: Gateway) -> None:
    """The page runs no inline script and talks to nobody but its gateway and the picture store."""
    answer = gateway.http.get("/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert "<script>" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"
    for name in ("page.js", "page.css"):
        assert gateway.http.get(f"/static/{name}").status_code == 200
