"""The steps of an upload's run: fetch, process, store, record, publish.

    begin ─► fetch_and_submit ────────────► finish_image ─► drop_staged ─► end
             (staged bytes → file → pool)   (put object, row, event)

The pool gets the pictures in their order, a few ahead of the one that is finished next. A run works only on unfinished
pictures, so a second run of the task repeats nothing that the first has finished.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dream.actors.progress import Progress
from dream.actors.stored import take_back
from dream.db import DreamImage, images, tasks
from dream.db.dreams import owner_of
from dream.errors import DreamError, DreamNotVisible, HandedBack, ImageRejected, LeaseLost, ObjectMissing, Reason
from dream.fault_points import step
from dream.imaging import Limits, variant_path
from dream.log import get_logger
from dream.messages.pictures import KNOWN, StoredVariant
from dream.messages.states import ImageState
from dream.observe import tracing
from dream.observe.metrics import BYTES_IN, BYTES_OUT, PICTURES
from dream.runs import outcomes
from dream.runs.sending import group_of_dream
from dream.storage.keys import (
    canonical_url,
    content_key,
    new_original_key,
    places_of,
    stem_of,
    user_bucket,
    variant_key,
)

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from dream.actors.resources import Job, Resources
    from dream.imaging import Processed, Variant
    from dream.runs.run import Run

__all__ = ["upload"]

log = get_logger(__name__)

#: Seconds before each new look for a dream that is not visible yet (docs/architecture.md, "A dream may come late").
_LOOK_AGAIN_S = (0.5, 1.0, 2.0, 4.0, 8.0)
#: Pictures of a run that wait while each process of the pool has one. More would fill the disk, and their fetching
#: would take processor time from other users' pictures.
_AHEAD = 1


def upload(resources: Resources, run: Run, dream_id: int, encoded_files: list[Any], positions: list[int]) -> list[str]:
    """Process and store the pictures of a dream; returns their URLs in input order, "" if one failed."""
    steps = Upload(resources, run)
    steps.begin(dream_id, encoded_files, positions)
    # A run that ends early cancels its pictures: other runs need the pool's processes.
    with resources.folder() as folder, ExitStack() as jobs:
        for work in steps.fetch_and_submit(folder, jobs):
            steps.finish_image(work)
    steps.drop_staged()
    return steps.end()


class InWork(NamedTuple):
    """A picture that the pool works on."""

    image: DreamImage
    job: Job
    source: Path
    target: Path
    #: The time at which the pool got it.
    since_ns: int


class Upload:
    """One run of `process_and_upload_images`.

    Parameters:
      resources: what it works with.
      run: this run's claim and deadline.
    """

    def __init__(self, resources: Resources, run: Run) -> None:
        self._resources = resources
        self._settings = resources.settings
        self._database = resources.connections.database
        self._storage = resources.connections.storage
        self._staging = resources.connections.staging
        self._limits = Limits.of(self._settings)
        self._run = run
        self._claim = run.claim
        self._dream_id = 0
        self._progress: Progress
        #: The task's pictures, as the rows were read at the begin and as this run has written them.
        self._images: Sequence[DreamImage] = ()
        self._bucket = ""
        #: The first failure after which another run may help; the other pictures of the batch go on.
        self._to_retry: Exception | None = None

    # --- begin

    @step("begin")
    def begin(self, dream_id: int, encoded_files: list[Any], positions: list[int]) -> None:
        """Mark the rows `processing`, and publish the event."""
        self._dream_id = dream_id
        if not self._load():
            self._record_strangers(encoded_files, positions)
        self._bucket = _bucket_of(self._resources, self._run, dream_id)
        with self._database.begin() as session:
            tasks.check_lease(session, self._claim)
            images.begin_task(session, self._claim.task_id, self._bucket, self._limits.variants)
            self._images = images.of_task(session, self._claim.task_id)
            self._plan_originals()
        publisher, most = self._resources.connections.publisher, self._settings.max_retries
        self._progress = Progress(publisher, self._claim, dream_id, most)
        self._progress.tell(self._images, once="started")

    def _plan_originals(self) -> None:
        """Write the place of each original into its row, before there is any object."""
        for image in self._images:
            if self._settings.keep_originals and image.state is ImageState.PROCESSING and not image.original_key:
                image.original_bucket, image.original_key = self._settings.originals_bucket, new_original_key()

    def _load(self) -> bool:
        with self._database.read() as session:
            self._images = images.of_task(session, self._claim.task_id)
        return bool(self._images)

    def _record_strangers(self, encoded_files: list[Any], positions: list[int]) -> None:
        """Write the rows of a stranger's message: its sender writes none, and may put bytes into the message."""
        task_id, producer = self._claim.task_id, self._resources.producer
        order = producer.order_strangers(task_id, self._dream_id, encoded_files, positions)
        with self._database.begin() as session:
            tasks.check_lease(session, self._claim)
            session.add_all(order.rows)
            # The bytes are staged now: neither the row nor a later message of the task needs them.
            tasks.replace_args(session, self._claim, order.args)
        self._images = order.rows

    # --- fetch, process, store

    def fetch_and_submit(self, folder: Path, jobs: ExitStack) -> Iterator[InWork]:
        """Give each unfinished picture to the pool, a few ahead of the one that is yielded; `jobs` cancels them."""
        ahead: deque[InWork] = deque()
        for index in range(len(self._images)):
            image = self._images[index]  # the rows may have been read again
            if image.state is ImageState.PROCESSING:
                self._run.check()
                with _Attempt(self, image):
                    ahead.append(self._submit(image, folder, jobs))
                if len(ahead) > self._settings.pool_processes + _AHEAD:
                    yield ahead.popleft()
        yield from ahead

    def _submit(self, image: DreamImage, folder: Path, jobs: ExitStack) -> InWork:
        own = folder / str(image.index)
        own.mkdir()
        source, target = own / "in", own / "out"
        with ExitStack() as unless_in_work:
            unless_in_work.callback(shutil.rmtree, own, ignore_errors=True)
            with tracing.span("fetch", image_id=image.id):
                self._fetch(image, source)
            limits = self._limits.wanting(image.wanted_specs).around(image.focus)
            job = self._resources.pool.submit(source, target, limits, group_of_dream(self._dream_id, image.user_id))
            jobs.callback(job.cancel)
            unless_in_work.pop_all()
        self._progress.watch(image, job)
        self._progress.tell_begun(self._images)
        return InWork(image, job, source, target, time.time_ns())

    @step("fetch")
    def _fetch(self, image: DreamImage, source: Path) -> None:
        if image.staging_key is None:  # a replay after the nightly sweep has deleted the bytes
            raise ImageRejected.because(Reason.UPLOAD_GONE)
        try:
            self._run.wait_for(self._staging.fetch, image.staging_key, source)
            BYTES_IN.add(amount=source.stat().st_size)
            with source.open("rb") as file:
                image.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except ObjectMissing:
            raise ImageRejected.because(Reason.UPLOAD_GONE) from None

    def finish_image(self, work: InWork) -> None:
        """Wait for the pool, put the object, update the row, publish the event, and remove the picture's files."""
        image = work.image
        with _Attempt(self, image):
            with tracing.span("process", began_ns=work.since_ns, image_id=image.id):
                processed = work.job.wait(self._poll)
            with self._run.whole():
                self._store_and_record(work, processed)
        shutil.rmtree(work.source.parent, ignore_errors=True)

    def _poll(self) -> None:
        self._run.check()
        self._progress.tell_begun(self._images)

    def _store_and_record(self, work: InWork, processed: Processed) -> None:
        image = work.image
        with tracing.span("store", image_id=image.id):
            self._keep_original(work)
            self._store(work, processed)
        try:
            with tracing.span("record", image_id=image.id):
                is_recorded = self._record(work, processed)
        except LeaseLost:
            self._take_back(image)
            raise
        if is_recorded:
            self._run.has_progressed = True
            PICTURES.add("completed", processed.content_type.removeprefix("image/"))
            BYTES_OUT.add(amount=processed.size_bytes + sum(each.size_bytes for each in processed.variants))
            self._progress.tell(self._images, once=f"image:{image.id}")
        else:
            self._take_back(image)

    @step("original")
    def _keep_original(self, work: InWork) -> None:
        """Store the uploaded file as it came, if the row has a place for it."""
        image = work.image
        if image.original_bucket and image.original_key:
            place = image.original_bucket, image.original_key
            self._run.wait_for(self._staging.keep, image.staging_key or "", work.source, *place)
            self._run.check()

    @step("put")
    def _store(self, work: InWork, processed: Processed) -> None:
        """Put the variants, then the picture."""
        image, target = work.image, work.target
        bucket = image.bucket or self._bucket
        for each in processed.variants:
            key = variant_key(image.storage_key, each.name, each.extension)
            self._run.wait_for(self._storage.put_file, bucket, key, variant_path(target, each.name), each.content_type)
            self._run.check()
        key = content_key(image.storage_key, processed.extension)
        self._run.wait_for(self._storage.put_file, bucket, key, target, processed.content_type)

    @step("complete")
    def _record(self, work: InWork, processed: Processed) -> bool:
        image = work.image
        key = content_key(image.storage_key, processed.extension)
        bucket, url = image.bucket or self._bucket, canonical_url(self._settings, key)
        facts = {name: getattr(processed, name) for name in KNOWN}
        facts |= {"variants": [self._variant_ref(image, each) for each in processed.variants]}
        facts |= {"bucket": bucket, "storage_key": key, "original_bytes": work.source.stat().st_size}
        facts["facts"] = processed.facts
        kept_bytes = facts["original_bytes"] if image.original_key else 0
        facts["stored_bytes"] = images.stored_bytes(processed.size_bytes, facts["variants"], kept_bytes)
        facts |= {"sha256": image.sha256, "perceptual_hash": processed.perceptual_hash}
        with self._database.begin() as session:
            tasks.check_lease(session, self._claim)
            facts["duplicate_of"] = images.twin_of(session, image)
            completed = images.complete(session, image.id, url=url, **facts)
            if completed and any(spec.fit == "cover" for spec in image.wanted_specs):
                # Its owner may have given a focal point meanwhile.
                self._resources.producer.accept_crops(session.get_one(DreamImage, image.id), session)
            self._note(session, image, completed, state=ImageState.COMPLETED, url=image.url or url, **facts)
        log.info("image_completed" if completed else "image_gone", image_id=image.id, size_bytes=processed.size_bytes)
        return completed

    def _note(self, session: Session, image: DreamImage, is_written: bool, **values: Any) -> None:
        """Update the pictures in memory, so that each event need not read the rows of the whole batch."""
        if not is_written:
            self._images = images.of_task(session, self._claim.task_id)
            return
        # After the rows were read again, the picture in work is another object than the one in the list.
        same = [each for each in self._images if each.id == image.id and each is not image]
        for each in (image, *same):
            for name, value in values.items():
                setattr(each, name, value)
        gone = images.gone_of_task(session, self._claim.task_id)
        for each in self._images:
            if each.id in gone and each.state not in (ImageState.DELETING, ImageState.DELETED):
                each.state = ImageState.DELETING

    def _variant_ref(self, image: DreamImage, variant: Variant) -> StoredVariant:
        spec = next(each for each in image.wanted_specs if each.name == variant.name)
        recipe = spec.recipe(image.focus)
        made_as: StoredVariant = {"made_as": recipe} if recipe != spec.definition else {}  # type: ignore[typeddict-item]
        return {
            "name": variant.name,
            "url": canonical_url(self._settings, variant_key(image.storage_key, variant.name, variant.extension)),
            "width_px": variant.width_px,
            "height_px": variant.height_px,
            "size_bytes": variant.size_bytes,
            "content_type": variant.content_type,
            **made_as,
        }

    def _take_back(self, image: DreamImage) -> None:
        """Delete the objects of a picture that was deleted during the run; never the objects of a completed picture."""
        with self._database.read() as session:
            row = session.get(DreamImage, image.id)
        is_gone = row is None or row.state in (ImageState.DELETING, ImageState.DELETED)
        # The nightly sweep has been there, so a replay takes another key.
        is_swept = row is not None and (row.swept or stem_of(row.storage_key) != stem_of(image.storage_key))
        if is_gone or is_swept:
            take_back(self._run, self._storage, image.id, places_of(image))

    @step("drop")
    def drop_staged(self) -> None:
        """Remove the staged bytes of completed and deleted pictures; a replay needs the bytes of failed ones."""
        ended = (ImageState.COMPLETED, ImageState.DELETING, ImageState.DELETED)
        staged = {each.id: each.staging_key for each in self._images if each.staging_key and each.state in ended}
        if not staged:
            return
        try:
            failed = self._run.wait_for(self._staging.delete, list(staged.values()))
        except DreamError as error:
            log.warning("staged_bytes_left", count=len(staged), error=str(error))  # the nightly sweep removes them
            return
        with self._database.begin() as session:
            images.forget_staged(session, [image_id for image_id, key in staged.items() if key not in failed])

    def refuse(self, image: DreamImage, error: ImageRejected) -> None:
        """Record that this picture is refused; its batch goes on."""
        reason, code = str(error), error.code
        with self._database.begin() as session:
            tasks.check_lease(session, self._claim)
            is_written = images.fail(session, image.id, reason, code)
            self._note(session, image, is_written, state=ImageState.FAILED, error=reason, error_code=code)
        self._run.has_progressed = True
        PICTURES.add("rejected", "")
        log.warning("image_refused", image_id=image.id, reason=str(error), code=error.code)

    def retry_later(self, image: DreamImage, error: Exception) -> None:
        """Remember a failure after which another run may help."""
        PICTURES.add("failed", "")
        log.warning("image_failed", image_id=image.id, error=str(error))
        self._to_retry = self._to_retry or error

    # --- end

    def end(self) -> list[str]:
        """Return the result if every picture is finished.

        Raises:
          ImageRejected: every picture was refused.
          Exception: the failure after which another run may help.
        """
        if self._to_retry is not None:
            raise self._to_retry
        refused = [image for image in self._images if image.state is ImageState.FAILED]
        if refused and len(refused) == len(self._images):
            sentence = "; ".join(f"{image.filename}: {image.error}" for image in refused[:5])
            codes = {image.error_code for image in refused}
            raise ImageRejected(sentence, code=codes.pop() if len(codes) == 1 else None)
        with self._database.read() as session:
            return outcomes.of_upload(session, self._claim.task_id)


