"""The catalogue of metrics: its names, and the page that describes them."""

from __future__ import annotations

import re
from pathlib import Path

from dream.messages.pictures import OUTPUT_FORMATS
from dream.observe.metrics import CATALOGUE, PARTS, PICTURES, Metric

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
#: Values of these labels are without bound, or private.
NO_LABELS = {"dream_id", "task_id", "image_id", "user", "user_id", "username", "url", "key", "path", "bucket", "host"}
#: Labels that Prometheus or its operator gives to every target: it renames a metric's own label of such a name.
TAKEN = {"job", "instance", "namespace", "pod", "container", "service", "endpoint", "node"}


def row(metric: Metric) -> str:
    labels = ", ".join(f"`{each}`" for each in metric.labels)
    parts = "all" if metric.parts == PARTS else ", ".join(metric.parts)
    return f"| `{metric.name}` | {metric.kind} | {labels} | {parts} | {metric.about} |"


def test_the_page_lists_the_catalogue() -> None:
    rows = [line for line in PAGE.splitlines() if re.match(r"\| `dream_\w+` \| (counter|gauge|histogram) ", line)]
    assert rows == [row(metric) for metric in CATALOGUE.values()]


def test_every_output_format_is_a_series_from_the_start() -> None:
    formats = {form for outcome, form in PICTURES.known if outcome == "completed"}
    assert formats == {each.content_type.removeprefix("image/") for each in OUTPUT_FORMATS.values()}


def test_names_follow_the_conventions_of_prometheus() -> None:
    for metric in CATALOGUE.values():
        assert re.fullmatch(r"dream_[a-z]+(_[a-z]+)*", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert metric.kind != "histogram" or metric.name.endswith("_seconds"), metric.name
        assert not re.search(r"_(ms|milliseconds|minutes|kib|mib|count)(_|$)", metric.name), metric.name


def test_no_label_names_a_person_or_a_thing() -> None:
    assert [metric.name for metric in CATALOGUE.values() if NO_LABELS & set(metric.labels)] == []


def test_no_label_is_one_that_prometheus_renames() -> None:
    assert [metric.name for metric in CATALOGUE.values() if TAKEN & set(metric.labels)] == []


def test_recording_without_a_listener_does_nothing() -> None:
    assert not any(metric.is_on for metric in CATALOGUE.values())
    for metric in CATALOGUE.values():
        labels = ["any"] * len(metric.labels)
        metric.begin(*labels)
        match metric.kind:
            case "counter":
                metric.add(*labels)  # type: ignore[attr-defined]
            case "gauge":
                metric.set(1, *labels)  # type: ignore[attr-defined]
                metric.add(1, *labels)  # type: ignore[attr-defined]
            case _:
                metric.observe(1, *labels)  # type: ignore[attr-defined]
                with metric.timed(*labels):  # type: ignore[attr-defined]
                    pass
