"""Tables of the documentation that are read from the package, so that they cannot drift from it.

A page asks for one by a line ``<!-- generated: NAME -->``; MkDocs calls `on_page_markdown` for every page.
"""

from __future__ import annotations

import inspect
import json
import math
import re
import typing
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

REPOSITORY = Path(__file__).resolve().parents[1]
MARKER = re.compile(r"^<!-- generated: (?P<name>[a-z_]+) -->$", re.MULTILINE)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; a bar in a cell would end it, so it is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def number(value: float) -> str:
    """Write a bound as people do: 2880, not 2880.0."""
    return f"{value:g}"


def valid(limits: tuple[float, float] | None) -> str:
    """Write a range of values, open where it has no end."""
    if limits is None:
        return "any"
    low, high = limits
    return f"≥ {number(low)}" if math.isinf(high) else f"{number(low)} to {number(high)}"


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
                valid(entry.valid_range),
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


def hbv_outputs() -> str:
    """Return what DeltaHBV publishes, by Standard Name, and the symbols by which files name it."""
    from bmi_components.hbv.opening import _STORES_AND_FLUXES

    published = ("runoff_depth", "runoff_rate", "streamflow", *_STORES_AND_FLUXES, "lateral_exchange")
    return outputs(published)


def outputs(symbols: Iterable[str]) -> str:
    """Return a table of variables by their symbols."""
    from bmi_components.variables import CATALOGUE

    entries = [(symbol, CATALOGUE[symbol]) for symbol in symbols]
    rows = [[f"`{v.name}`", v.units, v.description, f"`{symbol}`"] for symbol, v in entries]
    return table(["name", "units", "what it is", "symbol"], rows)


def streamflow_outputs() -> str:
    """Return what StreamflowLSTM publishes."""
    return outputs(("runoff_depth", "runoff_rate", "streamflow", "runoff_spread", "daily_runoff_rate"))


def not_stepped() -> str:
    """Return the neuralhydrology models that cannot be run one step at a time, and why."""
    from bmi_components.importers.neuralhydrology_settings import NOT_STEPPED

    reasons: dict[str, list[str]] = {}
    for model, reason in NOT_STEPPED.items():
        reasons.setdefault(reason, []).append(f"`{model}`")
    return table(["model", "why"], [[", ".join(models), reason] for reason, models in reasons.items()])


def simple_hydrology_parameters() -> str:
    """Return the parameters that the network of a hybrid model sets, with their ranges."""
    from bmi_components.lstm.simple_hydrology import PARAMETER_RANGES

    rows = [
        [name.replace("_", " "), f"{number(low)} to {number(high)}"]
        for name, (low, high) in PARAMETER_RANGES.items()
    ]
    return table(["parameter", "range"], rows)


def shared_parts() -> tuple[type[Any], ...]:
    """Return the parts of settings that several components have, which are described once."""
    from bmi_components.catchments import Catchment
    from bmi_components.forcing.source import ForcingSource

    return Catchment, ForcingSource


def settings(kind: type[Any], heading: str, elsewhere: Collection[type[Any]] = ()) -> str:
    """Return the keys of a settings class, then those of every part that it is made of, from the schema.

    Parts that components share are described in a section of their own, see `shared_sections`, and so are those
    ``elsewhere``.
    """
    from bmi_components.config import describe

    waiting: list[Any] = [kind]
    done: set[Any] = {*shared_parts(), *elsewhere} - {kind}
    sections = []
    while waiting:
        part = waiting.pop(0)
        if part in done:
            continue
        done.add(part)
        lines = describe(part).replace("<", "&lt;").splitlines()
        if not any(field_has_meaning(line) for line in lines[2:]):
            lines = [line.rsplit("|", 2)[0] + "|" for line in lines]
        meaning = prose(part.__doc__ or "")
        title = f"{heading} {part.__name__}\n\n" if part is not kind else ""
        sections.append(f"{title}{meaning}\n\n" + "\n".join(lines))
        waiting += [
            member
            for field in msgspec.structs.fields(part)
            for member in members(field.type)
            if isinstance(member, type) and issubclass(member, msgspec.Struct)
        ]
    return "\n\n".join(sections)


def prose(docstring: str) -> str:
    """Return a docstring as Markdown, its numpydoc list of attributes as a list of definitions."""
    text = inspect.cleandoc(docstring).replace("``", "`")
    summary, _, attributes = text.partition("\nAttributes\n----------\n")
    names = re.sub(
        r"^(?=\S)(.+)$",
        lambda m: "\n" + ", ".join(f"`{n}`" for n in m[1].split(", ")),
        attributes,
        flags=re.M,
    )
    return summary + re.sub(r"^(`.+`)\n    ", r"\1\n:   ", names, flags=re.M)


