#!/bin/bash
# Builds the engines, runs the GPU tests and measures: bash benchmarks/h200.sh STEP WORK OUT
#
# WORK keeps the engines between the steps; the JSON reports and logs go to OUT. The steps, in order:
#   engines  the module, engines of batch 1, 8, 128 and 32, and one of 1:8:32
#   job      the whole job: `ssdtrt run` on the sample photographs, with a default engine of batch 1
#   tests    the tests that need a GPU, with the job's module and engine
#   measure  every engine at its own batch size in one process, the range at 1, 8 and 32, and each verified on photographs
#   front-end  engines of batch 1, 8, 128 and 32 through the TorchScript front end, measured like the others
#   newer    FP32 eager and torch.compile of the machine's own python3, whose torch is newer than Torch-TensorRT's
#   cached   the same compile twice more, from the cache: what it takes in all and after its imports
#   train    trains on generated scenes with that python3 for MINUTES, and writes the validation pictures
#   accuracy the trained network as a detector of batch 32, and COCO's figures for it, FP32 eager and FP16 eager
#   int8     trains a network of 80 classes, then INT8 and FP16 engines of BATCHES (1, 32, 128) with AP beside their speed
#   int8-why what INT8 costs by calibrator and layer, and the other forms at batch 32
#   files    JPEG files to JSON lines with the engines of `int8` at batch 128: decoded on the GPU and the CPU, 16 and 4 cores;
#            then nvImageCodec alone
#   pictures decoding and NMS, pictures on the GPU to detections, and JPEG files to JSON lines
#   forms    other layouts of the network beside the one that is compiled, at batch 1 and 128: one to three minutes an engine
#   streams  the network through TensorRT's own API without auxiliary streams and with four, at batch 1
#   fp32     an FP32 engine of batch 1, to compare sizes with
set -euo pipefail
step=$1 work=$2 out=$3
ssdtrt() { echo "+ ssdtrt $*"; python3.10 -m ssdtrt "$@" 2>&1; }
samples=$PWD/ssdtrt/samples
mkdir -p "$work" "$out"
work=$(realpath "$work") out=$(realpath "$out")

build() { # NAME ARGUMENTS...
    ssdtrt compile "$work/ssd300.ts" -o "$work/$1.engine.ts" "${@:2}" | tee "$out/compile-${1//\//-}.txt"
    ls -l "$work/$1.engine.ts" | awk '{print $5, "bytes"}' | tee -a "$out/compile-${1//\//-}.txt"
}

case $step in
engines)
    ssdtrt export --weights random -o "$work/ssd300.ts"
    for size in 1 8 128 32; do build "b$size" --fp16 --batch-size "$size"; done
    build range --fp16 --batch-range 1:8:32
    ;;
front-end)
    mkdir -p "$work/front-end"
    for size in 1 8 128 32; do build "front-end/b$size" --fp16 --batch-size "$size" --front-end torchscript; done
    cd "$work/front-end"
    ssdtrt bench b1.engine.ts b8.engine.ts b32.engine.ts b128.engine.ts --module ../ssd300.ts \
        --against eager-fp16-graph,engine-plain --parts --json "$out/static-front-end.json" |
        tee "$out/static-front-end.txt"
    ;;
