"""All rows, in the order of the table."""

from __future__ import annotations

from .harness import Row
from .rows_drain import Drain, Persistent
from .rows_http import Http
from .rows_latency import Latency
from .rows_list import Listing
from .rows_process import Scaling, Start
from .rows_size import Backlog, Memory
from .rows_submit import Submit

_ALL: tuple[Row, ...] = (
    Drain(), Persistent(), Submit(), Http(), Latency(), Memory(), Backlog(), Listing(), Scaling(), Start(),
)  # fmt: skip

ROWS: dict[str, Row] = {row.name: row for row in _ALL}
