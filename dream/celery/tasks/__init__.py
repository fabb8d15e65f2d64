"""The documented tasks."""

from dream.celery.tasks.image_tasks import delete_dream_images, process_and_upload_images
from dream.celery.tasks.token_tasks import cleanup_expired_tokens

__all__ = ["cleanup_expired_tokens", "delete_dream_images", "process_and_upload_images"]
