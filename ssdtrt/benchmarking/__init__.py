"""Benchmark cases, timing, and what is done with a report."""
