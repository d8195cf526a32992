"""A small server of Triton's gRPC protocol over a model repository: it takes what the configuration says, and runs the file."""

import threading
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import torch
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc
from tritonclient.utils import triton_to_np_dtype

from ssdtrt.runners import torchscript


def parse(text):
    """A configuration as Triton's own protobuf has it; a field that it does not know is an error."""
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def type_name(tensor):
    return model_config_pb2.DataType.Name(tensor.data_type).removeprefix("TYPE_")


class Servicer(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Serves the newest version of every model.

    Attributes:
        networks: What runs instead of a model's file, by its name: uint8 or float images -> a tuple of tensors.
        stall: What to wait for before an answer.
        state: Whether the server is (live, ready).
        requests: The shape and type of each request's input.
    """

    def __init__(self, repository):
        self.repository, self.networks, self.stall, self.state, self.requests = (
            Path(repository),
            {},
            None,
            (True, True),
            [],
        )

    def config(self, name):
        return parse((self.repository / name / "config.pbtxt").read_text(encoding="ascii"))

    def version(self, name):
        return max(int(path.name) for path in (self.repository / name).iterdir() if path.name.isdigit())

    def names(self):
        return sorted(path.name for path in self.repository.iterdir())

    def ServerLive(self, request, context):
        return service_pb2.ServerLiveResponse(live=self.state[0])

    def ServerReady(self, request, context):
        return service_pb2.ServerReadyResponse(ready=self.state[1])

    def ServerMetadata(self, request, context):
        return service_pb2.ServerMetadataResponse(name="triton", version="2.99.0")

    def ModelReady(self, request, context):
        return service_pb2.ModelReadyResponse(ready=request.name in self.names())

    def RepositoryIndex(self, request, context):
        index = [service_pb2.RepositoryIndexResponse.ModelIndex(name=name, state="READY") for name in self.names()]
        return service_pb2.RepositoryIndexResponse(models=index)

    def ModelConfig(self, request, context):
        return service_pb2.ModelConfigResponse(config=self.config(request.name))

    def ModelMetadata(self, request, context):
        config = self.config(request.name)
        batch = [-1] if config.max_batch_size else []

        def tensors(given):
            metadata = service_pb2.ModelMetadataResponse.TensorMetadata
            return [metadata(name=one.name, datatype=type_name(one), shape=[*batch, *one.dims]) for one in given]

        return service_pb2.ModelMetadataResponse(
            name=request.name, inputs=tensors(config.input), outputs=tensors(config.output)
        )

    def ModelInfer(self, request, context):
        if self.stall is not None:
            self.stall.wait(20)
        config = self.config(request.model_name)
        (given,), (expected,) = request.inputs, config.input
        shape, dims = tuple(given.shape), tuple(expected.dims)
        fits = 1 <= shape[0] <= config.max_batch_size and shape[1:] == dims if config.max_batch_size else shape == dims
        if (given.name, given.datatype) != (expected.name, type_name(expected)) or not fits:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"unexpected {given.name} {given.datatype} {shape}")
        self.requests.append((shape, given.datatype))
        array = np.frombuffer(request.raw_input_contents[0], triton_to_np_dtype(given.datatype)).reshape(shape)
        with torch.no_grad():
            found = self.network(request.model_name)(torch.from_numpy(array.copy()))
        answer = service_pb2.ModelInferResponse(
            model_name=request.model_name, model_version=str(self.version(request.model_name))
        )
        for output, tensor in zip(config.output, found, strict=True):
            batch = tensor.shape[:1] if config.max_batch_size else ()
            values = tensor.numpy().reshape(*batch, *output.dims)
            assert values.dtype == triton_to_np_dtype(type_name(output))
            answer.outputs.add(name=output.name, datatype=type_name(output), shape=values.shape)
            answer.raw_output_contents.append(values.tobytes())
        return answer

    def network(self, name):
        if name not in self.networks:
            self.networks[name] = torchscript.load(self.repository / name / str(self.version(name)) / "model.pt")
        return self.networks[name]


@contextmanager
def serving(repository):
    """Serve a repository on this machine: yields the servicer and its address."""
    servicer = Servicer(repository)
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield servicer, f"127.0.0.1:{port}"
    finally:
        if servicer.stall is not None:
            servicer.stall.set()
        server.stop(None).wait()


def stalled():
    return threading.Event()
