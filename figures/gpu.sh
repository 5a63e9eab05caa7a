#!/usr/bin/env bash
# Measure a GPU and check this project on it, in one call, without network access and on a machine that has PyTorch but
# little of what this project needs besides.
#
#   figures/gpu.sh wheels [PYTHON]   before, where there is a network: collect in wheels/ what such a machine lacks, for
#                                    its version of Python, default 3.12; copy that folder along with the checkout
#   figures/gpu.sh [FOLDER]          there: tests on the GPU, drct bench and a short training; figures go to FOLDER,
#                                    default results/gpu. Fails if one of them does.
#
# SECONDS_IN_ALL=470 is when it ends; PYTHON=python3 runs it. DEVICE=cpu BENCH="--sizes 16x16 --contenders ours" tries it
# without a GPU. Afterwards, with a network or not:
#   cp FOLDER/speed_gpu.json figures/ && python figures/tables.py docs/speed.md
#   drct bench --show figures/speed_gpu.json --chart figures/speed_gpu.png
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2

PYTHON=${PYTHON:-python3}
LACKING="basicsr addict future yapf lmdb pydantic pydantic-core typing-inspection annotated-types spandrel einops timm
    psutil safetensors tifffile"
PLATFORMS="manylinux_2_28_x86_64 manylinux_2_17_x86_64 manylinux2014_x86_64 manylinux_2_12_x86_64 manylinux1_x86_64"

collect_wheels() {
    local package version options=()
    for platform in $PLATFORMS; do options+=(--platform "$platform"); done
    for package in $LACKING; do
        version=$("$PYTHON" -c "from importlib.metadata import version; print(version('$package'))") || return 1
        if [ "$package" = basicsr ]; then # which has no wheel
            "$PYTHON" -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir wheels "basicsr==$version"
        else
            "$PYTHON" -m pip download --quiet --no-deps --only-binary=:all: --implementation cp \
                --python-version "$1" "${options[@]}" --dest wheels "$package==$version"
        fi || return 1
    done
    ls -l wheels
}

if [ "${1:-}" = wheels ]; then
    collect_wheels "${2:-3.12}"
    exit
fi

OUT=${1:-results/gpu}
DEVICE=${DEVICE:-cuda}
END=$((SECONDS + ${SECONDS_IN_ALL:-470}))
TRAINING=75 # seconds that are kept for it
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
export PYTHONPATH=$PWD PYTHONUNBUFFERED=1
FAILED=""

if compgen -G "wheels/*.whl" >/dev/null; then
    packages=$(mktemp -d)
    "$PYTHON" -m pip install --quiet --no-index --no-deps --no-compile --target "$packages" wheels/*.whl || exit 2
    export PYTHONPATH=$PWD:$packages
fi

# part NAME SECONDS COMMAND...: run a command for at most so many seconds, its output also in FOLDER/NAME.log
part() {
    local name=$1 limit=$2
    shift 2
    echo "== $name, at most $limit s"
    timeout "$limit" "$@" 2>&1 | tee "$OUT/$name.log"
    [ "${PIPESTATUS[0]}" = 0 ] || FAILED+=" $name"
}

left() { echo $((END - SECONDS > 1 ? END - SECONDS : 1)); }

part tests 110 "$PYTHON" -m pytest --noconftest -m cuda -p no:cacheprovider --maxfail=10 tests/test_cuda.py

bench=(--device "$DEVICE" --json "$OUT/speed_gpu.json")
[ "$DEVICE" = cuda ] || bench+=(--in-process)
# shellcheck disable=SC2206
bench+=(${BENCH:-})
budget=$(($(left) - TRAINING))
part bench "$budget" "$PYTHON" -m drct bench "${bench[@]}" \
    --minutes "$("$PYTHON" -c "print(max(0.1, ($budget - 25) / 60))")"

if "$PYTHON" -c "import drct, basicsr.train, pydantic, lmdb" 2>/dev/null; then
    # The light recipe, on the images of the repository: experiments/gpu_training
    set -- train:total_iter="${ITERATIONS:-200}" train:scheduler:total_steps="${ITERATIONS:-200}" val:val_freq=100 \
        logger:print_freq=20 logger:save_checkpoint_freq=100 name=gpu_training num_gpu=auto
    for key in train val_1 val_2; do
        set -- "$@" "datasets:$key:dataroot_gt=./datasets/demo/GT" "datasets:$key:dataroot_lq=./datasets/demo/LRbicx4"
    done
    part training "$(left)" "$PYTHON" -m drct train -opt options/train/train_DRCT-XS_SRx4_short.yml --force_yml "$@"
else
    echo "== training is left out: basicsr, pydantic or lmdb is not installed (figures/gpu.sh wheels)"
fi

echo "== done after $SECONDS s; figures in $OUT; failed:${FAILED:- nothing}"
[ -z "$FAILED" ]
