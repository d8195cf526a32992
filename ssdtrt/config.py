"""The constants of SSD300, the class names of COCO and every default value. Imports no torch."""

import math
from pathlib import Path

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

# Decoding and NMS, as in the reference implementation.
MIN_SCORE = 0.05
NMS_IOU = 0.5
MAX_PER_CLASS = 200
MAX_DETECTIONS = 200
# Limits of the fixed-size NMS, above which the exact one runs.
NMS_CANDIDATES = 512  # candidate boxes of a picture
NMS_ANCHORS = 1024  # default boxes that can have candidates
MIN_MARGIN = math.log(MIN_SCORE / (1 - MIN_SCORE)) - 1e-4  # the logit of MIN_SCORE, lowered for rounding
NMS_PASSES = 6
NMS_PAIRS = 16_000_000  # pairs of boxes that the exact NMS compares at a time, which bounds memory

# Preprocessing: `eval` resizes the whole picture to 300 x 300, as the published evaluation does; `hub` resizes the
# shorter side to 300 and takes the center crop, pixel by pixel as the utilities of NVIDIA's torch.hub entry do.
PREPROCESSES = ("eval", "hub")
PREPROCESS = "eval"
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
# The mean and standard deviation of each preprocessing, for pixels in 0..1.
NORMALIZATION = {"eval": (_IMAGENET_MEAN, _IMAGENET_STD), "hub": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))}

# Resizing on a GPU.
RESIZE_GRAPH_AFTER = 30  # pictures of one size, one by one; then their resize is captured as a CUDA graph
RESIZE_CACHE = 128  # side lengths whose interpolation weights are cached; those of 640 pixels take 1.5 MB

# Weights.
COCO_URL = (
    "https://api.ngc.nvidia.com/v2/models/nvidia/ssd_pyt_ckpt_amp/versions/20.06.0/files/nvidia_ssdpyt_amp_200703.pt"
)
COCO_URL_VARIABLE = "SSDTRT_COCO_URL"
COCO_FILE = "nvidia_ssdpyt_amp_200703.pt"
WEIGHTS = "coco"
NAMED_WEIGHTS = ("coco", "scenes", "random")
SCENES_WEIGHTS = Path(__file__).parent / "samples" / "scenes.npz"
SEED = 0

# Files.
MODULE_FILE = "ssd300.ts"
ENGINE_FILE = "ssd300.engine.ts"
DETECTOR_FILE = "ssd300.detector.ts"
PLAN_FILE = "ssd300.plan"
FORMATS = ("torchscript", "onnx")  # of what `export` writes
ENGINE_FORMATS = ("torchscript", "plan")  # of what `compile` writes
ONNX_FILE = "ssd300.onnx"
ONNX_DETECTOR_FILE = "ssd300.detector.onnx"
ONNX_OPSET = 17
ONNX_IR_VERSION = 8  # the version of the file format that came with that opset
RUN_DIR = "ssdtrt-run"
DETECT_DIR = "detections"
DETECTIONS_FILE = "detections.json"  # in the folder of annotated pictures, which it marks
CROPS_DIR = "crops"  # in that folder
RECORD_FILE = ".ssdtrt-written.jsonl"  # in that folder: what was written there, by which it is removed
PLOT_FILE = "bench.svg"
PAGE_FILE = "report.html"
METADATA_NAME = "ssdtrt.json"
SCHEMA = 2
MAX_METADATA = 1 << 20  # bytes
MAX_INFLATED = 16 << 20  # bytes of an archive's compressed members, which are code and normally below 1 MiB

# Building.
METHOD = "trace"
BACKEND = "tensorrt"
FRONT_END = "auto"
BATCH_SIZE = 1
MAX_BATCH_SIZE = 4096  # accepted by the options; TensorRT's limit of 2^31 values per tensor is lower
WORKSPACE_MIB = 4096
STREAMS = 4  # auxiliary streams of a TensorRT engine
MAX_STREAMS = 16
TIMING_IMAGES = 128  # TensorRT times a kernel on at least this many images: small batches take microseconds,
MAX_TIMING_ITERATIONS = 16  # but in no more than this many batches.
CACHE_VARIABLE = "SSDTRT_CACHE"  # the folder of cached engines; an empty value turns the cache off
CACHE_LIMIT_VARIABLE = "SSDTRT_CACHE_LIMIT"  # the largest size of that folder
CACHE_LIMIT = "20GB"

