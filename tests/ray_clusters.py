"""Clusters of Ray on this machine with several nodes, and the processes that they have."""

import contextlib
import os
import warnings
from pathlib import Path


@contextlib.contextmanager
def ray_cluster(*cpus):
    """A cluster with a node for each of these numbers of logical CPUs, the first of which stays: it and the others.

    It has no token, unlike one that Ray's commands start where the user has one; so nor must what connects to it meanwhile.
    """
    from ssdtrt.clusters import session

    before = os.environ.get("RAY_AUTH_MODE")
    os.environ["RAY_AUTH_MODE"] = "disabled"

    options = {"object_store_memory": 200 << 20, "include_dashboard": False}
    with warnings.catch_warnings(), session.quietly():
        warnings.simplefilter("ignore")
        import ray
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": cpus[0], **options})
        nodes = [cluster.add_node(num_cpus=count, **options) for count in cpus[1:]]
    try:
        yield cluster, nodes
    finally:
        ray.shutdown()
        cluster.shutdown()
        if before is None:
            del os.environ["RAY_AUTH_MODE"]
        else:
            os.environ["RAY_AUTH_MODE"] = before


def workers(name, node=None):
    """The numbers of the processes with this in their names that work for this process's nodes, or for one of them."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                parents[int(folder.name)] = parent, (folder / "cmdline").read_bytes().decode(errors="replace")
    raylets = {number for number, (parent, _) in parents.items() if parent == os.getpid()}
    if node is not None:
        raylets &= {one.process.pid for one in node.all_processes["raylet"]}
    return [number for number, (parent, words) in parents.items() if parent in raylets and name in words]
