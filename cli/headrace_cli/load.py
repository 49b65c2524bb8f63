"""Finding the application: `module` or `module:attribute`, imported from the current folder, with errors that help."""

from __future__ import annotations

import importlib
import pkgutil
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any

from headrace.errors import ConfigError, HeadraceError, nearest

if TYPE_CHECKING:
    from headrace.app import App

__all__ = ["AppLoadError", "load_app", "start_error"]


class AppLoadError(ConfigError):
    """The application cannot be imported, or is none. `detail` is the traceback of the user's own code, if any."""

    code = "app_not_loaded"

    def __init__(self, problem: str, remedy: str, detail: str = "") -> None:
        super().__init__(problem, remedy)
        self.args = (problem, remedy, detail)
        self.detail = detail


def load_app(name: str, folder: Path | None = None) -> App[Any]:
    """The App that `name` (`package.tasks` or `package.tasks:app`) means, seen from `folder` (default: the current).

    Raises AppLoadError.
    """
    home = (folder or Path.cwd()).resolve()
    module_name, _, attribute = name.partition(":")
    _check_form(name, module_name, home)
    if str(home) not in sys.path:
        sys.path.insert(0, str(home))
    module = _import(module_name, home)
    return _attribute(module, attribute) if attribute else _only_app(module)


def _check_form(name: str, module_name: str, home: Path) -> None:
    if module_name.endswith(".py") or "/" in module_name:
        path = Path(module_name)
        inside = path.resolve().relative_to(home) if path.resolve().is_relative_to(home) else path
        dotted = ".".join(inside.with_suffix("").parts)
        raise AppLoadError(f"{name!r} is a path, and --app takes a module", f"Did you mean --app {dotted}?")
    if not all(part.isidentifier() for part in module_name.split(".")):
        raise AppLoadError(f"{name!r} is no name of a module", "Write --app package.module or package.module:app")


def _import(name: str, home: Path) -> ModuleType:
    try:
        return importlib.import_module(name)
    except SyntaxError as error:
        raise _syntax_error(error) from error
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise _no_module(name, error.name, home) from None
        raise _broken(name, error) from error
    except HeadraceError as error:
        raise _refused(name, error) from error
    except SystemExit as error:
        raise AppLoadError(
            f"Importing {name} ended the program (exit code {error.code})",
            'Guard what shall only run as a program with `if __name__ == "__main__":`',
        ) from error
    except Exception as error:
        raise _broken(name, error) from error


def _refused(name: str, error: HeadraceError) -> AppLoadError:
    """What headrace itself does not take says what to do."""
    problem, remedy = str(error).rstrip("."), ""
    if isinstance(error, ConfigError):
        problem, remedy = error.problem, error.remedy
    return AppLoadError(f"{_place(error) or name}: {problem}", remedy or "Correct it and start again")


def _syntax_error(error: SyntaxError) -> AppLoadError:
    detail = "".join(traceback.format_exception_only(error))
    return AppLoadError(
        f"{_short(error.filename or '?')}:{error.lineno}: {error.msg}", "Correct the line and start again", detail
    )


def _broken(name: str, error: Exception) -> AppLoadError:
    problem, detail = _told(f"importing {name}", error)
    remedy = "Correct it and start again"
    if isinstance(error, ModuleNotFoundError):
        remedy = f"Install what provides {error.name!r} into this environment ({sys.prefix}), or correct the import"
    return AppLoadError(problem, remedy, detail)


def start_error(name: str, error: Exception) -> AppLoadError | None:
    """The error for an exception that the application raised when its worker started; None if it is not its own."""
    if isinstance(error, HeadraceError) or not _own_frames(error.__traceback__):
        return None
    problem, detail = _told(f"starting {name}", error)
    return AppLoadError(problem, "Correct it and start again", detail)


def _told(doing: str, error: Exception) -> tuple[str, str]:
    """One clause about an exception in the user's code, and its traceback without our own part."""
    frames = traceback.StackSummary.from_list(_own_frames(error.__traceback__))
    head = "Traceback of your code (most recent call last):\n" if frames else ""
    said = f"{type(error).__name__}: {error}".rstrip(": ").splitlines()[0].rstrip(".")
    place = f"{_place(error)}: " if frames else ""
    detail = "".join([head, *frames.format(), *traceback.format_exception_only(error)])
    return f"{place}{doing} raised {said}", detail


