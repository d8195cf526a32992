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


def sent_at(times, sizes, **model):
    """A simulation that ran with requests at these milliseconds."""
    made = simulation.Simulation(simulation.Model(sizes, **model))
    for time in times:
        made._at(float(time), made.send)
    made.run(1, warm_up=0.0)
    return made


def test_one_server_of_constant_time_has_the_mean_wait_of_the_textbook():
    """M/D/1 of load r: the wait is r / (2 (1 - r)) of a service time. The server is the device, or the interpreter."""
    for sizes, more in (
        ({1: 10.0}, {}),
        ({1: 0.0}, {"request_ms": 10.0}),
        ({1: 0.0}, {"decode_ms": 10.0, "decode_locked": 1.0, "threads": 9}),
        ({1: 0.0}, {"decode_ms": 10.0}),
    ):
        _, found = simulate(sizes, 600, rate=50, queue_delay_ms=0.0, max_queue=10**6, **more)
        assert found["mean_ms"] == pytest.approx(10 + 5, rel=0.04), more
        assert found["pictures_per_second"] == pytest.approx(50, rel=0.02) and found["share_503"] == 0


def test_other_processes_take_their_share_of_the_cores():
    """Work that keeps a core busy for r, with others for b: all get 1 / (1 - r - b) of the time that they need."""
    _, found = simulate({1: 0.0}, 1000, rate=20, queue_delay_ms=0.0, decode_ms=10.0, threads=99, cores=1, others=0.5)
    assert found["mean_ms"] == pytest.approx(10 / 0.3, rel=0.06)


def test_times_that_vary_wait_longer():
    """M/M/1 of load r: the time in all is 1 / (1 - r) of a service time."""
    exponential = tuple(-np.log1p(-np.linspace(0, 0.9999, 10_000)))
    _, found = simulate({1: 10.0}, 1000, rate=50, queue_delay_ms=0.0, max_queue=10**6, spread=exponential)
    assert found["mean_ms"] == pytest.approx(20, rel=0.06)


def test_a_core_that_all_share_has_the_mean_time_of_the_textbook():
    """M/D/1 of load r, all served at once: the time in all is 1 / (1 - r) of a service time."""
    for more in (
        {"decode_ms": 10.0, "threads": 99},
        {"outside_ms": 10.0},
        {"decode_ms": 10.0, "threads": 99, "replicas": 3},
    ):
        _, found = simulate({1: 0.0}, 500, rate=50, queue_delay_ms=0.0, max_queue=10**6, cores=1, **more)
        assert found["mean_ms"] == pytest.approx(20, rel=0.04), more


def test_several_servers_have_the_mean_wait_of_the_textbook():
    """M/M/2 of load r: the time in all is 1 / (1 - r^2) of a service time. The servers are two cores, or two threads."""
    exponential = tuple(-np.log1p(-np.linspace(0, 0.9999, 10_000)))
    for more in ({"threads": 99, "cores": 2}, {"threads": 2}):
        _, found = simulate({1: 0.0}, 400, rate=100, max_queue=10**6, ongoing=10**6, spread=exponential,
                            queue_delay_ms=0.0, decode_ms=10.0, **more)  # fmt: skip
        assert found["mean_ms"] == pytest.approx(10 / 0.75, rel=0.04)


def test_what_does_not_fit_into_the_queues_of_the_replicas_gets_503_and_comes_again():
    for replicas in (1, 2):
        made, found = simulate(
            {1: 100.0}, 0.05, clients=100, queue_delay_ms=0.0, max_queue=8, ongoing=16, replicas=replicas
        )
        assert len(made.refused) == 100 - replicas * (16 + 8) and found["share_503"] == 1
    made, found = simulate({1: 100.0}, 0.05, clients=100, queue_delay_ms=0.0, max_queue=8, ongoing=16)
    found = made.run(1.55, warm_up=0.0)  # Until then all of them have come again, and most found no place.
    assert len(made.refused) > 2 * 76 - 20 and 13 <= len(made.done) <= 15
    assert found["share_503"] == pytest.approx(len(made.refused) / (len(made.refused) + len(made.done)), abs=1e-4)


def test_a_request_that_waits_is_worked_on_as_soon_as_another_is_answered():
    made = sent_at([0, 0, 0], {1: 10.0, 2: 10.0}, queue_delay_ms=1.0, ongoing=2)
    assert made.done == [(10.0, 10.0), (10.0, 10.0), (21.0, 21.0)]


