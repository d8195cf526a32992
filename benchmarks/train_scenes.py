#!/usr/bin/env python3
"""Trains SSD300 from random weights on generated scenes: python benchmarks/train_scenes.py --out DIR [--minutes 4]

DIR gets scenes.pt (a checkpoint in NVIDIA's format) and labels.txt, which `ssdtrt export --weights --labels` takes; val/ with
pictures and COCO annotations (see scenes.py); and training.json, which says how the weights came to be.

The training is that of the SSD paper (section 2.2): default boxes matched by IoU, smooth L1 and cross-entropy with hard
negatives 3:1. It is timed rather than counted: the learning rate warms up and follows a cosine to zero at the end of the
minutes given, so that it always ends on time.

With `--sparsity` the smallest weights of every large convolution are set to zero on the way, more and more of them (Zhu and
Gupta, "To prune, or not to prune", 2017): such weights take little room once they are packed. With `--classes 80` the network
has COCO's number of classes, of which the scenes use ten, and so COCO's arithmetic.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path

import scenes
import torch
from ssd_loss import SMOOTH_L1_BETA, detection_losses
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchvision.ops import box_iou

from ssdtrt import config
from ssdtrt.errors import SsdtrtError
from ssdtrt.images.tensors import normalize
from ssdtrt.model.backbone import Bottleneck
from ssdtrt.model.boxes import default_boxes
from ssdtrt.model.nms import detect
from ssdtrt.model.ssd import SSD300
from ssdtrt.system.devices import pick_device
from ssdtrt.system.files import replacing, write_text
from ssdtrt.system.versions import measured_on

RATE = 0.03  # for a batch of 64, and in proportion for others
REFERENCE_BATCH = 64
MOMENTUM, WEIGHT_DECAY, MAX_NORM = 0.9, 5e-4, 10.0
WARM_UP = 0.05  # of the time
AVERAGE = 0.998  # the decay of the moving average of the weights; less at first, so that it forgets the random ones
LOG_SECONDS, CHECK_SECONDS = 5, 30
PRUNED_FROM, PRUNED_TO = 0.25, 0.65  # of the time: when the sparsity begins to rise, and reaches what is wanted
PRUNED_EVERY = 20  # steps
SMALLEST_PRUNED = 20_000  # weights of a convolution
CHECK_SCORE = 0.3


def new_model(seed: int, classes: int) -> SSD300:
    """SSD300 for so many classes from seeded weights: He in the backbone, Xavier after it, residual branches at 0."""
    torch.manual_seed(seed)
    model = SSD300(classes + 1)
    for module in model.modules():
        if isinstance(module, Bottleneck):
            nn.init.zeros_(module.bn3.weight)
    for part in (model.additional_blocks, model.loc, model.conf):
        for module in part.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
    return model


def optimizer(model: nn.Module) -> torch.optim.Optimizer:
    """SGD with Nesterov's momentum; no weight decay on biases and norms."""
    groups = [
        {"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in model.parameters() if p.dim() == 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=0.0, momentum=MOMENTUM, nesterov=True)


def rate_at(progress: float, peak: float) -> float:
    """The learning rate when `progress`, 0..1, of the time is over."""
    if progress < WARM_UP:
        return peak * max(progress / WARM_UP, 0.01)
    return peak * (1 + math.cos(math.pi * min((progress - WARM_UP) / (1 - WARM_UP), 1))) / 2


def move_average(averaged: list[Tensor], current: list[Tensor], count: Tensor | int) -> None:
    """Moves the averaged weights, in place, towards the current ones of step `count`."""
    get_ema_multi_avg_fn(min(AVERAGE, (1 + int(count)) / (10 + int(count))))(averaged, current, count)


def sparsity_at(progress: float, wanted: float) -> float:
    """The share of zeros when `progress`, 0..1, of the time is over (Zhu and Gupta, equation 1)."""
    part = min(max((progress - PRUNED_FROM) / (PRUNED_TO - PRUNED_FROM), 0), 1)
    return wanted * (1 - (1 - part) ** 3)


class Stream:
    """Endless batches of scenes of the network's input size."""

    def __init__(self, seed: int, stream: int, batch: int, device: torch.device):
        self.random = scenes.random_numbers(seed, stream)
        self.generator = torch.Generator(device).manual_seed(int(self.random.integers(2**62)))
        self.batch, self.device = batch, device

    def next(self) -> scenes.Scenes:
        """The next batch."""
        layout = scenes.draw_layout(self.random, self.batch)
        return scenes.render(layout, config.IMAGE_SIZE, config.IMAGE_SIZE, self.generator, self.device)


def network_input(images: Tensor) -> Tensor:
    """uint8 pictures to the network's input, in the memory format of the training."""
    return normalize(images).contiguous(memory_format=torch.channels_last)


class Training:
    """A model, the moving average of its weights, and one step after the other."""

    def __init__(self, model: SSD300, device: torch.device, batch: int, sparsity: float = 0.0):
        self.device, self.sparsity = device, sparsity
        self.masks: dict[str, Tensor] = {}
        self.model = model.to(device, memory_format=torch.channels_last).train()
        self.average = AveragedModel(self.model, multi_avg_fn=move_average)
        self.optimizer = optimizer(self.model)
        self.defaults = default_boxes().to(device)
        self.peak = RATE * batch / REFERENCE_BATCH
        self.steps = 0

    def autocast(self) -> torch.autocast:
        """bfloat16 on a GPU, float32 on the CPU."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.device.type == "cuda")

    def step(self, truth: scenes.Scenes, progress: float) -> Tensor:
        """One step on one batch; returns (location loss, class loss) [2], still on the device."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate_at(progress, self.peak)
        with self.autocast():
            loc, conf = self.model(network_input(truth.images))
        losses = torch.stack(detection_losses(loc, conf, truth, self.defaults))
        self.optimizer.zero_grad(set_to_none=True)
        losses.sum().backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), MAX_NORM)
        self.optimizer.step()
        self.average.update_parameters(self.model)
        self.steps += 1
        if self.sparsity:
            self.prune(sparsity_at(progress, self.sparsity))
        return losses.detach()

    @torch.no_grad()
    def prune(self, share: float) -> None:
        """Sets the smallest `share` of the weights of each large convolution to zero, here and in the average."""
        averaged = dict(self.average.module.named_parameters())
        for name, weight in self.model.named_parameters():
            if weight.dim() == 4 and weight.numel() >= SMALLEST_PRUNED:
                if self.steps % PRUNED_EVERY == 0 or name not in self.masks:
                    smallest = int(share * weight.numel())
                    limit = weight.abs().flatten().kthvalue(smallest).values if smallest else -1
                    self.masks[name] = weight.abs() > limit
                weight.mul_(self.masks[name])
                averaged[name].mul_(self.masks[name])

    @torch.no_grad()
    def averaged(self, stream: Stream, batches: int) -> SSD300:
        """The averaged model in eval mode, its norms' statistics measured anew over some batches."""
        model = self.average.module
        norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the mean of all batches
        model.train()
        for _ in range(batches):
            with self.autocast():
                model(network_input(stream.next().images))
        for norm in norms:
            norm.momentum = 0.1
        return model.eval()


