"""Rows of a benchmark: printed as a table at the end, and kept as JSON for the documentation."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

__all__ = ["Row", "duration", "machine", "print_table", "save", "size"]


@dataclass(frozen=True)
class Row:
    """One measurement: what ran where, ours, the peer or floor, their ratio, and the bar with whether it is met."""

    what: str
    device: str
    ours: str
    reference: str = ""
    ratio: str = ""
    bar: str = ""


def duration(seconds: float) -> str:
    """Write a duration in the unit that suits it, to three digits."""
    for unit, length in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= length or unit == "µs":
            value = seconds / length
            return f"{value:.{max(0, 2 - len(str(int(value))) + 1)}f} {unit}"
    raise AssertionError


def size(kilobytes: float) -> str:
    """Write an amount of memory in the unit that suits it."""
    if abs(kilobytes) >= 1e6:
        return f"{kilobytes / 1024**2:.2f} GB"
    return f"{kilobytes / 1024:.0f} MB" if abs(kilobytes) >= 1e4 else f"{kilobytes:.1f} KB"


def machine() -> str:
    """Return the processor, its cores, and the versions that matter."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line
        ]
        model = names[0] if names else model
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}"


def print_table(rows: Sequence[Row]) -> None:
    """Print rows in aligned columns."""
    header = ("what", "device", "ours", "reference", "ratio", "bar")
    cells = [header, *((r.what, r.device, r.ours, r.reference, r.ratio, r.bar) for r in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(header))]
    for number, line in enumerate(cells):
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
        if number == 0:
            print("  ".join("-" * width for width in widths))


def save(path: Path, title: str, rows: Sequence[Row], note: str) -> None:
    """Write the rows as JSON, in one piece; the documentation makes its tables of these files."""
    lines: list[dict[str, Any]] = [
        {
            "what": row.what if row.device.startswith("CPU") else f"{row.what} ({row.device})",
            "ours": row.ours,
            "reference": row.reference,
            "ratio": row.ratio,
            "bar": row.bar,
        }
        for row in rows
    ]
    result = {
        "title": title,
        "date": date.today().isoformat(),
        "machine": machine(),
        "command": "python benchmarks/" + " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "note": note,
        "rows": lines,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".partial")
    temporary.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)