def _own_frames(trace: TracebackType | None) -> list[traceback.FrameSummary]:
    """The frames from the first one in the user's code on, without those of headrace."""
    frames = traceback.extract_tb(trace)
    first = next((at for at, frame in enumerate(frames) if not frame.filename.startswith(_foreign())), len(frames))
    return [frame for frame in frames[first:] if not frame.filename.startswith(("<frozen importlib", *_ours()))]


def _ours() -> tuple[str, ...]:
    import headrace

    return str(Path(__file__).parent), str(Path(headrace.__file__).parent)


def _foreign() -> tuple[str, ...]:
    """Where frames lie that come before the user's own: Python itself, packages, headrace."""
    return ("<frozen ", "uvloop/", *_ours(), *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")))


def _place(error: BaseException) -> str:
    """The last line of the user's own code that it came through; what it called there is not theirs to mend."""
    frames = [each for each in _own_frames(error.__traceback__) if not each.filename.startswith(_foreign())]
    return f"{_short(frames[-1].filename)}:{frames[-1].lineno}" if frames else ""


def _short(filename: str) -> str:
    path, here = Path(filename), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else filename


def _no_module(name: str, missing: str, home: Path) -> AppLoadError:
    parent, _, last = missing.rpartition(".")
    if parent:
        package = sys.modules[parent]
        where = [str(folder) for folder in getattr(package, "__path__", [])]
        if not where:
            return AppLoadError(
                f"{parent} is a module and not a package, so it holds no {last!r}", f"Use --app {parent}"
            )
    else:
        where = [str(home)]
    known = {each.name for each in pkgutil.iter_modules(where)} | set(_folders(where))
    meant = nearest(last, known)
    problem = f"There is no module {missing!r} in {', '.join(map(_short_folder, where))}"
    if meant:
        return AppLoadError(problem, f"Did you mean --app {'.'.join(filter(None, [parent, meant]))}?")
    there = f"; there is {_some(known)}" if known else ""
    return AppLoadError(problem, f"Start in the folder that holds it{there}")


def _folders(where: list[str]) -> Iterator[str]:
    """Packages without an `__init__.py`."""
    for folder in map(Path, where):
        for each in folder.iterdir() if folder.is_dir() else ():
            if each.is_dir() and each.name.isidentifier() and any(each.glob("*.py")):
                yield each.name


def _short_folder(folder: str) -> str:
    return "the current folder" if Path(folder) == Path.cwd() else _short(folder)


def _some(names: set[str]) -> str:
    shown = sorted(name for name in names if not name.startswith("_"))
    return ", ".join(shown[:6]) + (" …" if len(shown) > 6 else "")


def _apps(module: ModuleType) -> dict[str, App[Any]]:
    from headrace.app import App

    found: dict[str, App[Any]] = {}
    for name, value in vars(module).items():
        if isinstance(value, App) and all(value is not other for other in found.values()):
            found[name] = value
    return found


def _only_app(module: ModuleType) -> App[Any]:
    apps = _apps(module)
    if len(apps) == 1:
        return next(iter(apps.values()))
    where = _short(module.__file__ or module.__name__)
    if not apps:
        raise AppLoadError(f"{where} has no App", _write_one(module))
    choices = " or ".join(f"--app {module.__name__}:{name}" for name in apps)
    raise AppLoadError(f"{where} has {len(apps)} Apps", f"Choose one: {choices}")


def _write_one(module: ModuleType) -> str:
    return f'Write `app = App("{module.__name__.rpartition(".")[2]}")` in it'


def _attribute(module: ModuleType, attribute: str) -> App[Any]:
    from headrace.app import App

    value: Any = module
    for part in attribute.split("."):
        if not hasattr(value, part):
            raise _no_attribute(module, attribute, part)
        value = getattr(value, part)
    if isinstance(value, App):
        return value
    kind = f"the class {value.__name__}" if isinstance(value, type) else f"of type {type(value).__name__}"
    apps = _apps(module)
    remedy = f"Did you mean --app {module.__name__}:{next(iter(apps))}?" if apps else "Name an instance of headrace.App"
    raise AppLoadError(f"{module.__name__}:{attribute} is {kind}, and no App", remedy)


def _no_attribute(module: ModuleType, attribute: str, part: str) -> AppLoadError:
    lack = f"{_short(module.__file__ or module.__name__)} has no {attribute!r}"
    apps = _apps(module)
    if not apps:
        return AppLoadError(f"{lack}, and no App at all", _write_one(module))
    meant = nearest(part, apps) or next(iter(apps))
    return AppLoadError(lack, f"Did you mean --app {module.__name__}:{meant}?")
