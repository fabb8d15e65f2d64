"""The gateway's metrics: routes, sockets and events, on a port of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dream.db import images
from dream.storage import Storage
from tests.conftest import IN_CI, wait_for
from tests.gateway import DREAM, KEY, OTHER_DREAM, Gateway, auth, closing_code, emptied, receive, running, token
from tests.scraping import Scrape, free_port, until

PORT = "DREAM_METRICS_PORT"


@pytest.fixture(scope="module")
def measured(servers: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, int]]:
    folder, port = tmp_path_factory.mktemp("measured"), free_port()
    with running(folder, servers, **{PORT: str(port), "DREAM_METRICS_DIR": str(folder)}) as gateway:
        yield emptied(gateway), port


def test_requests_are_counted_by_route_and_not_by_path(measured: tuple[Gateway, int]) -> None:
    gateway, port = measured
    for dream_id in (DREAM, OTHER_DREAM, 4711):
        gateway.http.get(f"/api/dreams/{dream_id}/images", headers=auth())
    gateway.http.get("/nobody/knows/this")
    gateway.http.request("PROPFIND", "/")
    route = "/api/dreams/{dream_id:id}/images"

    def counted(now: Scrape) -> list[float | None]:
        """A request is counted once its answer is out."""
        name = "dream_http_request_seconds_count"
        return [now.sum(name, route=route, method="GET"), now.sum(name, method="other")]

    now = until(port, lambda now: counted(now) == [3, 1], "all requests")
    assert now.sum("dream_http_request_seconds_count", route=route, status="200") == 1
    assert now.sum("dream_http_request_seconds_count", route="none", status="404") == 1
    for private in ("4711", "nobody", "PROPFIND", str(OTHER_DREAM) + "/"):
        assert private not in now.text


def test_sockets_count_while_they_are_open_and_by_their_close_code(measured: tuple[Gateway, int]) -> None:
    gateway, port = measured
    with gateway.watching() as websocket:
        until(port, lambda now: now.sum("dream_sockets") == 1, "an open socket")
        gateway.publish()
        assert receive(websocket)["type"] == "image_update"
        until(port, lambda now: now.sum("dream_socket_events_total") == 1, "an event")
        until(port, lambda now: (now.sum("dream_connections") or 0) >= 1, "a connection")
    with gateway.socket("?token=nonsense") as websocket:
        assert closing_code(websocket) == 4001
    with gateway.socket(f"?token={token()}") as websocket:
        receive(websocket)
        websocket.close(4321)

    def ended(now: Scrape) -> list[float | None]:
        closed = [now.sum("dream_sockets_closed_total", code=code) for code in ("4001", "other")]
        return [*closed, now.sum("dream_sockets")]

    now = until(port, lambda now: ended(now) == [1, 1, 0], "the end of all sockets, one with a strange code")
    assert (now.sum("dream_database_seconds_count", statement="select") or 0) > 0


def test_pictures_from_memory_and_from_the_store_are_counted(start: Callable[..., Gateway], tmp_path: Path) -> None:
    port = free_port()
    with start(media_mode="proxy", metrics_port=str(port), metrics_dir=str(tmp_path)) as gateway:
        image_id = gateway.add_image()
        with gateway.database.begin() as session:
            image = images.by_id(session, DREAM, image_id)
            assert image is not None
            image.size_bytes = 7
        Storage(gateway.settings).put_bytes(gateway.settings.s3_bucket, KEY, b"picture")
        for _ in range(3):
            assert gateway.http.get(f"/media/{KEY}").content == b"picture"

        def counted(now: Scrape) -> list[float | None]:
            return [now.sum("dream_media_reads_total", source=source) for source in ("store", "memory")]

        now = until(port, lambda now: counted(now) == [1, 2], "one read of the store")
        assert 7 < (now.sum("dream_media_memory_bytes") or 0) < 10_000
        assert now.sum("dream_store_seconds_count", operation="GetObject") == 1
        beyond = gateway.http.get(f"/media/{KEY}", headers={"Range": "bytes=100-"})
        assert beyond.status_code == 416
        until(port, lambda now: now.sum("dream_store_seconds_count", operation="GetObject") == 2, "another read")
        assert Scrape(port).sum("dream_store_errors_total") == 0


def test_the_public_port_serves_no_metrics(measured: tuple[Gateway, int]) -> None:
    gateway, _ = measured
    answer = gateway.http.get("/metrics")
    assert answer.status_code == 404
    assert "dream_" not in answer.text


def test_promtool_finds_no_fault_with_the_names(measured: tuple[Gateway, int]) -> None:
    _, port = measured
    promtool = shutil.which("promtool")
    if promtool is None:
        (pytest.fail if IN_CI else pytest.skip)("promtool is missing (Debian: prometheus)")
    text = until(port, lambda now: now.sum("dream_processes") == 1, "the metrics").text
    done = subprocess.run([str(promtool), "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_damaged_files_are_replaced(servers: dict[str, str], tmp_path: Path) -> None:
    port = free_port()
    variables = {PORT: str(port), "DREAM_METRICS_DIR": str(tmp_path)}
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        with running(folder, servers, **variables):
            until(port, lambda now: now.sum("dream_processes") == 1, "the metrics")
        (file,) = tmp_path.glob("dream-metrics-*/counter_0.db")
        file.write_bytes(b"\xff" * 4096)


def test_a_folder_that_others_may_write_to_is_refused_with_a_warning(servers: dict[str, str], tmp_path: Path) -> None:
    """Another user could have made it, to have this process write into files of his."""
    port = free_port()
    open_to_all = tmp_path / f"dream-metrics-{os.getuid()}-{port}"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    with running(tmp_path, servers, **{PORT: str(port), "DREAM_METRICS_DIR": str(tmp_path)}) as gateway:
        assert gateway.http.get("/healthz").status_code == 200
        wait_for(lambda: "metrics_not_served" in gateway.log.read_text(), what="a warning")
        assert "DREAM_METRICS_DIR" in gateway.log.read_text()
    assert list(open_to_all.iterdir()) == []
