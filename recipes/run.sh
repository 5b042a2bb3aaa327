#!/usr/bin/env bash
# Run a recipe from its corpus to a transcript:
#
#   recipes/run.sh NAME [--stage N] [--stop-stage N]
#
#   stage 0  download the corpus and its test archive
#   stage 1  prepare: read training and validation, check that they are complete, try a batch
#   stage 2  train; goes on where an earlier run was stopped
#   stage 3  evaluate on validation and testing
#   stage 4  transcribe: classify clips, then find them in one recording
#
# NAME is that of a recipe beside this file. Everything is kept in runs/NAME.
set -euo pipefail

fail() { echo "run.sh: $1" >&2; exit 2; }
name='' stage=0 stop_stage=4
while (($#)); do
  case $1 in
    -h|--help) sed -n '2,13s/^# \{0,1\}//p' "$0"; exit ;;
    --stage|--stop-stage)
      [[ ${2:-} =~ ^[0-4]$ ]] || fail "$1 takes a stage from 0 to 4, got '${2:-}'"
      [[ $1 == --stage ]] && stage=$2 || stop_stage=$2
      shift 2 ;;
    -*) fail "no option $1: expected --stage N or --stop-stage N" ;;
    *) [[ -z $name ]] || fail "one recipe at a time: got '$name' and '$1'"; name=$1; shift ;;
  esac
done
command -v speechrnn >/dev/null ||
  fail "speechrnn is not installed here: type pip install -e '.[train]' in the project's folder"
cd "$(dirname "$0")/.."
recipe=recipes/$name.yaml
known=$(basename -s .yaml recipes/*.yaml | xargs)
[[ -n $name && -f $recipe ]] || fail "no recipe '$name': expected one of $known"

value() { sed -n "s/^  $1: *\([^ ]*\).*/\1/p" "$recipe"; }
folder=$(value folder) protocol=$(value protocol) run=runs/$name
# The official unknown words and silence of the -12 protocols are in archives of their own.
testing=$folder archive=''
if [[ $folder$protocol == */speech_commands_v*-12 ]]; then
  archive=${protocol%-12}-test testing=${folder/commands_v/commands_test_set_v}
fi
partial=()
[[ $(value allow_partial) != true ]] || partial=(--allow-partial)

# Prints a stage's heading, if it is among those asked for.
begin() { ((stage <= $1 && $1 <= stop_stage)) && printf '\n== stage %s: %s\n' "$1" "$2"; }

if begin 0 download; then
  case $folder in
    */speech_commands_v*)
      for corpus in "${protocol%-*}" $archive; do
        speechrnn download "$corpus" --to "${folder%/*}"
      done ;;
    *) echo "$folder: nothing to download" ;;
  esac
fi
if begin 1 prepare; then
  speechrnn train "$recipe" --trainer.fast_dev_run 1
fi
if begin 2 train; then
  speechrnn train "$recipe" --resume
fi
if begin 3 evaluate; then
  for split in validation testing; do
    corpus=$folder
    [[ $split == validation ]] || corpus=$testing
    speechrnn evaluate "$run/model" --data "$corpus" --protocol "$protocol" --split $split \
      "${partial[@]}" --report "$run/$split"
    echo
  done
fi
if begin 4 transcribe; then
  # The first testing clip of each word, and all of them joined to one recording.
  joined=$(python - "$testing" "$protocol" "$run/recording.wav" <<'PYTHON'
import sys

import numpy as np
import soundfile
from speechrnn.config import SAMPLE_RATE, words_among
from speechrnn.corpus import load_split

folder, protocol, recording = sys.argv[1:]
clips = load_split(folder, protocol, "testing", allow_partial=True)
words = words_among(clips.labels)
first = {}
for place, name in enumerate(clips.names):
    if clips.labels[clips.targets[place]] in words:
        first.setdefault(name.split("/")[0], place)
joined = np.concatenate([clips.waves[place] for place in first.values()])
soundfile.write(recording, joined, SAMPLE_RATE)
for place in first.values():
    print(f"{folder}/{clips.names[place]}")
PYTHON
  )
  mapfile -t clips <<<"$joined"
  speechrnn classify "${clips[@]}" --model "$run/model"
  printf '\nthe same clips joined, %s:\n' "$run/recording.wav"
  speechrnn transcribe "$run/recording.wav" --model "$run/model"
fi
