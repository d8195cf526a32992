"""Detections written as they come: exact numbers, valid whenever a run ends, to files and streams."""

import fcntl
import io
import json
import os
import signal
import struct
import termios
import threading
import time

import numpy as np
import pytest
import torch
from batches import batch_of

from ssdtrt.detection.results import Detection, Detections, ImageDetections
from ssdtrt.errors import ArtifactError, SsdtrtError
from ssdtrt.sinks.json_sinks import CocoResults, CocoSink, JsonLinesSink, JsonListSink, to_xywh

LABELS = ["background", "cat", '100 % "wild" naïve %.2f\n']
BOXES = np.float32([[1.005, 2, 30.126, 40], [0, 0.5, 1e-3, 640]])
SCORES = np.float32([0.87654321, 1 / 3])


def found(image):
    """Two detections in a picture of 9 x 9."""
    return Detections(image, 9, 9, BOXES, np.int64([1, 2]), SCORES)


def refuse(name):
    raise AssertionError(f"{name} is not JSON")


def strict(text):
    return json.loads(text, parse_constant=refuse)


def lines(path):
    text = path.read_text(encoding="utf-8")
    assert text == "" or text.endswith("\n")
    return [strict(line) for line in text.splitlines()]


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor])
def test_json_line_is_the_document_of_the_result(tmp_path, kind):
    with JsonLinesSink(tmp_path / "d.jsonl", LABELS) as out:
        arrays = kind(BOXES), kind(np.int64([1, 2])), kind(SCORES)
        out.write(Detections(str(tmp_path / 'a "1".jpg'), 640, 480, *arrays))
        out.write(Detections("none.jpg", 3, 2, *(array[:0] for array in arrays)))
    rows = zip((1, 2), SCORES.tolist(), BOXES.tolist())
    expected = [
        Detection(LABELS[n], n, round(score, 6), tuple(round(edge, 2) for edge in box)) for n, score, box in rows
    ]
    first, second = lines(tmp_path / "d.jsonl")
    expected = ImageDetections(str(tmp_path / 'a "1".jpg'), 640, 480, tuple(expected)).document()
    assert first == json.loads(json.dumps(expected)) and first["detections"][0]["score"] == 0.876543
    assert second == ImageDetections("none.jpg", 3, 2, ()).document()
    assert list(first) == ["schema", "kind", "image", "width", "height", "detections"]
    assert (first["schema"], first["kind"]) == (2, "picture")


def test_json_lines_without_pictures(tmp_path):
    with JsonLinesSink(tmp_path / "d.jsonl", LABELS):
        pass
    assert (tmp_path / "d.jsonl").read_bytes() == b""


def test_a_batch_is_written_as_its_pictures_are(tmp_path):
    """To the byte: with detections and without, with a number that is not finite, of JSON lines and of COCO's results."""
    many = np.tile(BOXES, (40, 1)), np.tile(np.int64([1, 2]), 40), np.tile(SCORES, 40)
    broken = BOXES * np.float32([[1], [np.nan]]), np.int64([1, 2]), SCORES
    arrays = [many, many, tuple(array[:0] for array in many), broken, many, *[tuple(a[:1] for a in many)] * 40]
    results = [Detections(f'{n} "naïve".jpg', 640, n, *some, LABELS) for n, some in enumerate(arrays)]
    ids = {one.image: n for n, one in enumerate(results)}
    for kind, some in (
        (lambda path: JsonLinesSink(path, LABELS), results),
        (lambda path: CocoSink(path, ids, [None, 17, None]), results[:3]),
    ):
        with kind(tmp_path / "one") as one, kind(tmp_path / "batch") as together:
            for found in some:
                one.write(found)
            together.write_batch(batch_of(some))
        assert (tmp_path / "one").read_bytes() == (tmp_path / "batch").read_bytes() != b""
    with JsonLinesSink(tmp_path / "d.jsonl", LABELS) as out:
        out.write_batch(batch_of(results))
        assert [line["height"] for line in lines(tmp_path / "d.jsonl")] == list(range(45))  # It is there at once.


def test_what_is_not_finite_is_null(tmp_path):
    boxes_xyxy = np.float32([[np.nan, 1, np.inf, 2], [1, 2, 3, 4]])
    with JsonLinesSink(tmp_path / "d.jsonl", LABELS) as out:
        out.write(Detections("a.jpg", 9, 9, boxes_xyxy, np.int64([2, 1]), np.float32([0.5, np.nan])))
    (line,) = lines(tmp_path / "d.jsonl")
    assert line["detections"] == [
        {"label": LABELS[2], "label_id": 2, "score": 0.5, "box": [None, 1.0, None, 2.0]},
        {"label": "cat", "label_id": 1, "score": None, "box": [1.0, 2.0, 3.0, 4.0]},
    ]


