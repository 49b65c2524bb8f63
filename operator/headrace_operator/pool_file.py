"""WorkerPools from YAML files, for `headrace dev -f`: checked here as the API server checks them in a cluster.

The server prunes fields that it does not know, with a warning at best; here they are refused, because nobody would see
that they do nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml
from msgspec import inspect

from headrace.errors import ConfigError, nearest
from headrace.task import LABEL

from .fleet import Key
from .manifests import Pool, pod_template
from .schedules import check_schedules
from .spec import MAX_NAME, InvalidSpec, PoolSpec, read_spec

API_VERSION: Final = "headrace.dev/v1alpha1"
KIND: Final = "WorkerPool"
_FIELDS: Final = ("apiVersion", "kind", "metadata", "spec", "status")
_AT: Final = re.compile(r"^spec: (?P<what>.*) - at `\$(?P<path>.*)`$", re.DOTALL)


class InvalidPoolFile(ConfigError):  # noqa: N818 - as InvalidSpec
    """A file of WorkerPools that cannot be used; the text names file, pool and field."""

    code = "invalid_pool_file"

    def __init__(self, where: str, problem: str, remedy: str = "") -> None:
        super().__init__(f"{where}: {problem.rstrip('.')}", remedy)
        self.args = (where, problem, remedy)


@dataclass(frozen=True)
class PoolFiles:
    """What some files hold."""

    pools: dict[Key, Pool] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    """What was left out, a sentence each."""


def read_files(files: Sequence[Path], namespace: str) -> PoolFiles:
    """All WorkerPools in these files, in their order. `namespace` is that of headrace, whatever the files say.

    Raises InvalidPoolFile.
    """
    found = PoolFiles()
    for file in files:
        for where, document in _documents(file):
            if document is None:
                continue
            kind = document.get("kind")
            if kind != KIND:
                found.notes.append(f"{where} is skipped: it is {f'a {kind}' if kind else 'of no kind'}, no WorkerPool")
                continue
            _add(found, where, _pool(where, document, namespace))
    if not found.pools:
        names = ", ".join(map(str, files))
        raise InvalidPoolFile(names, "there is no WorkerPool in it", f"One begins with `kind: {KIND}`")
    return found


def _add(found: PoolFiles, where: str, pool: Pool) -> None:
    key = Key(pool.namespace, pool.name)
    if key in found.pools:
        raise InvalidPoolFile(where, f"there are two WorkerPools {pool.name!r}", "Give one of them another name")
    found.pools[key] = pool


def _documents(file: Path) -> Iterator[tuple[str, dict[str, Any] | None]]:
    try:
        documents = list(yaml.safe_load_all(file.read_text()))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidPoolFile(str(file), f"it cannot be read ({error})") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f":{mark.line + 1}"
        raise InvalidPoolFile(f"{file}{line}", f"it is no YAML ({getattr(error, 'problem', error)})") from None
    for number, document in enumerate(documents, 1):
        where = str(file) if len(documents) == 1 else f"{file}, document {number}"
        if document is not None and not isinstance(document, dict):
            raise InvalidPoolFile(where, f"an object is expected, and this is a {type(document).__name__}")
        yield where, document


def _pool(where: str, document: Mapping[str, Any], namespace: str) -> Pool:
    name = _name(where, document)
    where = f"{where}: WorkerPool {name}"
    if document.get("apiVersion") != API_VERSION:
        raise InvalidPoolFile(
            where, f"apiVersion is {document.get('apiVersion')!r}", f"This headrace reads {API_VERSION}"
        )
    spec = document.get("spec")
    if not isinstance(spec, dict) or not isinstance(spec.get("template"), dict):
        raise InvalidPoolFile(where, f"{'spec.template' if isinstance(spec, dict) else 'spec'} is missing or no object")
    for problem, remedy in unknown_fields(document):
        raise InvalidPoolFile(where, problem, remedy)
    try:
        read = read_spec(spec)
        check_schedules(read.scaling)
        pool = Pool(name, namespace, name, read, namespace)
        pod_template(pool, allow_service_accounts=True)
    except InvalidSpec as error:
        raise InvalidPoolFile(where, _worded(str(error))) from None
    return pool


def _name(where: str, document: Mapping[str, Any]) -> str:
    metadata = document.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(name, str) or not re.fullmatch(LABEL, name) or len(name) > MAX_NAME:
        allowed = f"lower-case letters, digits and hyphens, {MAX_NAME} characters at most"
        raise InvalidPoolFile(where, f"metadata.name is {name!r}", f"Allowed are {allowed}")
    return name


def _worded(text: str) -> str:
    """`spec: Expected … - at `$.scaling`` with the field where people look for it."""
    found = _AT.match(text)
    return f"spec{found['path']}: {found['what']}" if found else text


def unknown_fields(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Fields that a WorkerPool does not have, each with what was probably meant. The pod template is not looked at."""
    for name in document:
        if name not in _FIELDS:
            yield _unknown(name, "", _FIELDS)
    yield from _below(document.get("spec"), inspect.type_info(PoolSpec), "spec")


def _below(value: object, kind: inspect.Type, where: str) -> Iterator[tuple[str, str]]:
    match kind:
        case inspect.StructType(fields=fields) if isinstance(value, dict):
            known = {each.encode_name: each.type for each in fields}
            for name, inner in value.items():
                if name in known:
                    yield from _below(inner, known[name], f"{where}.{name}")
                else:
                    yield _unknown(str(name), f"{where}.", known)
        case inspect.VarTupleType(item_type=item) if isinstance(value, list):
            for at, inner in enumerate(value):
                yield from _below(inner, item, f"{where}[{at}]")


def _unknown(name: str, before: str, known: Iterable[str]) -> tuple[str, str]:
    known = list(known)
    meant = nearest(name, known)
    return f"there is no field {before}{name}", f"Did you mean {meant}?" if meant else f"There are {', '.join(known)}"


def resource(pool: Pool, generation: int) -> dict[str, Any]:
    """The object as an API server would show it."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": pool.name, "namespace": pool.namespace, "uid": pool.uid, "generation": generation},
        "spec": msgspec.to_builtins(pool.spec),
    }