def _bucket_of(resources: Resources, run: Run, dream_id: int) -> str:
    """The bucket of a dream's pictures, made if it is missing.

    Raises:
      DreamNotVisible: the dream's row is not there (yet).
    """
    settings = resources.settings
    if not settings.is_bucket_per_user:
        return settings.s3_bucket
    for pause_s in (*_LOOK_AGAIN_S, None):
        with resources.connections.database.read() as session:
            owner = owner_of(session, dream_id, settings.owners_sql)
        if owner is not None:
            bucket = user_bucket(settings.s3_bucket, owner.username)
            run.wait_for(resources.connections.storage.ensure_bucket, bucket)
            return bucket
        run.check()
        if pause_s is not None:
            run.lost.wait(pause_s)
    raise DreamNotVisible.because(Reason.DREAM_NOT_VISIBLE, dream_id=dream_id)


class _Attempt:
    """The consequence of a failure for one picture of a batch: rejection, another attempt, or the end of the run."""

    def __init__(self, upload: Upload, image: DreamImage) -> None:
        self._upload = upload
        self._image = image

    def __enter__(self) -> None:
        return None

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> bool:
        if isinstance(error, ImageRejected):
            self._upload.refuse(self._image, error)
            return True
        if isinstance(error, DreamError) and not error.permanent and not isinstance(error, HandedBack | LeaseLost):
            self._upload.retry_later(self._image, error)
            return True
        return False
