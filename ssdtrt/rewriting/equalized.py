"""Equalize the channels of a fused network: the same function, whose tensors lose less with one scale for all channels."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ssdtrt.errors import CalibrationError
from ssdtrt.model.backbone import Bottleneck
from ssdtrt.rewriting.fused import FusedSSD300, ProjectedBlock

_STEPS = 8  # of an octave
_FARTHEST = 6 * _STEPS  # from the median

Exponents = Mapping[str, "tuple[int, ...]"]
"""By the name of a group: for each of its channels the k of the factor 2 ** (k / 8) that it is divided by."""


class _Reader(NamedTuple):
    """A convolution that reads a group of channels, its name, and where they begin among its input channels."""

    name: str
    conv: nn.Conv2d
    first: int = 0

    def weights(self, channels: int) -> Tensor:
        """The weights [O, channels, H, W] that read the group: a view."""
        return self.conv.weight[:, self.first : self.first + channels]


class _Group(NamedTuple):
    """Channels that can be scaled: all convolutions that write them, and all that read them.

    Between them are ReLU, the maximum and additions of the group, which a positive factor passes through.
    """

    name: str
    writers: tuple[nn.Conv2d, ...]
    readers: tuple[_Reader, ...]


@torch.no_grad()
def choose_exponents(fused: FusedSSD300, largest: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Choose the factors of all channels: sqrt(largest value / largest weight that reads it), around the median of a group.

    So a channel of large values and small weights becomes one of smaller values and larger weights (Xiao et al.,
    "SmoothQuant", 2023, with the migration strength 0.5), as far as six octaves.

    Args:
        fused: The fused network, with its projections apart.
        largest: The largest absolute value of each channel [C] of the input of each convolution, by its name.
    """
    exponents = {}
    for name, writers, readers in _groups(fused):
        channels = writers[0].out_channels
        values = torch.stack([largest[reader.name] for reader in readers]).amax(0).cpu()
        weights = torch.stack([reader.weights(channels).abs().amax((0, 2, 3)) for reader in readers]).amax(0).cpu()
        octaves = (values.log2() - weights.log2()) / 2
        some = octaves.isfinite()  # A channel without values, or one that nothing reads, stays as it is.
        middle = octaves[some].median() if some.any() else torch.zeros(())
        steps = ((octaves - middle) * _STEPS).round().clamp(-_FARTHEST, _FARTHEST)
        exponents[name] = tuple(int(step) for step in torch.where(some, steps, torch.zeros_like(steps)))
    return exponents


@torch.no_grad()
def equalize(fused: FusedSSD300, exponents: Exponents) -> FusedSSD300:
    """Return a copy of a fused network, in FP32, whose channels are divided by these factors where they are written.

    Raises:
        CalibrationError: If they are not those of this network.
    """
    network = copy.deepcopy(fused)
    for name, writers, readers in _groups(network):
        channels = writers[0].out_channels
        steps = exponents.get(name, ())
        if len(steps) != channels:
            raise CalibrationError(
                f"The calibration table has {len(steps)} channels of {name}; the network has {channels}. Calibrate again."
            )
        factors = torch.tensor(steps, dtype=torch.float64, device=writers[0].weight.device).div(_STEPS).exp2().float()
        for conv in writers:
            conv.weight.div_(factors[:, None, None, None])
            conv.bias.div_(factors)  # type: ignore[union-attr]
        for reader in readers:
            reader.weights(channels).mul_(factors[None, :, None, None])
    return network


def _groups(fused: FusedSSD300) -> Iterator[_Group]:
    """Yield the groups: the first convolution's channels, those of each stage's residual path, and each additional block's."""
    prefix = "feature_extractor.feature_extractor"
    features: Any = fused.feature_extractor[0]
    stages = {
        f"{prefix}.{name}": stage for name, stage in features.named_children() if isinstance(stage, nn.Sequential)
    }
    names = list(stages)
    heads: Any = fused.heads
    blocks: Any = fused.additional_blocks
    first: nn.Conv2d = features[0]
    yield _Group(f"{prefix}.0", (first,), tuple(_reading(f"{names[0]}.0", stages[names[0]][0])))
    for name, following in zip(names, [*names[1:], None]):
        stage = stages[name]
        writers = tuple(conv for block in stage for conv in _writing(block))
        readers = [_Reader(f"{name}.{number}.conv1", block.conv1) for number, block in enumerate(stage) if number]  # type: ignore[arg-type]
        if following is None:
            readers += [_Reader("heads.0", heads[0]), _Reader("additional_blocks.0.0", blocks[0][0])]
        else:
            readers += _reading(f"{following}.0", stages[following][0])
        yield _Group(name, writers, tuple(readers))
    for number, block in enumerate(blocks):
        readers = [_Reader(f"heads.{number + 1}", heads[number + 1])]
        if number + 1 < len(blocks):
            readers.append(_Reader(f"additional_blocks.{number + 1}.0", blocks[number + 1][0]))
        yield _Group(f"additional_blocks.{number}", (block[3],), tuple(readers))


def _writing(block: Any) -> list[nn.Conv2d]:
    """Return the convolutions whose sum is the output of a block, a Bottleneck or a ProjectedBlock."""
    apart = isinstance(block, Bottleneck) and block.downsample is not None
    return [block.conv3, block.downsample[0]] if apart else [block.conv3]


def _reading(name: str, block: Any) -> list[_Reader]:
    """Return the convolutions that read the input of a block with a projection."""
    if isinstance(block, ProjectedBlock):
        projection = _Reader(f"{name}.conv3", block.conv3, block.conv2.out_channels)
    else:
        projection = _Reader(f"{name}.downsample.0", block.downsample[0])
    return [_Reader(f"{name}.conv1", block.conv1), projection]
