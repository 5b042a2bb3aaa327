"""Turn packages of Debian into folders of recordings: what the recipes that do so have in common.

In: names of packages, and functions that write the recordings of one that is unpacked. Out: one
folder a package with a table of its recordings, and the table of all. It needs `apt-get` and
`dpkg-deb`. Nothing is installed. It does not know what is recorded.
"""

import csv
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

Rows = list[tuple[str, ...]]


def run(command: list[str], folder: Path | None = None) -> str:
    """Output of a command.

    Raises:
        RuntimeError: it failed; the message is the last line that it wrote.
    """
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()
        raise RuntimeError(f"{command[0]} failed: {lines[-1]}")
    return done.stdout


@contextmanager
def unpacked(packages: tuple[str, ...]) -> Iterator[tuple[Path, str]]:
    """A temporary folder with the contents of packages, and the version of the first.

    Raises:
        RuntimeError: apt has no such package, or the network is down.
    """
    with tempfile.TemporaryDirectory() as name:
        temporary = Path(name)
        version = ""
        for package in packages:
            run(["apt-get", "--quiet", "download", package], temporary)
            (archive,) = temporary.glob("*.deb")
            version = version or run(["dpkg-deb", "--field", str(archive), "Version"]).strip()
            run(["dpkg-deb", "--extract", str(archive), str(temporary / "unpacked")])
            archive.unlink()
        yield temporary / "unpacked", version


@contextmanager
def whole_package(folder: Path, split: str, package: str) -> Iterator[Path]:
    """A folder to write a package into, which gets its name when all went well."""
    unfinished = folder / split / f".{package}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        unfinished.rename(folder / split / package)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def copy_licence(unpacked_folder: Path, package: str, target: Path) -> None:
    """Put a package's `copyright` file beside its recordings."""
    path = unpacked_folder / "usr/share/doc" / package / "copyright"
    if path.is_file():
        shutil.copyfile(path, target / "copyright")


def flat_name(name: str) -> str:
    """A file name for a path inside a package: its last three parts, letters and digits."""
    parts = Path(name).with_suffix("").parts[-3:]
    return re.sub(r"[^A-Za-z0-9]+", "-", "_".join(parts).replace("_", "-")).strip("-").lower()


def write_table(path: Path, columns: tuple[str, ...], rows: Rows) -> None:
    """Write rows under column names, beside the file and then in its place."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    with unfinished.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerows([columns, *rows])
    os.replace(unfinished, path)


def join_tables(folder: Path, name: str, columns: tuple[str, ...]) -> Rows:
    """Write the table of all packages that are there; returns its rows."""
    rows: Rows = []
    for path in sorted(folder.glob(f"*/[!.]*/{name}")):  # hidden ones are unfinished
        with path.open(encoding="utf-8", newline="") as file:
            rows += [tuple(row) for row in csv.reader(file, delimiter="\t")][1:]
    if rows:
        write_table(folder / name, columns, rows)
    return rows


def without_tools(program: str) -> bool:
    """Whether a tool of Debian is missing; if so, a line has said it."""
    missing = [tool for tool in ("apt-get", "dpkg-deb") if shutil.which(tool) is None]
    if missing:
        print(
            f"{program}: {missing[0]} is not installed: this needs Debian or a child of it",
            file=sys.stderr,
        )
    return bool(missing)


def fetch_all(
    program: str, splits: Mapping[str, str], folder: Path, fetch: Callable[[str], str]
) -> int:
    """Fetch each package that has no folder yet, in its turn; returns the exit status.

    Args:
        program: its name, for the messages.
        splits: the split of each package, by name, in their order.
        folder: of the splits.
        fetch: fetches a package and says what it gave; it may raise RuntimeError or OSError.
    """
    failed = 0
    for number, (name, split) in enumerate(splits.items(), 1):
        prefix = f"{number}/{len(splits)} {name}"
        if (folder / split / name).is_dir():
            print(f"{prefix}: there already", file=sys.stderr)
            continue
        try:
            print(f"{prefix}: {fetch(name)}", file=sys.stderr)
        except (RuntimeError, OSError) as error:
            failed += 1
            print(f"{prefix}: skipped: {error}", file=sys.stderr)
    if failed == len(splits):
        print(
            f"{program}: none could be fetched, see above; it takes a network and `apt-get update`",
            file=sys.stderr,
        )
    return 1 if failed else 0
