"""SSD300's numbers and COCO's labels, and what importing them costs."""

import subprocess
import sys
from pathlib import Path

import pytest

from ssdtrt import config

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "torchvision", "numpy", "PIL", "torch_tensorrt")


def loaded_after(statement):
    """Which of the heavy packages a fresh interpreter holds after a statement."""
    code = f"{statement}\nimport sys\nprint('loaded:', *[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].split()[1:]


def test_feature_maps_fit_each_other():
    assert len(config.STEPS) == len(config.FEATURE_MAPS) == len(config.ASPECT_RATIOS) == len(config.SCALES) - 1


def test_labels_are_cocos_in_order():
    labels = config.COCO_LABELS
    assert len(labels) == config.NUM_CLASSES == 81
    assert len(set(labels)) == 81
    assert labels[:5] == ("background", "person", "bicycle", "car", "motorcycle")
    assert (labels[16], labels[17], labels[42], labels[48], labels[63]) == ("cat", "dog", "cup", "apple", "tv")
    assert (labels[12], labels[59], labels[80]) == ("stop sign", "potted plant", "toothbrush")


def test_category_ids_are_cocos():
    """COCO numbers its 80 classes 1 to 90; ten numbers are missing."""
    ids = dict(zip(config.COCO_LABELS, config.COCO_CATEGORY_IDS))
    assert len(config.COCO_CATEGORY_IDS) == len(ids) == 81
    assert list(config.COCO_CATEGORY_IDS) == sorted(set(config.COCO_CATEGORY_IDS))
    assert {name: ids[name] for name in (
        "background", "person", "fire hydrant", "stop sign", "elephant", "backpack", "umbrella", "handbag",
        "wine glass", "bed", "dining table", "toilet", "tv", "refrigerator", "book", "hair drier", "toothbrush",
    )} == {
        "background": 0, "person": 1, "fire hydrant": 11, "stop sign": 13, "elephant": 22, "backpack": 27,
        "umbrella": 28, "handbag": 31, "wine glass": 46, "bed": 65, "dining table": 67, "toilet": 70, "tv": 72,
        "refrigerator": 82, "book": 84, "hair drier": 89, "toothbrush": 90,
    }  # fmt: skip


@pytest.mark.parametrize(
    "statement",
    [
        "import ssdtrt; dir(ssdtrt); ssdtrt.__version__",
        "import ssdtrt.config",
        "import ssdtrt.errors, ssdtrt.artifact.inspection, ssdtrt.artifact.request, ssdtrt.benchmarking.compare, ssdtrt.commands.text.tables",
        "import ssdtrt.cli",
        "from ssdtrt.cli import main; main(['--help'], standalone_mode=False)",
        *(
            f"from ssdtrt.cli import main; main(['{command}', '--help'], standalone_mode=False)"
            for command in ("bench", "compile", "detect", "evaluate", "export", "run", "verify")
        ),
    ],
)
def test_import_is_light(statement):
    assert loaded_after(statement) == []


def test_lazy_name_brings_torch_only_when_used():
    assert loaded_after("from ssdtrt import BatchRange, ParityReport, SsdtrtError") == []
    assert "torch" in loaded_after("from ssdtrt import load_engine")