def test_lines_are_there_as_they_come(tmp_path):
    path = tmp_path / "d.jsonl"
    with JsonLinesSink(path, LABELS) as out:
        for count in (1, 2, 3):
            out.write(found(f"{count}.jpg"))
            assert [line["image"] for line in lines(path)] == [f"{n}.jpg" for n in range(1, count + 1)]


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor])
def test_coco_results(tmp_path, kind):
    path = tmp_path / "r.json"
    with CocoResults(path) as out:
        out.write(7, kind(BOXES), [3, 90], kind(SCORES))
        out.write(8, kind(BOXES[:0]), [], kind(SCORES[:0]))
        out.write(9, kind(BOXES[:1]), kind(np.int64([1])), kind(SCORES[:1]))
    rows = strict(path.read_text())
    assert [(row["image_id"], row["category_id"]) for row in rows] == [(7, 3), (7, 90), (9, 1)]
    assert all(list(row) == ["image_id", "category_id", "bbox", "score"] for row in rows)
    assert [np.float32(row["score"]) for row in rows] == [SCORES[0], SCORES[1], SCORES[0]]
    assert rows[0]["bbox"] == pytest.approx([1.005, 2, 29.121, 38], rel=1e-6)
    assert (np.float32([row["bbox"] for row in rows[:2]]) == to_xywh(BOXES)).all()
    assert path.read_text().count("\n") == 5


def test_coco_results_without_detections(tmp_path):
    with CocoResults(tmp_path / "r.json") as out:
        out.write(1, BOXES[:0], [], SCORES[:0])
    assert strict((tmp_path / "r.json").read_text()) == []


def test_coco_results_have_no_nan(tmp_path):
    with CocoResults(tmp_path / "r") as out:
        out.write(3, BOXES, [1, 2], SCORES)
        with pytest.raises(SsdtrtError, match="Picture 4: a box or score is not finite"):
            out.write(4, BOXES * np.float32(np.nan), [1, 2], SCORES)
    assert [row["image_id"] for row in strict((tmp_path / "r").read_text())] == [3, 3]


def test_coco_results_have_the_ids_that_are_given_and_leave_out_what_has_none(tmp_path):
    arrays = np.tile(BOXES[:1], (3, 1)), np.int64([1, 2, 3]), SCORES[[0, 1, 0]]
    with CocoSink(tmp_path / "r.json", {"a/x.jpg": 139, "b/x.jpg": 7}, [None, 17, None, 90]) as sink:
        for name in ("b/x.jpg", "a/x.jpg"):
            sink.write(Detections(name, 9, 9, *arrays))
    rows = strict((tmp_path / "r.json").read_text())
    assert [(row["image_id"], row["category_id"]) for row in rows] == [(7, 17), (7, 90), (139, 17), (139, 90)]
    assert [np.float32(row["score"]) for row in rows[:2]] == [SCORES[0], SCORES[0]]


def test_ids_may_be_text(tmp_path):
    with CocoResults(tmp_path / "r.json") as out:
        out.write('100% "a"', BOXES, ["cat", "d\u00e9j\u00e0"], SCORES)
    rows = strict((tmp_path / "r.json").read_text())
    assert [(row["image_id"], row["category_id"]) for row in rows] == [
        ('100% "a"', "cat"), ('100% "a"', "d\u00e9j\u00e0")
    ]  # fmt: skip


def test_boxes_are_not_written_to():
    boxes_xyxy = torch.tensor([[1.0, 2.0, 5.0, 9.0]])
    assert to_xywh(boxes_xyxy).tolist() == [[1, 2, 4, 7]] and boxes_xyxy.tolist() == [[1, 2, 5, 9]]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, GeneratorExit])
def test_interrupted(tmp_path, error):
    coco, jsonl = tmp_path / "r.json", tmp_path / "d.jsonl"
    with pytest.raises(error), CocoResults(coco) as results, JsonLinesSink(jsonl, LABELS) as out:
        for image in (1, 2, 3):
            if image == 3:
                raise error
            results.write(image, BOXES, [1, 2], SCORES)
            out.write(found(f"{image}.jpg"))
    assert [row["image_id"] for row in strict(coco.read_text())] == [1, 1, 2, 2]
    assert [line["image"] for line in lines(jsonl)] == ["1.jpg", "2.jpg"]


