"""Variants on demand and formats by `Accept`, from a running gateway and worker."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from PIL import Image
from sqlalchemy import select

from dream.actors.inline import run_recorded
from dream.db import DreamImage, DreamTask, images
from dream.gateway.catalogue import Catalogue
from dream.media.signatures import sign_with
from dream.messages.registry import MAKE_VARIANT
from dream.messages.states import TaskState
from dream.producer import NOT_SENT, Connections, Producer
from dream.storage import Storage
from dream.variants import VariantSpec
from tests.conftest import environment_in, prepare, settings_from, wait_for
from tests.gateway import DREAM, Gateway, running
from tests.pictures import noise
from tests.processes import Parts

CHROMIUM = {"Accept": "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8"}
NAMED = {"DREAM_VARIANTS": "thumb:100", "DREAM_LAZY_VARIANTS": "card:64x64:cover,wide:200x,hero:120:webp"}


@pytest.fixture(scope="module")
def site(servers: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that waits long, and a worker."""
    folder = tmp_path_factory.mktemp("versions")
    environment = {
        **environment_in(folder, servers),
        **NAMED,
        "DREAM_PORT": "0",
        "DREAM_VARIANT_WAIT_S": "60",
        "DREAM_NEGOTIATE": "yes",
        "DREAM_MEDIA_MODE": "proxy",
    }
    settings = prepare(settings_from(environment))
    parts = Parts(environment, folder)
    try:
        parts.start("worker")
        with Gateway(environment, settings, folder) as gateway:
            yield gateway
    finally:
        parts.end()


def stored(
    gateway: Gateway, size: tuple[int, int] = (400, 300), variants: tuple[VariantSpec, ...] | None = None
) -> str:
    """A picture as an upload's run stored it; returns the path of its URL."""
    settings = gateway.settings
    if variants is not None:
        settings = settings.model_copy(update={"variants": variants})
    producer = Producer(settings)
    try:
        order = producer.order_upload(DREAM, [{"name": "a.jpg", "data": noise(*size)}], delivery=NOT_SENT)
        producer.accept(order)
        [url] = run_recorded(settings, producer, order.task_id)
    finally:
        producer.database.dispose()
    return urlsplit(str(url)).path


def row_of(gateway: Gateway, path: str) -> DreamImage:
    with gateway.database.read() as session:
        image = images.by_key(session, path.removeprefix("/media/"))
    assert image is not None
    return image


def asked_for(gateway: Gateway, *paths: str) -> list[DreamTask]:
    """The tasks that make versions of these pictures."""
    ids = {row_of(gateway, path).id for path in paths}
    with gateway.database.read() as session:
        tasks = session.scalars(select(DreamTask).where(DreamTask.name == MAKE_VARIANT))
        return [task for task in tasks if task.args[0] in ids]


def shown(answer: httpx.Response) -> tuple[str | None, tuple[int, int]]:
    """The format and the size of the picture that answered."""
    assert answer.status_code == 200, answer.text
    with Image.open(io.BytesIO(answer.content)) as image:
        return image.format, image.size


def test_a_size_is_made_when_it_is_asked_for(site: Gateway) -> None:
    path = stored(site)
    answer = site.http.get(f"{path}?v=card")
    assert shown(answer) == ("JPEG", (64, 64))
    assert "max-age" in answer.headers["Cache-Control"]
    assert [each["name"] for each in row_of(site, path).variants] == ["thumb", "card"]
    assert shown(site.http.get(f"{path}?v=card")) == ("JPEG", (64, 64))
    # By its own URL, too; a variant has no variants.
    own = urlsplit(row_of(site, path).variants[1]["url"]).path
    assert shown(site.http.get(own)) == ("JPEG", (64, 64))
    assert site.http.get(f"{own}?v=thumb").status_code == 404


