"""Files and folders written whole or not at all: beside their place first, then renamed."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Give a path beside `path` to write to; it is renamed if nothing was raised, else deleted.

    Raises:
        OSError: if the file cannot be written; it names `path`, where a full disk names no file.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield beside
        os.replace(beside, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """Give a folder beside `path` to fill; it takes the place of `path` if nothing was raised.

    Raises:
        OSError: if it cannot be written; what was at `path` is as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        yield beside
        beside.chmod(0o755)  # mkdtemp's folder is for its owner alone
        if path.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{path.name}-old-", dir=path.parent))
            try:
                os.replace(path, old)
                try:
                    os.replace(beside, path)
                except OSError:
                    os.replace(old, path)
                    raise
            finally:
                shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(beside, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def write_files(files: Mapping[Path, bytes]) -> None:
    """Write several files, all of them or none; where one cannot be written, the old ones stay.

    Raises:
        OSError: if one cannot be written; it names that file.
    """
    beside = {path: path.with_name(f".{path.name}.part") for path in files}
    path = Path()
    for path in files:
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        for path, data in files.items():
            beside[path].write_bytes(data)
        for path in files:
            os.replace(beside[path], path)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        for part in beside.values():
            part.unlink(missing_ok=True)
