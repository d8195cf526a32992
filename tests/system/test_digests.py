"""Tests of the SHA-256 of files and of checking it."""

import hashlib

import pytest

from ssdtrt.errors import ArtifactError, WeightsError
from ssdtrt.system.digests import check_sha256, sha256_file

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1


@pytest.fixture
def abc(tmp_path):
    path = tmp_path / "abc.bin"
    path.write_bytes(b"abc")
    return path


def test_literal(abc):
    assert sha256_file(abc) == sha256_file(str(abc)) == ABC


@pytest.mark.parametrize("size", [0, (1 << 20) - 1, 1 << 20, (2 << 20) + 3])
def test_files_of_any_size_are_read_in_parts(size, tmp_path):
    content = bytes(range(256)) * (size // 256 + 1)
    (tmp_path / "a.bin").write_bytes(content[:size])
    assert sha256_file(tmp_path / "a.bin") == hashlib.sha256(content[:size]).hexdigest()


@pytest.mark.parametrize("expected", [ABC, ABC.upper()])
def test_a_digest_of_either_case_is_the_files(expected, abc):
    assert check_sha256(abc, expected, WeightsError) == ABC


@pytest.mark.parametrize("kind", [WeightsError, ArtifactError])
def test_another_digest(kind, abc):
    with pytest.raises(kind) as caught:
        check_sha256(abc, "AB" * 32, kind, "from the release notes")
    message = str(caught.value)
    assert message.startswith(f"{abc} has the SHA-256 {ABC}; expected {'ab' * 32}, from the release notes. ")
    assert "\n" not in message


@pytest.mark.parametrize("expected", ["", "abc", ABC[:-1], ABC + "0", "g" * 64, f" {ABC}", f"{ABC}\n"])
def test_what_is_no_digest(expected, abc):
    with pytest.raises(ArtifactError) as caught:
        check_sha256(abc, expected, ArtifactError)
    assert (
        str(caught.value) == f"{expected!r} is not a SHA-256; expected 64 hex digits, as sha256sum {abc} prints them."
    )


def test_a_digest_known_already_is_not_computed_again(tmp_path):
    assert check_sha256("http://somewhere/a.pt", ABC, WeightsError, found=ABC) == ABC
    with pytest.raises(WeightsError, match=f"http://somewhere/a.pt has the SHA-256 {'0' * 64}; expected {ABC}"):
        check_sha256("http://somewhere/a.pt", ABC, WeightsError, found="0" * 64)
