"""The command that writes a model for other worlds: export."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from speechrnn.cli.common import Commands, add_command

if TYPE_CHECKING:
    from speechrnn.folder import ModelFolder


def add_parsers(commands: Commands) -> None:
    """Add the command of this file to the main parser."""
    this = add_command(
        commands,
        export,
        "write a model as a file that other programs run",
        "onnx: one file for every ONNX runtime: the features inside, the state in and out, labels\n"
        "and thresholds in its metadata. `--model FILE.onnx` runs it in the commands here too.\n\n"
        "html: one page that hears, for a browser, as `speechrnn demo` serves it; its weights are\n"
        "always rounded, and it needs nothing but itself.\n\n"
        "A file is compared with the NumPy network first, as a whole and in pieces, and refused\n"
        "where they differ. Prints its path, its size and the largest difference.",
        extra="export",
    )
    this.add_argument("model", metavar="MODEL", help="shipped model, or folder of a trained one")
    this.add_argument("--format", choices=FORMATS, required=True, help="what is written")
    this.add_argument(
        "--int8",
        action="store_true",
        help="round the weights to 8 bits, one scale a row: a third of the size (html: always)",
    )
    this.add_argument(
        "--to", type=Path, required=True, metavar="PATH", help="file that does not exist yet"
    )


def export(options: argparse.Namespace) -> int:
    """Write a model as a file that other programs run."""
    from speechrnn.folder import read_folder

    to, suffix = options.to, f".{options.format}"
    if to.suffix != suffix:
        raise ValueError(
            f"{to}: expected a file whose name ends with {suffix}: type --to {to}{suffix}"
        )
    if to.exists():
        raise ValueError(
            f"{to}: is there already, and is kept: type rm {to} first, or another name behind --to"
        )
    said = FORMATS[options.format](read_folder(options.model), to, options.int8)
    print(to, f"{to.stat().st_size:,} bytes", said, sep="\t")
    return 0


def _write_onnx(folder: "ModelFolder", to: Path, int8: bool) -> str:
    from speechrnn.export.onnx import write_onnx

    apart = write_onnx(folder, to, int8)
    return f"at most {apart:.1e} of the largest logit or state from NumPy"


def _write_html(folder: "ModelFolder", to: Path, int8: bool) -> str:
    from speechrnn.export.page import write_page

    return f"at most {write_page(folder, to):.1e} of the largest logit or state from NumPy"


# Writes a model to a path that is free, with int8 weights or not; gives what there is to say of it.
FORMATS: dict[str, "Callable[[ModelFolder, Path, bool], str]"] = {
    "onnx": _write_onnx,
    "html": _write_html,
}