# INT8.
INT8_LEVELS = 127  # the largest value; the scale of a tensor is its range divided by it
CALIBRATORS = ("max", "mse", "percentile", "entropy")  # the first, the default, measured best (docs/int8.md)
CALIBRATION_PICTURES, MIN_CALIBRATION_PICTURES = 500, 100  # wanted, and needed
HELD_OUT = 5  # one in so many calibration pictures is for judging
MIN_AP_RATIO = 0.99  # of FP32's AP, as MLPerf Inference asks of INT8
MIN_AP_PICTURES = 200  # fewer say nothing about AP
MIN_MATCH_RATE, MAX_SCORE_CHANGE = 0.98, 0.012  # of detections, beside FP32's: about 0.99 of its AP (docs/int8.md)
EAGER_BATCH = {"cuda": 64, "cpu": 8}  # pictures at once, in which networks in PyTorch are judged
INT8_BUILDS = 3  # at most, each with more layers in FP16

# Parity; its bounds are in `ssdtrt.artifact.precision.PRECISIONS`.
PARITY_IMAGES = 8
FLOOR_IMAGES = 2  # enough for the distance of eager PyTorch in 16 bits, which some processors emulate slowly
PARITY_BATCH = {"cuda": 8, "cpu": 2}  # for files that take any size; on a CPU Ctrl-C waits for the batch to end
PLACE_BATCHES = (
    1,
    3,
)  # for engines that take any size: first, middle and last place of a batch against one image alone
REPEAT_BOUND = 1e-6  # relative L2 distance of a second run, or of a CUDA graph, to the first run of the same batch

# Measuring.
WARMUP = 10
PROFILE_CALLS = 50
ROUNDS = {"cuda": 10, "cpu": 5}
ITERATIONS = {"cuda": 10, "cpu": 4}
PAUSE = {"cuda": 0.1, "cpu": 0.0}  # seconds before each runner's turn, in which the GPU recovers from the one before
BENCH_SCHEMA = 4  # of benchmark reports
BOOTSTRAP_DRAWS = 2000  # for the confidence interval of a speed-up
TF32_BOUND = 2e-2  # relative L2 distance to FP32, that of FP16: both have 10 bits of mantissa
MAX_VARIATION = 0.025  # the coefficient of variation above which a row is reported as unsteady
# The benchmark cases in the order of their rows: the FP32 baseline first, the files themselves last.
BENCH_CASES = (
    "eager-fp32",
    "eager-tf32",
    "eager-fp16",
    "eager-fp16-graph",
    "eager-bf16",
    "torchscript",
    "onnxruntime",
    "compile",
    "engine",
    "engine-plain",
)
# The case, by the kind of device, that tells whether a machine changed from one report to the next: always measured, and
# not bound by how fast the processor launches kernels, which on a GPU FP32 eager is at small batches.
MACHINE_CASES = {"cuda": "eager-fp16-graph", "cpu": "eager-fp32"}

# Detecting and drawing.
THRESHOLD = 0.4
DETECT_BATCH = {"cuda": 32, "cpu": 2}  # on two cores 2 are as fast as 8, and Ctrl-C waits for the batch to end
MAX_WORKERS = 16  # threads or processes that read pictures; no more than there are cores
MANY_PICTURES = 200  # from this number on, processes read the pictures instead of threads
# Pictures that are given by their addresses.
MAX_BYTES = 64_000_000  # of one
FETCH_SECONDS = 10.0  # until one is there, redirects and all; from a video or stream, until there is more of it
MAX_REDIRECTS = 5
KEPT_BYTES = 256_000_000  # of those that results keep; more are fetched again where they are asked for
FIRST_FETCHES = 3  # that may fail before a run goes on with the others
PICTURE_NOTES = 10  # different notes on how pictures were read, before the rest is one more
# The largest pictures that are resized on the GPU; reader processes have shared memory for so many pixels.
GPU_RESIZE_PIXELS = 640 * 640
GPU_RESIZE_SIDE = 1280
# Videos.
VIDEO_BYTES = 256 << 20  # of decoded frames that wait, and again of those that are being detected in
DECODE = ("auto", "gpu", "cpu")  # where JPEGs are decoded
GPU_DECODE_PIXELS = 1 << 26  # of JPEGs that a thread decodes at a time on a GPU: 200 MB
GPU_DECODERS = 2  # threads that decode on a GPU; beside a network, three bring no more
HARDWARE_DECODE_THREADS = 1  # of the host, which feed a GPU's decoder
GPU_QUEUES = 32  # by which streams reach a GPU, the most that CUDA has; 8 by default, with which decoding beside a network is slower
BATCHES_AHEAD = 1  # batches that wait on a GPU, ready to be run
# File names of system fonts, for letters that Pillow's own font lacks.
SYSTEM_FONTS = ("DejaVuSans.ttf", "NotoSansCJK-Regular.ttc", "Arial Unicode.ttf", "msyh.ttc", "arial.ttf")

