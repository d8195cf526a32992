"""What of CUDA graphs can be shown without a GPU: they are refused there. What they do is in test_gpu.py."""

import pytest

from ssdtrt.errors import ArtifactError
from ssdtrt.runner import load_engine


def test_a_file_on_the_cpu_is_not_captured(engine):
    with pytest.raises(ArtifactError) as caught:
        load_engine(engine, cuda_graph=True)
    assert str(caught.value) == f"{engine} runs on the CPU here, where there are no CUDA graphs; leave cuda_graph out."
