"""benchmarks/service.py: its account of who computed. The service itself is measured in tests/serving/service."""

import pytest

from conftest import script

pytest.importorskip("aiohttp")


def test_what_the_threads_of_replicas_computed_is_known_by_step():
    by_step = script("service").by_step
    before = [[1.0, 2.0, 3.0], [5.0, 5.0]]
    # The second thread is none of a step, and no request came to the second replica.
    after = [[2.0, 2.0, 6.0, 4.0], [5.0, 5.0]]
    assert by_step(before, after) == {"request": 1.0, "batch": 3.0, "decode": 4.0}
