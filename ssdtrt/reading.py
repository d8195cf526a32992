"""A process that reads pictures: paths come in as lines of JSON, pixels go into shared memory. Started by `readers`.

    python -m ssdtrt.reading FD SLOTS

maps SLOTS squares of uint8 [300, 300, 3] from the open file FD. A line in is [slot, path, orient, preprocess]; a line out
is [width, height], or [message] for a picture that cannot be read. It ends when its input does. No torch here.
"""

from __future__ import annotations

import json
import mmap
import signal
import sys

import numpy as np

from ssdtrt import config
from ssdtrt.errors import ImageError
from ssdtrt.pictures import load_image, squeeze


def shared_slots(file: int, slots: int) -> np.ndarray:
    """The open file as uint8 [slots, 300, 300, 3], shared by every process that maps it."""
    shape = (slots, config.IMAGE_SIZE, config.IMAGE_SIZE, 3)
    return np.frombuffer(mmap.mmap(file, int(np.prod(shape))), dtype=np.uint8).reshape(shape)


def answer(line: str, pixels: np.ndarray) -> str:
    """Reads the picture that a line asks for into its slot, and says how that went."""
    slot, path, orient, preprocess = json.loads(line)
    try:
        image = load_image(path, orient=orient)
        pixels[slot] = squeeze(image, preprocess)
    except ImageError as error:
        return json.dumps([str(error)])
    return json.dumps(image.size)


def main(file: int, slots: int) -> None:
    """Answers until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who started it, and ends its input.
    pixels = shared_slots(file, slots)
    for line in sys.stdin:
        print(answer(line, pixels), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
