"""The command line: one file a family of commands, each parser beside the function that it runs.

Imports stand inside the functions, so that help comes at once. Results go to stdout, tab-separated
or as JSON; everything else to stderr. Status 0 if all went well, 1 if something could not be done
(the rest is), 2 for wrong usage, 130 if stopped from the keyboard.
"""

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence

from speechrnn import __version__
from speechrnn.cli import demo, enrol, export, measure, recognise, serve, speak, train
from speechrnn.cli.common import fail, one_line


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; `arguments` default to those of the process. Returns the exit status."""
    options, rest = parser().parse_known_args(arguments)
    if rest and not options.takes_overrides:
        options.parser.error(f"unrecognized arguments: {' '.join(rest)}")
    options.rest = rest
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # a file's name need not be UTF-8
    # Before NumPy is imported: its products are too small to be shared out, and on a busy machine
    # threads that wait for each other made `classify` of 4,000 clips seven times slower.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        status = command(options)
        sys.stdout.flush()  # here, where an error is caught
        return status
    except KeyboardInterrupt as stop:
        return fail("; ".join(["stopped", *map(str, stop.args)]), 130)
    except BrokenPipeError:  # the reader of our output, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except argparse.ArgumentError as error:  # from the recipe's parser
        return fail(one_line(error), 2)
    except ModuleNotFoundError as error:
        what = f"{command.__name__} needs {error.name}, which is not installed"
        return fail(f"{what}: type pip install 'speechrnn[{options.extra}]'")
    except (OSError, ValueError, RuntimeError) as error:
        return fail(one_line(error))


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    whole = argparse.ArgumentParser(
        prog="speechrnn",
        description="Recognise spoken commands with vanilla recurrent networks.",
        allow_abbrev=False,
    )
    whole.add_argument("--version", action="version", version=f"speechrnn {__version__}")
    commands = whole.add_subparsers(metavar="COMMAND", required=True)
    for family in (recognise, enrol, demo, serve, train, measure, export, speak):
        family.add_parsers(commands)
    return whole