def test_batches_fill_up():
    sizes = {1: 1.0, 8: 2.0, 32: 4.0}
    made, found = simulate(sizes, 1, clients=32)
    assert set(made.sizes) == {32} and found["pictures_per_second"] == pytest.approx(8000, rel=0.01)
    made, found = simulate(sizes, 1, clients=5)  # 5 ms until the time is over, and 2 ms as a batch of 8.
    assert set(made.sizes) == {5} and found["p50_ms"] == found["p99_ms"] == 7
    _, found = simulate(sizes, 1, clients=5, decode_ms=3.0, threads=5, overhead_ms=10.0)
    assert found["p50_ms"] == 20


def test_pictures_are_decoded_by_so_many_threads():
    for more in ({"threads": 2}, {"threads": 4, "cores": 2}):
        made, _ = simulate({4: 0.0}, 0.02, clients=4, decode_ms=6.0, queue_delay_ms=50.0, **more)
        assert [when for when, _ in made.done] == [12.0] * 4


def test_threads_of_a_replica_decode_beside_each_other_but_for_the_locked_share():
    """Four pictures of 3 + 3 ms, in turns of a tenth, on four cores: locked 12 ms in all, the last turn 0.3 ms unlocked.

    In two replicas each has two, whose turns fit into each other, but for one.
    """
    for replicas, last in ((1, pytest.approx(12.3)), (2, pytest.approx(6.3))):
        made = sent_at([0] * 4, {1: 0.0}, decode_ms=6.0, decode_locked=0.5, threads=4, cores=4, replicas=replicas)
        assert made.done[-1][0] == last


def test_a_batch_on_a_cpu_holds_a_core_and_one_on_a_gpu_does_not():
    """Two pictures of 6 ms to decode and 4 ms in a batch, the second 4 ms later, on the only core.

    From the 4th to the 8th ms it decodes both, and then the second, for 4 ms, or for 8 beside the batch.
    """
    for on_cpu, ends in ((True, [16.0, 20.0]), (False, [12.0, 16.0])):
        made = sent_at([0, 4], {1: 4.0}, on_cpu=on_cpu, cores=1, decode_ms=6.0, threads=2)
        assert [when for when, _ in made.done] == ends


def test_replicas_on_a_gpu_share_it_and_those_on_a_cpu_do_not():
    for on_cpu, last in ((False, 40.0), (True, 10.0)):
        made = sent_at([0] * 4, {1: 10.0}, replicas=4, on_cpu=on_cpu)
        assert made.done[-1][0] == last


def test_a_batch_ends_with_its_time_also_while_the_device_is_busy():
    made = sent_at([0, 20, 22, 30], {1: 100.0, 2: 100.0}, queue_delay_ms=5.0)
    assert made.sizes == [1, 2, 1]
    assert made.done == [(105.0, 105.0), (205.0, 185.0), (205.0, 183.0), (305.0, 275.0)]


def test_haproxy_chooses_the_replica_with_the_fewest_requests_and_else_each_in_turn():
    made = simulation.Simulation(simulation.Model({1: 100.0}, replicas=3, on_cpu=True))
    one, two, three = made._replicas
    for time in (0.0, 1.0, 2.0):
        made._at(time, made.send)
    made.run(0.003)
    assert [replica.requests for replica in (one, two, three)] == [1, 1, 1]
    assert list(made._replicas) == [one, two, three]  # The next one is the first again.
    two.requests = 5
    for _ in range(6):
        made._at(0.0, made.send)
    made.run(0.004)
    assert [replica.requests for replica in (one, two, three)] == [4, 5, 4]


def test_the_same_seed_gives_the_same():
    spread = (0.5, 1.0, 3.0)
    one, same, other = (simulate({1: 5.0, 8: 9.0}, 20, rate=300, seed=seed, spread=spread)[1] for seed in (1, 1, 2))
    assert one == same != other