# Batch work on Ray Data.
MANIFEST_FILE = "_manifest.json"  # in the folder of Parquet files; readers of such folders pass over the underscore
RAY_BLOCK = 256  # pictures of a Parquet file, and of a task that reads
MAX_RAY_BLOCK = 5000  # of pixels, 1.4 GB
RAY_CALL = {"cuda": 8, "cpu": 1}  # blocks that an actor takes at a time, in which the GPU does not wait for the next
RAY_CPUS = 6  # logical CPUs of a local cluster at least: Ray 2.60 hangs with 2
RAY_READING = 1 / 8  # of the CPUs are left for reading where CPUs detect, which takes many times as long
RAY_FETCHES = 8  # threads of a task that fetches pictures
RAY_SUSPECT = 2  # deaths of the process that reads a block, after which each picture is read in a process of its own
RAY_DEATHS = 5  # of the process that detects, with the same blocks, which end the run
RAY_CONNECT_SECONDS = 5.0  # until a cluster answers
RAY_NODE_SECONDS = 300.0  # until each machine has said whether it can run the engine

# Triton Inference Server.
TRITON_QUEUE_DELAY = 1000  # microseconds that a request may wait for others to fill a batch
TRITON_BATCH = 8  # the largest batch of a file that takes any size
TRITON_PORT = 8001  # of its gRPC protocol
TRITON_SECONDS = 10.0  # for one answer
TRITON_CALLS = 10  # timed calls a picture
# NVIDIA's containers by the TensorRT (major.minor) in them, as far as it is known here; the others are in its support matrix.
TRITON_CONTAINERS = {"11.1": "26.07"}
TRITON_IMAGE = "nvcr.io/nvidia/tritonserver:{}-py3"
PYTORCH_IMAGE = "nvcr.io/nvidia/pytorch:{}-py3"  # what is compiled in it runs in the Triton of the same month
NO_TRITON_CONTAINER = ("8.6.0",)  # TensorRT of PyPI alone, which no such container has
SUPPORT_MATRIX = "https://docs.nvidia.com/deeplearning/frameworks/support-matrix/index.html"

# The service on Ray Serve.
SERVE_HOST, SERVE_PORT = "127.0.0.1", 8000
SERVE_BYTES = 20_000_000  # of a request's body
SERVE_PIXELS = 50_000_000  # of a picture: 150 MB in RGB
SERVE_PICTURES = 16  # of a request
SERVE_UPLOAD_SECONDS = 10.0  # until a body is there
SERVE_SECONDS = 30.0  # for a request, all in all
SERVE_QUEUE_DELAY = 5000  # microseconds that a picture may wait for others to fill a batch
SERVE_ONGOING = {"cuda": 256, "cpu": 16}  # requests in a replica: those that are read, that wait, that run
SERVE_QUEUE = {"cuda": 256, "cpu": 32}  # requests that wait at each replica; without HAProxy at each of Ray's proxies
SERVE_TOGETHER = 4  # replicas that share a GPU by default, at most
SERVE_CORES = 2  # for each of them by default; of 16 cores four replicas kept four busy, HAProxy and Ray one
SERVE_CLIENT_SECONDS = 60  # in which a client sends or takes something, or HAProxy ends its connection
SERVE_RETRY_SECONDS = 1  # after which a client that was refused may try again
SERVE_START_SECONDS = 600.0  # for an engine to be loaded
SERVE_STORE_BYTES = 512 << 20  # of that cluster's object store

# Exit codes after Ctrl-C and after SIGTERM, as in shells.
INTERRUPTED = (130, 143)
NOT_COMPARABLE = 3  # the exit code of `compare` where neither "slower" nor "not slower" can be said

# How `evaluate` matches classes to categories.
CLASS_MATCHING = ("name", "position")

# The baselines that a file can be compared with.
BASELINES = ("eager-fp32", "eager-fp16")

# Timeouts and requirements of `doctor`.
SMI_SECONDS = 10
IMPORT_SECONDS = 120
TEST_BUILD_SECONDS = 900
MIN_FREE_MIB = 500  # of disk space: a module and an engine take about 150, a checkpoint 90
PYTHON_VERSIONS = ((3, 10), (3, 13))  # the oldest and the newest tested
TORCH_TENSORRT_VERSIONS = ((2, 2), (2, 14))  # the oldest and the newest supported
NEWEST_STACK = "torch==2.14.0 torchvision==0.29.0 torch-tensorrt==2.14.0"
SAFE_WEIGHTS_ONLY = (2, 6)  # in older torch, torch.load(weights_only=True) can run code (CVE-2025-32434)
DRIVER_OF_CUDA = {11: 450, 12: 525, 13: 580}  # the oldest NVIDIA driver on Linux for each CUDA

# For messages about a missing Torch-TensorRT.
RTX_DISTRIBUTION = "torch-tensorrt-rtx"  # Torch-TensorRT for TensorRT-RTX, with the same import name

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
LIMIT_ROUNDING = 1e-9  # so that a limit that is just met is met
NUM_CLASSES = len(COCO_LABELS)  # C = 81 with the background
# COCO's category ids of these classes, which have gaps; the background has 0.
COCO_CATEGORY_IDS = tuple(number for number in range(91) if number not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83))