class Torn:
    """A file that takes half of the fourth write, and then no more for a while, as a full disk or Ctrl-C does."""

    def __init__(self, file, error):
        self.file, self.error, self.writes = file, error, 0

    def __getattr__(self, name):
        return getattr(self.file, name)

    def write(self, piece):
        self.writes += 1
        if self.writes == 4:
            return self.file.write(piece[: len(piece) // 2])
        if self.writes == 5:
            raise self.error
        return self.file.write(piece)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_half_a_piece_is_cut_off(tmp_path, error):
    coco, jsonl = tmp_path / "r.json", tmp_path / "d.jsonl"
    with pytest.raises(type(error)), CocoResults(coco) as results:
        results.output.file = Torn(results.output.file, error)
        for image in range(1, 9):
            results.write(image, BOXES, [1, 2], SCORES)
    assert [row["image_id"] for row in strict(coco.read_text())] == [1, 1, 2, 2, 3, 3]
    with pytest.raises(type(error)), JsonLinesSink(jsonl, LABELS) as out:
        out.output.file = Torn(out.output.file, error)
        for image in range(1, 9):
            out.write(found(f"{image}.jpg"))
    assert [line["image"] for line in lines(jsonl)] == ["1.jpg", "2.jpg", "3.jpg"]


@pytest.mark.parametrize("share, whole", [(0.5, 2), (1 / 4, 1), (0.24, 0), (1, 4)])
def test_of_a_batch_that_breaks_off_the_whole_lines_stay(tmp_path, share, whole):
    class TornAt(Torn):
        def write(self, piece):
            self.writes += 1
            if self.writes == 2:
                return self.file.write(piece[: int(len(piece) * share)])
            if self.writes == 3:
                raise self.error
            return self.file.write(piece)

    path, error = tmp_path / "d.jsonl", OSError(28, "No space left on device")
    with pytest.raises(OSError, match="No space left"), JsonLinesSink(path, LABELS) as out:
        out.output.file = TornAt(out.output.file, error)
        out.write(found("0.jpg"))
        out.write_batch(batch_of(found(f"{image}.jpg") for image in (1, 2, 3, 4)))
        out.write(found("5.jpg"))
    assert [line["image"] for line in lines(path)] == [f"{image}.jpg" for image in range(whole + 1)]


def test_short_writes_are_completed(tmp_path):
    class Short(Torn):
        def write(self, piece):
            return self.file.write(piece[:7])

    with CocoResults(tmp_path / "r.json") as results:
        results.output.file = Short(results.output.file, None)
        results.write(1, BOXES, [1, 2], SCORES)
    assert len(strict((tmp_path / "r.json").read_text())) == 2


def test_streams_stay_open_and_are_flushed():
    class Stream(io.StringIO):
        flushed = 0

        def flush(self):
            self.flushed += 1

    coco, jsonl = Stream(), Stream()
    with CocoResults(coco) as results, JsonLinesSink(jsonl, LABELS) as out:
        results.write(1, BOXES, [1, 2], SCORES)
        out.write(found("a.jpg"))
        assert jsonl.flushed == 2 and jsonl.getvalue().endswith("]}\n")
    assert not coco.closed and len(strict(coco.getvalue())) == 2 and coco.flushed == 4
    assert strict(jsonl.getvalue())["image"] == "a.jpg"


def stop(*_):
    raise KeyboardInterrupt


def test_json_list_holds_what_the_lines_do(tmp_path):
    path = tmp_path / "d.json"
    with JsonListSink(path, LABELS, 'a "note"') as out, JsonLinesSink(tmp_path / "d.jsonl", LABELS) as single:
        for name in ("a.jpg", "b.jpg", "c.jpg"):
            for one in (out, single):
                one.write(found(name))
    listed = strict(path.read_text(encoding="utf-8"))
    begun = {"schema": 2, "kind": "picture"}
    assert [{**begun, **picture} for picture in listed.pop("pictures")] == lines(tmp_path / "d.jsonl")
    assert listed == {"schema": 2, "kind": "detections", "note": 'a "note"'}
    assert path.read_text(encoding="utf-8").count("\n") == 5 and path.read_text(encoding="utf-8").endswith("\n]}\n")


def test_json_list_without_pictures(tmp_path):
    with JsonListSink(tmp_path / "d.json", LABELS):
        pass
    assert strict((tmp_path / "d.json").read_text()) == {"schema": 2, "kind": "detections", "note": "", "pictures": []}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
@pytest.mark.parametrize("whole", [0, 1, 2])
def test_json_list_is_whole_when_it_breaks_off(tmp_path, error, whole):
    with pytest.raises(type(error)), JsonListSink(tmp_path / "d.json", LABELS) as out:
        out.output.file = Torn(out.output.file, error)
        out.output.file.writes = 3 - whole  # Half of the next piece but `whole` is taken.
        for name in ("a.jpg", "b.jpg", "c.jpg"):
            out.write(found(name))
    entries = strict((tmp_path / "d.json").read_text(encoding="utf-8"))["pictures"]
    assert [entry["image"] for entry in entries] == ["a.jpg", "b.jpg", "c.jpg"][:whole]


@pytest.mark.parametrize(
    "kind, pictures",
    [
        (CocoResults, 1),
        (lambda stream: JsonLinesSink(stream, LABELS), 1),
        (lambda stream: JsonLinesSink(stream, LABELS), 20),
    ],
)
def test_interrupted_while_the_reader_waits(kind, pictures):
    """Pieces that are larger than a pipe: the write stands when the signal comes, and the rest of its piece follows."""
    reading, writing = os.pipe()
    received = []

    def waiting():
        return struct.unpack("i", fcntl.ioctl(reading, termios.FIONREAD, b"1234"))[0]

    def read():
        end = time.monotonic() + 30
        while waiting() < 60_000 and time.monotonic() < end:  # until the pipe is full
            time.sleep(0.01)
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(0.1)
        while block := os.read(reading, 1 << 16):
            received.append(block)

    before = signal.signal(signal.SIGUSR1, stop)
    reader = threading.Thread(target=read)
    reader.start()
    try:
        with open(writing, "w", encoding="utf-8") as stream:
            stream.write("")
            with pytest.raises(KeyboardInterrupt), kind(stream) as out:
                count = 5000
                many = np.tile(BOXES, (count, 1)), np.tile(np.int64([1, 2]), count), np.tile(SCORES, count)
                if kind is CocoResults:
                    out.write(1, *many)
                else:
                    out.write_batch(batch_of([Detections("a.jpg", 9, 9, *many)] * pictures))
                raise AssertionError("nothing stopped it")
    finally:
        reader.join()
        signal.signal(signal.SIGUSR1, before)
        os.close(reading)
    if kind is CocoResults:
        assert len(strict(b"".join(received).decode())) == 10_000
    else:
        (line,) = b"".join(received).decode().splitlines()  # No picture after the one that was begun.
        assert len(strict(line)["detections"]) == 10_000


def test_stream_of_a_reader_that_went_away():
    reading, writing = os.pipe()
    os.close(reading)
    stream = open(writing, "w", encoding="utf-8")
    with pytest.raises(BrokenPipeError), JsonLinesSink(stream, LABELS) as out:
        out.write(found("a.jpg"))
    stream.close()


def test_interrupted_stream():
    stream = io.StringIO()
    with pytest.raises(KeyboardInterrupt), CocoResults(stream) as results:
        results.write(1, BOXES, [1, 2], SCORES)
        raise KeyboardInterrupt
    assert len(strict(stream.getvalue())) == 2


def test_reader_that_went_away():
    class Gone(io.StringIO):
        def flush(self):
            if "image_id" in self.getvalue():
                raise BrokenPipeError(32, "first" if self.getvalue().count("image_id") == 2 else "later")

        def write(self, text):
            if "image_id" in self.getvalue():
                raise BrokenPipeError(32, "later")
            return super().write(text)

    with pytest.raises(BrokenPipeError, match="first"), CocoResults(Gone()) as results:
        results.write(1, BOXES, [1, 2], SCORES)


@pytest.mark.parametrize("kind", [CocoResults, lambda path: JsonLinesSink(path, LABELS)])
def test_path_that_cannot_be_written(tmp_path, kind):
    with pytest.raises(ArtifactError, match="cannot be written: Is a directory.$"):
        kind(tmp_path)
    with pytest.raises(ArtifactError, match="cannot be written: No such file or directory.$"):
        kind(tmp_path / "no" / "r.json")
    with CocoResults("/dev/null") as results:
        results.write(1, BOXES, [1, 2], SCORES)


def test_a_file_that_another_writes_into_is_refused_and_left_as_it_is(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("of an earlier run, and longer than what comes\n")
    with JsonLinesSink(path, LABELS) as first:
        first.write(found("a.jpg"))
        with pytest.raises(ArtifactError) as caught:
            JsonLinesSink(path, LABELS)
        assert str(caught.value) == f"{path} cannot be written: another process is writing {path}. Wait for it."
        first.write(found("b.jpg"))
    assert [json.loads(line)["image"] for line in path.read_text().splitlines()] == ["a.jpg", "b.jpg"]
    with JsonLinesSink(path, LABELS):
        pass
    assert path.read_text() == ""
