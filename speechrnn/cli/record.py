"""`listen --record WORD`: examples of a word, one after another, into a folder of folders."""

import argparse
import io
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from speechrnn.cli.common import count, fail, one_line, show_level
from speechrnn.files import whole_file

if TYPE_CHECKING:
    import numpy as np

    from speechrnn.recording import Take

EPILOG = """\
With --record it asks on stderr for one example after another, refuses those that are no good, and
prints path, length of the word (s) and level (dB of full scale) of each that was kept, a line each:
FOLDER/WORD/1.wav and so on, behind those that are there. Each holds a second, the word in its
middle. It needs a moment of quiet first, and half a second between the words. No model is loaded.
From a pipe:

  ffmpeg -i FILE -f wav - | speechrnn listen --record lights -
  arecord -f S16_LE -r 16000 -t raw | speechrnn listen --record lights --raw 16000 -"""
DEFAULT_FOLDER = Path("own_words")
DEFAULT_EXAMPLES = 5
NAME_BYTES = 255  # of a file's name, on most disks
SETTLING_SECONDS = 0.3  # of the microphone that are not used: zeros, and the click of its switch
PATIENCE_SECONDS = 5.0  # without a word, until something is said about it
_FINDING = ("format", "model", "threshold", "refractory")
_RECORDING = {"file": "-", "raw": "--raw", "to": "--to", "examples": "--examples"}


def add_options(to: argparse.ArgumentParser) -> None:
    """Add the options of recording to the parser of `listen`."""
    group = to.add_argument_group("recording examples")
    group.add_argument("--record", metavar="WORD", help="record examples of this word, find none")
    group.add_argument(
        "--to",
        type=Path,
        default=DEFAULT_FOLDER,
        metavar="FOLDER",
        help="where the words have their folders (default: own_words in the current folder)",
    )
    group.add_argument(
        "--examples",
        type=count,
        default=DEFAULT_EXAMPLES,
        metavar="N",
        help=f"how many to record, besides those that are there (default: {DEFAULT_EXAMPLES})",
    )
    group.add_argument(
        "file", nargs="?", type=_pipe, metavar="-", help="record from standard input"
    )
    group.add_argument(
        "--raw",
        type=count,
        metavar="RATE",
        help="standard input is no wav but 16-bit little-endian mono samples at RATE Hz",
    )


def misplaced(options: argparse.Namespace) -> str:
    """What does not go together in the options of `listen`, in a line; empty if nothing."""

    def typed(name: str) -> bool:
        return bool(getattr(options, name) != options.parser.get_default(name))

    if options.record is not None:
        if wrong := _wrong_name(options.record):
            return f"--record: {options.record!r} {wrong}: expected a name, lights say"
        for name in filter(typed, _FINDING):
            return f"--record finds no words: leave out --{name}"
        if options.raw and not options.file:
            return "--raw is for samples from standard input: type - too"
        return ""
    if options.file:
        return "- is for --record WORD: find the words of a pipe with `speechrnn transcribe -`"
    for name in filter(typed, _RECORDING):
        return f"{_RECORDING[name]} is for recording: add --record WORD"
    return ""


def record(options: argparse.Namespace) -> int:
    """Record examples of a word; those that were kept stay, whatever ends it."""
    from speechrnn.audio import AudioError, read_microphone, read_pipe
    from speechrnn.recording import WordFinder

    folder: Path = options.to / options.record
    _check_place(folder)
    notes: list[str] = []
    if options.file:
        source, blocks = "standard input", read_pipe(sys.stdin.buffer, options.raw, notes)
    else:
        source, blocks = "microphone", _settled(read_microphone(notes))
        if sys.stderr.isatty():
            blocks = show_level(blocks)
    finder, examples = WordFinder(), _Examples(options.record, folder, options.examples)
    last_word = 0.0  # s, when one was heard
    try:
        for block in blocks:
            was_ready, takes = finder.ready, finder.push(block)
            if finder.ready and not was_ready:
                examples.ask()
            if examples.take(takes):
                return 0
            if takes:
                last_word = finder.seconds
            elif not options.file and finder.seconds > last_word + PATIENCE_SECONDS:
                last_word = float("inf")  # once is enough, until there is one
                examples.say(
                    f"nothing above the background, {finder.background:.0f} dB, in "
                    f"{PATIENCE_SECONDS:.0f} s: speak up, or see whether the microphone is muted"
                )
        if examples.take(finder.finish()):
            return 0
    except KeyboardInterrupt:
        raise KeyboardInterrupt(examples.state) from None
    except AudioError as error:
        return fail("; ".join([one_line(error), *([examples.state] if finder.seconds else [])]))
    finally:
        for note in notes if options.verbose else ():
            print(f"{source}: {note}", file=sys.stderr)
    message = f"{source} ended after {finder.seconds:.1f} s: {examples.state}"
    if not examples.heard:
        message += f"; no word stood out from the background, {finder.background:.0f} dB"
    return fail(f"{message}; type the command again for the others")


