"""Where weights came from, as it is recorded."""

import msgspec
import pytest

from ssdtrt.model.source import WeightsSource

DIGEST = "0123456789abcdef" * 4


def test_as_dict():
    assert WeightsSource("random", DIGEST, False).as_dict() == {
        "name": "random", "sha256": DIGEST, "trained": False, "file_sha256": None
    }  # fmt: skip


def test_what_was_written_is_read_again():
    source = WeightsSource("coco", DIGEST, True, DIGEST[::-1])
    assert msgspec.convert(source.as_dict(), WeightsSource) == source


@pytest.mark.parametrize("digest", ["", DIGEST[:-1], DIGEST + "0", DIGEST.upper()])
def test_a_digest_that_is_none_is_refused(digest):
    with pytest.raises(msgspec.ValidationError, match="sha256"):
        msgspec.convert({"name": "coco", "sha256": digest, "trained": True}, WeightsSource)
