"""What the commands share: how a parser is added, and how an error becomes one line."""

import argparse
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

Commands = Any  # argparse keeps the class of `add_subparsers` private


def add_command(
    commands: Commands,
    command: Callable[[argparse.Namespace], int],
    help: str,
    epilog: str = "",
    extra: str = "train",
) -> argparse.ArgumentParser:
    """Add a command, named like the function that runs it.

    Args:
        commands: of the main parser.
        command: takes the parsed options, gives the exit status.
        help: a line; it begins with a small letter and has no full stop.
        epilog: what more there is to know.
        extra: of the installation, that brings what the command needs.
    """
    added: argparse.ArgumentParser = commands.add_parser(
        command.__name__,
        help=help,
        description=help[0].upper() + help[1:] + ".",
        epilog=epilog,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    added.set_defaults(command=command, parser=added, extra=extra, takes_overrides=False)
    return added


def count(word: str) -> int:
    """A whole number from 1 on, as an option's value."""
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"{word!r}: expected a number from 1 on")
    return int(word)


def one_line(error: BaseException) -> str:
    """What an error says, in one line."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def fail(message: str, status: int = 1) -> int:
    """Print a line to stderr; gives the exit status."""
    print(f"speechrnn: {message}", file=sys.stderr)
    return status


def show_level(
    blocks: "Iterable[np.ndarray]", beside: Callable[[], str] = lambda: ""
) -> "Iterator[np.ndarray]":
    """The blocks; a line on the terminal shows how loud each was, and a text beside it.

    The line is away while the reader has a block, so that it may print.
    """
    try:
        for block in blocks:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
            yield block
            level = 10 * math.log10(float((block**2).mean()) + 1e-10)  # dB of full scale
            bar = "#" * max(0, 20 + round(level / 3))
            print(f"{level:4.0f} dB |{bar:20}| {beside()}", end="", file=sys.stderr, flush=True)
    finally:
        print("\r\033[K", end="", file=sys.stderr, flush=True)
