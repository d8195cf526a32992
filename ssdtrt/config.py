"""SSD300's numbers, COCO's class names and every default value: the one place where a constant lives. No torch here."""

import math

# The network (NVIDIA SSD300 v1.1, ResNet-50 backbone).
IMAGE_SIZE = 300
FEATURE_MAPS = (38, 19, 10, 5, 3, 1)
STEPS = (8, 16, 32, 64, 100, 300)
SCALES = (21, 45, 99, 153, 207, 261, 315)
ASPECT_RATIOS = ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,))
BOXES_PER_CELL = tuple(2 + 2 * len(ratios) for ratios in ASPECT_RATIOS)
NUM_BOXES = sum(size * size * boxes for size, boxes in zip(FEATURE_MAPS, BOXES_PER_CELL))  # A = 8732
CENTER_VARIANCE = 0.1
SIZE_VARIANCE = 0.2
FEATURE_CHANNELS = (1024, 512, 512, 256, 256, 256)
MIDDLE_CHANNELS = (256, 256, 128, 128, 128)

# Decoding, as in the reference.
MIN_SCORE = 0.05
NMS_IOU = 0.5
MAX_PER_CLASS = 200
MAX_DETECTIONS = 200
# How far the fixed-size way of suppression goes before the exact one takes over.
NMS_CANDIDATES = 512  # of a picture
NMS_ANCHORS = 1024  # where it looks for all of them
LOWEST_MARGIN = math.log(MIN_SCORE / (1 - MIN_SCORE)) - 1e-4  # with room for rounding
NMS_PASSES = 6
NMS_PAIRS = 16_000_000  # pairs of boxes that the exact way compares at once, which bounds memory

# Preparing a picture: `eval` as the published evaluation does (the whole picture squeezed into the square), `hub` as
# the notebook's utilities do (the shorter side to 300, then the middle of the longer one).
PREPROCESSES = ("eval", "hub")
PREPROCESS = "eval"
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# The mean and standard deviation of each way, for pixels in 0..1: (x - 0.5) / 0.5 is (256 x - 128) / 128.
NORMALIZATION = {"eval": (IMAGENET_MEAN, IMAGENET_STD), "hub": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))}

# Resizing on a device.
RESIZE_AT_ONCE = 16  # pictures, which bounds memory
RESIZE_LENGTHS = 128  # of a picture's sides, whose weights are kept: 1.5 MB for 640 pixels

# Weights.
COCO_URL = (
    "https://api.ngc.nvidia.com/v2/models/nvidia/ssd_pyt_ckpt_amp/versions/20.06.0/files/nvidia_ssdpyt_amp_200703.pt"
)
COCO_URL_VARIABLE = "SSDTRT_COCO_URL"
COCO_FILE = "nvidia_ssdpyt_amp_200703.pt"
WEIGHTS = "coco"
SEED = 0

# Files.
MODULE_FILE = "ssd300.ts"
ENGINE_FILE = "ssd300.engine.ts"
DETECTOR_FILE = "ssd300.detector.ts"
RUN_DIR = "ssdtrt-run"
DETECT_DIR = "detections"
PLOT_FILE = "bench.svg"
METADATA_NAME = "ssdtrt.json"
SCHEMA = 2
MAX_METADATA = 1 << 20  # bytes
MAX_INFLATED = 16 << 20  # bytes of an archive's compressed members, which are code; ours have less than 1 MiB

# Building.
METHOD = "trace"
BACKEND = "tensorrt"
BATCH_SIZE = 1
LARGEST_BATCH = 4096  # the largest that is asked for; TensorRT's tensors of 2^31 values end below it
WORKSPACE_MIB = 4096
STREAMS = 0  # beside the one that an engine is called on
MOST_STREAMS = 16
TIMED_IMAGES = 128  # TensorRT times a kernel on this many images, if a batch has fewer: small batches take microseconds
MOST_TIMED = 16  # but no more often than this
CACHE_VARIABLE = "SSDTRT_CACHE"  # the folder of kept engines; empty: none are kept
CACHE_ENGINES = 20

