"""nvImageCodec's library: where it and nvJPEG are looked for, and what is said where it cannot be loaded."""

import ctypes
import re
import shutil
import subprocess
import types

import pytest

from ssdtrt.errors import SsdtrtError
from ssdtrt.images import nvimgcodec, nvimgcodec_library
from ssdtrt.images.nvimgcodec_library import Struct, load

INSTALL = "pip install 'ssdtrt[gpu-decode]'"
NUMBERS = {
    "BACKEND_KIND_CPU_ONLY": nvimgcodec.BACKENDS["cpu"],
    "BACKEND_KIND_HYBRID_CPU_GPU": nvimgcodec.BACKENDS["hybrid"],
    "BACKEND_KIND_HW_GPU_ONLY": nvimgcodec.BACKENDS["hardware"],
    "DEVICE_CPU_ONLY": nvimgcodec._CPU_ONLY,
    "IMAGE_BUFFER_KIND_STRIDED_DEVICE": nvimgcodec._DEVICE_MEMORY,
    "IMAGE_BUFFER_KIND_STRIDED_HOST": nvimgcodec._HOST_MEMORY,
    "COLORSPEC_SRGB": nvimgcodec._SRGB,
    "SAMPLEFORMAT_I_RGB": nvimgcodec._RGB,
    "SAMPLE_DATA_TYPE_UINT8": nvimgcodec._UINT8,
    "LOAD_HINT_POLICY_FIXED": nvimgcodec._FIXED_LOAD,
    "PROCESSING_STATUS_SUCCESS": nvimgcodec._SUCCESS,
    "STATUS_SUCCESS": 0,
}


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


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc")
def test_structures_and_numbers_are_those_of_its_header(library, tmp_path):
    facts = {f"NVIMGCODEC_{name}": number for name, number in NUMBERS.items()}
    for struct in Struct.__subclasses__():
        name = struct.__name__.lstrip("_")
        words = re.findall("[A-Z][a-z]+", name)
        facts["_".join(("NVIMGCODEC_STRUCTURE_TYPE", *words)).upper()] = struct.number
        facts[f"sizeof(nvimgcodec{name}_t)"] = ctypes.sizeof(struct)
        for field, *_ in (*Struct._fields_, *struct._fields_):
            facts[f"offsetof(nvimgcodec{name}_t, {field})"] = getattr(struct, field).offset
            facts[f"sizeof(((nvimgcodec{name}_t*)0)->{field})"] = getattr(struct, field).size
    lines = ["#include <stddef.h>", '#include "nvimgcodec.h"']
    lines += [f'_Static_assert({fact} == {number}, "{fact}");' for fact, number in facts.items()]
    (tmp_path / "facts.c").write_text("\n".join(lines))
    (tmp_path / "cuda_runtime_api.h").write_text("typedef struct CUstream_st* cudaStream_t;")
    command = ["gcc", "-fsyntax-only", "-I", tmp_path, "-I", library._folder / "include", tmp_path / "facts.c"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stderr, done.returncode) == ("", 0) and len(facts) > 100
