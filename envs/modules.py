"""Environments of one's own: the spec of "module:id", after importing the module, and what is wrong if that fails."""

from __future__ import annotations

import difflib
import importlib
import sys
from pathlib import Path
from types import ModuleType

import gymnasium
from gymnasium.envs.registration import EnvSpec

from vqvideo.envs.packages import package_of
from vqvideo.envs.places import place_of
from vqvideo.errors import InputError


def find_spec(env_id: str) -> EnvSpec:
    """The registered spec of an id, after importing the package that is known to bring it; of "module:id" after
    importing the module, which registers it.

    Modules are looked for in the working directory too, as `python -m` does.

    Raises:
        InputError: there is no such module or package, it cannot be imported, or the module registers no such id.
        gymnasium.error.Error: an id without a module that nobody registered.
    """
    module_name, _, plain_id = env_id.rpartition(":")
    if not module_name:
        package = package_of(env_id)
        if package and env_id not in gymnasium.registry:
            package.load(env_id)
        return gymnasium.spec(env_id)
    before = set(gymnasium.registry)
    module = _import(module_name, env_id)
    try:
        return gymnasium.spec(plain_id)
    except gymnasium.error.Error as error:
        raise _not_registered(module, plain_id, set(gymnasium.registry) - before) from error


def _import(name: str, env_id: str) -> ModuleType:
    here = Path.cwd()
    path = name.removesuffix(".py").replace("/", ".").strip(".")
    if path != name:
        plain_id = env_id.rpartition(":")[2]
        raise InputError(f"{name} is a file; --env takes the name of the module: --env {path}:{plain_id}")
    top = name.partition(".")[0]
    # Scripts have their own folder first on the path, and the console command that of the interpreter. Worker
    # processes inherit the path.
    if ((here / f"{top}.py").is_file() or (here / top).is_dir()) and str(here) not in sys.path:
        sys.path.insert(0, str(here))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _broken(name, error) from error
        near = difflib.get_close_matches(top, [path.stem for path in here.glob("*.py")], n=1)
        raise InputError(
            f"the module {error.name} of {env_id} is not installed, and not in the working directory {here}: "
            f"{f'did you mean {near[0]}? Else go' if near else 'go'} to the folder that holds {top}.py or {top}/, or "
            "install it with pip, and try again"
        ) from error
    # Whatever it raises: the module is the user's, and the first thing that one wants to know is the line.
    except Exception as error:
        raise _broken(name, error) from error


def _broken(name: str, error: Exception) -> InputError:
    what = error.msg if isinstance(error, SyntaxError) else error
    return InputError(f"the module {name} cannot be imported: {type(error).__name__}: {what}{place_of(error)}")


def _not_registered(module: ModuleType, plain_id: str, new: set[str]) -> InputError:
    """What to do about an id that a module does not register; often it is the name of the class."""
    name = module.__name__
    ids = {i for i, spec in gymnasium.registry.items() if _home(spec) == name.partition(".")[0]} or new
    if ids:
        nearest = difflib.get_close_matches(plain_id, ids, n=1, cutoff=0)[0]
        return InputError(f"{name} registers no environment {plain_id!r}: did you mean --env {name}:{nearest}?")
    is_class = hasattr(module, plain_id)
    problem = f"{plain_id} is a class, and --env takes the id of an environment" if is_class else "it registers none"
    entry_point = f"{name}:{plain_id if is_class else 'MyEnv'}"
    return InputError(
        f"{name} registers no environment {plain_id!r}: {problem}. Put gymnasium.register('My-v0', "
        f"entry_point='{entry_point}') into {module.__file__} and record with --env {name}:My-v0"
    )


def _home(spec: EnvSpec) -> str:
    """The top-level module that an environment comes from."""
    entry = spec.entry_point
    module = entry if isinstance(entry, str) else getattr(entry, "__module__", "")
    return module.partition(":")[0].partition(".")[0]
