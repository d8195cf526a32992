"""The metrics of several nodes as one text."""

import pytest

pytest.importorskip("prometheus_client", reason="needs the extra ray")

from prometheus_client.parser import text_string_to_metric_families

from ssdtrt.serving.service.metrics import merged, read_metrics

ONE = """# HELP ray_tasks Tasks.
# TYPE ray_tasks gauge
ray_tasks{State="RUNNING"} 3.0
# HELP ray_serve_num_http_requests_total Requests.
# TYPE ray_serve_num_http_requests_total counter
ray_serve_num_http_requests_total{status_code="200",node="1"} 5.0
# HELP ray_ssdtrt_pictures_total Pictures.
# TYPE ray_ssdtrt_pictures_total counter
ray_ssdtrt_pictures_total{node="1"} 7.0
"""
OTHER = """# HELP ray_serve_num_http_requests_total Requests.
# TYPE ray_serve_num_http_requests_total counter
ray_serve_num_http_requests_total{status_code="503",node="2"} 1.0
"""


def test_each_metric_is_together_and_only_ours_are_there():
    found = {one.name: one for one in text_string_to_metric_families(merged([ONE, OTHER]))}
    assert set(found) == {"ray_serve_num_http_requests", "ray_ssdtrt_pictures"}
    assert [(one.labels["node"], one.value) for one in found["ray_serve_num_http_requests"].samples] == [
        ("1", 5.0), ("2", 1.0),
    ]  # fmt: skip
    assert merged([ONE, OTHER]).count("# TYPE ray_serve_num_http_requests_total") == 1


def test_a_node_that_does_not_answer_is_left_out(server):
    address, folder = server
    (folder / "metrics").write_text(OTHER)
    assert read_metrics(["127.0.0.1:9", address.removeprefix("http://")]) == OTHER