class _Examples:
    """The examples of a word in their folder, on their way from none to all that are wanted.

    Args:
        word: that is said.
        folder: of its examples.
        wanted: how many are to be recorded.
    """

    def __init__(self, word: str, folder: Path, wanted: int) -> None:
        self._word, self._folder, self._wanted = word, folder, wanted
        self._kept = 0
        self.heard = 0  # words, those that were refused too

    @property
    def state(self) -> str:
        """How many were kept, for a message."""
        return f'kept {self._kept} of {self._wanted} of "{self._word}" in {self._folder}'

    def say(self, message: str) -> None:
        """Tell the one who speaks, beside the results."""
        print(message, file=sys.stderr, flush=True)

    def ask(self, before: str = "", after: str = "") -> None:
        """Ask for the next example."""
        self.say(f'{before}say "{self._word}"{after} ({self._kept + 1} of {self._wanted})')

    def take(self, takes: "Iterable[Take]") -> bool:
        """Keep good ones, tell what is wrong with others, ask for the next; True if it was last."""
        for take in takes:
            self.heard += 1
            if take.fault:
                self.ask(f"not kept: {take.fault}; ", " again")
                continue
            path = self._keep(take)
            seconds = take.end - take.start
            print(path, f"{seconds:.2f}", f"{take.level:.1f}", sep="\t", flush=True)
            if self._kept == self._wanted:
                return True
            self.ask()
        return False

    def _keep(self, take: "Take") -> Path:
        import soundfile

        from speechrnn.audio import to_int16
        from speechrnn.config import SAMPLE_RATE

        path = self._folder / f"{_last_number(self._folder) + 1}.wav"
        wav = io.BytesIO()  # soundfile's error for a full disk says neither where nor why
        soundfile.write(wav, to_int16(take.wave), SAMPLE_RATE, "PCM_16", format="WAV")
        with whole_file(path) as beside:
            beside.write_bytes(wav.getvalue())
        self._kept += 1
        return path


def _last_number(folder: Path) -> int:
    """The highest among the names that are numbers, whatever their suffix; 0 if there is none."""
    names = [path.stem for path in folder.iterdir()] if folder.is_dir() else []
    return max((int(name) for name in names if name.isascii() and name.isdigit()), default=0)


def _wrong_name(word: str) -> str:
    """Why a word cannot be the name of a folder and of a label; empty if it can."""
    reasons = {
        "is empty": not word.strip(),
        "begins with _, as labels do that are no words": word.startswith("_"),
        "begins with a dot, as hidden folders do": word.startswith("."),
        "ends with a dot": word.endswith("."),
        "begins or ends with a space": word != word.strip(),
        "has a character that not every disk takes": bool(set(word) & set('/\\<>:"|?*')),
        "has a character that cannot be printed": not word.isprintable(),
        f"is longer than {NAME_BYTES} bytes": len(os.fsencode(word)) > NAME_BYTES,
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def _pipe(text: str) -> str:
    if text != "-":
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected -, for standard input; a file's words are found by "
            f"`speechrnn transcribe {text}`"
        )
    return text


def _check_place(folder: Path) -> None:
    """See now, not after the first word, whether files can be written there.

    Raises:
        OSError: if not.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise NotADirectoryError(f"{there}: not a folder; choose another one with --to")
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(
            f"{there}: no permission to write there; choose another one with --to"
        )


def _settled(blocks: "Iterable[np.ndarray]") -> "Iterator[np.ndarray]":
    from speechrnn.config import SAMPLE_RATE

    ahead = round(SETTLING_SECONDS * SAMPLE_RATE)
    for block in blocks:
        if ahead < len(block):
            yield block[ahead:]
        ahead = max(0, ahead - len(block))
