"""Bytes: the S3 store, the staging of uploads, and the keys and URLs that name pictures."""

from dream.storage.keys import Location, locate, new_key_stem, new_staging_key, user_bucket
from dream.storage.s3 import Storage
from dream.storage.staging import StagingArea

__all__ = ["Location", "StagingArea", "Storage", "locate", "new_key_stem", "new_staging_key", "user_bucket"]
