"""The command that makes a model of a few recordings of new words: enrol."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from speechrnn.cli.common import Commands, add_command

if TYPE_CHECKING:
    import numpy as np

    from speechrnn.enrolment import Check, Encoder, Examples


def add_parsers(commands: Commands) -> None:
    """Add the command of this file to the main parser."""
    this = add_command(
        commands,
        enrol,
        "make a model for your own words, from a few recordings of each",
        "FOLDER holds a folder for each word with 1 to 20 recordings in it, as\n"
        "`speechrnn listen --record WORD` writes them. It takes seconds, and no training.\n\n"
        "  speechrnn enrol own_words --to lamp\n"
        "  speechrnn listen --model lamp\n\n"
        "Into a model that is there words are added; a word that it has is replaced, and the\n"
        "threshold stays. Prints each word, its recordings, and how many of them the others\n"
        "answer rightly. With hundreds of recordings of a word, a training is better:\n"
        "recipes/own_words.yaml.",
    )
    this.add_argument("folder", nargs="?", type=Path, metavar="FOLDER", help="of the recordings")
    this.add_argument("--to", type=Path, required=True, metavar="MODEL", help="model folder")
    this.add_argument(
        "--remove", nargs="+", default=[], metavar="WORD", help="take words away from the model"
    )
    this.add_argument(
        "--background",
        type=Path,
        metavar="FOLDER",
        help="recordings in which no word is said: the threshold rises until none is found there",
    )
    this.add_argument(
        "--encoder", type=Path, metavar="FOLDER", help="(default: the one that is shipped)"
    )


def enrol(options: argparse.Namespace) -> int:
    """Make a model for words, or add words to one."""
    from speechrnn import enrolment

    if options.folder is None and not options.remove:
        raise ValueError("expected a FOLDER of recordings, or --remove WORD")
    encoder = enrolment.Encoder(options.encoder or enrolment.ENCODER)
    words, threshold = _model_before(options.to, encoder)
    for word in options.remove:
        if word not in words:
            raise ValueError(f"{options.to}: has no word {word!r}; it has {', '.join(words)}")
        del words[word]
    faults: list[str] = []
    if options.folder is not None:
        for word, clips in enrolment.read_clips(options.folder, faults).items():
            words[word] = enrolment.embed_examples(encoder, clips)
    if not words:
        raise ValueError(f"{options.to}: no word would be left; type rm -r {options.to} instead")
    words = dict(sorted(words.items()))
    check = enrolment.check(encoder, words)
    if options.background is not None:
        network = enrolment.network_of(encoder, words)
        quiet = enrolment.quiet_threshold(network, _blocks(options.background))
        threshold = max(threshold, quiet)
    enrolment.save_enrolled(options.to, encoder, words, threshold, check)
    _print(words, check, faults)
    print(f"written: {options.to}, threshold {threshold:.2f}", file=sys.stderr)
    return 1 if any(fault.startswith("left out") for fault in faults) else 0


def _model_before(to: Path, encoder: "Encoder") -> tuple[dict[str, "Examples"], float]:
    """The words of the model that is there, and the threshold of all of them."""
    from speechrnn.enrolment import THRESHOLD, enrolled
    from speechrnn.folder import read_folder, shipped_models

    if str(to) in shipped_models():
        raise ValueError(f"{to}: is the name of a model that is shipped; expected another")
    if not to.exists():
        return {}, THRESHOLD
    folder = read_folder(to)
    if folder.path != to:  # all of `to` would be replaced by the new model
        raise ValueError(f"{to}: holds a model in {folder.path}: type --to {folder.path}")
    return enrolled(folder, encoder), max(folder.thresholds.values())


def _blocks(folder: Path) -> Iterator["np.ndarray"]:
    from speechrnn.audio import find_audio, read_blocks

    paths = find_audio([folder])
    if not paths:
        raise FileNotFoundError(f"{folder}: no audio files in this folder")
    for path in paths:
        yield from read_blocks(path, 1.0)


def _print(words: dict[str, "Examples"], check: "Check", faults: list[str]) -> None:
    for fault in faults:
        print(f"speechrnn: {fault}", file=sys.stderr)
    for word, one in words.items():
        count = len(one.names)
        right = sum(check.answers.get((word, name)) == word for name in one.names)
        said = f"{right} of {count} right" if count > 1 else "not checked: record more"
        print(word, f"{count} recording{'s' * (count > 1)}", said, sep="\t")
    for word, name in check.doubtful:
        answer = check.answers[word, name]
        print(
            f"speechrnn: {word}/{name}: does not fit the others, they take it for {answer}: is "
            "it noise, another word, or cut off?",
            file=sys.stderr,
        )
    if check.confused:
        print(f"speechrnn: most alike: {' and '.join(check.confused)}", file=sys.stderr)
    print(check.summary, file=sys.stderr)
