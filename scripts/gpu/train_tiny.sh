#!/usr/bin/env bash
# Train a recipe's language model on one GPU, where nothing but one archive gets in and only small files get out.
#
#   scripts/gpu/train_tiny.sh pack RUN tiny.tar.gz              # where RUN's stage `prepare` is done: at most 64 MiB
#   scripts/gpu/train_tiny.sh train tiny.tar.gz OUT [SECONDS]   # on the machine with the GPU, in the same checkout
#   scripts/gpu/train_tiny.sh join OUT RUN                      # back home: the model, checked, into RUN/model
#
# `train` stops after SECONDS with its state saved; the same command goes on from there, also in a later session where
# OUT/state.* came along. OUT takes files of at most 16 MB with their SHA-256, the log, and a table of the stages.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PYTHONPATH=src${PYTHONPATH:+:$PYTHONPATH}
PYTHON=${PYTHON:-python3} WORK=${WORK:-runs/gpu} MOST=$((64 << 20)) PART=16000000

parts() { # NAME FOLDER...: the folders below $WORK as numbered parts of one archive in $OUT
  local name=$1; shift
  rm -f "$OUT/$name".*
  tar -C "$WORK" -cf - "$@" | split -b $PART -d - "$OUT/$name."
  (cd "$OUT" && sha256sum "$name".* > "$name.sha256")
}

whole() { # NAME FOLDER: the inverse
  (cd "$OUT" && sha256sum --quiet -c "$1.sha256")
  cat "$OUT/$1".[0-9]* | tar -C "$2" -xf -
}

table() { # the last line that each stage logged, and where it ran
  "$PYTHON" - "$WORK/metrics.jsonl" <<'PY'
import json, sys
import torch
lines = [json.loads(line) for line in open(sys.argv[1], encoding="utf-8")]
last = {line["stage"]: line for line in lines}
print("on", torch.cuda.get_device_name() if torch.cuda.is_available() else "the processor, torch", torch.__version__)
print("| stage | steps | loss | tokens/s |\n|---|---|---|---|")
for name, line in last.items():
    print(f"| {name} | {line['step']} | {line.get('loss', float('nan')):.4f} | {line.get('tokens_per_s', 0):,.0f} |")
PY
}

case ${1:-} in
pack)
  RUN=$2 FILE=$3
  folders=(recipe.json text prepare)
  for part in image speech; do [ ! -d "$RUN/$part" ] || folders+=("$part"); done
  tar -C "$RUN" -czf "$FILE" "${folders[@]}"
  size=$(stat -c %s "$FILE")
  echo "$FILE: $size bytes"
  [ "$size" -le $MOST ] || { echo "More than $MOST bytes: prepare fewer samples." >&2; exit 1; }
  ;;
train)
  FILE=$2 OUT=$3 SECONDS_LEFT=${4:-100000}
  mkdir -p "$WORK" "$OUT"
  [ -f "$WORK/recipe.json" ] || tar -C "$WORK" -xzf "$FILE"
  [ -d "$WORK/work" ] || [ ! -f "$OUT/state.sha256" ] || whole state "$WORK"
  cp "$WORK/recipe.json" "$WORK/recipe.yaml"
  code=0
  timeout -s INT -k 60 "$SECONDS_LEFT" \
    "$PYTHON" -m mio train "$WORK/recipe.yaml" --out "$WORK" --only model --workers 1 --quiet || code=$?
  table | tee "$OUT/table.md"
  cp "$WORK/metrics.jsonl" "$OUT/"
  if [ -d "$WORK/model" ]; then
    parts model model metrics.jsonl
  else
    kept=(metrics.jsonl)
    for part in stages plans work; do [ ! -d "$WORK/$part" ] || kept+=("$part"); done
    parts state "${kept[@]}"
  fi
  ls -l "$OUT"
  exit $code
  ;;
join)
  OUT=$2 RUN=$3
  whole model "$RUN"
  "$PYTHON" -c 'import mio, sys; print(mio.load(sys.argv[1]).config.name, "loads")' "$RUN/model"
  ;;
*)
  sed -n '2,10s/^# \{0,1\}//p' "$0" >&2
  exit 2
  ;;
esac
