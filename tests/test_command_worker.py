"""What `headrace worker` says at its start, before it says anything of a task."""

from __future__ import annotations

from pathlib import Path

import pytest

from command_line import Command

ONE = "\n\n@app.task()\ndef {0}() -> None: ...\n"
OTHER = '\n\n@app.task(queue="images")\ndef {0}() -> None: ...\n'


@pytest.mark.parametrize(
    ("tasks", "said"),
    [
        (ONE.format("f"), "queue default with {}, 10 tasks at once: f"),
        (ONE.format("f") + OTHER.format("g"), "queues default, images with {}, 10 tasks at once: f, g"),
        ("".join(ONE.format(f"f{n}") for n in range(10)), "f0, f1, f2, f3, f4, f5, f6, f7 and 2 more"),
        ("", "queue default with {}, 10 tasks at once: no type yet, write a function under @app.task()"),
    ],
)
def test_a_worker_says_what_it_serves_and_where(tmp_path: Path, redis_url: str, tasks: str, said: str) -> None:
    (tmp_path / "tasks.py").write_text(f'from headrace import App\n\napp = App("shop")\n{tasks}')
    options = ("worker", "--app", "tasks", "--metrics-port", "0", "--log-format", "text")
    with Command(*options, cwd=tmp_path, HEADRACE_URL=redis_url) as running:
        line = running.wait_for(r"The worker serves .*").group()
    assert line.endswith(said.format(f"{redis_url} (from HEADRACE_URL)"))
