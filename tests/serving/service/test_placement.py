"""Where the replicas run, on machines that are not here."""

import pytest

from ssdtrt.errors import SsdtrtError
from ssdtrt.serving.service.placement import place


@pytest.mark.parametrize(
    "needed, replicas, gpus, cores, expected",
    [
        (None, None, 0, 16, ("cpu", 1, 1)),
        ("cpu", 3, 2, 16, ("cpu", 3, 1)),
        (None, None, 1, 2, ("cuda", 1, 1)),
        (None, None, 1, 3, ("cuda", 1, 1)),
        (None, None, 1, 7, ("cuda", 3, 3)),
        ("cuda", None, 1, 16, ("cuda", 4, 4)),
        ("cuda", None, 1, 128, ("cuda", 4, 4)),
        ("cuda", None, 8, 32, ("cuda", 2, 2)),
        ("cuda", 1, 1, 16, ("cuda", 1, 1)),
        ("cuda", 2, 2, 16, ("cuda", 2, 1)),
        ("cuda", 5, 2, 16, ("cuda", 5, 3)),
    ],
)
def test_how_many_replicas_share_a_gpu(needed, replicas, gpus, cores, expected):
    found = place(needed, replicas, gpus, cores)
    assert (found.device, found.replicas, found.together) == expected


def test_what_each_takes_fits_into_a_gpu():
    shares = [place("cuda", count, 1, 1).gpus for count in range(1, 1025)]
    assert shares[:4] == [1, 0.5, 0.3333, 0.25]
    assert all(0 < round(share * 10_000) * count <= 10_000 for count, share in enumerate(shares, 1))


def test_no_gpu_is_there():
    with pytest.raises(SsdtrtError, match="runs on a GPU; found none in the Ray cluster"):
        place("cuda", None, 0, 16)
