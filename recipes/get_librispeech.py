"""Fetch read English of 251 readers from LibriSpeech, for training and validation.

Usage:
    python recipes/get_librispeech.py FOLDER      # 6.4 GB to download, 0.2 GB to keep

It writes `FOLDER/training/librispeech/`: one or two utterances of each of 250 readers, none with a
command, about 1.1 h; `FOLDER/validation/librispeech/`: all of reader 27, 0.34 h, with the commands
in it; and their lines of `FOLDER/talk.tsv` and `transcripts.tsv`, as `recipes/get_talk.py` does.
The recordings are FLAC, mono, 16 kHz, as they lie in the archive. It needs the packages
`soundfile` and `speechrnn`.

Source: `train-clean-100` of V. Panayotov, G. Chen, D. Povey and S. Khudanpur, "Librispeech: an ASR
corpus based on public domain audio books", ICASSP 2015, https://www.openslr.org/12, CC BY 4.0.

A download that was stopped goes on when the command is typed again. The archive is deleted at the
end. It lies in FOLDER until then; one that is put there is not downloaded.
"""

import argparse
import sys
import tarfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path, PurePosixPath

import soundfile
from debian import join_tables, whole_package, write_table
from get_talk import COLUMNS, digest, has_command, words_of, write_transcripts

from speechrnn.download import Corpus, fetch_archive

# Source of the SHA-256: torchaudio 2.11, torchaudio/datasets/librispeech.py; of the size: Kaldi,
# egs/librispeech/s5/local/download_and_untar.sh.
ARCHIVE = Corpus(
    "https://www.openslr.org/resources/12/train-clean-100.tar.gz",
    6_387_309_499,
    "d4ddd1d5a6ab303066f14971d768ee43278a5f2a0aa43dc716b0e64ecbbbf6e2",
)
NAME = "librispeech"
SPLITS = ("training", "validation")
READER = "27"  # validates
# A reader who said fewer words says another utterance: 30 words are about 11 s.
FEWEST_WORDS = 30
LICENCE = "CC-BY-4.0"
COPYRIGHT = """\
Utterances of LibriSpeech, train-clean-100 (https://www.openslr.org/12), by Vassil Panayotov,
Guoguo Chen, Daniel Povey and Sanjeev Khudanpur, "Librispeech: an ASR corpus based on public domain
audio books", ICASSP 2015. Read by volunteers of LibriVox. Licence: CC BY 4.0,
https://creativecommons.org/licenses/by/4.0/. Chosen from it, and otherwise as it is there.
"""


def members(archive: Path, suffix: str) -> Iterator[tuple[str, bytes]]:
    """Name without folders, and contents, of each file with a suffix."""
    with tarfile.open(archive, "r|gz") as tar:
        for member in tar:
            if member.isreg() and member.name.endswith(suffix):
                file = tar.extractfile(member)
                assert file is not None  # it is a regular file
                yield PurePosixPath(member.name).name, file.read()


def read_texts(archive: Path) -> dict[str, str]:
    """What is said in each utterance, by its name: `27-123349-0001`."""
    lines = [
        line
        for _, table in members(archive, ".trans.txt")
        for line in table.decode("utf-8").splitlines()
    ]
    return {name: words_of(text) for name, _, text in (line.partition(" ") for line in lines)}


def choose(texts: dict[str, str]) -> dict[str, str]:
    """The split of each utterance that is wanted, by its name.

    Which of a reader's utterances train is a function of their names, not of their order.
    """
    chosen: dict[str, str] = {}
    words: dict[str, int] = defaultdict(int)
    for name in sorted(texts, key=digest):
        reader = name.split("-")[0]
        if reader == READER:
            chosen[name] = "validation"
        elif words[reader] < FEWEST_WORDS and not has_command(texts[name], "en"):
            words[reader] += len(texts[name].split())
            chosen[name] = "training"
    return chosen


def extract(archive: Path, folder: Path, splits: list[str]) -> None:
    """Write the folders of these splits, or none of them.

    Raises:
        ValueError: the archive has nothing for one of them, or lacks a recording.
    """
    texts = read_texts(archive)
    chosen = {name: split for name, split in choose(texts).items() if split in splits}
    with ExitStack() as stack:
        targets = {s: stack.enter_context(whole_package(folder, s, NAME)) for s in splits}
        rows: dict[str, list[tuple[str, ...]]] = {split: [] for split in splits}
        for file_name, flac in members(archive, ".flac"):
            name = file_name.removesuffix(".flac")
            if split := chosen.pop(name, None):
                path = targets[split] / file_name
                path.write_bytes(flac)
                rows[split].append((
                    split, f"{split}/{NAME}/{file_name}", NAME, "train-clean-100", "en", LICENCE,
                    f"{soundfile.info(path).duration:.2f}", "package", texts[name],
                ))  # fmt: skip
        if chosen:
            raise ValueError(f"{archive}: has a text for {min(chosen)}, but no recording")
        for split in splits:
            if not rows[split]:
                raise ValueError(f"{archive}: has no utterance for {split}")
            write_table(targets[split] / "talk.tsv", COLUMNS, sorted(rows[split]))
            (targets[split] / "copyright").write_text(COPYRIGHT, "utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description="Fetch read English from LibriSpeech.")
    parser.add_argument("folder", type=Path, help="where the recordings are written")
    folder: Path = parser.parse_args().folder
    missing = [split for split in SPLITS if not (folder / split / NAME).is_dir()]
    try:
        if missing:
            extract(fetch_archive(ARCHIVE, folder), folder, missing)
        else:
            print(f"{NAME}: there already", file=sys.stderr)
    except (OSError, ValueError, tarfile.TarError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    (folder / ARCHIVE.archive).unlink(missing_ok=True)
    rows = join_tables(folder, "talk.tsv", COLUMNS)
    write_transcripts(folder, rows)
    for split in SPLITS:
        seconds = [float(row[6]) for row in rows if row[2] == NAME and row[0] == split]
        print(f"{split}: {len(seconds)} recordings, {sum(seconds) / 3600:.2f} h", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
