"""Alerts, dashboard and the example for Prometheus, checked by Prometheus's own tool and against the catalogue."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

import pytest
import yaml
from prometheus_client import CollectorRegistry, start_http_server

from dream.observe.metrics import CATALOGUE, JOB_SUCCESS
from tests.conftest import wait_for
from tests.nginx import program
from tests.scraping import free_port

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy/prometheus"
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]
DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy/grafana/dream.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
EXPRESSIONS = {rule["alert"]: rule["expr"] for rule in RULES} | {
    f"{panel['title']} {target['refId']}": target["expr"] for panel in PANELS for target in panel["targets"]
}
#: Labels that Prometheus adds.
ADDED = {"instance", "le"}

#: For each alert, series of a sick system: minute by minute in Prometheus's notation.
SICK: dict[str, dict[str, str]] = {
    "DreamNoWorker": {'dream_processes{part="scheduler"}': "1x60"},
    "DreamNoScheduler": {'dream_processes{part="worker"}': "1x60"},
    "DreamNoGateway": {'dream_processes{part="worker"}': "1x60"},
    "DreamServiceDown": {'up{job="dream"}': "0x60"},
    "DreamQueueOld": {'dream_queue_oldest_age_seconds{queue="default"}': "121x60"},
    "DreamQueueVeryOld": {'dream_queue_oldest_age_seconds{queue="default"}': "901x60"},
    "DreamTasksFailed": {'dream_task_runs_total{task="t",outcome="failed"}': "0x55 1x5"},
    "DreamRunsRetried": {
        'dream_task_runs_total{task="t",outcome="retried"}': "0+3x60",
        'dream_task_runs_total{task="t",outcome="succeeded"}': "0+7x60",
    },
    "DreamWorkersDie": {'dream_task_redeliveries_total{task="t"}': "0+1x60"},
    "DreamLeasesLost": {'dream_task_runs_total{task="t",outcome="lease_lost"}': "0+1x60"},
    "DreamPoolKills": {'dream_pool_kills_total{reason="memory"}': "0+1x60"},
    "DreamPoolFull": {"dream_pool_jobs": "9x60", "dream_pool_processes": "4x60"},
    "DreamDatabaseErrors": {'dream_database_errors_total{reason="disconnected"}': "0+6x60"},
    "DreamDatabaseSlow": {
        'dream_database_seconds_bucket{statement="update",le="0.5"}': "0+9x60",
        'dream_database_seconds_bucket{statement="update",le="1"}': "0+10x60",
        'dream_database_seconds_bucket{statement="update",le="+Inf"}': "0+10x60",
    },
    "DreamStoreErrors": {'dream_store_errors_total{reason="unavailable"}': "0+6x60"},
    "DreamStoreSlow": {
        'dream_store_seconds_bucket{operation="PutObject",le="5"}': "0+9x60",
        'dream_store_seconds_bucket{operation="PutObject",le="10"}': "0+10x60",
        'dream_store_seconds_bucket{operation="PutObject",le="+Inf"}': "0+10x60",
    },
    "DreamRedisErrors": {"dream_redis_errors_total": "0+6x60"},
    "DreamEventsLost": {'dream_events_published_total{outcome="lost"}': "0+1x60"},
    "DreamGatewayErrors": {
        'dream_http_request_seconds_count{method="GET",route="/",status="500"}': "0+1x60",
        'dream_http_request_seconds_count{method="GET",route="/",status="200"}': "0+9x60",
    },
    "DreamConnectionsNearLimit": {"dream_connections": "81x60", "dream_connections_limit": "100x60"},
    "DreamConnectionsRefused": {"dream_connections_refused_total": "0+1x60"},
    "DreamSlowSockets": {'dream_sockets_closed_total{code="4008"}': "0+90x60"},
    "DreamTasksResent": {"dream_tasks_resent_total": "0+5x60"},
    "DreamCleanUpOverdue": {'dream_timetable_last_success_timestamp_seconds{entry="e"}': "-93600x60"},
    "DreamJobOverdue": {'dream_job_last_success_timestamp_seconds{name="resend"}': "0x60"},
    "DreamJobsFail": {'dream_job_failures_total{name="prune"}': "0+1x60"},
    "DreamVersionsDiffer": {
        'dream_build_info{part="worker",version="1"}': "1x120",
        'dream_build_info{part="worker",version="2"}': "1x120",
    },
}
#: A system that is well, with some failures that are no alarm.
WELL = {
    'up{job="dream"}': "1x180",
    'dream_build_info{part="worker",version="1"}': "1x180",
    'dream_processes{part="worker"}': "2x180",
    'dream_processes{part="scheduler"}': "1x180",
    'dream_processes{part="gateway"}': "1x180",
    'dream_queue_oldest_age_seconds{queue="default"}': "20x180",
    'dream_task_runs_total{task="t",outcome="succeeded"}': "0+100x180",
    'dream_task_runs_total{task="t",outcome="rejected"}': "0+10x180",
    'dream_task_runs_total{task="t",outcome="retried"}': "0+5x180",
    'dream_task_runs_total{task="t",outcome="failed"}': "0x180",
    'dream_task_redeliveries_total{task="t"}': "0x100 2x80",
    'dream_pool_kills_total{reason="time_limit"}': "0x100 1x80",
    "dream_pool_jobs": "4x180",
    "dream_pool_processes": "4x180",
    'dream_database_errors_total{reason="disconnected"}': "0x180",
    'dream_store_errors_total{reason="unavailable"}': "0x100 1x80",
    'dream_store_seconds_bucket{operation="PutObject",le="0.1"}': "0+10x180",
    'dream_store_seconds_bucket{operation="PutObject",le="+Inf"}': "0+10x180",
    "dream_redis_errors_total": "0x180",
    'dream_events_published_total{outcome="published"}': "0+10x180",
    'dream_events_published_total{outcome="lost"}': "0x180",
    'dream_http_request_seconds_count{method="GET",route="/",status="500"}': "0x180",
    'dream_http_request_seconds_count{method="GET",route="/",status="200"}': "0+9x180",
    "dream_connections": "10x180",
    "dream_connections_limit": "100x180",
    "dream_connections_refused_total": "0x180",
    'dream_sockets_closed_total{code="1001"}': "0+100x180",
    'dream_sockets_closed_total{code="4008"}': "0+1x180",
    "dream_tasks_resent_total": "0x100 3x80",
    'dream_timetable_last_success_timestamp_seconds{entry="e"}': "0x180",
    'dream_job_last_success_timestamp_seconds{name="resend"}': "0+60x180",
    'dream_job_failures_total{name="prune"}': "0x100 1x80",
}


@pytest.fixture(scope="module")
def promtool() -> str:
    return program("promtool")


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_the_rules_and_the_example(promtool: str) -> None:
    run(promtool, "check", "rules", str(FOLDER / "alerts.yml"))
    run(promtool, "check", "config", str(FOLDER / "prometheus.yml"))


def scene(series: dict[str, str], minutes: int, expected: dict[str, int | None]) -> dict[str, Any]:
    """A test of promtool: after so many minutes each alert of `expected` fires for so many series."""
    firing = 'count by (alertname) (ALERTS{{alertname="{}",alertstate="firing"}})'
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": firing.format(alert),
                "eval_time": f"{minutes}m",
                "exp_samples": [{"labels": f'{{alertname="{alert}"}}', "value": count}] if count else [],
            }
            for alert, count in expected.items()
        ],
    }


@pytest.mark.slow
def test_each_alert_fires_on_a_sick_system_and_none_on_one_that_is_well(promtool: str, tmp_path: Path) -> None:
    alerts = [rule["alert"] for rule in RULES]
    assert sorted(SICK) == sorted(alerts)
    minutes = {"DreamVersionsDiffer": 90}
    scenes = [scene(series, minutes.get(alert, 58), {alert: 1}) for alert, series in SICK.items()]
    scenes += [scene(WELL, at, dict.fromkeys(alerts)) for at in (30, 110, 170)]
    tests = {"rule_files": [str(FOLDER / "alerts.yml")], "evaluation_interval": "1m", "tests": scenes}
    (tmp_path / "tests.yml").write_text(yaml.safe_dump(tests))
    run(promtool, "test", "rules", str(tmp_path / "tests.yml"))


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[int]:
    """The port of a Prometheus that scrapes every metric of the catalogue."""
    registry = CollectorRegistry()
    served, port = free_port(), free_port()
    config: dict[str, Any] = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    config |= {"global": {"scrape_interval": "1s"}, "rule_files": []}
    config["scrape_configs"][0]["static_configs"] = [{"targets": [f"127.0.0.1:{served}"]}]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    files = f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data"
    command = program("prometheus"), *files, f"--web.listen-address=127.0.0.1:{port}"
    try:
        for metric in CATALOGUE.values():
            metric.switch_on(registry)
            metric.begin(*metric.labels)
        JOB_SUCCESS.set(1, "resend")
        server, _thread = start_http_server(served, "127.0.0.1", registry)
        with server, subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            try:
                yield port
            finally:
                process.terminate()
                server.shutdown()
    finally:
        for metric in CATALOGUE.values():
            metric.switch_off()


def asked(port: int, expression: str) -> list[dict[str, str]]:
    """The labels of the series that Prometheus finds; none while it starts."""
    try:
        with urlopen(f"http://127.0.0.1:{port}/api/v1/query?query={quote(expression)}", timeout=10) as answer:
            return [series["metric"] for series in json.load(answer)["data"]["result"]]
    except OSError:
        return []


@pytest.mark.slow
def test_a_scrape_keeps_the_labels_and_the_alert_about_jobs_sees_each(prometheus: int) -> None:
    wait_for(lambda: asked(prometheus, 'up{job="dream"} == 1'), what="a scrape")
    series = asked(prometheus, '{__name__=~"dream_.+"}')
    assert {each for labels in series for each in labels} >= {"name", "outcome", "instance", "job"}
    assert [labels for labels in series if any(each.startswith("exported_") for each in labels)] == []
    assert asked(prometheus, EXPRESSIONS["DreamJobOverdue"]) == [{"name": "resend"}]


def test_each_alert_has_a_severity_a_summary_and_a_line_in_the_runbook() -> None:
    page = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    rows = re.findall(r'^\| <a id="(\w+)"></a>`(\w+)` \| (\w+) \| .{20,} \|$', page, re.MULTILINE)
    assert rows == [(rule["alert"].lower(), rule["alert"], rule["labels"]["severity"]) for rule in RULES]
    for rule in RULES:
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["summary"].endswith((".", "}}."))
        assert rule["annotations"]["runbook_url"] == f"docs/metrics.md#{rule['alert'].lower()}"


def as_grafana_sends(expression: str) -> str:
    return expression.replace("$__rate_interval", "5m").replace("$instance", ".*")


def test_promtool_accepts_each_expression_of_the_dashboard(promtool: str, tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": as_grafana_sends(expression)}
        for number, expression in enumerate(EXPRESSIONS.values())
    ]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    run(promtool, "check", "rules", str(tmp_path / "rules.yml"))


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_an_expression_uses_metrics_and_labels_of_the_catalogue(name: str) -> None:
    text = as_grafana_sends(EXPRESSIONS[name])
    found = re.findall(r"\b(dream_\w+)(?:\{([^}]*)\})?", text)
    assert found or name == "DreamServiceDown"
    labels: set[str] = set()
    for series, matchers in found:
        metric = CATALOGUE.get(series) or CATALOGUE[re.sub(r"_(bucket|count|sum)$", "", series)]
        assert (series != metric.name) == (metric.kind == "histogram"), series
        assert set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", matchers)) <= {*metric.labels, *ADDED}, series
        labels |= set(metric.labels)
    grouped = {each.strip() for group in re.findall(r"by \(([^)]*)\)", text) for each in group.split(",")}
    assert grouped <= labels | ADDED


def test_every_metric_is_on_the_dashboard() -> None:
    text = " ".join(target["expr"] for panel in PANELS for target in panel["targets"])
    assert [name for name in CATALOGUE if not re.search(rf"\b{name}(_bucket|_count)?\b", text)] == []


def test_the_dashboard_can_be_imported() -> None:
    """Grafana asks for the data source; ids are unique, and no panel lies on another."""
    assert {each["name"] for each in DASHBOARD["templating"]["list"]} == {"datasource", "instance"}
    assert {panel["datasource"]["uid"] for panel in PANELS} == {"${datasource}"}
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    assert "id" not in DASHBOARD
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
