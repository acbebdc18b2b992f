"""The shape of the house, read from its imports: they point one way, and heavy packages stay in their rooms."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
LIBRARY = sorted((ROOT / "vqvideo").rglob("*.py"))
ENVS = sorted((ROOT / "envs").rglob("*.py"))
SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))
ALL = [*LIBRARY, *ENVS, *SCRIPTS]


class Import(NamedTuple):
    """One import statement of one module."""

    by: str
    """Dotted name of the importing module; scripts are called scripts.name."""
    of: str
    """Dotted name of what is imported."""
    at_top: bool
    """Whether it happens when the module is imported, and not inside a function or for type hints only."""
    typing: bool
    """Whether it stands under `if TYPE_CHECKING`."""


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = ("vqvideo", *parts) if parts[0] == "envs" else parts
    return ".".join(parts).removesuffix(".__init__")


def imports_of(path: Path) -> list[Import]:
    return list(_walk(ast.parse(path.read_text()), module_name(path), at_top=True, typing=False))


def _walk(node: ast.AST, by: str, at_top: bool, typing: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        hints = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        if isinstance(child, ast.Import):
            yield from (Import(by, alias.name, at_top, typing) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert not child.level, f"{by}: relative import"
            whole = f"{child.module}." if child.module in ("vqvideo", "vqvideo.data") else ""
            names = [whole + alias.name for alias in child.names] if whole else [str(child.module)]
            yield from (Import(by, name, at_top, typing) for name in names)
        else:
            function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _walk(child, by, at_top and not function and not hints, typing or hints)


IMPORTS = [found for path in ALL for found in imports_of(path)]


def importers(package: str, *, hints: bool = False) -> set[str]:
    """Modules that import a package at run time (or, with `hints`, for type hints only)."""
    return {i.by for i in IMPORTS if i.of.split(".")[0] == package and i.typing == hints}


def inside(module: str, *rooms: str) -> bool:
    return any(module == room or module.startswith(room + ".") for room in rooms)


# ---------------------------------------------------------------- heavy packages


def test_accelerate_is_imported_at_the_launch_and_in_scripts_only_and_not_before_it_is_needed() -> None:
    peer = "vqvideo.benchmarks.checkpoint_savers"  # to be measured beside
    assert all(inside(by, "vqvideo.launch", "scripts", peer) for by in importers("accelerate"))
    assert not [i for i in IMPORTS if i.of.startswith("accelerate") and i.at_top]


def test_gymnasium_is_imported_where_environments_are_played_only() -> None:
    rooms = (
        "vqvideo.collect",
        "vqvideo.native_spaces",
        "vqvideo.imagined_env",
        "vqvideo.adapters",
        "vqvideo.agents",
        "vqvideo.envs",
        "scripts",
    )
    assert all(inside(by, *rooms) for by in importers("gymnasium"))
    assert not [i for i in IMPORTS if i.of.startswith("gymnasium") and inside(i.by, "scripts") and i.at_top]


def test_av_is_imported_for_video_files_and_codecs_only_and_not_before_it_is_needed() -> None:
    assert importers("av") == {"vqvideo.video", "vqvideo.codecs"}
    assert not [i for i in IMPORTS if i.of == "av" and i.at_top]


def test_the_library_never_imports_the_environments() -> None:
    found = [i for i in IMPORTS if inside(i.of, "vqvideo.envs") and not inside(i.by, "vqvideo.envs", "scripts")]
    assert found == []


def test_nobody_imports_a_bare_envs() -> None:
    tests = [found for path in sorted((ROOT / "tests").glob("*.py")) for found in imports_of(path)]
    assert [i for i in [*IMPORTS, *tests] if i.of.split(".")[0] == "envs"] == []


def test_the_library_imports_no_script_and_no_test() -> None:
    names = {path.stem for path in SCRIPTS} | {"scripts", "tests"}
    assert [i for i in IMPORTS if i.of.split(".")[0] in names and not inside(i.by, "scripts")] == []


# ---------------------------------------------------------------- one direction

FLOORS = (
    {"errors", "randomness"},
    {"disk"},
    {"durable", "records", "sampling", "losses", "metrics", "hardware", "recording", "spaces", "nn", "processes"}
    | {"train_config", "agent_config", "improve_config", "finite", "averaging", "signals", "formats", "frechet"},
    {"locks"},
    {"data", "checkpoint", "video", "yuv", "optimizers", "features", "pretrained", "native_spaces"},
    {"resuming", "sizes"},
    {"hub", "backbones", "quantizers", "run_folder", "training", "launch", "perceptual", "discriminator"} | {"codecs"},
    {"vqvae", "prior", "playing"},
    {"world", "config", "workers", "suites", "objective", "loading"},
    {"imagined_env", "evaluation", "media", "collect", "warm_start"},
    {"stages", "benchmarks", "shipping", "model_card", "adapters"},
    {"agents", "rounds", "verification"},
    {"cli"},
)
"""From the ground up: a module imports from its own floor and the ones below."""


def floor_of(module: str) -> int:
    room = module.split(".")[1]
    floors = [number for number, rooms in enumerate(FLOORS) if room in rooms]
    assert floors, f"{module} has no floor yet: say in FLOORS where it belongs"
    return floors[0]


def opens_upwards(found: Import) -> bool:
    """A world hands itself out as an environment, which stands on worlds: the one door upwards, opened when called."""
    return (found.by, found.of, found.at_top) == ("vqvideo.world", "vqvideo.imagined_env", False)


def test_imports_point_one_way() -> None:
    library = [i for i in IMPORTS if not i.typing and inside(i.of, "vqvideo") and i.of != "vqvideo"]
    climbing = [
        (i.by, i.of)
        for i in library
        if i.by != "vqvideo"
        and not opens_upwards(i)
        and not inside(i.by, "vqvideo.envs", "scripts")
        and floor_of(i.of) > floor_of(i.by)
    ]
    assert climbing == []


def test_no_two_modules_import_each_other() -> None:
    pairs = {(i.by, i.of) for i in IMPORTS if not i.typing and i.by != i.of and not opens_upwards(i)}
    assert [(by, of) for by, of in pairs if (of, by) in pairs] == []


def test_loop_and_checkpoints_know_no_model() -> None:
    models = ("vqvae", "prior", "world", "backbones", "quantizers", "nn", "config", "stages", "objective")
    rooms = tuple(f"vqvideo.{name}" for name in models)
    loop = [f"vqvideo.{name}" for name in ("training", "optimizers", "averaging", "finite", "checkpoint")]
    assert [i for i in IMPORTS if i.by in loop and inside(i.of, *rooms)] == []


def test_models_know_no_loop_and_no_store() -> None:
    rooms = ("vqvideo.training", "vqvideo.data", "vqvideo.config", "vqvideo.stages", "vqvideo.collect")
    models = [f"vqvideo.{name}" for name in ("nn", "backbones", "quantizers", "vqvae", "prior", "sampling", "world")]
    assert [i for i in IMPORTS if i.by in models and inside(i.of, *rooms)] == []


# ---------------------------------------------------------------- what an import loads


def python(code: str) -> str:
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def test_importing_vqvideo_is_cheap_and_its_names_are_there() -> None:
    heavy = "{'torch', 'numpy', 'gymnasium', 'av', 'accelerate'}"
    assert python(f"import sys, vqvideo; print(sorted({heavy} & set(sys.modules)))") == "[]"
    names = "print(all(getattr(vqvideo, name) is not None for name in vqvideo.__all__))"
    assert python(f"import vqvideo; {names}") == "True"


BLOCKED = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("gymnasium", "av"):
            raise ModuleNotFoundError(f"blocked: {name}", name=name)
sys.meta_path.insert(0, Blocker())
"""


