"""Writes a page that dreams: a folder for any static server, in which a world can be played in the browser alone.

    python scripts/export_web.py --world carracing --out site
    python scripts/export_web.py --name my_run --out site         a world that was trained here
    python -m http.server --directory site                        then open the address that it prints

The page computes the dream with onnxruntime-web, which npm fetches once, or which --runtime names; afterwards nothing
is fetched from anywhere, neither here nor by the page.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from vqvideo import cli
from vqvideo.errors import InputError, at_least
from vqvideo.experiment.drawing import Drawing
from vqvideo.experiment.finding import Source, clips_to_dream

if TYPE_CHECKING:
    from vqvideo.world import WorldModel


@dataclass(frozen=True)
class Options(Source):
    """What to put onto a page."""

    out: Path = Path("site")
    """Folder of the page, which must not be there yet."""
    starts: int = 24
    """Held-out clips to start from."""
    context: int = 3
    """Latent steps that the model sees."""
    length: int = 22
    """Latent steps that are shown beside the dream."""
    weights: Literal["int8", "fp16", "fp32"] = "int8"
    """How weights are kept in the files; computing is in single precision."""
    runtime: Path | None = None
    """Folder of the npm package onnxruntime-web; by default npm fetches it, once."""
    sampling: tyro.conf.OmitArgPrefixes[Drawing] = field(default_factory=Drawing)
    """How codes are drawn at first."""

    def __post_init__(self) -> None:
        at_least(self, "--", starts=1, context=1, length=1)


def export_web(options: Options) -> None:
    """Writes the folder, and says how large it is and how to look at it."""
    from vqvideo.export import runtime
    from vqvideo.export.page import world_fields
    from vqvideo.export.site import write_site
    from vqvideo.export.site_starts import starts
    from vqvideo.export.writing import check_exportable
    from vqvideo.storage.files import standing

    if options.sampling.top_k:
        raise InputError(f"--top-k {options.sampling.top_k}: the page draws by temperature, top-p and guidance")
    if standing(options.out).exists():
        raise InputError(f"{options.out} exists already: choose another folder (--out) or remove it")
    runtime_files = runtime.runtime(options.runtime)
    world, store = options.find()
    world = world.float().cpu().eval()
    check_exportable(world)
    clips = clips_to_dream(world, store, context=options.context, length=options.length)
    fields = world_fields(world, options.sampling.of(world), controls(world))
    chosen = starts(world, clips, options.starts, options.context)
    size = write_site(options.out, world, fields, chosen, options.weights, runtime_files)
    print(
        f"{options.out}: {size.loaded / 1e6:.1f} MB to load, of which the runtime takes {size.runtime / 1e6:.1f} MB; "
        f"{len(chosen)} start clips, {size.all / 1e6:.1f} MB in all\n"
        f"look at it: python -m http.server --directory {options.out}"
    )


def controls(world: WorldModel) -> dict[str, Any]:
    """Keys, buttons and sliders of the world's environment."""
    from vqvideo.envs import keys

    how, stats = keys.controls(world.env.env_id, world.action_space), world.prior.spec.stats
    return keys.to_json(world.action_space, how, stats.mean, stats.std)


def main() -> None:
    """Reads the command line and exports."""
    export_web(tyro.cli(Options, description=__doc__))


if __name__ == "__main__":
    cli.run(main)
