"""What people see of plain data: tables, pictures and numbers on a terminal."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

WIDEST_CELL = 60
WIDEST_PICTURE = 72
PLAIN_WIDTH = 120


def complain(message: str) -> None:
    """Write ``message`` to standard error as the one line that a failure is."""
    print(f"atomserve: error: {' '.join(message.split())}", file=sys.stderr, flush=True)


def warn(message: str) -> None:
    """Write ``message`` to standard error as one line; what was asked for happens all the same."""
    print(f"atomserve: warning: {' '.join(message.split())}", file=sys.stderr, flush=True)


def console() -> Console:
    """Return standard output as rich writes to it; wide where nobody reads along."""
    from rich.console import Console

    piped = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(highlight=False, soft_wrap=False, width=PLAIN_WIDTH if piped else None)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> RenderableType:
    """Lay out ``rows`` under ``columns``."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    found = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for column in columns:
        found.add_column(column, overflow="fold")
    for row in rows:
        found.add_row(*(Text(cell) for cell in row))
    return found


def show(value: Any) -> None:
    """Print an answer for people: objects as lines, lists of objects as tables."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if is_table(item):
                print(f"{key}:")
                console().print(as_table(item))
            else:
                print(f"{key}: {brief(item, most=None)}")
    elif is_table(value):
        console().print(as_table(value))
    else:
        print(brief(value, most=None))


def is_table(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(isinstance(row, Mapping) and row for row in value)
    )


def as_table(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [[brief(row[key]) if key in row else "" for key in columns] for row in rows]
    return table(columns, cells)


def brief(value: Any, *, most: int | None = WIDEST_CELL) -> str:
    """Write ``value`` in one line (text keeps its own), of ``most`` characters."""
    if isinstance(value, str):
        written = value if most is None else " ".join(value.split())
    elif isinstance(value, float):
        written = f"{value:.6g}"
    else:
        written = json.dumps(rounded(value), ensure_ascii=False)
    return written if most is None or len(written) <= most else f"{written[: most - 1]}…"


def rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list) else value


def show_picture(data: bytes) -> str:
    """Draw a picture on a terminal; return its size in pixels, or nothing if it is none."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as found:
            picture = found.convert("RGB")
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError):
        return ""
    if sys.stdout.isatty():
        console().print(drawn(picture))
    return f"{picture.width}x{picture.height} pixels"


def drawn(picture: Any) -> RenderableType:
    """Draw with half blocks: two pixels, one above the other, in each character."""
    from rich.color import Color
    from rich.style import Style
    from rich.text import Text

    width = min(WIDEST_PICTURE, picture.width)
    height = max(2, round(picture.height * width / picture.width) // 2 * 2)
    pixels = picture.resize((width, height)).load()
    text = Text()
    for y in range(0, height, 2):
        for x in range(width):
            above, below = (Color.from_rgb(*pixels[x, y + half]) for half in (0, 1))
            text.append("▀", Style(color=above, bgcolor=below))
        text.append("\n")
    return text