def field_has_meaning(line: str) -> bool:
    """Tell whether the last cell of a row says something."""
    return bool(line.rstrip("|").rsplit("|", 1)[-1].strip())


def members(annotation: Any) -> list[Any]:
    """Return the types that an annotation is made of: of ``tuple[A, ...] | None`` A, among others."""
    return [annotation, *(inner for part in typing.get_args(annotation) for inner in members(part))]


def configuration() -> str:
    """Return the keys of DeltaHBV's own configuration file."""
    from bmi_components.hbv.settings import DeltaHBVSettings

    return settings(DeltaHBVSettings, "###")


def streamflow_configuration() -> str:
    """Return the keys of StreamflowLSTM's own configuration file."""
    from bmi_components.lstm.settings import StreamflowLSTMSettings

    return settings(StreamflowLSTMSettings, "###")


def evapotranspiration_configuration() -> str:
    """Return the keys of PotentialEvapotranspiration's configuration file."""
    from bmi_components.potential_evapotranspiration import PotentialEvapotranspirationSettings

    return settings(PotentialEvapotranspirationSettings, "###")


def flux_configuration() -> str:
    """Return the keys of FluxLSTM's configuration file."""
    from bmi_components.lstm.flux.settings import FluxLSTMSettings

    return settings(FluxLSTMSettings, "###")


def assimilation_configuration() -> str:
    """Return the keys of FourDVarNet's configuration file."""
    from bmi_components.fourdvarnet.settings import FourDVarNetSettings

    return settings(FourDVarNetSettings, "###")


def ball_berry_configuration() -> str:
    """Return the keys of BallBerry's configuration file."""
    from bmi_components.ball_berry.settings import BallBerrySettings

    return settings(BallBerrySettings, "###")


INSTEAD = {
    "rounded_constants": "Full precision.",
    "sun_at_the_end": "Where it stands in the middle of the step.",
    "frozen_latent_heat": "333,000 J kg⁻¹.",
    "visible_light_in_near_infrared": "Direct near infrared.",
    "light_lost_at_dusk": "It is scattered light.",
    "single_shortwave_sweep": "All reflections, solved directly.",
    "inconsistent_leaf_balance": "One balance, closed by Newton's method with the coupled solution.",
    "switched_limitation": "The smooth minimum of both rates at the CO₂ inside the leaf, which is solved for.",
    "double_dark_respiration": "Taken once; light inhibits it smoothly.",
    "missing_dark_respiration": "NEE is soil respiration less net assimilation of the leaves.",
    "tied_dark_respiration": "A parameter of its own, `dark_respiration_25`.",
    "cold_oxygen_kinetics": "Arrhenius, with the activation energy of the table.",
    "co2_by_mass": "Moles.",
    "neutral_soil_source": "The same stability for both.",
    "folded_soil_stability": "A factor that falls evenly with stability.",
    "poor_soil_conductivity": "0.57 and 0.8 W m⁻¹ K⁻¹.",
    "forgetful_soil": "A profile that is carried from step to step; its surface closes the soil's balance.",
    "fixed_iterations": "Iterated until nothing changes; output `converged` says whether it did.",
}
"""What CanVeg does where it does not keep a property of the published model."""


def canveg_quirks() -> str:
    """Return the properties of the published canopy model that its corrected form mends."""
    from bmi_components.canveg.options import Quirks

    described = msgspec.json.schema(Quirks)["$defs"]["Quirks"]["properties"]
    rows = [[f"`{name}`", described[name]["description"], INSTEAD[name]] for name in Quirks.__struct_fields__]
    return table(["name", "published model, `mode: reference`", "`mode: corrected`"], rows)


def canveg_parameters() -> str:
    """Return the parameters of the canopy model."""
    from bmi_components.canveg.parameters import TABLE

    rows = []
    for row in TABLE:
        bounds = "" if row.lower is None or row.upper is None else valid((row.lower, row.upper))
        rows.append(
            [
                f"`{row.name}`",
                row.meaning,
                row.units,
                number(row.default),
                bounds,
                "yes" if row.trained else "",
                f"`{row.published_name}`" if row.published_name else "",
                row.source,
            ]
        )
    return table(["name", "meaning", "unit", "default", "bounds", "trained", "published as", "source"], rows)


