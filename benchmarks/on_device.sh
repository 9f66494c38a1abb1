#!/usr/bin/env bash
# Everything that only a GPU can tell, in one command, with neither network nor installation:
#
#     benchmarks/on_device.sh FOLDER [--tiny]    # --tiny: small sizes, to try it out on a CPU
#
# Each part has a limit of its own, and a part that fails costs only itself. On one H100 all of it takes 6 minutes.
# The folder then holds log.txt, throughput.md and throughput.json, profile.txt and trace.json.gz, tests.txt, tuning.json.
set -uo pipefail
out=$(mkdir -p "$1" && cd "$1" && pwd)
tiny=${2:-}
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 TF_CPP_MIN_LOG_LEVEL=2
export XLA_PYTHON_CLIENT_PREALLOCATE=false XDG_CACHE_HOME="$work/cache"
seeds=25 many=500 size=1024
[[ $tiny ]] && seeds=1 many=2 size=64

part() { # part NAME SECONDS COMMAND...: the command's last lines go to the log, whatever becomes of it
  local name=$1 limit=$2 start=$SECONDS status=0
  shift 2
  [[ $tiny ]] && limit=1800
  echo "== $name"
  timeout -s INT -k 5 "$limit" "$@" >"$work/$name.log" 2>&1 || status=$?
  tail -n 40 "$work/$name.log"
  echo "== $name: exit code $status after $((SECONDS - start)) s"
}

sweep() { python3 run_sweep.py --epochs 2 --train-size "$size" --run-dir "$work/run_$1" "${@:2}"; }

resume() { # a run that is killed and resumed must end as an undisturbed one does, bit by bit
  XLA_FLAGS="--xla_gpu_deterministic_ops=true" JAX_PLATFORMS=$platform python3 tests/endurance/kill.py --kills 4
}

memory() { # a sweep that does not fit: 3 GB of the device for 2,000 trials
  XLA_PYTHON_CLIENT_PREALLOCATE=true XLA_PYTHON_CLIENT_MEM_FRACTION=0.04 sweep memory --seeds "$many" --epochs 1
}

tests() { # float32 in full, so that the tolerances are those of a CPU; XLA does not look for fast tiles, which takes long
  JAX_DEFAULT_MATMUL_PRECISION=highest XLA_FLAGS=--xla_gpu_autotune_level=0 python3 -m pytest -v -n 14 -W default \
    --tb=line -p no:cacheprovider tests/rewrite/test_gpu.py tests/network tests/trial tests/engine
}
platform=$(python3 -c 'import jax; print(jax.devices()[0].platform.replace("gpu", "cuda"))')
export -f sweep resume memory tests
export work many seeds size platform

{
  date -u
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || true
  python3 -c 'import jax, flax, optax, l2jax; print(jax.devices(), jax.__version__, flax.__version__, optax.__version__)'
  part throughput 230 python3 benchmarks/throughput_gpu.py --output "$out" ${tiny:+--tiny}
  part profile 40 python3 benchmarks/profile_step.py --seeds "$((4 * seeds))" --trace "$out/trace.json.gz"
  cp "$work/profile.log" "$out/profile.txt"
  # Nothing that follows is timed: all at once.
  part memory 100 bash -c memory &
  part resume 150 bash -c resume &
  part autotune 100 bash -c 'sweep autotune --seeds "$seeds" --autotune' &
  part tests 150 bash -c tests &
  wait
  cp "$work"/cache/l2jax/tuning.json "$out" || true
  cp "$work/tests.log" "$out/tests.txt"
  date -u
} 2>&1 | tee "$out/log.txt"
