"""Lets you play a dream in the browser, with the real environment beside it under the same keys, where that can run.

    python scripts/play.py                                     CarRacing: the dream and the game race each other
    python scripts/play.py --env ALE/Pong-v5 --open            a world that was trained here; opens the browser
    python scripts/play.py --world runs/my_run/world --no-real the dream alone
    python scripts/play.py --record data/played                keeps what you played in the real environment

Open the address that it prints; Ctrl-C ends it. From another machine the safest way in is ssh -L 8000:localhost:8000.
The world is computed here, so it may be too large for a browser; one that is not can also become a page that needs no
server: python scripts/export_web.py.
"""

from __future__ import annotations

import socket
import webbrowser
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from vqvideo import cli
from vqvideo.errors import InputError, at_least
from vqvideo.experiment.drawing import Drawing
from vqvideo.experiment.finding import Source
from vqvideo.scripts.stage import recording, set_stage

ANYWHERE = ("0.0.0.0", "::")
"""Addresses that stand for all of this machine."""


@dataclass(frozen=True)
class Options(Source):
    """What to play, and for whom."""

    real: bool = True
    """Whether the real environment is beside the dream, if it can run here."""
    record: Path | None = None
    """Folder of a store that keeps what is played in the real environment; each game is an episode."""
    host: str = "127.0.0.1"
    """Address to listen on. The usual one is reached from this machine alone; 0.0.0.0 from everywhere, by whoever knows
    the token in the address that is printed."""
    port: int = 8000
    """Port to listen on; 0 for any that is free."""
    open: bool = False
    """Open the browser."""
    players: int = 4
    """At once, at most."""
    clips: int = 16
    """Held-out clips to start from."""
    context: int = 3
    """Latent steps that the model sees."""
    length: int = 22
    """Latent steps of a clip that are shown beside its dream."""
    sampling: tyro.conf.OmitArgPrefixes[Drawing] = field(default_factory=Drawing)
    """How codes are drawn at first."""
    threads: int = 1
    """CPU threads of a dream; more pay for large worlds."""

    def __post_init__(self) -> None:
        at_least(self, "--", port=0, threads=1, players=1, clips=1, context=1, length=1)
        if self.port > 65535:
            raise InputError(f"--port is {self.port}, expected at most 65535")
        if self.sampling.top_k:
            raise InputError(f"--top-k {self.sampling.top_k}: the page draws by temperature, top-p and guidance")
        if self.record and not self.real:
            raise InputError("--record keeps what is played in the real environment: leave --no-real away")


def play(options: Options) -> None:
    """Serves the page until Ctrl-C."""
    from vqvideo.play.access import Access, url_host
    from vqvideo.play.messages import BYTES_OF_NUMBER
    from vqvideo.play.server import Server, bind, runner
    from vqvideo.training.hardware import configure_threads

    with ExitStack() as stack:
        listening = stack.enter_context(bind(options.host, options.port))
        configure_threads(options.threads)
        stage = set_stage(options, options.clips, options.context, options.length, options.real)
        recorder = stack.enter_context(recording(options.record, stage)) if options.record else None
        port = listening.getsockname()[1]
        access = Access.to(options.host, port)
        served = Server(
            stage.files(options.sampling.of(stage.world)), lambda: stage.session(recorder), access, options.players
        )
        name = socket.gethostname() if options.host in ANYWHERE else url_host(options.host)
        address = f"http://{name}:{port}/" + (f"?token={access.token}" if access.token else "")
        print(f"{stage.note}\nopen {address} (Ctrl-C ends it)", flush=True)
        if options.open:
            webbrowser.open(address)
        numbers = stage.world.stride * stage.world.action_space.size
        runner(served.app(), BYTES_OF_NUMBER * numbers).run(sockets=[listening])


def main() -> None:
    """Reads the command line and serves."""
    play(tyro.cli(Options, description=__doc__))


if __name__ == "__main__":
    cli.run(main)
