"""The forms that `benchmarks/forms.py` compares: all of them the same function."""

from types import SimpleNamespace

import pytest
import torch

from conftest import script
from ssdtrt.engine.tensorrt_backend import BuildLimits
from ssdtrt.images.tensors import synthetic_images
from ssdtrt.rewriting import fused as rewrite

CPU = torch.device("cpu")
forms = script("forms")


@pytest.mark.parametrize("name", forms.FORMS)
def test_every_form_is_the_network(model, name):
    images = synthetic_images(1, seed=11)
    network = rewrite.trace(forms.form_of(name, model, torch.float32), CPU)
    with torch.no_grad():
        found, expected = network(images), torch.cat(model(images), 1)
    assert found.dtype == torch.float32 and (found - expected).norm() / expected.norm() < 5e-6


@pytest.mark.parametrize("name", ["compiled", "cast-first", "projections-apart"])
def test_the_heads_alone_join_their_maps_as_the_form_does(model, name):
    images = synthetic_images(2, seed=3)
    with torch.no_grad():
        found = forms.form_of(name, model, torch.float32, heads=True)(images)
        mean = torch.full((1, model.loc[5].in_channels, 1, 1), float(images[1].mean()))
        last = torch.cat([model.loc[5](mean), model.conf[5](mean)], 1)
    assert found.shape == (2, 85, 8732)
    torch.testing.assert_close(found[1, :, -4:].flatten(), last.flatten(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("more", [["--heads"], ["--form", "exported"], []])
def test_streams_of_a_form_that_cannot_have_them_are_refused_before_any_work(more, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["forms.py", "missing.ts", "--json", "a.json", "--streams", "4", *more])
    with pytest.raises(SystemExit) as caught:
        forms.main()
    assert caught.value.code == 2
    assert "--streams takes whole networks of --form compiled, projections-apart" in capsys.readouterr().err


def test_the_ways_to_build_a_form(model, monkeypatch, tmp_path):
    built = []
    monkeypatch.setattr(forms.tensorrt_backend, "build_plan", lambda *given: built.append(given) or b"plan")
    monkeypatch.setattr(forms.tensorrt_backend, "embed", lambda *given: given)
    form, timings = forms.form_of("compiled", model, torch.float32), tmp_path / "times.bin"
    options = SimpleNamespace(batch_size=8, streams=[0, 4], only_streams=False, timings=timings)
    assert list(forms.ways("compiled", form, options, CPU)) == [
        "compiled",
        "compiled, 0 streams",
        "compiled, 4 streams",
    ]
    options.only_streams = True
    found = forms.ways("compiled", form, options, CPU)
    assert list(found) == ["compiled, 0 streams", "compiled, 4 streams"]
    assert found["compiled, 4 streams"]() == (b"plan", CPU)
    assert built == [(form, forms.BatchRange.parse(8), BuildLimits(4, 4096), timings)]


def test_streams_alone_have_to_be_some(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["forms.py", "missing.ts", "--json", "a.json", "--only-streams"])
    with pytest.raises(SystemExit) as caught:
        forms.main()
    assert caught.value.code == 2 and "--only-streams needs --streams" in capsys.readouterr().err