@torch.no_grad()
def check(model: SSD300, stream: Stream, batches: int) -> dict[str, float]:
    """How much the model finds in fresh scenes: recall at IoU 0.5, 0.75 and 0.9, precision at 0.5, mean IoU of what it found.

    A detection counts from a score of CHECK_SCORE on, and finds an object when the class is right too.
    """
    defaults = default_boxes().to(stream.device)
    best, right, shown = [], 0, 0
    for _ in range(batches):
        truth = stream.next()
        for i, (boxes, labels, scores) in enumerate(detect(*model(network_input(truth.images)), defaults)):
            objects = truth.labels[i] > 0
            sure = scores >= CHECK_SCORE
            same = truth.labels[i, objects][:, None] == labels[None, sure]  # [objects, detections]
            overlap = box_iou(truth.boxes_xyxy[i, objects], boxes[sure]) * same
            overlap = functional.pad(overlap, (0, 1, 0, 1))  # a detection of nothing, an object that is none
            best.append(overlap[:-1].amax(1))
            right += int((overlap[:, :-1].amax(0) >= 0.5).sum())
            shown += int(sure.sum())
    iou = torch.cat(best)
    found = iou[iou >= 0.5]
    figures = {f"recall_{limit:.2f}": (iou >= limit).float().mean().item() for limit in (0.5, 0.75, 0.9)}
    return {**figures, "precision_0.50": right / max(shown, 1), "mean_iou": found.mean().item() if len(found) else 0.0}


def save(model: SSD300, path: Path) -> None:
    """Writes a checkpoint in NVIDIA's format: float32, on the CPU. Raises SsdtrtError for weights that are not finite."""
    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    if not all(value.isfinite().all() for value in state.values()):
        raise SsdtrtError("The weights hold NaN or Inf; the training went wrong, and nothing was saved.")
    with replacing(path) as temporary:
        torch.save({"model": state}, temporary)


def say(begun: float, text: str) -> None:
    """A line of progress on stderr."""
    print(f"{time.monotonic() - begun:6.1f} s  {text}", file=sys.stderr, flush=True)


