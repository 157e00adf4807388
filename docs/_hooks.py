"""Tables of the documentation that are read from the package, so that they cannot drift from it.

A page asks for one by a line ``<!-- generated: NAME -->``; MkDocs calls `on_page_markdown` for every page.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
MARKER = re.compile(r"^<!-- generated: (?P<name>[a-z_]+) -->$", re.MULTILINE)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; a bar in a cell would end it, so it is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def number(value: float) -> str:
    """Write a bound as people do: 2880, not 2880.0."""
    return f"{value:g}"


def variables() -> str:
    """Return the catalogue of variables, one table per domain."""
    from bmi_components.variables import GROUPS

    sections = []
    for domain, entries in GROUPS.items():
        rows = [
            [
                f"`{entry.name}`",
                entry.units,
                entry.description,
                "any" if entry.valid_range is None else " to ".join(map(number, entry.valid_range)),
                f"`{entry.symbol}`",
            ]
            for entry in entries
        ]
        sections.append(f"## {domain}\n\n" + table(["name", "units", "what it is", "valid", "symbol"], rows))
    return "\n\n".join(sections)


def hbv_parameters() -> str:
    """Return the parameters of the HBV family, with the variants that have them."""
    from bmi_components.hbv.parameters import PARAMETERS, parameter
    from bmi_components.hbv.physics import VARIANTS

    rows = []
    for symbol, entry in PARAMETERS.items():
        having = [variant for variant in VARIANTS.values() if symbol in variant.parameters]
        bounds = f"{number(entry.lower)} to {number(entry.upper)}"
        for variant in having:
            own = parameter(symbol, variant.name)
            if (own.lower, own.upper) != (entry.lower, entry.upper):
                bounds += f"; {variant.name}: {number(own.lower)} to {number(own.upper)}"
        among = "all" if len(having) == len(VARIANTS) else ", ".join(variant.name for variant in having)
        rows.append([f"`{symbol}`", entry.meaning, entry.units, bounds, among, entry.source])
    return table(["symbol", "meaning", "units", "bounds", "variants", "source"], rows)


def hbv_routing_parameters() -> str:
    """Return the parameters of both unit hydrographs."""
    from bmi_components.hbv.parameters import GAGE_ROUTING, UNIT_ROUTING

    rows = [
        [
            f"`{entry.symbol}`",
            where,
            entry.meaning,
            entry.units,
            f"{number(entry.lower)} to {number(entry.upper)}",
        ]
        for where, entries in (("catchment", UNIT_ROUTING), ("unit to gauge", GAGE_ROUTING))
        for entry in entries
    ]
    return table(["symbol", "of", "meaning", "units", "bounds"], rows)


def hbv_variants() -> str:
    """Return the variants of the HBV family side by side."""
    from bmi_components.hbv.physics import VARIANTS

    rows = [
        [
            f"`{variant.name}`",
            f"{variant.time_step / 3600:g} h",
            str(len(variant.parameters)),
            ", ".join(variant.dynamic),
            ", ".join(variant.stores).replace("_", " "),
            f"{variant.routing_length} steps",
        ]
        for variant in VARIANTS.values()
    ]
    return table(
        ["variant", "step", "parameters", "vary in time (published models)", "stores", "routing"], rows
    )


def configuration() -> str:
    """Return the keys of a configuration file, from the schema that reads it."""
    from bmi_components.config import describe

    return describe()


def public_names() -> str:
    """Ask mkdocstrings for every public name of the package, in the module where it lives."""
    import bmi_components
    from bmi_components import _HOME

    return "\n\n".join(f"::: {_HOME[name]}.{name}" for name in bmi_components.__all__)


def benchmarks() -> str:
    """Return a table per recorded benchmark run (``benchmarks/results/*.json``)."""
    sections = []
    for path in sorted((REPOSITORY / "benchmarks" / "results").glob("*.json")):
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        rows = [
            [row["what"], row["ours"], row["reference"], row.get("ratio", ""), row.get("bar", "")]
            for row in result["rows"]
        ]
        about = f"{result['machine']}, {result['date']}. Again: `{result['command']}`."
        if result.get("note"):
            about += f" {result['note']}"
        header = ["what", "ours", "reference", "ratio", "bar"]
        sections.append(f"## {result['title']}\n\n{about}\n\n{table(header, rows)}")
    return "\n\n".join(sections) or "No results are recorded in this checkout."


GENERATED: dict[str, Callable[[], str]] = {
    f.__name__: f
    for f in (
        benchmarks,
        configuration,
        hbv_parameters,
        hbv_routing_parameters,
        hbv_variants,
        public_names,
        variables,
    )
}


def fill(markdown: str) -> str:
    """Replace every marker by what it asks for; an unknown name is a KeyError and fails the build."""
    return MARKER.sub(lambda match: GENERATED[match["name"]](), markdown)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """MkDocs' event: a page was read."""
    return fill(markdown)
