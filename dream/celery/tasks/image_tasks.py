"""Pictures: the calls for views, and the tasks, under today's names and the older ones."""

from dream.celery.own import delete_dream_images, process_and_upload_images
from dream.imaging import process_image
from dream.producer import delete_images, upload_images

__all__ = [
    "celery_delete_images",
    "celery_upload_images",
    "delete_dream_images",
    "delete_images",
    "process_and_upload_images",
    "process_image",
    "upload_images",
]

celery_upload_images = process_and_upload_images
celery_delete_images = delete_dream_images
