"""Takes out of the image's packages what no process in it reads: `python3 lean.py /opt/headrace`. It needs no package.

That is two thirds of them: the classes that the Kubernetes client has for every kind and group, each twice, for the
operator sends plain objects; and what only debuggers read in compiled modules.
"""

from __future__ import annotations

import shutil
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

CLIENTS: Final = ("kubernetes/client", "kubernetes/aio/client")
ELF: Final = b"\x7fELF\x02\x01"
"""How a library of a machine of 64 bits, little end first, begins."""
SEGMENTS: Final = struct.Struct("<32xQ14xHH")
"""In the header: where their table is, the size of one, and how many there are."""
SEGMENT: Final = struct.Struct("<8xQ16xQ")
"""In the table: where it begins in the file, and how long it is there."""
SECTIONS: Final = ((40, 8), (60, 4))
"""In the header: where their table is, how many there are, and which of them has their names."""


def packages_of(environment: Path) -> Path:
    [found] = environment.glob("lib/python3.*/site-packages")
    return found


def classes(packages: Path) -> Iterator[Path]:
    """Modules of the Kubernetes client that it imports when somebody asks for a class of theirs, and nobody does.

    Raises LookupError if there are none: a client that looks otherwise must be looked at before it goes into an image.
    """
    for client in CLIENTS:
        for folder in ("api", "models"):
            found = [path for path in (packages / client / folder).glob("*.py") if path.name != "__init__.py"]
            if not found:
                raise LookupError(f"{client}/{folder} has no modules: this version of kubernetes is built otherwise")
            yield from found


def tests(packages: Path) -> Iterator[Path]:
    """Folders with tests of packages."""
    return packages.glob("*/tests")


def libraries(packages: Path) -> Iterator[Path]:
    """Compiled modules, and what they bring along."""
    return (path for path in packages.rglob("*.so*") if not path.is_symlink())


def cut(library: Path) -> None:
    """Ends the file where the last segment ends: what is behind is never loaded."""
    with library.open("r+b") as file:
        header = file.read(64)
        if not header.startswith(ELF):
            return
        begin, size, number = SEGMENTS.unpack_from(header)
        file.seek(begin)
        table = file.read(size * number)
        ends = [sum(SEGMENT.unpack_from(table, size * each)) for each in range(number)]
        file.truncate(max(begin + size * number, *ends))
        for place, length in SECTIONS:  # their table stood behind
            file.seek(place)
            file.write(bytes(length))


def main(environment: Path) -> None:
    packages = packages_of(environment)
    for module in [*classes(packages)]:
        module.unlink()
    for folder in [*tests(packages)]:
        shutil.rmtree(folder)
    for library in libraries(packages):
        cut(library)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
