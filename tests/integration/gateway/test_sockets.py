"""The gateway's sockets, spoken to from outside: who may open one, what comes, and what ends it."""

from __future__ import annotations

import hashlib
import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import jwt
import pytest
import redis
from sqlalchemy import text, update
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from dream.db import DreamImage
from dream.messages.states import ImageState
from dream.notifications.publish import events_key
from tests.conftest import wait_for
from tests.gateway import (
    DREAM,
    KEY,
    OTHER_DREAM,
    OWNER,
    SECRET,
    STRANGER,
    Gateway,
    auth,
    closing_code,
    publish_a_gap,
    receive,
    token,
    without_pictures,
)


@pytest.mark.parametrize("slash", ["/", ""])
def test_a_query_token_opens_the_socket(gateway: Gateway, slash: str) -> None:
    """With the owner's token in the query the socket is greeted, with its dream as a number."""
    with gateway.socket(f"?token={token()}", slash=slash) as websocket:
        greeting = receive(websocket)
    assert greeting["type"] == "connection_established"
    assert greeting["dream_id"] == DREAM
    assert isinstance(greeting["message"], str)


def test_a_mistake_of_the_gateway_closes_with_1011(gateway: Gateway) -> None:
    """Also before the greeting: here Redis has a ticket that no gateway wrote."""
    name = f"{gateway.settings.redis_prefix}:ticket:{hashlib.sha256(b'odd').hexdigest()}"
    with redis.Redis.from_url(gateway.settings.events_url) as client:
        client.set(name, "odd")
    with gateway.socket("?ticket=odd") as websocket:
        assert closing_code(websocket) == 1011
    assert '"code": 1011' in gateway.log.read_text()


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


def test_an_event_that_is_no_text_holds_up_nobody(gateway: Gateway) -> None:
    """Half a surrogate pair has no UTF-8: the event comes with a substitute, and so do the next ones."""
    key = events_key(gateway.settings.redis_prefix, DREAM)
    with gateway.watching() as websocket, redis.Redis.from_url(gateway.settings.events_url) as client:
        client.xadd(key, {"event": '{"type": "image_update", "message": "\\ud800"}'})
        gateway.publish(40)
        assert receive(websocket)["message"] == "?"
        assert receive(websocket)["progress"] == 40


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


def test_a_client_of_a_quiet_dream_misses_nothing(gateway: Gateway) -> None:
    """It has seen no event yet: it gets the first ones, and nothing if there was none."""
    with gateway.socket(f"?token={token()}") as websocket:
        seq = receive(websocket)["seq"]
    with gateway.socket(f"?token={token()}&since={seq}") as websocket:
        receive(websocket)
        gateway.publish(1)
        assert receive(websocket)["progress"] == 1
    with gateway.socket(f"?token={token()}&since={seq}") as websocket:
        receive(websocket)
        assert receive(websocket)["progress"] == 1


def test_events_that_expired_with_their_stream_give_a_snapshot(start: Callable[..., Gateway]) -> None:
    """The client had seen no event, then slept for longer than Redis keeps them."""
    with start(events_ttl_s="1") as gateway, redis.Redis.from_url(gateway.settings.events_url) as client:
        image_id = gateway.add_image()
        with gateway.socket(f"?token={token()}") as websocket:
            seq = receive(websocket)["seq"]
        gateway.publish()
        key = events_key(gateway.settings.redis_prefix, DREAM)
        wait_for(lambda: not client.exists(key), what="the end of the stream")
        with gateway.socket(f"?token={token()}&since={seq}") as websocket:
            receive(websocket)
            assert [image["id"] for image in receive(websocket)["images"]] == [image_id]


def test_a_quick_client_gets_all_that_it_missed_however_much_it_is(start: Callable[..., Gateway]) -> None:
    """Many times what a slow client may be behind; and the greeting names no event that the client has not got yet."""
    with start(socket_queue_size="16") as gateway:
        with gateway.watching() as websocket:
            gateway.publish(0)
            seq = receive(websocket)["seq"]
        for number in range(1, 40):
            gateway.publish(number, message="x" * 20_000)
        with gateway.socket(f"?token={token()}&since={seq}") as websocket:
            assert "seq" not in receive(websocket)
            assert [receive(websocket)["progress"] for _ in range(1, 40)] == list(range(1, 40))


@pytest.mark.parametrize("query", ["", "&since=5-0"], ids=["live", "after a break"])
def test_a_gap_is_filled_when_the_database_answers_again(gateway: Gateway, query: str) -> None:
    """The events of the meantime come after the state; before, nothing told the client of the gap."""
    image_id = gateway.add_image()
    with ExitStack() as outage:
        if query:
            outage.enter_context(without_pictures(gateway))
        with gateway.socket(f"?token={token()}{query}") as websocket:
            assert receive(websocket)["type"] == "connection_established"
            if not query:
                outage.enter_context(without_pictures(gateway))
                publish_a_gap(gateway)
            assert receive(websocket)["type"] == "error"
            gateway.publish(50)
            outage.close()
            found = [receive(websocket)]
            while found[-1].get("progress") != 50:
                found.append(receive(websocket))
    states = [message for message in found if message.get("images")]
    assert [image["id"] for image in states[0]["images"]] == [image_id]
    assert len(states) == 1