# Parity, whose bounds are those of `ssdtrt.artifact.capabilities.PRECISIONS`.
PARITY_IMAGES = 8
FLOOR_IMAGES = 2  # enough to know how far eager PyTorch is in 16 bits, which some processors only emulate
PARITY_BATCH = {"cuda": 8, "cpu": 2}  # where the file takes any; on a CPU Ctrl-C waits for a batch

# Measuring.
WARMUP = 10
ROUNDS = {"cuda": 10, "cpu": 5}
ITERATIONS = {"cuda": 10, "cpu": 4}
REST = {"cuda": 0.1, "cpu": 0.0}  # seconds before each runner's turn: heat and power of the last one are not this one's
BENCH_SCHEMA = 3  # of a benchmark's report
BOOTSTRAP = 2000  # draws for the confidence interval of a speed-up
TF32_BOUND = 2e-2  # relative L2 distance to FP32; TF32 has as many digits as FP16
STEADY = 0.025  # the coefficient of variation above which a row is said to be unsteady
# The benchmark cases in the order of the rows: the first is the FP32 baseline, the last two are the files themselves.
BENCH_CASES = (
    "eager-fp32",
    "eager-tf32",
    "eager-fp16",
    "eager-fp16-graph",
    "eager-bf16",
    "torchscript",
    "compile",
    "engine",
    "engine-graph",
)

# Detecting and drawing.
THRESHOLD = 0.4
DETECT_BATCH = {"cuda": 32, "cpu": 2}  # On two cores 2 are as fast as 8, and Ctrl-C waits for one batch.
WORKERS = 16  # threads or processes that read pictures, at most; no more than the machine has cores
MANY = 200  # pictures from which on processes read, not threads
# Up to these a picture goes to a GPU as it is, to be resized there: a slot holds so many pixels.
WHOLE_PIXELS = 640 * 640
WHOLE_SIDE = 1280
# Fonts of the system, by file name, for letters that Pillow's own font lacks.
SYSTEM_FONTS = ("DejaVuSans.ttf", "NotoSansCJK-Regular.ttc", "Arial Unicode.ttf", "msyh.ttc", "arial.ttf")

# Exit codes after Ctrl-C and after SIGTERM, as shells have them.
INTERRUPTED = (130, 143)

# Evaluating: the baselines that a file can be compared with.
BASELINES = ("eager-fp32", "eager-fp16")

# What `doctor` waits for, in seconds, and what it holds against the machine.
SMI_SECONDS = 10
IMPORT_SECONDS = 120
TRIAL_SECONDS = 900
FREE_MIB = 500  # of disk: a module and an engine take about 150, a checkpoint 90
PYTHONS = ((3, 10), (3, 13))  # the oldest and the newest that is tested
TORCH_TENSORRT_KNOWN = ((2, 2), (2, 14))  # the oldest and the newest whose arguments are known
NEWEST_STACK = "torch==2.14.0 torchvision==0.29.0 torch-tensorrt==2.14.0"
SAFE_WEIGHTS_ONLY = (2, 6)  # torch.load(weights_only=True) runs code below (CVE-2025-32434)
DRIVER_OF_CUDA = {11: 450, 12: 525, 13: 580}  # the oldest NVIDIA driver on Linux for each CUDA

# Where what is missing comes from.
HOW_TO_INSTALL = (
    "pip install 'ssdtrt[tensorrt]' (or, where only PyPI can be reached, 'ssdtrt[tensorrt-pypi]' with Python 3.10)"
)

COCO_LABELS = (
    "background",
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow",
    "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee",
    "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard",
    "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple",
    "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch",
    "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone",
    "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear",
    "hair drier", "toothbrush",
)  # fmt: skip
NUM_CLASSES = len(COCO_LABELS)  # C = 81 with the background
# COCO's numbers for them, which have gaps; the background has 0.
COCO_CATEGORY_IDS = tuple(number for number in range(91) if number not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83))
