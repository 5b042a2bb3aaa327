#!/usr/bin/env bash
# Fetch and make the talk and the sounds that the shipped models are trained against and measured on:
#
#   recipes/get_data.sh [FOLDER]      # default: data; 9.4 GB to download, 1.4 GB to keep
#
# It leaves FOLDER/talk and FOLDER/sounds, each with training/ and validation/, and licences beside
# the recordings; recipes/README.md says what is in them. It needs Debian's apt-get, dpkg-deb and
# fluidsynth, npm, and pip install 'speechrnn[speak]' av mido. Stopped, it goes on when it is typed
# again.
set -euo pipefail

case ${1:-} in
  -h|--help) sed -n '2,10s/^# \{0,1\}//p' "$0"; exit ;;
  -*) echo "get_data.sh: no option $1: expected a folder" >&2; exit 2 ;;
esac
to=${1:-data}
here=$(cd "$(dirname "$0")" && pwd)

"$here/get_kokoro.sh" "$to/kokoro"  # its Whisper writes down what is said in talk
python "$here/get_talk.py" "$to/talk" --ear "$to/kokoro/whisper"
python "$here/get_librispeech.py" "$to/talk"
python "$here/make_talk.py" "$to/talk" --model "$to/kokoro"
python "$here/get_sounds.py" "$to/sounds"
python "$here/make_music.py" "$to/sounds"
if [[ ! -d $to/sounds/validation/made ]]; then
  made=$(mktemp -d "$to/sounds/made.XXXX")
  trap 'rm -rf "$made"' EXIT
  python "$here/../data/make_sounds.py" "$made"
  mv "$made/training" "$to/sounds/training/made"
  mv "$made/validation" "$to/sounds/validation/made"
fi
echo "written: $to/talk, $to/sounds"
