"""benchmarks/queue_simulation.py, against the formulas of queues that have one, and against times that can be counted."""

import json

import numpy as np
import pytest

from conftest import ROOT, script

simulation = script("queue_simulation")
REPORTS = ROOT / "benchmarks" / "reports"


def simulate(sizes, seconds, *, clients=0, rate=0.0, seed=0, **model):
    """A simulation that ran, and what it found."""
    made = simulation.Simulation(simulation.Model(sizes, **model), clients=clients, rate=rate, seed=seed)
    return made, made.run(seconds, warm_up=0.0)


def test_one_server_of_constant_time_has_the_mean_wait_of_the_textbook():
    """M/D/1 of load r: the wait is r / (2 (1 - r)) of a service time. The server is the device, or the proxy."""
    for sizes, proxy in (({1: 10.0}, 0.0), ({1: 0.0}, 10.0)):
        _, found = simulate(sizes, 1000, rate=50, queue_delay_ms=0.0, max_queue=10**6, proxy_ms=proxy)
        assert found["mean_ms"] == pytest.approx(10 + 5, rel=0.04)
        assert found["pictures_per_second"] == pytest.approx(50, rel=0.02) and found["share_503"] == 0


def test_times_that_vary_wait_longer():
    """M/M/1 of load r: the time in all is 1 / (1 - r) of a service time."""
    exponential = tuple(-np.log1p(-np.linspace(0, 0.9999, 10_000)))
    _, found = simulate({1: 10.0}, 1000, rate=50, queue_delay_ms=0.0, max_queue=10**6, spread=exponential)
    assert found["mean_ms"] == pytest.approx(20, rel=0.06)


def test_what_does_not_fit_into_the_queue_gets_503_and_comes_again():
    made, found = simulate({1: 100.0}, 0.05, clients=100, queue_delay_ms=0.0, max_queue=8, ongoing=16)
    assert len(made.refused) == 100 - 16 - 8 and found["share_503"] == 1
    found = made.run(1.55, warm_up=0.0)  # Until then all of them have come again, and most found no place.
    assert len(made.refused) > 2 * 76 - 20 and 13 <= len(made.done) <= 15
    assert found["share_503"] == pytest.approx(len(made.refused) / (len(made.refused) + len(made.done)), abs=1e-4)


def test_batches_fill_up():
    sizes = {1: 1.0, 8: 2.0, 32: 4.0}
    made, found = simulate(sizes, 1, clients=32)
    assert set(made.sizes) == {32} and found["pictures_per_second"] == pytest.approx(8000, rel=0.01)
    made, found = simulate(sizes, 1, clients=5)  # 5 ms until the time is over, and 2 ms as a batch of 8.
    assert set(made.sizes) == {5} and found["p50_ms"] == found["p99_ms"] == 7
    _, found = simulate(sizes, 1, clients=5, decode_ms=3.0, threads=5, proxy_ms=0.0, overhead_ms=10.0)
    assert found["p50_ms"] == 20


def test_pictures_are_decoded_by_so_many_threads():
    made, _ = simulate({4: 0.0}, 0.02, clients=4, decode_ms=6.0, threads=2, queue_delay_ms=50.0)
    assert [when for when, _ in made.done] == [12.0] * 4


def test_a_batch_ends_with_its_time_also_while_the_device_is_busy():
    made = simulation.Simulation(simulation.Model({1: 100.0, 2: 100.0}, queue_delay_ms=5.0))
    made._at(0.0, made._send)
    made._at(20.0, made._send)
    made._at(22.0, made._send)
    made._at(30.0, made._send)
    made.run(1, warm_up=0.0)
    assert made.sizes == [1, 2, 1]
    assert made.done == [(105.0, 105.0), (205.0, 185.0), (205.0, 183.0), (305.0, 275.0)]


def test_a_full_replica_is_looked_at_again_after_a_while():
    """17 requests, of which a replica takes 16: the last is taken when the router looks again after 25 ms, not after 20."""
    made = simulation.Simulation(simulation.Model({1: 20.0, 16: 20.0}, queue_delay_ms=1.0, max_queue=99))
    made._replicas[0].ongoing = made.model.ongoing - 16
    for _ in range(17):
        made._at(0.0, made._send)
    made.run(1, warm_up=0.0)
    assert made.done[-1] == (46.0, 46.0) and len(made.done) == 17