job)
    ssdtrt run --weights random -o "$work/run" | tee "$out/run.txt"
    cp "$work/run/report.json" "$work"/run/*.jpg "$out/"
    ;;
tests)
    SSDTRT_GPU_DIR=$work/run python3.10 -m pytest -m gpu -q --durations=5 \
        tests/test_gpu.py tests/test_gpu_int8.py tests/test_gpu_decoding.py tests/system/test_devices.py tests/test_doctor.py 2>&1 | tee "$out/pytest.txt"
    ;;
fp32)
    build fp32 --fp32
    ;;
measure)
    cd "$work"
    ssdtrt bench b1.engine.ts b8.engine.ts b32.engine.ts b128.engine.ts --against eager-fp16-graph,engine-plain \
        --parts --json "$out/static.json" | tee "$out/static.txt"
    ssdtrt bench range.engine.ts --batch-size 1,8,32 --against engine-plain --json "$out/range.json" | tee "$out/range.txt"
    for engine in b1 b8 b32 b128 range; do
        ssdtrt verify "$engine.engine.ts" "$samples"/*.jpg --json "$out/verify-$engine.json"
    done | tee "$out/verify.txt"
    ssdtrt detect b8.engine.ts "$samples"/*.jpg -o detections | tee "$out/detect.txt"
    ;;
newer)
    (cd "$work" && python3 -m ssdtrt export --weights random -o newer.ts &&
        python3 -m ssdtrt bench newer.ts --batch-size 1,8,32,128 --against compile --json "$out/eager.json") 2>&1 |
        tee "$out/newer.txt"
    ;;
cached)
    build cached --fp16 --batch-size 128
    { time build cached --fp16 --batch-size 128; } 2>&1 | tee "$out/cached.txt"
    python3.10 - "$work" 2>&1 <<'EOF' | tee -a "$out/cached.txt"
import sys, time
started = time.perf_counter()
import ssdtrt, torch
from ssdtrt import compile_engine
imported = time.perf_counter()
compile_engine(f"{sys.argv[1]}/ssd300.ts", f"{sys.argv[1]}/cached.engine.ts", batch=128)
print(f"imports {imported - started:.2f} s, compile_engine {time.perf_counter() - imported:.2f} s")
EOF
    ;;
forms)
    for size in 1 128; do
        python3.10 benchmarks/forms.py "$work/ssd300.ts" --batch-size "$size" --form compiled --form cast-first \
            --form projections-apart --json "$out/forms-$size.json"
    done 2>&1 | tee "$out/forms.txt"
    ;;
streams)
    python3.10 benchmarks/forms.py "$work/ssd300.ts" --form compiled --only-streams --streams 0 --streams 4 \
        --timings "$work/timings" --json "$out/streams-1.json" 2>&1 | tee "$out/streams.txt"
    ;;
train)
    python3 benchmarks/train_scenes.py --out "$work/scenes" --minutes "${MINUTES:-2}" 2>&1 | tee "$out/train.txt"
    cp "$work/scenes/training.json" "$out/"
    ;;
accuracy)
    scenes=$work/scenes
    ssdtrt export --weights "$scenes/scenes.pt" --trust-weights --labels "$scenes/labels.txt" -o "$scenes/scenes.ts"
    ssdtrt compile "$scenes/scenes.ts" --detector --fp16 --batch-size 32 -o "$scenes/scenes.detector.ts" |
        tee "$out/compile-scenes.txt"
    ssdtrt evaluate "$scenes/scenes.detector.ts" --images "$scenes/val/images" --annotations "$scenes/val/annotations.json" \
        --against eager-fp32,eager-fp16 --json "$out/accuracy.json" | tee "$out/accuracy.txt"
    ;;
int8)
    if [ ! -e "$work/dense.ts" ]; then
        python3 benchmarks/train_scenes.py --out "$work/dense" --minutes "${MINUTES:-2.6}" --classes 80 2>&1 | tee "$out/train.txt"
        python3 benchmarks/train_scenes.py --out "$work/other" --minutes 0 --val 625 --seed 1
        cp "$work/dense/training.json" "$out/"
        ssdtrt export --weights "$work/dense/scenes.pt" --trust-weights --labels "$work/dense/labels.txt" -o "$work/dense.ts"
    fi
    cd "$work"
    judged=(--images dense/val/images --annotations dense/val/annotations.json)
    for size in ${BATCHES:-1 32 128}; do
        ssdtrt compile dense.ts --int8 --calibration other/val/images "${judged[@]}" --batch-size "$size" \
            -o "int8-$size.engine.ts" --json "$out/int8-compile-$size.json" | tee "$out/int8-compile-$size.txt"
        ssdtrt compile dense.ts --fp16 --batch-size "$size" -o "fp16-$size.engine.ts" # From the cache.
        ssdtrt bench "fp16-$size.engine.ts" "int8-$size.engine.ts" "${judged[@]}" --json "$out/int8-bench-$size.json" |
            tee "$out/int8-bench-$size.txt"
        for kind in int8 fp16; do
            ssdtrt profile "$kind-$size.engine.ts" --json "$out/$kind-profile-$size.json" >"$out/$kind-profile-$size.txt"
        done
    done
    ;;
int8-why)
    python3.10 benchmarks/int8_accuracy.py "$work/dense.ts" --calibration "$work/other/val/images" \
        --images "$work/dense/val/images" --annotations "$work/dense/val/annotations.json" --json "$out/int8-accuracy.json"
    python3.10 benchmarks/int8_forms.py "$work/dense.ts" --batch-size 32 --timings "$work/timings" --json "$out/int8-forms.json"
    ;;
files)
    python3.10 benchmarks/files.py "$work/fp16-128.engine.ts" "$work/int8-128.engine.ts" --folder "$work/jpegs" \
        --cores 16 --cores 4 --part all --part no-network --part read --json "$out/files.json" | tee "$out/files.txt"
    python3.10 benchmarks/jpeg_decoding.py --json "$out/jpeg-decoding.json" | tee "$out/jpeg-decoding.txt"
    ;;
pictures)
    scenes=$work/scenes
    python3.10 benchmarks/pictures.py "$scenes/scenes.detector.ts" --json "$out/pictures.json"
    ;;
esac
