"""Direct uploads from a web layer without the gateway, and the removal of those that nobody completes."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from sqlalchemy import event, select, update

from dream.db import DreamImage, DreamTask, DreamUpload
from dream.db.clock import now
from dream.errors import AccessDenied, FilesRefused, InvalidArguments, SettingsError, UploadUnknown
from dream.producer import Connections, Producer, begin_direct_upload, complete_direct_upload, direct
from dream.scheduler.expiry import Expiry
from dream.scheduler.removal import Orphans
from dream.settings import Settings
from dream.storage import Storage
from dream.storage.signing import SignedUrl

JPEG = b"\xff\xd8\xff not decoded here"
FILE = {"name": "a.jpg", "size": len(JPEG)}


def put(order: Any) -> None:
    httpx.put(order["url"], headers=order["headers"], content=JPEG).raise_for_status()


def staged(settings: Settings) -> set[str]:
    return {key for key, _ in Storage(settings).list_keys(settings.staging_bucket, "staging/")}


def end_time_of(producer: Producer, upload_id: str) -> None:
    with producer.database.begin() as session:
        session.execute(update(DreamUpload).where(DreamUpload.id == upload_id).values(expires_at=now(-1)))


@pytest.mark.usefixtures("as_environment")
def test_a_web_layer_begins_and_completes_an_upload(producer: Producer) -> None:
    """With positions, sizes and refused files as over HTTP; a second completion changes nothing."""
    begun = begin_direct_upload(7, [{**FILE, "position": 2}, {"name": "b.txt", "size": 3, "type": "text/plain"}])
    assert [each["code"] for each in begun["refused"]] == ["not_an_image"]
    put(begun["files"][0])
    done = complete_direct_upload(7, begun["upload_id"])
    assert done == {"task_id": begun["upload_id"], "dream_id": 7, "files": 1, "refused": []}
    assert complete_direct_upload(7, begun["upload_id"]) == done
    with producer.database.read() as session:
        [image] = session.scalars(select(DreamImage)).all()
    assert (image.position, image.original_bytes, image.state) == (2, len(JPEG), "pending")
    with pytest.raises(FilesRefused, match=r"page.html: .*image/jpeg"):
        begin_direct_upload(7, [{"name": "page.html", "size": 3, "type": "text/html"}])
    with pytest.raises(InvalidArguments, match=r"files\[0\]: size"):
        begin_direct_upload(7, [{"name": "a.jpg", "size": "3"}])


def test_the_store_takes_direct_uploads_beside_a_folder_for_others(
    settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("staging")
    producer = Producer(settings.model_copy(update={"staging_dir": str(folder)}))
    begun = direct.begin(producer, 7, [FILE])
    put(begun["files"][0])
    direct.complete(producer, 7, begun["upload_id"])
    target = folder / "fetched"
    with producer.database.read() as session:
        [image] = session.scalars(select(DreamImage)).all()
    producer.connections.staging.fetch(image.staging_key or "", target)
    assert target.read_bytes() == JPEG
    producer.close()


def test_an_upload_that_nobody_completes_is_removed(producer: Producer, settings: Settings) -> None:
    """Its row first; an open upload keeps its bytes, however old, and an expired one cannot be completed."""
    left, open_ = (direct.begin(producer, 7, [FILE, FILE]) for _ in range(2))
    for begun in (left, open_):
        put(begun["files"][0])
    end_time_of(producer, left["upload_id"])
    before = staged(settings)
    assert Expiry(settings, producer.connections).sweep() == 2
    with pytest.raises(UploadUnknown):
        direct.complete(producer, 7, left["upload_id"])
    with producer.database.read() as session:
        assert session.scalars(select(DreamUpload.id)).all() == [open_["upload_id"]]
        assert session.scalars(select(DreamTask)).all() == []
    kept = staged(settings)
    assert len(kept) == 1 < len(before)
    # A request that began in time and ends late puts an object that no row names.
    put(left["files"][1])
    Orphans(settings.model_copy(update={"staging_orphan_s": 0.001}), producer.connections).remove()
    assert staged(settings) == kept
    assert direct.complete(producer, 7, open_["upload_id"])["files"] == 1


def test_a_completion_during_the_search_for_orphans_keeps_its_bytes(settings: Settings, postgres_url: str) -> None:
    """On PostgreSQL each query sees what was committed before it; here the completion is between the two."""
    own = settings.model_copy(update={"database_url": postgres_url, "staging_orphan_s": 0.001})
    producer, searching, done = Producer(own), Connections(own), list[Any]()
    begun = direct.begin(producer, 7, [FILE])
    put(begun["files"][0])

    @event.listens_for(searching.database.engine, "after_cursor_execute")
    def complete(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if not done and ("dream_uploads" in statement or "staging_key IN" in statement):
            done.append(direct.complete(producer, 7, begun["upload_id"]))

    Orphans(own, searching).remove()
    assert done[0]["files"] == 1
    assert len(staged(own)) == 1
    for each in (producer.connections, searching):
        each.close()


def test_direct_uploads_can_be_off(producer: Producer, settings: Settings) -> None:
    off = Producer(settings.model_copy(update={"direct_upload_ttl_s": 0}), producer.connections)
    with pytest.raises(SettingsError, match="DREAM_DIRECT_UPLOAD_TTL_S"):
        direct.begin(off, 7, [FILE])


def test_an_upload_whose_urls_cannot_be_signed_counts_in_no_limit(settings: Settings) -> None:
    """Else a client that repeats its request while the credentials are away would fill its user's space."""

    class Unsigning(Storage):
        def signed_put(self, *_: Any, **__: Any) -> SignedUrl:
            raise AccessDenied("could not sign a URL: there are no credentials")

    producer = Producer(settings, Connections(settings, storage=Unsigning(settings)))
    with pytest.raises(AccessDenied):
        direct.begin(producer, 7, [FILE])
    with producer.database.read() as session:
        assert session.scalars(select(DreamUpload)).all() == []
    producer.connections.close()


def test_a_completion_that_is_overtaken_gets_the_answer_of_the_other(producer: Producer, settings: Settings) -> None:
    """Between its looks at the row and at the store the other one is accepted, and its run deletes the bytes."""
    begun = direct.begin(producer, 7, [FILE])
    put(begun["files"][0])
    other = Producer(settings)
    first: list[Any] = []

    class Overtaken(Storage):
        def size_of(self, bucket: str, key: str) -> int | None:
            first.append(direct.complete(other, 7, begun["upload_id"]))
            self.delete(bucket, [key])
            return super().size_of(bucket, key)

    late = Producer(settings, Connections(settings, storage=Overtaken(settings)))
    assert direct.complete(late, 7, begun["upload_id"]) == first[0]
    for each in (other, late):
        each.connections.close()
