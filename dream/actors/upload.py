"""The steps of an upload's run: fetch, process, store, record, tell.

    begin ─► fetch_and_submit ─► finish_image, one after another ─► drop_staged ─► end
             (staged bytes → file → pool)   (put object, row, event)

A run works only on what is missing, so a second run of the task repeats nothing that the first has finished.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dream import outcomes
from dream.actors.buckets import bucket_of
from dream.actors.storing import RunStorage
from dream.arguments import check_inline
from dream.db import DreamImage, images, tasks
from dream.errors import DreamError, HandedBack, ImageRejected, LeaseLost, ObjectMissing
from dream.fault_points import step
from dream.imaging import Limits, variant_path
from dream.log import get_logger
from dream.messages import ImageState, ImageUpdate, UpdateStatus, VariantRef
from dream.storage.keys import canonical_url, content_key, keys_of, stem_of, variant_key

if TYPE_CHECKING:
    from dream.actors.resources import Job, Resources
    from dream.imaging import Processed, Variant
    from dream.middleware.run import Run

__all__ = ["upload"]

log = get_logger(__name__)


def upload(resources: Resources, run: Run, dream_id: int, encoded_files: list[Any], positions: list[int]) -> list[str]:
    """Process and store the pictures of a dream; returns their URLs in input order, "" where one failed."""
    steps = Upload(resources, run)
    steps.begin(dream_id, encoded_files, positions)
    # A run that ends early leaves no picture in work: its children are for the next ones.
    with resources.folder() as folder, ExitStack() as jobs:
        for work in steps.fetch_and_submit(folder, jobs):
            steps.finish_image(work)
    steps.drop_staged()
    return steps.end()


class InWork(NamedTuple):
    """A picture that the pool works on."""

    image: DreamImage
    job: Job
    target: Path


class Upload:
    """One run of `process_and_upload_images`.

    Parameters:
      resources: what it works with.
      run: this run's claim and deadline.
    """

    def __init__(self, resources: Resources, run: Run) -> None:
        self._resources = resources
        self._settings = resources.settings
        self._database = resources.database
        self._storage = RunStorage(resources, run)
        self._limits = Limits.of(self._settings)
        self._run = run
        self._claim = run.claim
        self._dream_id = 0
        self._images: Sequence[DreamImage] = ()
        self._bucket = ""
        #: The first failure that another run may mend; the other pictures of the batch go on.
        self._to_retry: Exception | None = None

    # --- begin

    @step("begin")
    def begin(self, dream_id: int, encoded_files: list[Any], positions: list[int]) -> None:
        """Make the rows say `processing`, and the dream hear of it."""
        self._dream_id = dream_id
        if not self._load():
            self._record_inline(encoded_files, positions)
        self._bucket = bucket_of(self._resources, self._run, dream_id)
        with self._database.begin() as session:
            tasks.hold(session, self._claim)
            images.begin_task(session, self._claim.task_id, self._bucket, self._limits.variants)
            self._images = images.of_task(session, self._claim.task_id)
        self._tell_progress(once="started")

    def _load(self) -> bool:
        with self._database.read() as session:
            self._images = images.of_task(session, self._claim.task_id)
        return bool(self._images)

    def _record_inline(self, encoded_files: list[Any], positions: list[int]) -> None:
        """A caller put the bytes into the message: stage them and write the rows that the producer would have."""
        producer = self._resources.producer
        inline, offsets = check_inline(self._settings, self._dream_id, encoded_files, positions)
        staged = dict(zip(inline, producer.staging.put(list(inline.values())), strict=True))
        encoded = [staged.get(index, file) for index, file in enumerate(encoded_files)]
        rows = producer.image_rows(self._dream_id, self._claim.task_id, encoded, offsets)
        with self._database.begin() as session:
            tasks.hold(session, self._claim)
            session.add_all(rows)
            # The row need not keep the bytes, nor a message that is sent from it carry them.
            tasks.replace_args(session, self._claim, [self._dream_id, encoded, offsets])
        self._images = rows

    # --- fetch, process, store

    def fetch_and_submit(self, folder: Path, jobs: ExitStack) -> list[InWork]:
        """Hand every picture that is still to do to the pool; `jobs` cancels them."""
        in_work: list[InWork] = []
        for image in self._images:
            if image.state is ImageState.PROCESSING:
                self._run.check()
                with _Attempt(self, image):
                    source, target = folder / f"{image.index}.in", folder / f"{image.index}.out"
                    self._fetch(image, source)
                    limits = self._limits.wanting(image.wanted_variants or ())
                    job = self._resources.pool.submit(source, target, limits)
                    jobs.callback(job.cancel)
                    in_work.append(InWork(image, job, target))
        return in_work

    @step("fetch")
    def _fetch(self, image: DreamImage, source: Path) -> None:
        try:
            self._storage.fetch_staged(image.staging_key or "", source)
        except ObjectMissing:
            raise ImageRejected("the uploaded file is no longer there; upload it again") from None

    def finish_image(self, work: InWork) -> None:
        """Wait for the pool, put the object, record it, tell the dream."""
        image = work.image
        with _Attempt(self, image):
            processed = work.job.wait(self._run.check)
            with self._run.whole():
                self._store_and_record(work, processed)

    def _store_and_record(self, work: InWork, processed: Processed) -> None:
        image = work.image
        self._store(work, processed)
        try:
            is_recorded = self._record(image, processed)
        except LeaseLost:
            self._take_back(image)
            raise
        if is_recorded:
            self._run.has_progressed = True
            self._tell_progress(once=f"image:{image.id}")
        else:
            self._take_back(image)

    @step("put")
    def _store(self, work: InWork, processed: Processed) -> None:
        """Put the variants, then the picture."""
        image, target = work.image, work.target
        bucket = image.bucket or self._bucket
        for each in processed.variants:
            key = variant_key(image.storage_key, each.name, each.extension)
            self._storage.put_file(bucket, key, variant_path(target, each.name), each.content_type)
            self._run.check()
        key = content_key(image.storage_key, processed.extension)
        self._storage.put_file(bucket, key, target, processed.content_type)

    @step("complete")
    def _record(self, image: DreamImage, processed: Processed) -> bool:
        key = content_key(image.storage_key, processed.extension)
        with self._database.begin() as session:
            tasks.hold(session, self._claim)
            completed = images.complete(
                session,
                image.id,
                url=canonical_url(self._settings, key),
                bucket=image.bucket or self._bucket,
                storage_key=key,
                width_px=processed.width_px,
                height_px=processed.height_px,
                size_bytes=processed.size_bytes,
                content_type=processed.content_type,
                placeholder=processed.placeholder,
                dominant_colour=processed.dominant_colour,
                variants=[self._variant_ref(image, each) for each in processed.variants],
            )
            self._images = images.of_task(session, self._claim.task_id)
        log.info("image_completed" if completed else "image_gone", image_id=image.id, size_bytes=processed.size_bytes)
        return completed

    def _variant_ref(self, image: DreamImage, variant: Variant) -> VariantRef:
        return {
            "name": variant.name,
            "url": canonical_url(self._settings, variant_key(image.storage_key, variant.name, variant.extension)),
            "width_px": variant.width_px,
            "height_px": variant.height_px,
            "size_bytes": variant.size_bytes,
            "content_type": variant.content_type,
        }

    def _take_back(self, image: DreamImage) -> None:
        """The picture was deleted while it was in work: its objects must not stay. (Never those of a completed one.)"""
        with self._database.read() as session:
            row = session.get(DreamImage, image.id)
        is_gone = row is None or row.state in (ImageState.DELETING, ImageState.DELETED)
        # The nightly sweep has been there, so a replay takes another key.
        is_swept = row is not None and (row.swept or stem_of(row.storage_key) != stem_of(image.storage_key))
        if is_gone or is_swept:
            failed = self._storage.delete(image.bucket or self._bucket, keys_of(image.storage_key, image.variant_names))
            for error in failed.values():
                log.warning("object_left", image_id=image.id, error=str(error))

    @step("drop")
    def drop_staged(self) -> None:
        """Remove the bytes of the pictures that are done or gone; those of failed ones wait for a replay."""
        ended = (ImageState.COMPLETED, ImageState.DELETING, ImageState.DELETED)
        staged = {each.id: each.staging_key for each in self._images if each.staging_key and each.state in ended}
        if not staged:
            return
        try:
            failed = self._storage.delete_staged(staged.values())
        except DreamError as error:
            log.warning("staged_bytes_left", count=len(staged), error=str(error))  # the nightly sweep removes them
            return
        with self._database.begin() as session:
            images.forget_staged(session, [image_id for image_id, key in staged.items() if key not in failed])

    def refuse(self, image: DreamImage, reason: str) -> None:
        """Record that this picture cannot be processed; its batch goes on."""
        with self._database.begin() as session:
            tasks.hold(session, self._claim)
            images.fail(session, image.id, reason)
            self._images = images.of_task(session, self._claim.task_id)
        self._run.has_progressed = True
        log.warning("image_refused", image_id=image.id, reason=reason)

    def retry_later(self, image: DreamImage, error: Exception) -> None:
        """Remember a failure that another run may mend."""
        log.warning("image_failed", image_id=image.id, error=str(error))
        self._to_retry = self._to_retry or error

    # --- end

    def end(self) -> list[str]:
        """The result, where nothing is left to do.

        Raises:
          ImageRejected: every picture was refused.
          Exception: the failure that another run may mend.
        """
        if self._to_retry is not None:
            raise self._to_retry
        refused = [image for image in self._images if image.state is ImageState.FAILED]
        if refused and len(refused) == len(self._images):
            raise ImageRejected("; ".join(f"{image.filename}: {image.error}" for image in refused[:5]))
        with self._database.read() as session:
            return outcomes.of_upload(session, self._claim.task_id)

    def _tell_progress(self, once: str) -> None:
        done = [image for image in self._images if image.state is ImageState.COMPLETED]
        ended = [image for image in self._images if image.state is not ImageState.PROCESSING]
        update = ImageUpdate(
            dream_id=self._dream_id,
            status=UpdateStatus.PROCESSING,
            images=tuple(outcomes.image_ref(image) for image in done),
            message=f"{len(ended)} of {len(self._images)} pictures done",
            # 100 is for the end, which is told once the task's row says so.
            progress=min(99, round(100 * len(ended) / max(1, len(self._images)))),
            task_id=self._claim.task_id,
        )
        self._resources.publisher.publish(update, once=f"{self._claim.task_id}:{self._claim.attempts}:{once}")


class _Attempt:
    """What a failure means for one picture of a batch: refused for good, tried again, or the whole run ends."""

    def __init__(self, upload: Upload, image: DreamImage) -> None:
        self._upload = upload
        self._image = image

    def __enter__(self) -> None:
        return None

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> bool:
        if isinstance(error, ImageRejected):
            self._upload.refuse(self._image, str(error))
            return True
        if isinstance(error, DreamError) and not error.permanent and not isinstance(error, HandedBack | LeaseLost):
            self._upload.retry_later(self._image, error)
            return True
        return False