def canveg_outputs() -> str:
    """Return what CanVeg publishes."""
    from bmi_components.canveg.names import PROFILES, SCALARS

    rows = [[f"`{v.name}`", v.units, v.description, f"`{v.symbol}`"] for v in (*SCALARS, *PROFILES)]
    return table(["name", "units", "what it is", "symbol"], rows)


def canveg_configuration() -> str:
    """Return the keys of CanVeg's configuration file."""
    from bmi_components.canveg.settings import CanVegSettings

    return settings(CanVegSettings, "###")


def lorenz_configuration() -> str:
    """Return the keys of Lorenz63's configuration file."""
    from bmi_components.fourdvarnet.forecast import Lorenz63Settings

    return settings(Lorenz63Settings, "###")


def pymt_parameters() -> str:
    """Return what pymt's ``setup`` takes of every component, from its metadata."""
    import yaml

    rows = []
    for path in sorted((REPOSITORY / "bmi_components" / "pymt").glob("*/parameters.yaml")):
        listed = yaml.safe_load(path.read_text(encoding="utf-8"))
        for key, entry in listed.items():
            value = entry["value"]
            choices = f" ({', '.join(map(str, value['choices']))})" if "choices" in value else ""
            default = str(value["default"])
            shown = f"`{default}`" if default else ""
            rows.append([f"`{path.parent.name}`", f"`{key}`", entry["description"] + choices, shown])
    return table(["component", "parameter", "meaning", "default"], rows)


def shared_sections() -> str:
    """Return the keys of the parts that several components have."""
    return "\n\n".join(f"### {part.__name__}\n\n{settings(part, '###')}" for part in shared_parts())


def run_section() -> str:
    """Return the keys of the section ``run``, with those of the output."""
    from bmi_components.simulation import RunSettings

    return settings(RunSettings, "###")


def recipe() -> str:
    """Return the keys of a training recipe."""
    from bmi_components.training.recipe import Recipe

    return settings(Recipe, "###")


def flux_recipe() -> str:
    """Return the keys of a flux model's recipe, without those of the daily rules."""
    from bmi_components.lstm.flux.daily import DailyRules
    from bmi_components.lstm.flux.recipe import Recipe

    return settings(Recipe, "###", {DailyRules})


def flux_daily_rules() -> str:
    """Return the rules by which half-hours become days."""
    from bmi_components.lstm.flux.daily import DailyRules

    return settings(DailyRules, "####")


def flux_sizes() -> str:
    """Return the sizes of every flux model."""
    from bmi_components.lstm.flux.dense import AnnSizes, DynamicAnnSizes
    from bmi_components.lstm.flux.recurrent import RecurrentSizes
    from bmi_components.lstm.flux.training import ForestSizes, XgboostSizes
    from bmi_components.lstm.flux.xlstm import XlstmSizes
    from bmi_components.lstm.flux.xlstm_mixer import XlstmMixerSizes

    kinds: dict[str, type[Any]] = {
        "`lstm`, `rnn`": RecurrentSizes,
        "`ann`": AnnSizes,
        "`dynamic_ann`": DynamicAnnSizes,
        "`xlstm`": XlstmSizes,
        "`xlstm_mixer`": XlstmMixerSizes,
        "`random_forest`": ForestSizes,
        "`xgboost`": XgboostSizes,
    }
    return "\n\n".join(f"#### {name}\n\n{settings(kind, '#####')}" for name, kind in kinds.items())


def hbv_hyperparameters() -> str:
    """Return the hyper-parameters of a δHBV model."""
    from bmi_components.hbv.model import HBVHyperparameters

    return settings(HBVHyperparameters, "###")


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
        assimilation_configuration,
        ball_berry_configuration,
        benchmarks,
        canveg_configuration,
        canveg_outputs,
        canveg_parameters,
        canveg_quirks,
        configuration,
        evapotranspiration_configuration,
        flux_configuration,
        flux_daily_rules,
        flux_recipe,
        flux_sizes,
        hbv_parameters,
        hbv_routing_parameters,
        hbv_variants,
        hbv_hyperparameters,
        hbv_outputs,
        lorenz_configuration,
        not_stepped,
        public_names,
        pymt_parameters,
        recipe,
        run_section,
        shared_sections,
        simple_hydrology_parameters,
        streamflow_configuration,
        streamflow_outputs,
        variables,
    )
}


def fill(markdown: str) -> str:
    """Replace every marker by what it asks for; an unknown name is a KeyError and fails the build."""
    return MARKER.sub(lambda match: GENERATED[match["name"]](), markdown)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """MkDocs' event: a page was read."""
    return fill(markdown)