@pytest.mark.slow
def test_a_thousand_first_visitors_make_one_run(site: Gateway) -> None:
    path = stored(site)

    async def visit() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(f"GET {path}?v=wide HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        return answer.partition(b"\r\n")[0] + answer[-2:]

    async def visits() -> set[bytes]:
        return set(await asyncio.gather(*(visit() for _ in range(1000))))

    # Each ends as a JPEG does.
    assert asyncio.run(visits()) == {b"HTTP/1.1 200 OK\xff\xd9"}
    [task] = asked_for(site, path)
    assert (task.state, task.attempts, task.deaths) == (TaskState.SUCCEEDED, 0, 0)
    assert [each["name"] for each in row_of(site, path).variants] == ["thumb", "wide"]


def test_a_format_follows_accept(site: Gateway) -> None:
    """AVIF where it is named; `Vary` on every answer; a size that is there is shown until the better format is."""
    path = stored(site)
    plain = site.http.get(path, headers={"Accept": "image/*"})
    assert shown(plain)[0] == "JPEG"
    assert plain.headers["Vary"] == "Accept"
    meanwhile = site.http.get(path, headers=CHROMIUM)
    assert (shown(meanwhile)[0], meanwhile.headers["Cache-Control"], meanwhile.headers["Vary"]) == (
        "JPEG",
        "no-store",
        "Accept",
    )
    answer = until_avif(site, path)
    assert answer.headers["Content-Type"] == "image/avif"
    assert answer.headers["Vary"] == "Accept"
    again = site.http.get(path, headers={**CHROMIUM, "If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.headers["Vary"]) == (304, "Accept")
    # The tag of one format is not that of another.
    other = site.http.get(path, headers={"Accept": "image/*", "If-None-Match": answer.headers["ETag"]})
    assert shown(other)[0] == "JPEG"
    assert shown(site.http.get(path, headers={"Accept": "image/avif;q=0,image/*"}))[0] == "JPEG"


def until_avif(site: Gateway, path: str) -> httpx.Response:
    answer = wait_for(lambda: _avif(site.http.get(path, headers=CHROMIUM)), what="the AVIF")
    assert answer is not None
    return answer


def _avif(answer: httpx.Response) -> httpx.Response | None:
    return answer if shown(answer)[0] == "AVIF" else None


def test_a_size_that_is_not_there_is_made_in_the_best_format_at_once(site: Gateway) -> None:
    path = stored(site)
    assert shown(site.http.get(f"{path}?v=card", headers=CHROMIUM)) == ("AVIF", (64, 64))
    assert [each["name"] for each in row_of(site, path).variants] == ["thumb", "card.avif"]


def test_a_fixed_format_is_not_negotiated(site: Gateway) -> None:
    path = stored(site)
    answer = site.http.get(f"{path}?v=hero", headers=CHROMIUM)
    assert shown(answer) == ("WEBP", (120, 90))
    assert "Vary" not in answer.headers


def test_a_size_no_smaller_than_the_picture_is_the_picture(site: Gateway) -> None:
    path = stored(site, (160, 120))
    assert shown(site.http.get(f"{path}?v=wide")) == ("JPEG", (160, 120))
    assert asked_for(site, path) == []


def test_a_head_has_no_body_and_the_same_version(site: Gateway) -> None:
    path = stored(site)
    head, get = site.http.head(f"{path}?v=card"), site.http.get(f"{path}?v=card")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Length"] == get.headers["Content-Length"]


@pytest.mark.parametrize(
    "query", ["v=nope", "v=", "v=card&v=nope", "v=full", "v=card.avif", "v=" + "a" * 2000, "v=%00"]
)
def test_a_name_that_no_setting_has_is_404(site: Gateway, query: str) -> None:
    path = stored(site)
    answer = site.http.get(f"{path}?{query}")
    assert (answer.status_code, answer.json()["error"]) == (404, "there is no such picture")
    assert asked_for(site, path) == []


def test_a_deleted_picture_has_no_versions(site: Gateway) -> None:
    path = stored(site)
    assert site.http.get(f"{path}?v=card").status_code == 200
    with site.database.begin() as session:
        images.mark_deleting(session, [row_of(site, path).id])
    unknown = path.replace("/media/dreams/2", "/media/dreams/1")
    assert site.http.get(f"{unknown}?v=card").status_code == 404


def test_a_version_that_cannot_be_made_fails_once_for_all(site: Gateway) -> None:
    """The picture is missing in the store. One visitor waits for the failure, and later ones begin no other task."""
    path = stored(site)
    Storage(site.settings).delete(site.settings.s3_bucket, [path.removeprefix("/media/")])
    for _ in range(3):
        answer = site.http.get(f"{path}?v=card")
        assert (shown(answer)[1], answer.headers["Cache-Control"]) == ((100, 75), "no-store")
    [task] = asked_for(site, path)
    assert (task.state, task.attempts, task.error_code) == (TaskState.FAILED, 1, "object_missing")


# --- without a worker


@pytest.fixture(scope="module")
def slow(servers: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway that waits for a moment, and no worker."""
    own = {**NAMED, "DREAM_VARIANT_WAIT_S": "0.2", "DREAM_MEDIA_MODE": "proxy", "DREAM_MAX_VARIANTS_AWAITED": "2"}
    with running(tmp_path_factory.mktemp("slow"), servers, **own) as gateway:
        yield gateway


def test_a_larger_size_answers_when_it_takes_too_long(slow: Gateway) -> None:
    """Nobody may keep it. The task stays, one for all who ask."""
    path = stored(slow)
    for _ in range(2):
        answer = slow.http.get(f"{path}?v=card")
        assert (shown(answer), answer.headers["Cache-Control"]) == (("JPEG", (100, 75)), "no-store")
    assert shown(slow.http.get(f"{path}?v=wide"))[1] == (400, 300)
    assert {task.state for task in asked_for(slow, path)} == {TaskState.QUEUED}
    assert len(asked_for(slow, path)) == 2


def test_a_picture_of_an_older_release_has_versions_too(slow: Gateway) -> None:
    """Its row has no size, so the picture itself answers until the version is made."""
    path = stored(slow)
    with slow.database.begin() as session:
        image = images.by_key(session, path.removeprefix("/media/"))
        assert image is not None
        image.width_px = image.height_px = image.size_bytes = image.content_type = None
    answer = slow.http.get(f"{path}?v=card")
    assert (shown(answer)[1], answer.headers["Cache-Control"]) == ((400, 300), "no-store")
    [task] = asked_for(slow, path)
    producer = Producer(slow.settings)
    assert run_recorded(slow.settings, producer, task.id)
    producer.database.dispose()
    assert shown(slow.http.get(f"{path}?v=card"))[1] == (64, 64)


def test_a_version_that_failed_for_good_is_not_begun_again(slow: Gateway) -> None:
    path = stored(slow)
    slow.http.get(f"{path}?v=card")
    [task] = asked_for(slow, path)
    with slow.database.begin() as session:
        session.get_one(DreamTask, task.id).state = TaskState.FAILED
    for _ in range(3):
        answer = slow.http.get(f"{path}?v=card")
        assert (shown(answer)[1], answer.headers["Cache-Control"]) == ((100, 75), "no-store")
    assert [task.state for task in asked_for(slow, path)] == [TaskState.FAILED]


@pytest.mark.slow
def test_a_process_waits_for_so_many_versions_at_most(slow: Gateway) -> None:
    """More visitors get larger ones at once, and begin nothing."""
    paths = [stored(slow) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        answers: list[Any] = list(pool.map(lambda path: slow.http.get(f"{path}?v=card"), paths))
    assert {shown(answer)[1] for answer in answers} == {(100, 75)}
    assert 2 <= len(asked_for(slow, *paths)) < 6


def test_a_new_definition_is_made_when_it_is_asked_for(slow: Gateway) -> None:
    """The stored one is shown until then, and its URL shows the new one afterwards, whatever its format."""
    path = stored(slow, variants=(VariantSpec.parse("thumb:120:webp"),))
    old = urlsplit(row_of(slow, path).variants[0]["url"]).path
    assert shown(slow.http.get(old)) == ("WEBP", (120, 90))
    answer = slow.http.get(f"{path}?v=thumb")
    assert (shown(answer), answer.headers["Cache-Control"]) == (("WEBP", (120, 90)), "no-store")
    [task] = asked_for(slow, path)
    producer = Producer(slow.settings)
    run_recorded(slow.settings, producer, task.id)
    producer.database.dispose()
    assert shown(slow.http.get(f"{path}?v=thumb")) == ("JPEG", (100, 75))
    [thumb] = row_of(slow, path).variants
    assert thumb["url"].endswith("_thumb.jpg")
    connections = Connections(slow.settings)
    found = asyncio.run(Catalogue(slow.settings, connections).find(old.removeprefix("/media/")))
    connections.close()
    assert found is not None
    assert found.key == thumb.get("key")


def test_gateways_of_two_definitions_do_not_make_a_version_at_each_turn(slow: Gateway) -> None:
    """Each makes it once in ten minutes; then the next larger one answers, and nobody keeps that."""
    path = stored(slow, variants=(VariantSpec.parse("thumb:120"),))
    assert shown(slow.http.get(f"{path}?v=thumb"))[1] == (120, 90)
    [task] = asked_for(slow, path)
    producer = Producer(slow.settings)
    run_recorded(slow.settings, producer, task.id)
    producer.database.dispose()
    assert shown(slow.http.get(f"{path}?v=thumb"))[1] == (100, 75)
    with slow.database.begin() as session:  # as a run for the other gateway leaves it
        row = session.get_one(DreamImage, row_of(slow, path).id)
        row.variants = [{**each, "made_as": VariantSpec.parse("thumb:120").definition} for each in row.variants]

    def answer() -> httpx.Response:
        return slow.http.get(f"{path}?v=thumb")

    wait_for(lambda: answer().headers["Cache-Control"] == "no-store", what="the row to be read again")
    assert answer().status_code == 200
    assert [each.id for each in asked_for(slow, path)] == [task.id]


def test_permission_comes_first_and_redirects_vary(start: Callable[..., Gateway]) -> None:
    """Without a signature nothing is begun; with one, a redirect to a larger size is kept by nobody."""
    named = {name.removeprefix("DREAM_").lower(): value for name, value in NAMED.items()}
    own = {"media_access": "signed", "media_keys": "k" * 40, "negotiate": "yes", "variant_wait_s": "0.2"}
    with start(**named, **own) as gateway:
        path = stored(gateway)
        other = sign_with(gateway.settings, f"{path}?v=wide")
        for refused in (
            f"{path}?v=card",
            other.replace("v=wide", "v=card"),
            f"{sign_with(gateway.settings, path)}&v=card",
        ):
            assert gateway.http.get(refused).status_code == 404
        assert asked_for(gateway, path) == []
        answer = gateway.http.get(sign_with(gateway.settings, f"{path}?v=card"), headers=CHROMIUM)
        assert (answer.status_code, answer.headers["Cache-Control"], answer.headers["Vary"]) == (
            302,
            "no-store",
            "Accept",
        )
        assert "_thumb." in answer.headers["Location"]
        assert len(asked_for(gateway, path)) == 1
