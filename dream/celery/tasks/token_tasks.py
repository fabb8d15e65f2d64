"""Tokens: the clean-up task."""

from dream.celery.own import cleanup_expired_tokens

__all__ = ["cleanup_expired_tokens"]
