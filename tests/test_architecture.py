"""The shape of the house, read from its imports: they point down, and heavy packages stay in their rooms."""

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
SCRIPTS = sorted((ROOT / "scripts").rglob("*.py"))
ALL = [*LIBRARY, *ENVS, *SCRIPTS]
STORE, LOCKS = "vqvideo.data.store", "vqvideo.storage.locks"


class Room(NamedTuple):
    """A room of the house."""

    floor: int
    """A room imports from lower floors only."""
    never_loads: tuple[str, ...] = ()
    """What an import of any module of it does not load, directly or through others."""


ROOMS = {
    "errors": Room(0, ("torch", "numpy")),
    "spaces": Room(1, ("torch", "gymnasium", "av")),
    "storage": Room(2, ("gymnasium", "av", "accelerate")),
    "models": Room(3, (STORE, LOCKS, "gymnasium", "av", "accelerate", "zstandard")),
    "quantizers": Room(4, (STORE, LOCKS, "gymnasium", "av", "accelerate")),
    "data": Room(3, ("av", "accelerate")),
    "training": Room(3, (STORE, "gymnasium", "av")),
    "pretrained": Room(4, ("gymnasium", "av", "accelerate")),
    "evaluation": Room(5, ("av", "accelerate")),
    "codec": Room(5, ("av", "accelerate", "gymnasium", "constriction")),
    "export": Room(5, ("av", "accelerate", "onnx", "onnxruntime")),
    "imagined_env": Room(6, ("av", "accelerate")),
    "play": Room(7, ("av", "accelerate")),
    "adapters": Room(7, ("av", "accelerate")),
    "agents": Room(8, ("av",)),
    "world": Room(9, ("gymnasium", "av", "accelerate")),
    "cli": Room(9, ("torch", "numpy", "gymnasium", "av")),
    "__main__": Room(13),
    "experiment": Room(10, ("av",)),
    "envs": Room(11, ("av", "accelerate")),
    "scripts": Room(12),
}
"""From the ground up. Models, data and training stand side by side and do not know each other."""


class Import(NamedTuple):
    """One import of one module."""

    by: str
    """Dotted name of the importing module."""
    of: str
    """Dotted name of what is imported."""
    at_top: bool
    """Whether it happens when the module is imported, and not inside a function or for type hints only."""


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts if parts[0] == "vqvideo" else ("vqvideo", *parts)).removesuffix(".__init__")


def imports_of(path: Path) -> list[Import]:
    return list(_walk(ast.parse(path.read_text()), module_name(path), at_top=True))


def _walk(node: ast.AST, by: str, at_top: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(by, alias.name, at_top) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert not child.level, f"{by}: relative import"
            yield from (Import(by, f"{child.module}.{alias.name}", at_top) for alias in child.names)
        elif not (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)):
            function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _walk(child, by, at_top and not function)


IMPORTS = [found for path in ALL for found in imports_of(path)]


def room_of(module: str) -> str:
    name = module.split(".")[1]
    assert name in ROOMS, f"{module} has no room yet: say in ROOMS where it belongs"
    return name


def inside(module: str, *rooms: str) -> bool:
    return any(module == room or module.startswith(room + ".") for room in rooms)


# ---------------------------------------------------------------- one direction


def test_imports_point_down() -> None:
    own = [i for i in IMPORTS if inside(i.of, "vqvideo") and i.by != "vqvideo" and i.of.split(".")[1] in ROOMS]
    climbing = [
        (i.by, i.of)
        for i in own
        if room_of(i.by) != room_of(i.of) and ROOMS[room_of(i.of)].floor >= ROOMS[room_of(i.by)].floor
    ]
    assert climbing == []


def test_every_module_has_a_room() -> None:
    assert {room_of(module_name(path)) for path in ALL if module_name(path) != "vqvideo"} == ROOMS.keys()


def test_no_modules_import_each_other_in_a_circle() -> None:
    modules = {module_name(path) for path in ALL}
    edges: dict[str, set[str]] = {module: set() for module in modules}
    for found in IMPORTS:
        # What is imported from a module, or the module itself.
        of = found.of if found.of in modules else found.of.rpartition(".")[0]
        # A package that gathers its own modules is imported before them; they do not import it.
        if of in modules and of != found.by:
            edges[found.by].add(of)
    circles = [module for module in modules if module in _reached_from(module, edges)]
    assert sorted(circles) == []


