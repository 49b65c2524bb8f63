"""`headrace dev`: the whole system on this machine, until Ctrl-C."""

from __future__ import annotations

import click

from .command import Command


@click.command(
    "dev",
    cls=Command,
    examples="""
        headrace dev                              # the tasks.py of this folder
        headrace dev --init                       # write one of 12 lines first
        headrace dev --app examples.tasks         # in a checkout
        HEADRACE_URL=redis://localhost:6379 headrace dev --app shop.tasks --workers 4 --port 9000
    """,
)
@click.option("--app", metavar="MODULE[:ATTR]", help="The application; or HEADRACE_APP. [tasks or app]")
@click.option("--init", is_flag=True, help="Write a tasks.py to begin with; nothing is overwritten.")
@click.option("--workers", metavar="N", type=click.IntRange(0, 64), default=1, show_default=True, help="Processes.")
@click.option("--concurrency", metavar="N", help="Tasks that one worker runs at once. [10]")
@click.option("--port", metavar="PORT", type=click.IntRange(0, 65535), help="Of the API; or PORT. [8080 or a free one]")
@click.option("--reload/--no-reload", default=True, help="Start the workers anew when the application's files change.")
@click.option("--sample/--no-sample", default=True, help="Submit the application's sample task at the start.")
def command(app: str | None, init: bool, workers: int, concurrency: str | None, port: int | None, **flags: bool) -> int:
    """Run everything here: Redis, the API, workers that reload when you save, and a sample task.

    Redis is your own if HEADRACE_URL or REDIS_ADDR names one; else an embedded one, with its data in .headrace/, so
    that the next start goes on with what was queued. Ctrl-C lets running tasks end; a second one does not wait.
    """
    from pathlib import Path

    from .dev_init import choose_app
    from .dev_probe import Look

    name = choose_app(Path.cwd(), app, init=init)
    look = Look(name)

    # Imported while the look goes on beside: each takes about as long.
    from .dev_live import Dev
    from .dev_stack import Plan

    return Dev(Plan(name, workers, concurrency, port), **flags).run(look.result())
