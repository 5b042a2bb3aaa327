"""The command `speak`: speech from text, as clips of words or as recordings of sentences."""

import argparse
import sys
from pathlib import Path

from speechrnn.cli.common import Commands, count

HELP = "render words or sentences with a speech synthesiser"
EPILOG = """\
Needs the extra `speak` (pip install 'speechrnn[speak]') and the synthesiser's files, which
recipes/get_kokoro.sh puts into a folder:

  recipes/get_kokoro.sh kokoro
  speechrnn speak words go nine house --clips 50 --to rendered --model kokoro
  speechrnn speak sentences sentences.txt --to talk --model kokoro

A rendering that was stopped goes on when the same command is typed again."""


def add_parsers(commands: Commands) -> None:
    """Add the parser of `speak` to those of the other commands."""
    this = commands.add_parser(
        "speak",
        help=HELP,
        description=HELP[0].upper() + HELP[1:] + ".",
        epilog=EPILOG,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    kinds = this.add_subparsers(metavar="WHAT", required=True, dest="what")
    words = kinds.add_parser(
        "words",
        allow_abbrev=False,
        help="clips of one second in the layout of Speech Commands",
        description="Writes FOLDER/<word>/<voice>_nohash_<n>.wav. Prints word, clips kept and "
        "times said. A clip is kept when an independent recogniser understands it.",
    )
    words.add_argument("words", nargs="*", metavar="WORD", help="in small letters")
    words.add_argument("--file", type=Path, metavar="FILE", help="text file with more words")
    words.add_argument(
        "--clips", type=count, default=10, metavar="N", help="of each word (default: 10)"
    )
    sentences = kinds.add_parser(
        "sentences",
        allow_abbrev=False,
        help="a recording of each line of a text, with transcripts",
        description="Writes FOLDER/<voice>_<n>.wav and FOLDER/transcripts.tsv, a folder that "
        "`evaluate` reads.",
    )
    sentences.add_argument("file", type=Path, metavar="FILE", help="text file, a sentence a line")
    for kind in (words, sentences):
        kind.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="to write to")
        kind.add_argument(
            "--model",
            type=Path,
            required=True,
            metavar="FOLDER",
            help="with the synthesiser's model.onnx and voices.npz",
        )
        kind.add_argument(
            "--voices", nargs="+", metavar="VOICE", help="to choose from (default: the English)"
        )
        kind.add_argument("--seed", type=int, default=0, metavar="N", help="(default: 0)")
        kind.set_defaults(command=speak, parser=kind, extra="speak", takes_overrides=False)


def speak(options: argparse.Namespace) -> int:
    """Render words or sentences. Returns the exit status: 1 where some words lack clips."""
    from speechrnn.synthesis.kokoro import Kokoro
    from speechrnn.synthesis.rendering import english_voices, render_sentences, render_words

    synthesiser = Kokoro(options.model)
    voices = options.voices or english_voices(synthesiser.voices)
    if options.what == "sentences":
        lines = [line for line in _read(options.file).splitlines() if line.strip()]
        if not lines:
            raise ValueError(f"{options.file}: no text; expected a sentence a line")
        rendered = render_sentences(lines, options.to, synthesiser, voices, options.seed)
        print(f"{options.to}\t{rendered}")
        return 0
    from speechrnn.synthesis.intelligibility import Judge

    words = [*options.words, *(_read(options.file).split() if options.file else [])]
    judge = Judge(options.model / "whisper", lambda word: synthesiser.phonemes(word, voices[0]))
    tally = render_words(
        words, options.to, synthesiser, judge.understands, voices, options.clips, options.seed
    )
    status = 0
    for word in dict.fromkeys(words):
        print(word, tally.kept[word], tally.said[word], sep="\t")
        if tally.kept[word] < options.clips:
            status = 1
            print(
                f"speechrnn: {word}: {tally.kept[word]} of {options.clips} clips, after saying it "
                f"{tally.said[word]} times; ask for fewer, or try other voices with --voices",
                file=sys.stderr,
            )
    return status


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is not text in UTF-8 ({error.reason}); convert it") from error
