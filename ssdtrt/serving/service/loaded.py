"""An engine in a replica: from the bytes of pictures to lines of JSON, with the code of `ssdtrt detect`."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Sequence

from PIL import Image

from ssdtrt.detect import Detector
from ssdtrt.detection.results import UNTRAINED
from ssdtrt.detection.unpacking import Chosen, unpack
from ssdtrt.errors import ImageError
from ssdtrt.images.gpu_decode import decoder_for
from ssdtrt.images.jpeg import jpeg_in
from ssdtrt.reading.device_decoding import NOT_DECODED, decode_group
from ssdtrt.reading.reader import PictureReader, PreparedPicture
from ssdtrt.serving.service.records import EngineFile, ServiceInfo, ServiceOptions
from ssdtrt.serving.service.uploads import Refused, Upload
from ssdtrt.sinks.json_sinks import JsonLinesSink


class LoadedEngine:
    """An engine, ready to detect.

    Args:
        engine: The file.
        options: How the service was started.
        not_decoded: Called with how many JPEGs of a batch the GPU could not decode and the CPU did.

    Attributes:
        engine: The file.
        detector: The same, loaded.

    Raises:
        SsdtrtError: Where the file is not there, has another SHA-256 or does not run here, or a GPU that is asked for cannot
            decode.
    """

    def __init__(
        self, engine: EngineFile, options: ServiceOptions, not_decoded: Callable[[int], None] = lambda _: None
    ):
        self.engine, self._options, self._not_decoded = engine, options, not_decoded
        detector = self.detector = Detector(
            engine.file,
            options.device if options.device == "cpu" else None,
            threshold=options.threshold,
            classes=options.classes,
            max_pixels=options.max_pixels,
            sha256=engine.sha256,
        )
        self._reader = PictureReader(
            detector.runner.preprocess, detector.orient, detector.workers, 1, max_pixels=options.max_pixels
        )
        self._chosen = Chosen(detector.threshold, detector.classes, detector.max_detections)
        self._resize_on_device = detector.device.type == "cuda"
        preprocess, wanted = detector.runner.preprocess, options.decode != "cpu"
        self._decoder = decoder_for(options.decode, detector.device, preprocess, wanted, threads=1)
        self._text = io.StringIO()
        # It takes longer to make than a batch does to write.
        self._sink = JsonLinesSink(self._text, detector.runner.labels)

    def capture(self) -> None:
        """Run batches of the engine's sizes as CUDA graphs, and let no other size come.

        Requests make batches of all sizes, and each size is a graph, whose capture takes longer than its pictures do. For an
        engine that keeps only one graph every batch is filled up to the largest size.
        """
        graph, batch = self.detector.pipeline.graph, self.detector.runner.batch
        if graph is None or batch is None:
            return
        sizes = batch.sizes if graph.limit > len(batch.sizes) else batch.sizes[-1:]
        self.detector.batches.sizes = sizes
        for size in sizes:
            self.detector.pipeline.warm_up(size)

    def prepare(self, upload: Upload) -> PreparedPicture:
        """Decode and resize a picture, in any thread; a JPEG for the GPU stays as it is.

        Raises:
            Refused: For what cannot be read, and for more pixels than are allowed.
        """
        file = io.BytesIO(upload.content)
        file.name = upload.name or "The upload"
        if self._decoder is not None:
            jpeg = jpeg_in(upload.content, orient=self.detector.orient, max_pixels=self._options.max_pixels)
            if jpeg is not None:
                return PreparedPicture(0, upload.name, jpeg.size, jpeg, file)
        found = next(self._reader.at_once([file], resize_on_device=self._resize_on_device))
        if isinstance(found, ImageError):
            if isinstance(found.__cause__, Image.DecompressionBombError):
                raise Refused(
                    413, f"{file.name} has more than {self._options.max_pixels:,} pixels; send a smaller one."
                )
            raise Refused(422, str(found))
        return dataclasses.replace(found, name=upload.name, source="")  # Else it keeps the whole picture.

    def detect(self, pictures: Sequence[PreparedPicture]) -> list[str | Refused]:
        """Detect in pictures, in one thread at a time.

        Returns:
            For each picture what `ssdtrt detect --jsonl` writes, a line without its end; or why it cannot be read, which for a
            JPEG for the GPU shows only here.

        Raises:
            GpuError: Where the GPU fails, or its memory is too small for the smallest batch.
        """
        detector, runner = self.detector, self.detector.runner
        decoded: list[PreparedPicture | ImageError] = [*pictures]
        if self._decoder is not None:
            decoded = decode_group(decoded, self._decoder, self._reader)
        self._text.seek(0)
        self._text.truncate()
        readable = [one for one in decoded if isinstance(one, PreparedPicture)]
        if left := sum(NOT_DECODED in one.notes for one in readable):
            self._not_decoded(left)
        for batch, packed in detector.batches.run(detector.batches.cut(readable)):
            self._sink.write_batch(unpack(packed.numpy(), batch, self._chosen, runner.preprocess, runner.labels, _gone))
        lines = iter(self._text.getvalue().splitlines())
        return [Refused(422, str(one)) if isinstance(one, ImageError) else next(lines) for one in decoded]

    def info(self) -> ServiceInfo:
        """Return what runs, in one replica."""
        runner = self.detector.runner
        return ServiceInfo(
            engine=self.engine,
            precision=runner.precision,
            preprocess=runner.preprocess,
            labels=tuple(runner.labels),
            note="" if runner.trained else UNTRAINED,
            device=str(self.detector.device),
            batch_size=self.detector.batch_size,
            decode="cpu" if self._decoder is None else "gpu",
            replicas=1,
            options=self._options,
        )


def _gone(_: object) -> Image.Image:
    raise ImageError("The service keeps no picture.")
