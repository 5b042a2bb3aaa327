"""The command of the wake-word service: serve."""

import argparse
import errno
import os
import sys
from typing import TYPE_CHECKING

from speechrnn.cli.common import Commands, add_command

if TYPE_CHECKING:
    from speechrnn.service import Service

URI = "tcp://127.0.0.1:10400"  # the port that Wyoming's wake-word services have


def add_parsers(commands: Commands) -> None:
    """Add the parser of the command."""
    this = add_command(
        commands,
        serve,
        "find words for Home Assistant: a wake-word service by the Wyoming protocol",
        "Runs until stopped with Ctrl-C or SIGTERM. With several models, a word that a model\n"
        "before has too is named MODEL/WORD. Needs wyoming: pip install 'speechrnn[serve]'.",
        extra="serve",
    )
    this.add_argument(
        "models",
        nargs="*",
        metavar="MODEL",
        help="shipped model, or folder of a trained one (default: the shipped `base`)",
    )
    this.add_argument(
        "--uri",
        type=_address,
        default=URI,
        help=f"where to listen (default: {URI}); tcp://0.0.0.0:10400 lets other machines in",
    )
    this.add_argument(
        "--threshold",
        type=float,
        metavar="P",
        help="probability from which any word counts; behind other speech it must be higher "
        "(default: each model's, or 0.6)",
    )
    this.add_argument(
        "-v", "--verbose", action="store_true", help="log each connection and each word too"
    )


def serve(options: argparse.Namespace) -> int:
    """Find words for clients until stopped."""
    import asyncio

    from speechrnn import load
    from speechrnn.folder import DEFAULT, find_folder, model_name
    from speechrnn.service import Service

    models = {}
    for given in options.models or [None]:
        name = model_name(find_folder(given or DEFAULT))
        if name in models:
            raise ValueError(f"two models are named {name}: give it once, or rename a folder")
        models[name] = load(given)
    service = Service(models, options.threshold, _log, _log if options.verbose else None)
    try:
        asyncio.run(_until_stopped(service, *options.uri))
    except asyncio.CancelledError:  # by SIGTERM; Ctrl-C is a KeyboardInterrupt
        _log("stopped")
    return 0


async def _until_stopped(service: "Service", host: str, port: int) -> None:
    import asyncio
    import ipaddress
    import signal

    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        async with service.listen(host, port) as addresses:
            for address in addresses:
                _log(f"{' '.join(service.words)} on {_uri(*address)}")
            if not all(ipaddress.ip_address(address).is_loopback for address, _ in addresses):
                _log("whoever reaches this address can use it: Wyoming has no authentication")
            await asyncio.Event().wait()
    except OSError as error:
        # asyncio's own message has the address a second time, and ours the library's number.
        number = error.errno or 0  # below 0 for a name that is not known
        reason = os.strerror(number) if number > 0 else error.strerror or str(error)
        if number == errno.EADDRINUSE:
            reason += f"; stop what listens there, or choose another: --uri tcp://{host}:PORT"
        raise OSError(f"{_uri(host, port)}: cannot listen: {reason}") from error


def _address(uri: str) -> tuple[str, int]:
    """Host and port of tcp://HOST:PORT."""
    from urllib.parse import urlsplit

    expected = f"expected tcp://HOST:PORT, {URI} say"
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{uri!r}: {error}; {expected}") from error
    rest = parts.path.strip("/") or parts.query or parts.fragment or parts.username
    if parts.scheme != "tcp" or not host or port is None or rest:
        raise argparse.ArgumentTypeError(f"{uri!r}: {expected}")
    return host, port


def _uri(host: str, port: int) -> str:
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"


def _log(line: str) -> None:
    print(f"speechrnn: {line}", file=sys.stderr, flush=True)
