#!/bin/sh
# All that fcit measures on one CUDA device, in about eight minutes (and ten more with data/real).
#
#     benchmarks/gpu/run.sh OUT                  # on a GPU; OUT: a folder for results and logs
#     benchmarks/gpu/run.sh OUT --cpu-dry-run    # the same commands on a CPU with small shapes
#     PARTS="model tests round" benchmarks/gpu/run.sh OUT    # only some
#
# Every part runs by itself: one that fails or takes too long is told in OUT/summary.txt, and the next one
# goes on. $PYTHON is the interpreter (default: python3). It must have fcit's dependencies; two parts need
# peft and pytest. needs.py looks first, and says how to carry wheels. bitsandbytes is optional. No network is needed. 16 GB must
# be free in $TMPDIR.
set -u
[ $# -ge 1 ] || { sed -n '2,13s/^# \{0,1\}//p' "$0"; exit 2; }
out=$1 dry=${2:-} python=${PYTHON:-python3} here=$(dirname "$0")
case $dry in '' | --cpu-dry-run) ;; *) echo "run.sh: $dry is no option; did you mean --cpu-dry-run?" >&2; exit 2 ;; esac
root=$(cd "$here/../.." && pwd)
export PYTHONPATH="$root/src${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 MPLBACKEND=Agg
export FCIT_TEST_COLD=1 # CUDA cannot be used in a child forked from a process that has it
"$python" "$here/needs.py" || exit 2
mkdir -p "$out" && : > "$out/summary.txt" || exit 2
model=$(mktemp -d) && trap 'rm -rf "$model"' EXIT

parts=${PARTS:-model tests mini bench round quantised align real}
for name in $parts; do
  case " model tests mini bench round quantised align real " in
    *" $name "*) ;;
    *) echo "PARTS: no part $name" >&2; exit 2 ;;
  esac
done
part() { # NAME SECONDS COMMAND...: its output goes to OUT/NAME.log, its end to the summary
  case " $parts " in *" $1 "*) ;; *) return ;; esac
  name=$1 limit=$2 begun=$(date +%s); shift 2
  [ "$dry" ] && limit=$((limit * 5))
  timeout "$limit" "$@" > "$out/$name.log" 2>&1
  status=$?
  verdict="ended with status $status"
  [ $status -eq 0 ] && verdict=ok
  [ $status -eq 124 ] && verdict="cut off after $limit s"
  echo "$name: $verdict ($(($(date +%s) - begun)) s)" | tee -a "$out/summary.txt"
}

[ "$dry" ] && export FCIT_TEST_DEVICE=cpu
if [ ! "$dry" ] && ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  echo "run.sh: no CUDA device here (--cpu-dry-run rehearses on a CPU)" >&2; exit 2
fi

# What needs no quiet device runs together. The timed parts follow, one by one.
part model 150 "$python" "$here/shape.py" write "$model/shape" $dry &
part tests 200 "$python" -m pytest -q -m gpu -n 4 -W default -p no:cacheprovider "$root/tests/gpu" &
part mini 200 "$python" "$here/mini.py" "$out/mini" $dry &
wait
part bench 170 "$python" "$here/shape.py" bench "$model/shape" --json "$out/bench.json" $dry
part round 100 "$python" "$here/shape.py" round "$model/shape" --json "$out/round.json" $dry
part quantised 100 "$python" "$here/shape.py" round "$model/shape" --quantize 4bit --json "$out/4bit.json" $dry
# Real weights and pictures, where examples/real/README.md was followed: alignment anew, and the comparison with the
# stored alignment, so that its figures do not hang on this one's.
real=$root/examples/real
if [ ! -d "$root/data/real/base-aligned" ]; then
  echo "align and real: left out, as data/real is not here (examples/real/README.md makes it)"
elif [ "$dry" ]; then
  part align 60 "$python" "$real/align.py" --device cpu --steps 3 --batch 4 --views 2 --limit 60 --out "$out/base-aligned"
  part real 100 "$python" -m fcit sweep "$here/rehearsal.toml" --jobs 1 --out "$out/real"
else
  part align 260 "$python" "$real/align.py" --device cuda --minutes 3 --steps 4000 --batch 64 --views 12 \
    --out "$out/base-aligned"
  part real 500 "$python" -m fcit sweep "$real/comparison.toml" --jobs 8 --out "$out/real"
fi
for name in $parts; do
  [ -f "$out/$name.log" ] || continue
  echo "== $name"; tail -n 25 "$out/$name.log"
done
cat "$out/summary.txt"
[ -s "$out/summary.txt" ] && ! grep -qv ': ok' "$out/summary.txt"
