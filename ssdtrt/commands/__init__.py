"""The commands of `ssdtrt`, and what they render for a terminal; only `ssdtrt.cli` imports it."""
