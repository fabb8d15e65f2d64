"""Metrics, traces and error reports for operators. Any package from `work` up may record here."""
