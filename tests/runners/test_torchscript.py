"""Tests of saving, loading and freezing TorchScript, and of its deprecation warnings."""

import warnings

import pytest
import torch
from torch import nn

from ssdtrt.errors import ArtifactError
from ssdtrt.runners import torchscript


class Small(nn.Module):
    """A convolution and a BatchNorm with statistics other than the initial ones."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, bias=False)
        self.norm = nn.BatchNorm2d(8)
        with torch.no_grad():
            self.norm.running_mean.copy_(torch.linspace(-1, 1, 8))
            self.norm.running_var.copy_(torch.linspace(0.5, 2, 8))

    def forward(self, images):
        return self.norm(self.conv(images))


class Holder(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, images):
        return self.inner(images).float()


@pytest.fixture
def images():
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def scripted():
    with torchscript.quiet():
        return torch.jit.script(Small().eval())


def test_what_was_saved_answers_the_same_and_is_in_eval_mode(tmp_path, images):
    with torchscript.quiet():
        training = torch.jit.script(Small().train())
    torchscript.save(training, tmp_path / "small.ts")
    loaded = torchscript.load(tmp_path / "small.ts")
    assert not loaded.training and not loaded.norm.training
    with torch.no_grad():
        assert torch.equal(loaded(images), training.eval()(images))


def test_frozen_has_constants_instead_of_weights_and_no_batch_norm(scripted, images):
    assert "batch_norm" in str(scripted.inlined_graph)
    frozen = torchscript.freeze(scripted)
    assert not frozen.state_dict()
    assert "batch_norm" not in str(frozen.inlined_graph)
    with torch.no_grad():
        torch.testing.assert_close(frozen(images), scripted(images), rtol=1e-5, atol=1e-5)
    assert len(scripted.state_dict()) == 6  # The original module is unchanged.


def test_frozen_and_reloaded_can_be_a_part_of_a_saved_module(scripted, images, tmp_path):
    frozen = torchscript.freeze(scripted.to(torch.bfloat16))
    with torchscript.quiet():
        whole = torch.jit.script(Holder(torchscript.reload(frozen)))
    torchscript.save(whole, tmp_path / "whole.ts")
    answer = torchscript.load(tmp_path / "whole.ts")(images.bfloat16())
    assert answer.dtype == torch.float32 and answer.shape == (2, 8, 14, 14)


def test_only_the_notice_about_torchscript_is_hidden():
    notice = "`torch.jit.script` is deprecated. Please switch to `torch.compile` or `torch.export`."
    with pytest.warns(DeprecationWarning, match="switch"):
        warnings.warn(notice, DeprecationWarning)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        with torchscript.quiet():
            warnings.warn(notice, DeprecationWarning)
            warnings.warn(notice, FutureWarning)
            assert not heard
            warnings.warn(notice, UserWarning)
            warnings.warn("`torch.cuda.amp` is deprecated", FutureWarning)
        warnings.warn(notice, FutureWarning)
    assert [(str(one.message), one.category) for one in heard] == [
        (notice, UserWarning),
        ("`torch.cuda.amp` is deprecated", FutureWarning),
        (notice, FutureWarning),
    ]


@pytest.mark.parametrize("content", [b"", b"not an archive\n", b"PK\x03\x04 and then nothing"])
def test_what_is_no_archive_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "broken.ts"
    path.write_bytes(content)
    with pytest.raises(ArtifactError) as caught:
        torchscript.load(path)
    message = str(caught.value)
    assert message.startswith(f"{path} cannot be loaded (") and message.endswith("). Make it again.")
    assert "\n" not in message


def test_a_truncated_archive_is_refused(scripted, tmp_path):
    path = tmp_path / "small.ts"
    torchscript.save(scripted, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ArtifactError, match="cannot be loaded .*zip archive"):
        torchscript.load(path)


def test_threads_that_fuse_leave_the_processs_switch_as_it_was(fusing):
    """The second one is in its block before the first one leaves its own, as where an engine is loaded while another runs."""
    first, second = torchscript.fusing(), torchscript.fusing()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert torch.jit.onednn_fusion_enabled() is True
    second.__exit__(None, None, None)
    assert torch.jit.onednn_fusion_enabled() is False
