"""My tasks, which take a while."""

import asyncio

from headrace import App

app = App("tasks")


@app.task()
async def resize(seconds: float = 1.0) -> str:
    await asyncio.sleep(seconds)
    return "done"