def test_a_mistake_after_a_gap_closes_with_1011(gateway: Gateway) -> None:
    """Here a date that is none. Else later events would wait for ever."""
    gateway.add_image(ImageState.PENDING)
    with gateway.watching() as websocket:
        with gateway.database.begin() as session:
            session.execute(text("UPDATE dream_tasks SET attempts = 1, due_at = 'odd'"))
        publish_a_gap(gateway)
        assert closing_code(websocket) == 1011


def test_since_beyond_the_stream_gives_a_snapshot(gateway: Gateway) -> None:
    """If the stream does not reach back, the client gets the state of the database."""
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
        assert answer["errors"] == [{"name": "1.jpg", "position": 1, "error": "not a picture", "code": ""}]
        gateway.add_image(ImageState.PENDING, number=3)
        assert status()["status"] == "processing"


def test_malformed_messages_get_an_error_and_the_socket_stays(gateway: Gateway) -> None:
    """Wrong messages are answered with `error`; `ping` gets `pong`, `pong` gets nothing."""
    with gateway.watching() as websocket:
        odd = ["nonsense", "[]", "{}", '{"type": 5}', '{"type": "x"}', b"\xff\xfe", "[" * 15000]
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
        websocket.send("x" * 16_385)
        assert closing_code(websocket) == 1009


def test_pings_come_and_an_expired_token_closes(start: Callable[..., Gateway]) -> None:
    """The server pings with a time; a token that ends meanwhile closes the socket with 4001 at the next ping."""
    with start(ping_interval_s="0.3") as gateway, gateway.socket(f"?token={token(lasts_s=4)}") as websocket:
        receive(websocket)
        ping = receive(websocket, skip=())
        assert ping["type"] == "ping"
        assert abs(ping["timestamp"] - time.time()) < 5
        assert closing_code(websocket) == 4001


def test_a_peer_that_answers_no_ping_is_cut_and_one_that_does_stays(start: Callable[..., Gateway]) -> None:
    """Within three intervals, by pings of the protocol: the client that stays sends no message."""
    head = f"GET /ws/dream-images/{DREAM}/?token={token()} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
    head += "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    with (
        start(ping_interval_s="0.5") as gateway,
        gateway.watching() as alive,
        socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as dead,
    ):
        dead.sendall(head.encode())
        said = b""
        with suppress(ConnectionResetError):
            while data := dead.recv(4096):
                said += data
        assert 2 <= said.count(b"\x89\x00") <= 3
        gateway.publish(5)
        assert receive(alive)["progress"] == 5


