"""A pytest plugin (-p some_must_run): a run in which no test ran, because each was skipped or left out, fails."""

import pytest


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if not any(reporter.stats.get(outcome) for outcome in ("passed", "failed", "error")):
        reporter.write_line("\nNo test ran: expected at least one. What a GPU test needs, ssdtrt doctor looks for.")
        session.exitstatus = session.exitstatus or 1
