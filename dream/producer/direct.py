"""Direct uploads: clients put their files into the object store, and no process of dream sees the bytes on the way.

    begin     checks and limits ─► the row of the upload ─► one presigned URL for each file
    (client)  PUT each file
    complete  HEAD each file ─► in one transaction: the upload's row goes, those of task and pictures come ─► message

The task has the id of the upload. A repeated completion gets the receipt in the task's row. The scheduler removes an
upload that is never completed (`dream.scheduler.expiry`).
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from dream.blocking import warn_on_loop
from dream.errors import FilesRefused, ImageRejected, Reason, SettingsError, UploadUnknown
from dream.fault_points import step
from dream.log import get_logger
from dream.messages.arguments import EncodedFile, check_dream_id
from dream.messages.direct import AwaitedFile, DirectUpload, PutOrder, check_direct, total_bytes
from dream.messages.receipts import AcceptedUpload, RefusedFile, all_refused_text, refused_file
from dream.messages.registry import PROCESS_IMAGES
from dream.messages.users import UserId, user_number
from dream.observe import tracing
from dream.producer.backlog import check_backlog, check_quota
from dream.producer.orders import Delivery, Order
from dream.producer.receipts import accepted_before, answer_of

if TYPE_CHECKING:
    from dream.db import DreamUpload
    from dream.producer.accepting import Producer

__all__ = ["begin", "complete"]

log = get_logger(__name__)

#: A request that began while its URL was valid may end later, and the completion follows it.
_TIME_TO_COMPLETE_S = 300
_LOOKS_AT_ONCE = 8


def begin(producer: Producer, dream_id: int, files: Any, *, user_id: UserId | None = None) -> DirectUpload:
    """Begin a direct upload: give a client a presigned URL for each file, for `DREAM_DIRECT_UPLOAD_TTL_S`.

    Parameters:
      files: each `{"name": str, "size": int}`, perhaps with `type` (its media type), `position` and `focus`.
      user_id: as for `upload_images`.

    Raises:
      FilesRefused: every file is refused.
      InvalidArguments: the arguments are wrong.
      TooManyPending, QuotaExceeded: as for `upload_images`; the files of open uploads count.
      SettingsError: direct uploads are off.
      DatabaseUnavailable, AccessDenied, ObjectStoreUnavailable: the client has no URL.
    """
    from dream.imaging.media_types import refusal_of_type
    from dream.storage.keys import direct_key

    warn_on_loop("begin_direct_upload")
    settings = producer.settings
    if not settings.direct_upload_ttl_s:
        raise SettingsError("DREAM_DIRECT_UPLOAD_TTL_S is 0: direct uploads are off")
    user = None if user_id is None else user_number(user_id)
    announced, refused = check_direct(settings, dream_id, files, refusal_of_type)
    if not announced:
        raise _all_refused(refused)
    with tracing.span("begin_direct_upload"):
        tracing.note(dream_id=dream_id, files=len(announced))
        check_backlog(settings, producer.database, len(announced), dream_id, user)
        check_quota(settings, producer.database, total_bytes(announced), user)
        upload_id = str(uuid4())
        awaited: list[AwaitedFile] = [{**file, "staged": direct_key(upload_id, file["index"])} for file in announced]
        # Before the row: an upload without URLs would count in the limits until its end.
        orders, life_s = _orders(producer, awaited)
        _grant(producer, upload_id, dream_id, awaited, user)
    log.info("direct_upload_begun", upload_id=upload_id, dream_id=dream_id, files=len(awaited))
    return {
        "upload_id": upload_id,
        "dream_id": dream_id,
        "expires_in_s": life_s,
        "files": orders,
        "refused": refused,
    }


@step("grant")
def _grant(producer: Producer, upload_id: str, dream_id: int, awaited: list[AwaitedFile], user_id: int | None) -> None:
    """Write the row of the upload, before anybody has a URL."""
    from dream.db import DreamUpload
    from dream.db.clock import now
    from dream.db.faults import explained

    upload = DreamUpload(
        id=upload_id,
        dream_id=dream_id,
        user_id=user_id,
        files=awaited,
        file_count=len(awaited),
        size_bytes=total_bytes(awaited),
        expires_at=now(producer.settings.direct_upload_ttl_s + _TIME_TO_COMPLETE_S),
    )
    with explained(), producer.database.begin() as session:
        session.add(upload)


def _orders(producer: Producer, awaited: Sequence[AwaitedFile]) -> tuple[list[PutOrder], int]:
    """The requests by which the client puts the files, and the seconds for which they are valid."""
    settings, life_s = producer.settings, producer.settings.direct_upload_ttl_s
    orders: list[PutOrder] = []
    for file in awaited:
        signed = producer.storage.signed_put(
            settings.staging_bucket, file["staged"], file["size"], file["type"], settings.direct_upload_ttl_s
        )
        life_s = min(life_s, signed.keep_s)
        order = {"method": "PUT", "url": signed.url, "headers": {"Content-Type": file["type"]}}
        orders.append({"index": file["index"], "name": file["name"], **order})  # type: ignore[typeddict-item]
    return orders, life_s


def complete(producer: Producer, dream_id: int, upload_id: str, *, priority: int | None = None) -> AcceptedUpload:
    """Complete a direct upload: accept the files that have arrived, as `upload_images` does.

    A repeated call gives the same answer as the first.

    Parameters:
      dream_id: the dream of the upload.
      upload_id: the one that `begin` gave.
      priority: as for `upload_images`.

    Raises:
      FilesRefused: no file has arrived as it was announced; the upload stays open.
      UploadUnknown: the dream has no such upload, or its time is over.
      InvalidArguments: the arguments are wrong.
      DatabaseUnavailable, AcceptanceUnknown, ObjectStoreUnavailable, AccessDenied: call again.
    """
    warn_on_loop("complete_direct_upload")
    check_dream_id(dream_id)
    upload_id = _checked_id(upload_id)
    with tracing.span("complete_direct_upload"):
        tracing.note(dream_id=dream_id)
        answer = _accept_open(producer, dream_id, upload_id, priority)
        answer = answer or accepted_before(producer.database, dream_id, upload_id)
    if answer is None:
        raise UploadUnknown
    return answer


def _checked_id(upload_id: Any) -> str:
    try:
        return str(UUID(upload_id))
    except (AttributeError, TypeError, ValueError):
        raise UploadUnknown from None


def _find(producer: Producer, dream_id: int, upload_id: str) -> DreamUpload | None:
    from dream.db import uploads
    from dream.db.faults import explained

    with explained(), producer.database.read() as session:
        return uploads.find(session, dream_id, upload_id)


def _accept_open(producer: Producer, dream_id: int, upload_id: str, priority: int | None) -> AcceptedUpload | None:
    """Accept the upload; None if it is not open (any more)."""
    upload = _find(producer, dream_id, upload_id)
    if upload is None:
        return None
    try:
        return _accept(producer, upload, priority)
    except FilesRefused:
        # Its bytes may be gone because another completion or the sweep was first, and not because they never came.
        if _find(producer, dream_id, upload_id) is None:
            return None
        raise


def _accept(producer: Producer, upload: DreamUpload, priority: int | None) -> AcceptedUpload | None:
    """Accept the files that have arrived; None if another completion or the sweep was first.

    Raises:
      FilesRefused: none has.
    """
    arrived, refused = _look(producer, upload.files)
    if not arrived:
        raise _all_refused(refused)
    order = _order(producer, upload, arrived, refused, priority)
    try:
        producer.accept(order)
    except UploadUnknown:
        return None
    wrong = {each["index"] for each in refused if each["code"] == Reason.FILE_SIZE_DIFFERS.code}
    producer.connections.staging.discard([file["staged"] for file in upload.files if file["index"] in wrong])
    return answer_of(order)


@step("look")
def _look(producer: Producer, files: Sequence[AwaitedFile]) -> tuple[list[AwaitedFile], list[RefusedFile]]:
    """Ask the store for each file: those that have arrived as they were announced, and the others."""
    size_of = partial(producer.storage.size_of, producer.settings.staging_bucket)
    with ThreadPoolExecutor(min(_LOOKS_AT_ONCE, len(files)), thread_name_prefix="look") as threads:
        sizes = list(threads.map(size_of, [file["staged"] for file in files]))
    refusals = [_refusal(file, size) for file, size in zip(files, sizes, strict=True)]
    arrived = [file for file, refusal in zip(files, refusals, strict=True) if refusal is None]
    refused = [
        refused_file(file["index"], file["name"], refusal)
        for file, refusal in zip(files, refusals, strict=True)
        if refusal is not None
    ]
    return arrived, refused


def _refusal(file: AwaitedFile, size: int | None) -> ImageRejected | None:
    if size is None:
        return ImageRejected.because(Reason.FILE_NOT_ARRIVED)
    if size != file["size"]:
        return ImageRejected.because(Reason.FILE_SIZE_DIFFERS, size=size, announced=file["size"])
    return None


def _order(
    producer: Producer,
    upload: DreamUpload,
    arrived: Sequence[AwaitedFile],
    refused: list[RefusedFile],
    priority: int | None,
) -> Order:
    offsets = [file["position"] for file in arrived]
    files: list[EncodedFile] = [
        {"name": file["name"], "staged": file["staged"], **({"focus": file["focus"]} if file["focus"] else {})}  # type: ignore[typeddict-item]
        for file in arrived
    ]
    rows = producer.image_rows(upload.dream_id, upload.id, files, offsets, upload.user_id)
    for row, file in zip(rows, arrived, strict=True):
        row.original_bytes = row.stored_bytes = file["size"]
    return Order(
        upload.id,
        PROCESS_IMAGES,
        [upload.dream_id, files, offsets],
        Delivery(user_id=upload.user_id, priority=priority),
        rows,
        receipt={"files": len(files), "refused": refused},
        is_direct=True,
    )


def _all_refused(refused: Sequence[RefusedFile]) -> FilesRefused:
    error = FilesRefused(all_refused_text(refused), code=refused[0]["code"])
    error.refused = refused
    return error
