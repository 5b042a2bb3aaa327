"""Render words said alone and sentences, none of them a command, to be trained against as talk.

Usage:
    python recipes/make_talk.py FOLDER --model kokoro    # 20 minutes of one core
    python recipes/make_talk.py ANOTHER --model kokoro --more    # 80 minutes

It writes `FOLDER/training/rendered/`: FLAC, mono, 16 kHz, with licences in `copyright`, and their
lines of `FOLDER/talk.tsv` and `transcripts.tsv`, as `recipes/get_talk.py` does. Words are
clips of one second; 30 or more of them, or of the sentences, are joined to a recording. The clips
and sentences themselves stay in `FOLDER/rendered/`, with voice and speed in `provenance.tsv`.

What is said, in the English voices of Kokoro-82M:
  words_alone.txt  letters, numbers and what telephones and spelling say, six clips of each
  words.txt        what sounds like a command, and frequent words, a clip of each
  300 sentences    examples of Debian's `wordnet-base`

and with `--more`, in folders `rendered_more`, what no shipped model heard:
  words_more.txt   the next most frequent words, a clip of each
  3,000 sentences  the next examples
They belong into ANOTHER folder: a training draws all that lies in its folder of talk.

A word is kept when Whisper understands it. It needs `apt-get`, `dpkg-deb`, the package `speechrnn`
with its extra `speak`, and the files that `recipes/get_kokoro.sh` writes, in the folder `kokoro`.
A stopped run goes on where it was when the command is typed again.
"""

import argparse
import csv
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from debian import copy_licence, join_tables, unpacked, whole_package, without_tools, write_table
from get_talk import COLUMNS, SAMPLE_RATE, digest, has_command, words_of, write_transcripts

from speechrnn.files import whole_folder
from speechrnn.synthesis.intelligibility import Judge
from speechrnn.synthesis.kokoro import Kokoro, Synthesiser
from speechrnn.synthesis.rendering import Check, english_voices, render_sentences, render_words

SEED = 0
CLIPS_A_RECORDING = 30  # or sentences, at least: pieces for training are cut from long recordings
SENTENCE_WORDS = range(4, 26)
WORDNET = "wordnet-base"
COPYRIGHT = """\
Nobody said this: Kokoro-82M 1.0 by hexgrad did, Apache-2.0, as the int8 ONNX export by kokoro-onnx
(MIT). Its sentences are examples of WordNet 3.0, under the licence that follows.

"""


class Texts(NamedTuple):
    """What is rendered into one folder.

    Args:
        name: of that folder.
        clips: how many of each word, by the list's name: `words` is `words.txt` beside this script.
        sentences: the part of `examples` that is spoken.
    """

    name: str
    clips: dict[str, int]
    sentences: slice


SHIPPED = Texts("rendered", {"words_alone": 6, "words": 1}, slice(300))
MORE = Texts("rendered_more", {"words_more": 1}, slice(300, 3300))


def examples(folder: Path) -> list[str]:
    """Sentences without a command from the unpacked files of WordNet, in a random order.

    Source: wndb(5WN). A line is data, `|` and a gloss, which has its examples in quotes.
    """
    found: set[str] = set()
    for path in folder.rglob("data.*"):
        for line in path.read_text("utf-8").splitlines():
            for text in re.findall(r'"([^"]+)"', line.partition("|")[2]):
                text = text.strip(" ;,")
                plain = re.fullmatch(r"[A-Za-z][A-Za-z ,'?!-]+\.?", text)
                words = words_of(text)
                said = len(words.split()) in SENTENCE_WORDS and not has_command(words, "en")
                if plain and said and " -" not in text:
                    found.add(text[0].upper() + text[1:] + ("" if text[-1] in ".?!" else "."))
    return sorted(found, key=digest)


def get_sentences(folder: Path, which: slice) -> list[str]:
    """This part of the examples, read from a folder.

    If that is not there, they are fetched into it, with WordNet's licence.

    Raises:
        RuntimeError: apt has no such package, or the network is down.
    """
    table = folder / "sentences.txt"
    if not table.is_file():
        with unpacked((WORDNET,)) as (contents, _), whole_folder(folder) as target:
            chosen = examples(contents)[which]
            (target / table.name).write_text("\n".join(chosen) + "\n", "utf-8")
            copy_licence(contents, WORDNET, target)
    return table.read_text("utf-8").splitlines()


