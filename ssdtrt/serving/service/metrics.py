"""The service's metrics for Prometheus: those that Ray collects on each node, of Serve and of ours."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterable

_OURS = ("ray_serve_", "ray_ssdtrt_")
_SECONDS = 5.0
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def read_metrics(addresses: Iterable[str]) -> str:
    """Return the metrics of several nodes as one text in Prometheus' format.

    Args:
        addresses: HOST:PORT of each node's metrics. One that does not answer is left out.
    """
    texts = []
    for address in addresses:
        try:
            with _OPENER.open(f"http://{address}/metrics", timeout=_SECONDS) as answer:
                texts.append(answer.read().decode())
        except OSError:
            continue
    return merged(texts)


def merged(texts: Iterable[str]) -> str:
    """Return the service's metrics among those of several texts, each metric's samples together.

    Args:
        texts: Texts in Prometheus' format.
    """
    heads: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for text in texts:
        name, before = "", set(heads)
        for line in text.splitlines():
            if line.startswith(("# HELP ", "# TYPE ")):
                name = line.split(" ", 3)[2]
                if name.startswith(_OURS) and name not in before:
                    heads.setdefault(name, []).append(line)
            elif line and name.startswith(_OURS):
                samples.setdefault(name, []).append(line)
    lines = [line for name, found in samples.items() for line in (*heads.get(name, ()), *found)]
    return "".join(f"{line}\n" for line in lines)