def test_of_two_replicas_the_one_with_fewer_requests_is_chosen():
    made, found = simulate({1: 10.0}, 20, clients=8, queue_delay_ms=0.0, replicas=4)
    assert found["pictures_per_second"] > 300  # of 400, where one replica does 100
    made = simulation.Simulation(simulation.Model({1: 10.0}, replicas=2))
    fuller, other = made._replicas
    fuller.ongoing, other.ongoing = 3, 1
    assert all(made._choose() is other for _ in range(20))
    fuller.ongoing = other.ongoing = made.model.ongoing
    assert made._choose() is None


def test_the_same_seed_gives_the_same():
    spread = (0.5, 1.0, 3.0)
    one, same, other = (simulate({1: 5.0, 8: 9.0}, 20, rate=300, seed=seed, spread=spread)[1] for seed in (1, 1, 2))
    assert one == same != other


def recorded(**more):
    """A report of service.py, of requests that all take 55 ms."""
    times = {"pictures_per_second": 18.2, "p50_ms": 55.0, "p90_ms": 55.0, "p99_ms": 55.0}
    options = {"queue_delay": 5000, "max_queue": 32}
    return {
        "service": {"batch_size": 2, "replicas": 1, "device": "cpu", "options": options},
        "machine": {"cores": 2},
        "rows": [{"clients": clients, **times} for clients in (1, 10)],
        **more,
    }


def test_calibrated_on_one_client():
    models = simulation.calibrated(recorded(), 10.0)
    serial, parallel = models["serial"], models["parallel"]
    assert (serial.proxy_ms, serial.overhead_ms) == (40.0, 0.0) == (parallel.overhead_ms, parallel.proxy_ms)
    assert (serial.batch_ms, serial.threads, serial.max_queue, set(serial.spread)) == ({1: 0.0, 2: 0.0}, 2, 32, {1.0})
    engine = [{"case": "engine", "batch_size": size, "median_ms": time} for size, time in ((1, 15.0), (2, 25.0))]
    model = simulation.calibrated(recorded(bench=engine), 10.0)["serial"]
    assert (model.batch_ms, model.proxy_ms) == ({1: 15.0, 2: 25.0}, 25.0)


def test_the_check_predicts_each_row(tmp_path, capsys):
    (tmp_path / "in.json").write_text(json.dumps(recorded()))
    words = ["--check", str(tmp_path / "in.json"), "--decode-ms", "10", "--seconds", "20"]
    simulation.main([*words, "--json", str(tmp_path / "out.json")])
    rows = json.loads((tmp_path / "out.json").read_text())["compared"]
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == rows
    one, ten = rows
    assert one["serial"]["p99_ms"] == one["parallel"]["p99_ms"] == 55 and one["serial_p99_over_measured"] == 1
    assert ten["serial"]["p50_ms"] == pytest.approx(10 * 40) and ten["serial"]["pictures_per_second"] == 25
    assert ten["parallel"]["p50_ms"] < 80


@pytest.mark.parametrize("suffix", ["", "-second"])
def test_the_record_is_what_the_recorded_account_gives(suffix):
    report = json.loads((REPORTS / f"cpu-service{suffix}.json").read_text())
    found = json.loads((REPORTS / f"service-simulation{suffix}.json").read_text())
    model = simulation.calibrated(report, found["models"]["serial"]["decode_ms"])["serial"]
    again = simulation.Simulation(model, clients=20, seed=found["seed"]).run(found["seconds"])
    (row,) = [row for row in found["compared"] if row["clients"] == 20]
    names = ("pictures_per_second", "p50_ms", "p90_ms", "p99_ms")
    assert [row["serial"][name] for name in names] == pytest.approx([again[name] for name in names], rel=0.02)
    assert row["measured"] == {name: report["rows"][-1][name] for name in names}
    page = (ROOT / "docs" / "service.md").read_text(encoding="utf-8")
    for one in (row["measured"], row["serial"]):
        rate, *times = (one[name] for name in names)
        assert " | ".join([f"| {rate:.1f}", *(f"{time:,.0f} ms" for time in times)]) in page


def test_one_load_from_the_command_line(capsys):
    words = ["--clients", "5", "--batch-ms", "1:1", "--batch-ms", "8:2", "--decode-ms", "0", "--seconds", "1"]
    simulation.main(words)
    assert json.loads(capsys.readouterr().out)["p99_ms"] == 7
    with pytest.raises(SystemExit):
        simulation.main(["--clients", "5"])
