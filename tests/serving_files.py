"""Files that a GPU built, as far as their metadata goes, with the tensors that they have."""

import json
import shutil
import zipfile

from known import metadata_like
from ssdtrt.artifact.tensors import detector_tensors, module_tensors
from ssdtrt.formats.plan_file import PlanInfo, record_path


def tensorrt_file(kind="engine", batch="1:8:32", plan=False, **changes):
    """The metadata of a TensorRT engine, as JSON types, with the tensors that it has."""
    found = metadata_like(kind, "tensorrt")
    inputs, outputs = detector_tensors() if kind == "detector" else module_tensors(81)
    found |= {"inputs": [one.as_dict() for one in inputs], "outputs": [one.as_dict() for one in outputs]}
    found["request"]["batch"] = batch
    if plan:
        found |= {"format": "plan", "plan": {"size": 9, "sha256": "5" * 64}}
        found["request"] |= {"format": "plan", "front_end": "tensorrt"}
    return {**found, **changes}


def plan_file(path, batch):
    """A plan, as far as can be seen without TensorRT, and its record."""
    path.write_bytes(b"ftrt" + batch.encode())
    metadata = tensorrt_file(batch=batch, plan=True) | {"plan": PlanInfo.of(path.read_bytes()).as_dict()}
    record_path(path).write_text(json.dumps(metadata))
    return path


def another(engine, path):
    """The same network as another file: it has one more text in its archive."""
    shutil.copyfile(engine, path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{archive.namelist()[0].split('/')[0]}/extra/note.txt", "another")
    return path
