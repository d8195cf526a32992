"""`python -m ssdtrt` is the command `ssdtrt`."""

from ssdtrt.cli import main

main(prog_name="ssdtrt")
