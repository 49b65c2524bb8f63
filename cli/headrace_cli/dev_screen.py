"""The first screen of `headrace dev`: what runs, where, and a line to copy."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from .dev_lines import Screen
from .dev_probe import Found
from .dev_sample import curl, to_copy
from .dev_stack import Stack
from .output import console


@dataclass(frozen=True)
class Facts:
    """What the screen shows beside the stack itself."""

    found: Found
    watching: int | None
    """Files whose change reloads the workers; None = no reload."""
    reload_hint: str = ""
    """Why there is none."""
    pools: Sequence[str] = ()
    """WorkerPools, a line each."""


def show(stack: Stack, facts: Facts) -> None:
    """Print the box, and below it the lines to copy, which no border must cut."""
    rows = _rows(stack, facts)
    if sys.stdout.isatty():
        _box(rows)
    else:
        for name, value in rows:
            stack.screen.plain(f"{name:<9} {value}")
    for note in stack.redis.embedded.choice.notes if stack.redis.embedded else ():
        stack.screen.say(note, level="warning")
    samples = to_copy(facts.found)
    if samples:
        stack.screen.plain()
        for at, sample in enumerate(samples):
            stack.screen.plain(stack.screen.style("or " if at else "Try", bold=True) + f"  {curl(stack.url, sample)}")
        stack.screen.plain()


def _rows(stack: Stack, facts: Facts) -> Sequence[tuple[str, str]]:
    plan, found = stack.plan, facts.found
    files = f"{facts.watching} file{'' if facts.watching == 1 else 's'}; saving one reloads"
    processes = f"{plan.processes} process{'' if plan.processes == 1 else 'es'} × {stack.crew.slots} slots"
    queues = "" if found.queues == ["default"] else f", queues {' '.join(found.queues)}"
    workers = [("Workers", f"{processes}{queues}")] if plan.processes or not facts.pools else []
    return (
        ("API", f"{stack.url}   metrics at /metrics"),
        ("Redis", str(stack.redis)),
        ("App", plan.app),
        ("Types", "  ".join(sorted(found.types)) or "none yet: write a function under @app.task()"),
        *workers,
        *(("Pool", line) for line in facts.pools),
        ("Watching", files if facts.watching is not None else f"nothing; {facts.reload_hint}"),
    )


def _box(rows: Sequence[tuple[str, str]]) -> None:
    from rich.box import ROUNDED
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for name, value in rows:
        table.add_row(Text(name, style="bold cyan"), Text(value, overflow="fold"))
    title = "[bold]headrace dev[/bold]"
    subtitle = "[yellow]development only: loopback, no tokens[/yellow]   [dim]Ctrl-C stops[/dim]"
    box = Panel(
        table, title=title, subtitle=subtitle, title_align="left", subtitle_align="right", box=ROUNDED, expand=False
    )
    console().print(box)


def say_result(screen: Screen, task: dict[str, object], took_s: float) -> None:
    """What became of the sample task."""
    import msgspec

    result = msgspec.json.encode(task["result"]).decode()
    text = f"{task['type']} {task['status']} in {took_s * 1000:.0f} ms"
    if task["status"] == "completed":
        shown = result if len(result) <= 400 else f"{result[:400]} …"
        screen.say(screen.style(f"sample {text}", fg="green") + f"  → {shown}")
        return
    error = task.get("error")
    why = f": {error['type']}: {error['message']}" if isinstance(error, dict) else ""
    screen.say(f"sample {text}{why}", level="warning")
