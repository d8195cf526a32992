"""Talk to a Triton Inference Server over gRPC, with a limit in time for every answer and one line for every failure."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from ssdtrt import config
from ssdtrt.errors import SsdtrtError, first_line
from ssdtrt.serving.triton.config import PREFIX
from ssdtrt.system.versions import pip_install

_SECURE = "grpcs://"


class TritonServer:
    """A connection to a server. Use it as a context manager.

    Args:
        url: HOST, HOST:PORT, grpc://HOST:PORT or, with TLS, grpcs://HOST:PORT; the port of gRPC, by default 8001.
        timeout: Seconds for each answer.

    Raises:
        SsdtrtError: Without tritonclient, or for another kind of address.
    """

    def __init__(self, url: str, timeout: float = config.TRITON_SECONDS):
        self._grpc = _import_client()
        self.url, self.timeout = url, timeout
        address = url.removeprefix(_SECURE).removeprefix("grpc://").rstrip("/")
        host, colon, port = address.rpartition(":")
        if "/" in address or not address or (colon and not (host and port.isdigit())):
            raise SsdtrtError(
                f"{url} is no address of Triton's gRPC; expected HOST:PORT, such as localhost:{config.TRITON_PORT}."
            )
        place = address if colon else f"{address}:{config.TRITON_PORT}"
        self._client = self._grpc.InferenceServerClient(place, ssl=url.startswith(_SECURE))

    def __enter__(self) -> TritonServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def check_ready(self) -> str:
        """Return the server's version.

        Raises:
            SsdtrtError: Unless it is there, live and ready.
        """
        with self._one_line():
            live = self._client.is_server_live(client_timeout=self.timeout)
            ready = self._client.is_server_ready(client_timeout=self.timeout)
            found = self._client.get_server_metadata(client_timeout=self.timeout)
        if not (live and ready):
            raise SsdtrtError(
                f"{self.url} is {'live but not ready' if live else 'not live'}. Try again, or see its log."
            )
        return str(found.version)

    def models(self) -> list[str]:
        """Return the names of the models that are ready."""
        with self._one_line():
            found = self._client.get_model_repository_index(client_timeout=self.timeout).models
        return sorted({one.name for one in found if one.state == "READY"})

    def describe(self, name: str) -> tuple[dict[str, str], dict[str, list[tuple[str, str, tuple[int, ...]]]]]:
        """Return what `ssdtrt triton` wrote into a model's configuration, and its tensors.

        Returns:
            The parameters, without their prefix; and (name, type, shape) of its `inputs` and `outputs`, as the protocol
            has them, with -1 for any batch.

        Raises:
            SsdtrtError: If there is no such model, it is not ready, or the server does not answer.
        """
        with self._one_line():
            ready = self._client.is_model_ready(name, client_timeout=self.timeout)
        if not ready:
            others = ", ".join(self.models()) or "none"
            raise SsdtrtError(
                f"{self.url} has no model {name} that is ready; ready are: {others}. Choose with --model."
            )
        with self._one_line():
            parameters = self._client.get_model_config(name, client_timeout=self.timeout).config.parameters
            metadata = self._client.get_model_metadata(name, client_timeout=self.timeout)
        ours = {key[len(PREFIX) :]: one.string_value for key, one in parameters.items() if key.startswith(PREFIX)}
        tensors = {
            side: [(one.name, one.datatype, tuple(one.shape)) for one in getattr(metadata, side)]
            for side in ("inputs", "outputs")
        }
        return ours, tensors

    def infer(
        self, model: str, given: tuple[str, str, np.ndarray], outputs: list[str]
    ) -> tuple[str, dict[str, np.ndarray]]:
        """Run a model.

        Args:
            model: Its name.
            given: The name and the type of its input, and the array.
            outputs: The names of the outputs that are asked for.

        Returns:
            The version that answered, and the outputs.

        Raises:
            SsdtrtError: If the server refuses, fails, or does not answer in time; or leaves an output out.
        """
        name, dtype, array = given
        tensor = self._grpc.InferInput(name, array.shape, dtype)
        tensor.set_data_from_numpy(array)
        asked = [self._grpc.InferRequestedOutput(one) for one in outputs]
        with self._one_line():
            answer = self._client.infer(model, [tensor], outputs=asked, client_timeout=self.timeout)
            found = {one: answer.as_numpy(one) for one in outputs}
        missing = [one for one, value in found.items() if value is None]
        if missing:
            raise SsdtrtError(f"{self.url} answered without {', '.join(missing)} of {model}.")
        return str(answer.get_response().model_version), found

    @contextlib.contextmanager
    def _one_line(self) -> Iterator[None]:
        """Raise an SsdtrtError for what tritonclient raises inside the block."""
        from tritonclient.utils import InferenceServerException

        try:
            yield
        except InferenceServerException as error:
            status, reason = str(error.status()), first_line(Exception(error.message()), "no reason given")
            if status.endswith("DEADLINE_EXCEEDED"):
                text = (
                    f"{self.url} did not answer within {self.timeout:g} s. Give it more with --timeout, or see its log."
                )
            elif status.endswith("UNAVAILABLE"):
                text = f"{self.url} cannot be reached ({reason}). Is Triton running there, with its gRPC port open?"
            else:
                text = f"{self.url} refused ({reason})."
            raise SsdtrtError(text) from error


def json_list(parameters: dict[str, str], key: str) -> list[Any]:
    """Return a parameter that is a list.

    Raises:
        SsdtrtError: If it is none.
    """
    try:
        found = json.loads(parameters.get(key, ""))
    except ValueError:
        found = None
    if not isinstance(found, list):
        raise SsdtrtError(
            f"The model's parameter {PREFIX}{key} is no list. Write its configuration again: ssdtrt triton"
        )
    return found


def _import_client() -> ModuleType:
    try:
        import tritonclient.grpc as client
    except ImportError as error:
        reason = first_line(error)
        raise SsdtrtError(f"triton-check needs tritonclient ({reason}): {pip_install('triton')}") from error
    return client