def _reached_from(start: str, edges: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    waiting = [*edges[start]]
    while waiting:
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            waiting += edges[module]
    return seen


def test_only_scripts_import_environments() -> None:
    found = [i for i in IMPORTS if inside(i.of, "vqvideo.envs") and not inside(i.by, "vqvideo.envs", "vqvideo.scripts")]
    assert found == []


def test_nobody_imports_a_bare_envs() -> None:
    tests = [found for path in sorted((ROOT / "tests").rglob("*.py")) for found in imports_of(path)]
    assert [i for i in [*IMPORTS, *tests] if i.of.split(".")[0] == "envs"] == []


# ---------------------------------------------------------------- what an import loads


def python(code: str) -> str:
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


@pytest.mark.parametrize("name", ROOMS)
def test_importing_a_room_loads_no_more_than_it_needs(name: str) -> None:
    optional = (
        "stable_baselines3",
        "torchrl",
        "tensordict",
        "uvicorn",
        "starlette",
    )  # agents and adapters are made for those who have them
    modules = [m for path in ALL if (m := module_name(path)) != "vqvideo" and room_of(m) == name]
    code = (
        "import sys\nfrom importlib import import_module\n"
        f"for name in {modules}:\n"
        "    try: import_module(name)\n"
        f"    except ImportError as error:\n        if (error.name or '').split('.')[0] not in {optional}: raise\n"
        f"print(sorted(set({list(ROOMS[name].never_loads)}) & set(sys.modules)))"
    )
    assert python(code) == "[]"


def test_importing_vqvideo_is_cheap_and_its_names_are_there() -> None:
    heavy = "{'torch', 'numpy', 'gymnasium', 'av', 'accelerate'}"
    assert python(f"import sys, vqvideo; print(sorted({heavy} & set(sys.modules)))") == "[]"
    names = "print(all(getattr(vqvideo, name) is not None for name in vqvideo.__all__))"
    assert python(f"import vqvideo; {names}") == "True"


def test_heavy_packages_are_imported_when_they_are_needed() -> None:
    early = [i for i in IMPORTS if i.at_top and i.of.split(".")[0] in ("av", "accelerate")]
    assert early == []
    scripts = [i for i in IMPORTS if i.at_top and i.of.startswith("gymnasium") and inside(i.by, "vqvideo.scripts")]
    assert [i for i in scripts if not inside(i.by, "vqvideo.scripts.benchmarks")] == []


BLOCKED = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("gymnasium", "av"):
            raise ModuleNotFoundError(f"blocked: {name}", name=name)
sys.meta_path.insert(0, Blocker())
"""


def test_a_tokenizer_trains_without_gymnasium_and_av() -> None:
    code = f"{BLOCKED}\nfrom vqvideo import VQVAEConfig, Clips, WorldModel\nimport torch, vqvideo.training.trainer\n"
    code += "out = VQVAEConfig().build((16, 16))(torch.zeros(1, 3, 3, 16, 16, dtype=torch.uint8))\n"
    code += "out.loss.backward()\nprint(tuple(out.codes.shape))"
    assert python(code) == "(1, 2, 2, 2)"


FORBIDDEN = {
    *("eval", "exec", "__import__", "os.system", "os.popen", "marshal.load", "marshal.loads", "shelve.open"),
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "dill.load", "dill.loads", "joblib.load", "pd.read_pickle"),
    *("yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load", "yaml.FullLoader", "yaml.UnsafeLoader"),
    *("np.load", "numpy.load", "torch.load", "torch.jit.load", "torch.hub.load", "torch.package"),
    *("shutil.unpack_archive", "tarfile.open", "zipfile.ZipFile"),
}
"""Ways to run what a file says, or to write where it says."""
ALLOWED = {
    # One known weights file of another package, by the reader that makes nothing but tensors.
    "vqvideo.models.tokenizer.features": {"torch.load"},
    # Arrays inside of npz files are read one by one; nothing is unpacked to a disk.
    "vqvideo.data.formats.tables": {"zipfile.ZipFile"},
    "vqvideo.data.formats.arrays": {"zipfile.ZipFile"},
}


def forbidden_in(source: str) -> set[str]:
    nodes = list(ast.walk(ast.parse(source)))
    names = {ast.unparse(node) for node in nodes if isinstance(node, ast.Name | ast.Attribute)}
    calls = [keyword for node in nodes if isinstance(node, ast.Call) for keyword in node.keywords]
    switches = {f"{k.arg}={ast.unparse(k.value)}" for k in calls if k.arg in ("shell", "allow_pickle", "weights_only")}
    return (names & FORBIDDEN) | (switches & {"shell=True", "allow_pickle=True", "weights_only=False"})


def test_what_is_forbidden_is_found() -> None:
    found = forbidden_in("f = exec\nnp.load(x, allow_pickle=True)\nsubprocess.run(x, shell=True)")
    assert found == {"exec", "np.load", "allow_pickle=True", "shell=True"}
    assert forbidden_in("model.eval()\nyaml.safe_load(x)") == set()


@pytest.mark.parametrize("path", ALL, ids=module_name)
def test_nothing_that_is_loaded_is_run(path: Path) -> None:
    """Safetensors, JSON and plain YAML only, but for `ALLOWED`."""
    assert forbidden_in(path.read_text()) == ALLOWED.get(module_name(path), set())


# ---------------------------------------------------------------- small rooms


@pytest.mark.parametrize(
    ("folders", "most"), [(("vqvideo", "envs", "scripts"), 400), (("tests",), 450)], ids=["library", "tests"]
)
def test_files_and_functions_are_small(folders: tuple[str, ...], most: int) -> None:
    """A file that grows beyond this is two nouns; a function, two thoughts."""
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    long_files = [str(path.relative_to(ROOT)) for path in paths if len(path.read_text().splitlines()) > most]
    long_functions = [
        f"{path.relative_to(ROOT)}: {node.name}"
        for path in paths
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (node.end_lineno or 0) - node.lineno >= 60
    ]
    assert (long_files, long_functions) == ([], [])
