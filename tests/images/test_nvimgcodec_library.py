"""nvImageCodec's library: where it and nvJPEG are looked for, and what is said where it cannot be loaded."""

import types

import pytest

from ssdtrt.errors import SsdtrtError
from ssdtrt.images import nvimgcodec_library
from ssdtrt.images.nvimgcodec_library import load

INSTALL = "pip install 'ssdtrt[gpu-decode]'"


@pytest.fixture
def library():
    try:
        return load()
    except SsdtrtError as error:
        pytest.skip(str(error))


@pytest.fixture
def not_loaded(monkeypatch):
    load.cache_clear()
    yield monkeypatch
    load.cache_clear()


def located(folder):
    return types.SimpleNamespace(submodule_search_locations=[str(folder)])


@pytest.mark.parametrize("found", [None, types.SimpleNamespace(submodule_search_locations=None), ModuleNotFoundError()])
def test_where_it_is_not_installed_is_said(not_loaded, found):
    def find_spec(name):
        assert name == "nvidia.nvimgcodec"
        if isinstance(found, Exception):
            raise found
        return found

    not_loaded.setattr(nvimgcodec_library.importlib.util, "find_spec", find_spec)
    with pytest.raises(SsdtrtError) as caught:
        load()
    assert str(caught.value) == f"nvImageCodec is not installed; {INSTALL}"


def test_a_library_that_cannot_be_loaded_is_said(not_loaded, tmp_path):
    not_loaded.setattr(nvimgcodec_library.importlib.util, "find_spec", lambda _: located(tmp_path))
    with pytest.raises(SsdtrtError, match=r"^nvImageCodec cannot be loaded \(.*libnvimgcodec.so: cannot open shared"):
        load()
    (tmp_path / "libnvimgcodec.so.0").write_bytes(b"no library")
    with pytest.raises(SsdtrtError) as caught:
        load()
    assert str(caught.value).startswith("nvImageCodec cannot be loaded (") and str(caught.value).endswith(INSTALL)


def test_another_version_is_refused(library, not_loaded):
    not_loaded.setattr(nvimgcodec_library, "_VERSIONS", range(1000, 1100))
    with pytest.raises(SsdtrtError, match="^nvImageCodec 0.9 is installed, and 0.9 is needed; "):
        load()


def test_nvjpeg_is_that_of_its_package_first(library, monkeypatch, tmp_path):
    monkeypatch.setattr(library, "_folder", tmp_path / "nvimgcodec")
    assert library._nvjpeg() in ("libnvjpeg.so.12", "/usr/local/cuda/lib64/libnvjpeg.so.12")
    for part in ("cu12", "nvjpeg"):
        found = tmp_path / part / "lib" / "libnvjpeg.so.12"
        found.parent.mkdir(parents=True)
        found.touch()
        assert library._nvjpeg() == str(found)
