"""`mio serve`: the server, and where its page is."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from mio.cli.arguments import Arguments
from mio.cli.console import Console
from mio.cli.inputs import open_model
from mio.types import MioError, MissingError

if TYPE_CHECKING:
    from mio.serve.app import Options, Served

LOCAL = ("127.0.0.1", "localhost", "::1")


def serve(args: Arguments, console: Console) -> int:
    """Until it is told to end; exit code 0 once all answers under way are finished."""
    keys = _keys(args.key_file)
    if args.host not in LOCAL and not keys:
        what = f"Without an API key, anyone who reaches {args.host} could use the server."
        raise MioError(what, fix="Set MIO_API_KEY or give --key-file; or leave out --host.")
    try:
        from mio.serve.app import Options, build
        from mio.serve.connection import Server, configure
        from mio.serve.credentials import Credentials, folder
        from mio.serve.guard import LOOPBACK, Rules
        from mio.serve.scheduler import Load
    except ModuleNotFoundError as error:
        raise MissingError(f"{error.name} is not installed.", fix="Run: pip install 'mio[serve]'") from error
    names = frozenset(args.names) or (LOOPBACK if args.host in LOCAL else frozenset())
    rules, load = Rules(keys, hosts=names), Load(args.lanes, args.queue)
    credentials = Credentials.at(folder()) if args.marks else None
    options = Options(rules, load, frozenset(args.fetch), args.marks, credentials, bare=args.bare)
    if not args.marks:
        console.note("warning: generated files will carry no mark that says so (--provenance off)")
    listener = _listener(args.host, args.port)
    served = _behind(args, options) if args.engine == "openai" else build(open_model(args), options)
    scheduler = served.service.scheduler
    server = Server(configure(served.app, args.host, args.port), scheduler.drain, lambda: scheduler.idle)
    host = f"[{args.host}]" if ":" in args.host else args.host
    address = f"http://{host}:{listener.getsockname()[1]}"
    console.fields({"page": f"{address}/", "api": f"{address}/v1", "model": served.service.name})
    console.note("Press Ctrl-C to end.")
    server.run(sockets=[listener])
    return 0


def _behind(args: Arguments, options: Options) -> Served:
    """A front: everything but the language model, which a back end has."""
    from mio.serve.app import build
    from mio.serve.fleet import Fleet
    from mio.serve.front import media_plane, reach
    from mio.serve.upstream import Upstream

    if not args.base_url:
        raise MioError("A front needs a back end.", fix="Give its address as in --base-url http://127.0.0.1:8001/v1.")
    upstream = Upstream(args.base_url, os.environ.get("MIO_ENGINE_KEY", ""))
    model, backend = reach(media_plane(args.model), upstream)
    return build(model, options, lambda: Fleet(backend))


def _keys(file: Path | None) -> frozenset[str]:
    """One a line of the file, and that of the environment: a command line is for everyone to read."""
    lines = [os.environ.get("MIO_API_KEY", "")]
    if file is not None:
        try:
            lines += file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise MissingError("The file of API keys cannot be read.", at=str(file)) from error
    return frozenset(line.strip() for line in lines if line.strip())


def _listener(host: str, port: int) -> socket.socket:
    """Bound before the model is loaded, so that a port in use is known at once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise MioError(
            f"Port {port} of {host} cannot be used.", fix="Choose another with --port; 0 takes any."
        ) from error
    return listener
