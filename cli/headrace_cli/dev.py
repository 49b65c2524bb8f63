"""`headrace dev`: the whole system on this machine, until Ctrl-C."""

from __future__ import annotations

from typing import Any

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
        headrace dev -f pool.yaml                 # workers as a cluster would scale them
    """,
)
@click.option("--app", metavar="MODULE[:ATTR]", help="The application; or HEADRACE_APP. [tasks or app]")
@click.option("--init", is_flag=True, help="Write a tasks.py to begin with; nothing is overwritten.")
@click.option(
    "-f",
    "--file",
    "files",
    metavar="FILE",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False),
    help="WorkerPools (YAML), whose workers are scaled here as in a cluster; may be given several times.",
)
@click.option("--workers", metavar="N", type=click.IntRange(0, 64), help="Processes. [1, or none beside --file]")
@click.option("--concurrency", metavar="N", help="Tasks that one worker runs at once. [10]")
@click.option("--port", metavar="PORT", type=click.IntRange(0, 65535), help="Of the API; or PORT. [8080 or a free one]")
@click.option("--reload/--no-reload", default=True, help="Start the workers anew when the application's files change.")
@click.option("--sample/--no-sample", default=True, help="Submit the application's sample task at the start.")
def command(app: str | None, init: bool, files: tuple[str, ...], concurrency: str | None, **flags: Any) -> int:
    """Run everything here: Redis, the API, workers that reload when you save, and a sample task.

    Redis is your own if HEADRACE_URL or REDIS_ADDR names one; else an embedded one, with its data in .headrace/, so
    that the next start goes on with what was queued. Ctrl-C lets running tasks end; a second one does not wait.

    With --file the workers are those of WorkerPools: they start when tasks wait, and end when none do, as the operator
    decides in a cluster; the application is the one that their templates name. Saving a file changes its pools.
    """
    from pathlib import Path

    from .dev_init import choose_app
    from .dev_probe import Look

    named = _apps_of_pools(files) if files else []
    own = [choose_app(Path.cwd(), app, init=init)] if app or init or not named else []
    names = list(dict.fromkeys([*own, *named]))
    looks = [Look(name) for name in names]

    # Imported while the look goes on beside: each takes about as long.
    from .dev_live import Dev
    from .dev_probe import together
    from .dev_stack import Plan

    workers, port = flags.pop("workers"), flags.pop("port")
    processes = workers if workers is not None else 0 if files else 1
    plan = Plan(names[0], processes, concurrency, port, others=tuple(names[1:]), files=tuple(map(Path, files)))
    return Dev(plan, **flags).run(together([look.result() for look in looks]))


def _apps_of_pools(files: tuple[str, ...]) -> list[str]:
    """The applications that the templates of these files name, each once."""
    try:
        import cronsim  # noqa: F401
    except ImportError:
        raise click.ClickException(
            "headrace dev --file needs more packages. Install them with: pip install 'headrace[operator]'"
        ) from None
    from pathlib import Path

    from headrace_operator.orders import app_of, order_of
    from headrace_operator.pool_file import read_files

    pools = read_files([*map(Path, files)], "default").pools.values()
    return list(dict.fromkeys(app for pool in pools if (app := app_of(order_of(pool, 0)))))