def test_the_python_example_works(start: Callable[..., Gateway], capsys: pytest.CaptureFixture[str]) -> None:
    """It sends its token in a header, and prints an event."""
    page = Path(__file__).parents[3].joinpath("docs/live.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    exec(page.partition("```python\n")[2].partition("```")[0], names)  # noqa: S102 (of our own page)
    printed = ""

    def watch(address: str) -> None:
        with suppress(ConnectionClosed):
            names["watch"](address, token())

    def has_printed() -> bool:
        nonlocal printed
        gateway.publish(40)
        printed += capsys.readouterr().out
        return "processing 40" in printed

    with start() as gateway:
        watcher = threading.Thread(target=watch, args=(f"ws://127.0.0.1:{gateway.port}",), daemon=True)
        watcher.start()
        wait_for(has_printed, what="the printed event")
    watcher.join(20)
    assert not watcher.is_alive()


def test_logging_out_closes_sockets_and_refuses_the_token(start: Callable[..., Gateway]) -> None:
    """A revoked token ends its sockets at the next ping and opens nothing more; to revoke it again is no error."""
    own = token(jti="j1")
    with start(ping_interval_s="0.3") as gateway, gateway.socket(f"?token={own}") as websocket:
        receive(websocket)
        assert gateway.http.post("/api/auth/logout", headers=auth(own)).status_code == 204
        assert closing_code(websocket) == 4001
        assert gateway.http.post("/api/auth/logout", headers=auth(own)).status_code == 204
        answer = gateway.http.get(f"/api/dreams/{DREAM}/images", headers=auth(own))
        assert (answer.status_code, answer.json()) == (
            401,
            {"error": "the token was revoked", "code": "token_rejected"},
        )
        answer = gateway.http.post("/api/auth/logout", headers=auth())
        assert answer.status_code == 400
        assert "jti" in answer.json()["error"]


@pytest.mark.slow
def test_a_slow_socket_is_cut_and_holds_up_nobody(start: Callable[..., Gateway]) -> None:
    """A client that reads nothing is cut with 4008; another of the same dream gets every event meanwhile."""
    progress: list[int] = []

    def read(websocket: ClientConnection) -> None:
        while len(progress) < 400:
            progress.append(receive(websocket)["progress"])

    with (
        start(socket_queue_size="16") as gateway,
        gateway.watching() as quick,
        gateway.socket(f"?token={token()}", max_queue=1),
    ):
        reader = threading.Thread(target=read, args=(quick,))
        reader.start()
        for number in range(400):
            gateway.publish(number, message="x" * 50_000)
            wait_for(lambda sent=number: len(progress) >= sent - 8 or not reader.is_alive())
        reader.join(30)
        assert progress == list(range(400))
        wait_for(lambda: '"code": 4008' in gateway.log.read_text(), what="the cut")


@contextmanager
def reading_slowly(gateway: Gateway, query: str = "") -> Iterator[Callable[[int, float], bytes]]:
    """A socket that reads up to some bytes, so many a second. Its system takes little, so the gateway's has to wait."""
    with socket.socket() as raw:
        raw.settimeout(20)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        raw.connect(("127.0.0.1", gateway.port))
        raw.sendall(
            f"GET /ws/dream-images/{DREAM}/?token={token()}{query} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        greeting = b""
        while b"connection_established" not in greeting:
            data = raw.recv(200)
            assert data, greeting
            greeting += data

        def read(most_bytes: int, bytes_per_s: float) -> bytes:
            said, began, paused_at = bytearray(), time.monotonic(), 0
            while len(said) < most_bytes and (data := raw.recv(16384)):
                said += data
                if len(said) - paused_at > 50_000:
                    paused_at = len(said)
                    due = began + paused_at / bytes_per_s
                    wait_for(lambda due=due: time.monotonic() >= due)
            return bytes(said)

        yield read


@pytest.mark.slow
def test_a_slow_client_that_still_reads_is_told_4008(start: Callable[..., Gateway]) -> None:
    """It needs twice as long as a peer has that does not read at all."""
    with start(max_sockets_per_user="1") as gateway, reading_slowly(gateway) as read:

        def has_ended() -> bool:
            """Its user may open another socket."""
            gateway.publish(message="x" * 500_000)
            with gateway.socket(f"?token={token()}") as other, suppress(ConnectionClosed):
                return bool(receive(other))
            return False

        wait_for(has_ended, 40, "the end of the slow socket")
        said = read(20_000_000, 700_000)
    assert (4008).to_bytes(2, "big") + b"you " in said[-130:]


@pytest.mark.slow
def test_a_client_that_reads_steadily_is_not_cut(start: Callable[..., Gateway]) -> None:
    """It is behind for longer than a client may be that takes nothing: a large answer needs its time on a phone."""
    with start(socket_queue_size="1024") as gateway, reading_slowly(gateway) as read:
        for number in range(14):
            gateway.publish(number, message="x" * 500_000)
        read(1_800_000, 100_000)
        gateway.publish(14)
        rest = b""
        while b'"progress":14,' not in rest:
            more = read(1, 1_000_000)
            assert more, rest[-200:]
            rest += more


@pytest.mark.slow
def test_unread_snapshots_of_all_clients_together_have_a_limit(start: Callable[..., Gateway]) -> None:
    """The one that waits longest is cut. The system takes some MB of each."""
    with start(max_unread_bytes="20000000") as gateway:
        gateway.add_image(ImageState.FAILED)
        with gateway.database.begin() as session:
            session.execute(update(DreamImage).values(error="x" * 16_000_000))
        with reading_slowly(gateway, "&since=1-1"), reading_slowly(gateway, "&since=1-1") as read:
            wait_for(lambda: "unread_data_dropped" in gateway.log.read_text(), what="the cut")
            assert len(read(16_000_000, 1e9)) >= 16_000_000
        assert gateway.log.read_text().count("unread_data_dropped") == 1


@pytest.mark.slow
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


def test_a_stop_closes_sockets_with_1012_and_ends_the_process(start: Callable[..., Gateway]) -> None:
    """SIGTERM: every socket is told 1012, and the process ends with 0 within seconds."""
    with start() as gateway:
        with gateway.watching() as websocket:
            began = time.monotonic()
            gateway.process.send_signal(signal.SIGTERM)
            assert closing_code(websocket) == 1012
        assert gateway.process.wait(10) == 0
        assert time.monotonic() - began < 8


def test_sockets_work_without_redis(start: Callable[..., Gateway]) -> None:
    """Without Redis a socket is greeted, answers and pings all the same; events are a courtesy."""
    with start(redis_url="redis://127.0.0.1:1/0") as gateway, gateway.watching() as websocket:
        websocket.send('{"type": "request_status"}')
        assert receive(websocket)["status"] == "completed"
