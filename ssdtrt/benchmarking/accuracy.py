"""The accuracy of what was measured: each network is evaluated once, whatever its batch sizes and however it is launched."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from msgspec.structs import replace
from torch import Tensor

from ssdtrt.benchmarking.baselines import BASELINE, BenchFile, baseline_cases
from ssdtrt.benchmarking.case import free_memory
from ssdtrt.benchmarking.report import Accuracy, BenchReport, BenchRow
from ssdtrt.engine.parity import Runner
from ssdtrt.errors import SsdtrtError, first_line
from ssdtrt.evaluate import UNTRAINED, Evaluation
from ssdtrt.evaluation.report import EvalReport
from ssdtrt.runners.baseline import EagerRunner, eager_model
from ssdtrt.runners.runner import FileRunner, load_engine
from ssdtrt.system.gpu_errors import out_of_memory

_SAME_NETWORK = {"eager-fp16-graph": "eager-fp16"}  # of files it is the path that tells


def with_accuracy(
    report: BenchReport,
    plan: Mapping[int, Sequence[BenchFile]],
    modules: Mapping[Path, Path | None],
    evaluation: Evaluation,
) -> BenchReport:
    """Return the report with the accuracy of every measured row, and what a reader of it must know.

    FP32 eager is evaluated in any case. A network that cannot be evaluated is a note.

    Args:
        report: The report of these files.
        plan: The files by batch size.
        modules: The module of each file by the file's path; None where it is missing, and with it the FP32 weights.
        evaluation: The pictures.
    """
    networks = _Networks(modules, evaluation)
    rows = [replace(row, accuracy=networks.accuracy(row, plan[row.batch_size])) for row in report.rows]
    found = [one for one in networks.reports.values() if one is not None]
    notes = dict.fromkeys(note for one in found for note in one.notes if note != UNTRAINED)
    return replace(
        report,
        rows=tuple(rows),
        settings=replace(report.settings, evaluation=evaluation.settings),
        notes=(*report.notes, *notes, *networks.notes),
        failures=tuple(dict.fromkeys(failure for one in found for failure in one.failures)),
    )


class _Networks:
    """The evaluations by network, None for one that failed, and a note for each of those."""

    def __init__(self, modules: Mapping[Path, Path | None], evaluation: Evaluation):
        self.modules, self.evaluation = modules, evaluation
        self.reports: dict[tuple[str, Path], EvalReport | None] = {}
        self.notes: list[str] = []

    def accuracy(self, row: BenchRow, files: Sequence[BenchFile]) -> Accuracy | None:
        """The accuracy of a row; None where it failed, or its weights are random in the place of those of a file."""
        own = [file for file in files if str(file.path) == row.file]
        # The weights of the baselines are those of the first file whose module is known.
        file = next((file for file in (*own, *files) if file in own or self.modules[file.path]), None)
        if not row.ok or file is None:
            return None
        module = self.modules[file.path]
        fp32 = self._baseline(BASELINE, file, module, row.batch_size) if module else None
        if row.file is not None:
            found = self._file(Path(row.file), file.device)
        else:
            assert module is not None  # A baseline's file was chosen by that.
            name = _SAME_NETWORK.get(row.case, row.case)
            found = self._baseline(name, file, module, row.batch_size)
        if found is None:
            return None
        return Accuracy(
            ap=found.figures["AP"],
            ap50=found.figures["AP50"],
            ap75=found.figures["AP75"],
            difference=found.minus(fp32)["AP"] if fp32 else None,
            images=found.images,
        )

    def _file(self, path: Path, device: torch.device) -> EvalReport | None:
        return self._evaluated(path.name, path, device, lambda _: load_engine(path, device, reuse_outputs=True))

    def _baseline(self, name: str, file: BenchFile, module: Path, batch_size: int) -> EvalReport | None:
        """The evaluation of a baseline with the weights of a module; what compiles does it for one batch size."""

        def make(stack: ExitStack) -> EagerRunner:
            model = eager_model(module, file.device)
            (case,) = [case for case in baseline_cases([name], model, module, file.device) if case.name == name]
            network = case.make()
            stack.callback(getattr(network, "close", lambda: None))
            whole = in_batches_of(batch_size, network) if name == "compile" else network
            return EagerRunner(name, whole, file, case.precision)

        return self._evaluated(name, module, file.device, make)

    def _evaluated(
        self, name: str, path: Path, device: torch.device, make: Callable[[ExitStack], FileRunner | EagerRunner]
    ) -> EvalReport | None:
        """The evaluation of the network that `make` makes, the first time; the stack takes what ends with it."""
        if (name, path) not in self.reports:
            self.reports[name, path] = None
            free_memory(device)
            try:
                with ExitStack() as stack:
                    self.reports[name, path] = self.evaluation.of(make(stack), name)
            except Exception as error:  # What was measured is not lost; a bug is raised.
                if not (isinstance(error, SsdtrtError) or out_of_memory(error)):
                    raise
                self.notes.append(f"{name}: accuracy not measured, {first_line(error)}")
        return self.reports[name, path]


def in_batches_of(size: int, network: Runner) -> Runner:
    """Return the network for any number of images, which it gets in whole batches of one size, the last with zeros."""

    def run(images: Tensor) -> tuple[Tensor, Tensor]:
        count = len(images)
        whole = torch.cat([images, images.new_zeros(-count % size, *images.shape[1:])])
        parts = [[part.clone() for part in network(batch)] for batch in whole.split(size)]  # A graph overwrites them.
        loc, conf = (torch.cat(part)[:count] for part in zip(*parts))
        return loc, conf

    return run