def test_models_data_and_training_run_without_gymnasium_and_av() -> None:
    exempt = ("vqvideo.collect", "vqvideo.native_spaces", "vqvideo.imagined_env", "vqvideo.adapters", "vqvideo.agents")
    modules = [module_name(path) for path in LIBRARY]
    wanted = [name for name in modules if not inside(name, *exempt)]
    assert len(wanted) > 20
    code = f"{BLOCKED}\nfrom importlib import import_module\nfor name in {wanted}: import_module(name)\n"
    code += "from vqvideo import VQVAEConfig\nimport torch\n"
    code += "out = VQVAEConfig().build((16, 16))(torch.zeros(1, 3, 3, 16, 16, dtype=torch.uint8))\n"
    code += "out.loss.backward()\nprint(tuple(out.codes.shape))"
    assert python(code) == "(1, 2, 2, 2)"


@pytest.mark.parametrize("path", ALL, ids=module_name)
def test_nothing_that_is_loaded_is_pickled(path: Path) -> None:
    """Safetensors, JSON and plain YAML only. (The recorder's workers get their job from their own parent, by pipe; and
    one known weights file of another package is read by the reader that makes nothing but tensors.)
    """
    forbidden = {
        "pickle.load",
        "pickle.loads",
        "torch.load",
        "joblib.load",
        "np.load",
        "numpy.load",
        "yaml.unsafe_load",
    }
    tree = ast.parse(path.read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    if module_name(path) == "vqvideo.features":
        calls = [call for call in calls if "weights_only=True" not in map(ast.unparse, call.keywords)]
    found = {ast.unparse(call.func) for call in calls} & forbidden
    keywords = {k.arg for call in calls for k in call.keywords if ast.unparse(k.value) == "True"}
    assert not found
    assert "allow_pickle" not in keywords