def recorded():
    """A report of service.py, of requests that all take 55 ms."""
    times = {"pictures_per_second": 20.0, "p50_ms": 55.0, "p90_ms": 55.0, "p99_ms": 55.0}
    cores = {"replicas": 0.7, "haproxy": 0.02, "rest": 0.0, "clients": 0.06, "others": 0.0}
    steps = {"request": 10.0, "batch": 15.0, "decode": 10.0}
    options = {"queue_delay": 5000, "max_queue": 32}
    return {
        "service": {"batch_size": 2, "replicas": 1, "device": "cpu", "options": options},
        "machine": {"cores": 2},
        "costs": {"decode_ms": 9.0, "decode_locked": 0.2, "batch_ms": {"1": 3.0, "2": 5.0}, "batch_locked": {"1": 0.4, "2": 0.3}},
        "rows": [{"clients": clients, **times, "cores": cores, "replica_ms": steps} for clients in (1, 10)],
    }  # fmt: skip


def test_calibrated_on_one_client():
    """Clients and HAProxy compute for (0.06 + 0.02) / 20 s = 4 ms a picture. A batch of two takes 5 / 3 of one."""
    model = simulation.calibrated(recorded())
    assert model.request_ms == pytest.approx(10) and model.outside_ms == pytest.approx(4)
    assert model.overhead_ms == pytest.approx(55 - 5 - 35 - 4)
    assert (model.batch_ms, model.batch_locked, model.decode_ms, model.decode_locked) == ({1: 15, 2: 25}, 0.4, 10, 0.2)
    assert (model.on_cpu, model.threads, model.cores, model.max_queue, model.ongoing) == (True, 2, 2, 32, 16)
    assert set(model.spread) == {1.0}


def test_calibrated_on_one_and_on_the_most_clients_of_a_gpu():
    """Four replicas that answer 2,000 a second have 2 ms for each; of 12 ms 5 are the delay, 1 the batch, 4 computed outside."""
    report = recorded()
    report["service"] |= {"device": "cuda", "replicas": 4}
    one, most = report["rows"]
    most |= {"clients": 200, "pictures_per_second": 2000.0, "p90_ms": 99.0}
    one |= {"p50_ms": 12.5, "p90_ms": 12.5, "p99_ms": 12.5}
    model = simulation.calibrated_on_gpu(report, {8: 3.0, 1: 1.0})
    assert (model.request_ms, model.outside_ms) == (pytest.approx(2), pytest.approx(4))
    assert (model.overhead_ms, model.replicas, model.on_cpu) == (pytest.approx(0.5), 4, False)
    assert (model.queue_delay_ms, model.batch_ms, model.decode_ms) == (5, {8: 3, 1: 1}, 0)
    assert (model.cores, model.max_queue, set(model.spread)) == (2, 32, {1.0})


def test_other_numbers_of_replicas_are_predicted_where_they_decode_in_the_same_place(tmp_path):
    """What a request has of an interpreter is what counts: two replicas answer half, whatever was measured."""
    report = recorded()
    report["service"] |= {"device": "cuda", "decode": "gpu", "replicas": 4}
    report["machine"]["cores"] = 100
    report["rows"][1] |= {"clients": 100, "pictures_per_second": 400.0}
    runs = [
        {**report, "service": {**report["service"], "replicas": replicas, "decode": decode}}
        for replicas, decode in ((2, "gpu"), (8, "cpu"))
    ]
    (tmp_path / "in.json").write_text(json.dumps(report))
    (tmp_path / "forms.json").write_text(json.dumps({"runs": runs}))
    paths = {name: str(tmp_path / f"{name}.json") for name in ("in", "forms", "out")}
    simulation.main(["--check", paths["in"], "--forms", paths["forms"], "--batch-ms", "1:0.5", "--batch-ms", "8:1",
                     "--seconds", "5", "--json", paths["out"]])  # fmt: skip
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["calibrated_on"] == "the rows of 1 and 100 clients"
    assert [(row.get("replicas"), row["clients"]) for row in found["compared"]] == [
        (None, 1), (None, 100), (2, 1), (2, 100),
    ]  # fmt: skip
    assert found["compared"][1]["simulated"]["pictures_per_second"] == pytest.approx(400, rel=0.02)
    assert found["compared"][3]["simulated_over_measured"]["pictures_per_second"] == pytest.approx(0.5, rel=0.02)


def test_the_check_predicts_each_row(tmp_path, capsys):
    (tmp_path / "in.json").write_text(json.dumps(recorded()))
    words = ["--check", str(tmp_path / "in.json"), "--seconds", "20"]
    simulation.main([*words, "--json", str(tmp_path / "out.json")])
    rows = json.loads((tmp_path / "out.json").read_text())["compared"]
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == rows
    one, ten = rows
    assert one["simulated"]["p99_ms"] == pytest.approx(55) and one["simulated_over_measured"]["p99_ms"] == 1
    # Two pictures are locked for 2 x (10 + 2) + 25 x 0.4 = 34 ms, and compute for 2 x (4 + 10 + 10) + 25 = 73 on two cores.
    assert 2 / 0.0365 * 0.65 < ten["simulated"]["pictures_per_second"] <= 2 / 0.0365