def render(
    folder: Path,
    synthesiser: Synthesiser,
    understood: Check,
    texts: Texts,
    sentences: list[str],
) -> None:
    """Render clips of the words of each list, and the sentences, each into its folder."""
    voices = english_voices(synthesiser.voices)
    for name, clips in texts.clips.items():
        of_list = Path(__file__).with_name(f"{name}.txt").read_text("utf-8").split()
        print(f"{name}: {len(of_list)} words, {clips} clips of each", file=sys.stderr)
        tally = render_words(of_list, folder / name, synthesiser, understood, voices, clips, SEED)
        lacking = [word for word in of_list if tally.kept[word] < clips]
        if lacking:
            print(f"{name}: not understood often enough: {' '.join(lacking)}", file=sys.stderr)
    print(f"sentences: {len(sentences)}", file=sys.stderr)
    render_sentences(sentences, folder / "sentences", synthesiser, voices, SEED)


def recordings(folder: Path, texts: Texts) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Name of each recording with the files that are joined in it, and what is said in them."""
    for name in (*texts.clips, "sentences"):
        clips = read_files(folder / name / "provenance.tsv")
        count = max(1, len(clips) // CLIPS_A_RECORDING)
        for number, places in enumerate(np.array_split(np.arange(len(clips)), count)):
            yield f"{name}-{number:03}", [clips[place] for place in places]


def read_files(table: Path) -> list[tuple[str, str]]:
    """Each file of a table, from the folder of all lists on, and what is said in it."""
    with table.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [(f"{table.parent.name}/{row['file']}", row["text"]) for row in rows]


def join(folder: Path, target: Path, texts: Texts) -> None:
    """Write the recordings of a rendering, and their table."""
    rows = []
    for name, parts in recordings(folder, texts):
        wave = np.concatenate([soundfile.read(folder / path)[0] for path, _ in parts])
        soundfile.write(target / f"{name}.flac", wave, SAMPLE_RATE, subtype="PCM_16")
        rows.append((
            "training", f"training/{texts.name}/{name}.flac", texts.name, "Kokoro-82M 1.0", "en",
            "Apache-2.0; sentences: WordNet-3.0", f"{len(wave) / SAMPLE_RATE:.2f}", "rendered",
            words_of(" ".join(text for _, text in parts)),
        ))  # fmt: skip
    write_table(target / "talk.tsv", COLUMNS, rows)


def make(folder: Path, model: Path, texts: Texts) -> None:
    """Render and join all that is wanted.

    Raises:
        RuntimeError: a package or a library is missing.
        OSError: a file of the model is missing, or one cannot be written.
        ValueError: the model is not the expected one.
    """
    synthesiser = Kokoro(model)
    voice = english_voices(synthesiser.voices)[0]
    judge = Judge(model / "whisper", lambda word: synthesiser.phonemes(word, voice))
    clips = folder / texts.name
    sentences = get_sentences(clips / "wordnet", texts.sentences)
    render(clips, synthesiser, judge.understands, texts, sentences)
    with whole_package(folder, "training", texts.name) as target:
        join(clips, target, texts)
        licence = (clips / "wordnet/copyright").read_text("utf-8")
        (target / "copyright").write_text(COPYRIGHT + licence, "utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description="Render words and sentences that train as talk.")
    parser.add_argument("folder", type=Path, help="where the recordings are written")
    parser.add_argument(
        "--model", type=Path, required=True, metavar="FOLDER", help="as get_kokoro.sh writes it"
    )
    parser.add_argument(
        "--more", action="store_true", help="250 other words and 3,000 other sentences"
    )
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    texts = MORE if arguments.more else SHIPPED
    if (folder / "training" / texts.name).is_dir():
        print(f"{texts.name}: there already", file=sys.stderr)
    elif without_tools(parser.prog):
        return 1
    else:
        try:
            make(folder, arguments.model, texts)
        except (OSError, RuntimeError, ValueError) as error:
            print(f"{parser.prog}: {error}", file=sys.stderr)
            return 1
    rows = join_tables(folder, "talk.tsv", COLUMNS)
    write_transcripts(folder, rows)
    seconds = [float(row[6]) for row in rows if row[2] == texts.name]
    print(f"{texts.name}: {len(seconds)} recordings, {sum(seconds) / 3600:.2f} h", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