def train(training: Training, stream: Stream, fresh: Stream, seconds: float, max_steps: int | None, path: Path) -> dict:
    """Trains for `seconds` or `max_steps`, saves to `path` at every check and at the end, returns what is worth recording."""
    begun = logged = checked = time.monotonic()
    batches, steps_logged, losses, history = (1 if max_steps else 8), 0, None, []
    while (elapsed := time.monotonic() - begun) < seconds and training.steps != max_steps:
        losses = training.step(stream.next(), elapsed / seconds)
        now = time.monotonic()
        if now - logged >= LOG_SECONDS or training.steps == 1:
            location, classes = losses.tolist()
            if not math.isfinite(location + classes):
                raise SsdtrtError(f"The loss is not finite at step {training.steps}; lower RATE.")
            speed = (training.steps - steps_logged) * stream.batch / (time.monotonic() - logged)
            say(begun, f"step {training.steps}  location {location:.3f}  class {classes:.3f}  {speed:,.0f} images/s")
            logged, steps_logged = time.monotonic(), training.steps
        if now - checked >= CHECK_SECONDS:
            figures = check(training.averaged(fresh, batches), fresh, 4)
            history.append({"seconds": round(now - begun, 1), "step": training.steps, **figures})
            say(begun, "  ".join(f"{name} {value:.3f}" for name, value in figures.items()))
            save(training.average.module, path)
            checked = time.monotonic()
    location, classes = losses.tolist()
    taken = time.monotonic() - begun
    model = training.averaged(fresh, 4 * batches)
    save(model, path)
    figures = check(model, fresh, batches)
    say(begun, "final  " + "  ".join(f"{name} {value:.3f}" for name, value in figures.items()))
    return {
        "seconds": round(taken, 1),
        "steps": training.steps,
        "images_per_second": round(training.steps * stream.batch / taken, 1),
        "losses": {"location": location, "class": classes},
        "final": figures,
        "history": history,
    }


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for everything that is written")
    parser.add_argument(
        "--minutes", type=float, default=4.0, help="of training (default %(default)s; 0: pictures only)"
    )
    parser.add_argument("--batch", type=int, default=REFERENCE_BATCH, help="pictures a step (default %(default)s)")
    parser.add_argument("--val", type=int, default=1000, help="validation pictures (default %(default)s; 0: none)")
    parser.add_argument(
        "--classes", type=int, default=len(scenes.LABELS), help="of the network, at least %(default)s (the default)"
    )
    parser.add_argument("--sparsity", type=float, default=0.0, help="share of zeros in large convolutions, 0..1")
    parser.add_argument("--seed", type=int, default=config.SEED)
    parser.add_argument("--device", help="cuda, cuda:N or cpu (default: a GPU where there is one)")
    parser.add_argument("--smoke", action="store_true", help="two steps of two pictures, three validation pictures")
    args = parser.parse_args(arguments)
    if args.smoke:
        args.batch, args.val = 2, 3
    return args


def main(arguments: list[str] | None = None) -> None:
    """The validation set first, then the training, then its record."""
    args = parse(arguments)
    device = pick_device(args.device)
    torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark or device.type == "cuda"
    args.out.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    if args.val:
        scenes.write_val(args.out / "val", args.val, args.seed, device)
        say(begun, f"wrote {args.val} validation pictures")
    if not args.minutes:
        return
    (args.out / "training.json").unlink(missing_ok=True)  # It is there when the training went to its end.
    names = [*scenes.LABELS, *(f"unused {number + 1}" for number in range(args.classes - len(scenes.LABELS)))]
    write_text(args.out / "labels.txt", "\n".join(names) + "\n")
    training = Training(new_model(args.seed, len(names)), device, args.batch, args.sparsity)
    streams = [Stream(args.seed, stream, args.batch, device) for stream in (scenes.TRAIN, scenes.CHECK)]
    done = train(training, *streams, 60 * args.minutes, 2 if args.smoke else None, args.out / "scenes.pt")
    settings = {"minutes": args.minutes, "batch": args.batch, "val": args.val, "seed": args.seed, "smoke": args.smoke}
    settings.update(classes=len(names), sparsity=args.sparsity)
    settings.update(rate=training.peak, weight_decay=WEIGHT_DECAY, average=AVERAGE, smooth_l1_beta=SMOOTH_L1_BETA)
    record = {"settings": settings, **done, "machine": measured_on(device).as_dict()}
    write_text(args.out / "training.json", json.dumps(record, indent=2) + "\n")
    say(begun, "wrote scenes.pt, labels.txt and training.json")


if __name__ == "__main__":
    main()
