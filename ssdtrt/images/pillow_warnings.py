"""Pillow's warnings while a picture is read: silence, but for one that means the picture must be refused."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Iterator

from PIL import Image

_lock = threading.Lock()
_inside = 0
_filters = warnings.catch_warnings()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Pillow's warnings are ignored inside, and its DecompressionBombWarning is raised.

    Warning filters are the process's, so threads that read pictures at once share one change of them: the first in
    makes it and the last out takes it back.
    """
    global _inside, _filters
    with _lock:
        _inside += 1
        if _inside == 1:
            _filters = warnings.catch_warnings()
            _filters.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\.")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                _filters.__exit__(None, None, None)
