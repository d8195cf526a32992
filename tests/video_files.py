"""Videos that PyAV writes for the tests: frames of one color, whose time stamps are known."""

import contextlib
import socket
import struct
import threading
import time
from fractions import Fraction

import av
import numpy as np

from known import BLUE, RED


def video(path, frames=6, size=(64, 48), rate=30, times=None, codec="mpeg4", colors=(RED, BLUE), aspect=None):
    """Writes a video whose frames have these colors in turn; `times` are their time stamps in milliseconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000 if times else rate)
        stream.codec_context.gop_size = 3
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        for index in range(len(times) if times else frames):
            pixels = np.full((size[1], size[0], 3), colors[index % len(colors)], np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = times[index] if times else index
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def decoded(path):
    """The frames of a video: [(seconds, pixels uint8 [h, w, 3])]."""
    with av.open(str(path)) as container:
        return [(float(frame.time), frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


@contextlib.contextmanager
def sending(content, head, end):
    """A server on this machine that answers one request after the other with `head` and `content`; its port.

    Then it closes the connection (`close`), resets it (`reset`), or goes on without a word (`stall`).
    """
    with socket.create_server(("127.0.0.1", 0)) as listening:
        over = threading.Event()

        def answer(connection):
            with connection, contextlib.suppress(OSError):
                connection.recv(65536)
                connection.sendall(head + content)
                if end == "stall":
                    over.wait(30)
                elif end == "reset":
                    time.sleep(0.3)  # What was sent arrives.
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        def serve():
            with contextlib.suppress(OSError):
                while not over.is_set():
                    threading.Thread(target=answer, args=(listening.accept()[0],), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield listening.getsockname()[1]
        finally:
            over.set()
            listening.shutdown(socket.SHUT_RDWR)


def chunked(content):
    """A chunk of a response that goes on."""
    return b"%x\r\n" % len(content) + content + b"\r\n"


CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: video/mp2t\r\nTransfer-Encoding: chunked\r\n\r\n"
