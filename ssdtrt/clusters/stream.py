"""The stream of Ray Data: tasks on CPUs read blocks, actors detect in them. No torch on the driver."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import ModuleType

import msgspec

from ssdtrt import config, errors
from ssdtrt.clusters.actor import ActorJob, BlockDetector
from ssdtrt.clusters.nodes import Node
from ssdtrt.clusters.plan import Plan
from ssdtrt.clusters.prepare import block_table, prepare_blocks
from ssdtrt.clusters.records import BlockDone
from ssdtrt.errors import SsdtrtError, first_line
from ssdtrt.reading.reader_process import ReaderSettings
from ssdtrt.system.report import Report, counted

_CALLS = 2  # at a time in an actor: one detects while the other takes pictures or writes
_WAITING = 4  # calls that are sent to an actor at most
_COPIES = 3  # of the pixels of a block that a task which reads has in memory


class Spread(Report, frozen=True, kw_only=True):
    """How a run is spread over a cluster.

    Attributes:
        device: What the actors run on, `cuda` or `cpu`.
        nodes: The machines that they may run on.
        actors: How many there are.
        readers: How many tasks read at the same time at most; None for as many as there are CPUs left.
        jpegs: Whether the GPUs decode JPEG files.
    """

    device: str
    nodes: tuple[Node, ...]
    actors: int
    readers: int | None
    jpegs: bool = False

    @property
    def line(self) -> str:
        """The same in a line."""
        machines, decoded = counted(len(self.nodes), "machine"), "GPUs" if self.jpegs else "CPUs"
        where = "GPUs" if self.device == "cuda" else "CPUs"
        return f"{counted(self.actors, 'actor')} on {where}, {machines}; JPEGs are decoded on {decoded}"


def computed_blocks(
    ray: ModuleType, plan: Plan, paths: Sequence[str], reading: ReaderSettings, job: ActorJob, spread: Spread
) -> Iterator[BlockDone]:
    """Compute the blocks that are missing and yield each once it is written, as they come.

    Args:
        ray: The module, connected.
        plan: The plan.
        paths: The list of pictures.
        reading: How they are read.
        job: What the actors do.
        spread: How the work is spread.

    Raises:
        SsdtrtError: For what an actor raised, and where a task's process died too often.
    """
    data = ray.data.from_arrow([block_table(block, paths[plan.manifest.pictures_of(block)]) for block in plan.missing])
    # Ray would do both stages in one process, whose network then waits for pictures, if both asked for the same.
    pixels = 3 * config.IMAGE_SIZE**2 * plan.manifest.block_size
    data = data.map_batches(
        prepare_blocks,
        fn_kwargs={"settings": reading, "folder": job.base},
        batch_format="pyarrow",
        batch_size=1,
        compute=ray.data.TaskPoolStrategy(size=spread.readers),
        num_cpus=1,
        memory=_COPIES * pixels,
    )
    data = data.map_batches(
        BlockDetector,
        fn_constructor_args=(job,),
        batch_format="pyarrow",
        batch_size=config.RAY_CALL[spread.device],
        compute=ray.data.ActorPoolStrategy(
            size=spread.actors,
            max_tasks_in_flight_per_actor=_WAITING,
            max_concurrent_calls_per_actor=_CALLS,
            enable_true_multi_threading=True,
        ),
        num_cpus=1,
        num_gpus=int(spread.device == "cuda"),
    )
    try:
        for row in data.iter_rows():
            yield msgspec.convert(row, BlockDone)
    except SsdtrtError as error:  # Ray makes its own error of what an actor raised, which is of that type too.
        raise _ours(error) from error
    except ray.exceptions.RayError as error:
        raise SsdtrtError(
            f"The work on the cluster failed: {first_line(error, limit=500).rstrip('.')}. What is written stays; run the same command "
            "again to go on."
        ) from error


def _ours(error: SsdtrtError) -> SsdtrtError:
    """The error that an actor raised, whose message Ray has added lines to."""
    cause = getattr(error, "cause", error)
    known = getattr(errors, type(cause).__name__, SsdtrtError)
    found: SsdtrtError = known(first_line(cause, limit=2000))
    return found
