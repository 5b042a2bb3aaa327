"""A model to try out in a browser: demo."""

import argparse
import sys
import threading
from typing import Any

from speechrnn.cli.common import Commands, add_command

HOST = "127.0.0.1"  # as a number: `localhost` may be another program's, under IPv6
PORT = 8016
PATIENCE = 5  # s, for a request: a browser opens connections ahead of time, and may leave them be


def add_parsers(commands: Commands) -> None:
    """Add the parser of the command."""
    this = add_command(
        commands,
        demo,
        "show in a browser what a model hears, and what it holds while it hears",
        "Serves one page on this machine alone, and opens the browser: speak, or drop a recording\n"
        "on the page. The network runs inside the page, and no sound leaves it. Ctrl-C ends it.",
    )
    this.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        help="shipped model, or folder of a trained one (default: the shipped `base`)",
    )
    this.add_argument(
        "--port",
        type=_port,
        default=PORT,
        metavar="PORT",
        help=f"of this machine (default: {PORT})",
    )


def _port(word: str) -> int:
    if not word.isdecimal() or not 1 <= int(word) <= 65_535:
        raise argparse.ArgumentTypeError(f"{word!r}: expected a port from 1 to 65535")
    return int(word)


def demo(options: argparse.Namespace) -> int:
    """Serve the page of a model, until stopped."""
    import http.server
    import webbrowser

    from speechrnn.export.page import page
    from speechrnn.folder import read_folder

    data, _ = page(read_folder(options.model))

    class Handler(http.server.BaseHTTPRequestHandler):
        timeout = PATIENCE

        def do_GET(self) -> None:
            if self.path != "/":
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Cache-Control", "no-store")  # another model may come at this address
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """A page that is fetched is nothing to tell."""

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *client: Any) -> None:
            if not isinstance(sys.exc_info()[1], OSError):  # the browser went away, or is slow
                super().handle_error(*client)

    try:
        server = Server((HOST, options.port), Handler)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(
            f"port {options.port} of this machine cannot be used ({reason}): "
            "type --port and another one"
        ) from error
    address = f"http://{HOST}:{options.port}/"
    with server:
        print(address, flush=True)
        print("Ctrl-C ends it", file=sys.stderr, flush=True)
        # Beside the server: a browser for terminals holds up whoever opens it.
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
        server.serve_forever()
    return 0