def test_the_record_is_what_the_recorded_account_gives():
    report = json.loads((REPORTS / "cpu-service.json").read_text())
    found = json.loads((REPORTS / "cpu-service-simulation.json").read_text())
    again = simulation.Simulation(simulation.calibrated(report), clients=20, seed=found["seed"]).run(60)
    (row,) = [row for row in found["compared"] if row["clients"] == 20]
    names = ("pictures_per_second", "p50_ms", "p90_ms", "p99_ms")
    # The record is of 300 s; batches of two and of one take turns for minutes.
    assert [row["simulated"][name] for name in names] == pytest.approx([again[name] for name in names], rel=0.05)
    page = (ROOT / "docs" / "service-load.md").read_text(encoding="utf-8")
    for row, measured in zip(found["compared"], report["rows"]):
        assert row["measured"] == {name: measured[name] for name in names}
        for one in (row["measured"], row["simulated"])[: row["clients"]]:  # That of one client was given to the model.
            rate, *times = (one[name] for name in names)
            assert " | ".join([f"| {rate:.1f}", *(f"{time:.1f} ms" for time in times)]) in page
    missed = [1 - row["simulated_over_measured"]["p99_ms"] for row in found["compared"][1:]]
    assert f"too low by {100 * missed[0]:.0f} and {100 * missed[1]:.0f} %" in page


def test_the_pages_figures_of_a_gpu_are_those_of_the_reports():
    page = (ROOT / "docs" / "service-load.md").read_text(encoding="utf-8")
    recorded, proxy = (json.loads((REPORTS / f"h200-{name}.json").read_text()) for name in ("service", "service-proxy"))
    forms = json.loads((REPORTS / "h200-service-forms.json").read_text())["runs"]
    kept = [one for one in forms if (one["service"]["replicas"], one["service"]["decode"]) != (4, "gpu")]
    assert len(kept) == 4 and (recorded["service"]["replicas"], recorded["service"]["decode"]) == (4, "gpu")
    for run in (recorded, *kept, proxy):
        rows = {row["clients"]: row for row in run["rows"]}
        assert not any(row["unexpected"] or row["late"] or row["lost"] for row in rows.values())
        assert all(set(row["statuses"]) == {"200"} for row in rows.values())
        rates = [f"{rows[clients]['pictures_per_second']:,.0f}/s" for clients in (1, 20, 200)]
        times = [f"{rows[200][name]:,.0f} ms" for name in ("p50_ms", "p99_ms", "max_ms")]
        replicas = run["service"]["replicas"]
        assert " | ".join([f" | {replicas}", *rates, *times]) in page
    simulated = json.loads((REPORTS / "h200-service-simulation.json").read_text())["compared"]
    for row in (row for row in simulated if row["clients"] > 1 and row.get("replicas") != 4):
        for one in (row["measured"], row["simulated"]):
            rate, p50, _, p99 = one.values()
            assert f" | {rate:,.0f} | {p50:.1f} ms | {p99:.1f} ms |" in page


def test_one_load_from_the_command_line(capsys):
    words = ["--clients", "5", "--batch-ms", "1:1", "--batch-ms", "8:2", "--decode-ms", "0", "--seconds", "1"]
    simulation.main(words)
    assert json.loads(capsys.readouterr().out)["p99_ms"] == 7


@pytest.mark.parametrize("words, told", [
    (["--clients", "5"], "Give --check, also with --forms, or --batch-ms"),
    (["--clients", "5", "--batch-ms", "1:1", "--forms", "forms.json"], "Give --check, also with --forms"),
    (["--check", str(REPORTS / "h200-service.json")], "Give --batch-ms with --check for the report of a GPU"),
    (["--check", str(REPORTS / "cpu-service.json"), "--batch-ms", "1:1"], "the report of a GPU, and only there"),
])  # fmt: skip
def test_what_does_not_go_together_is_refused(capsys, words, told):
    with pytest.raises(SystemExit) as ended:
        simulation.main(words)
    assert ended.value.code == 2 and told in capsys.readouterr().err
