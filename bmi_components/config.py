"""Configuration files: YAML in, validated settings out, and the reference page that follows from the schema."""

from __future__ import annotations

import datetime
import difflib
import functools
import re
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin

import msgspec
import yaml
from msgspec import Meta

from bmi_components.errors import ConfigurationError

__all__ = ["Settings", "convert", "describe", "load", "parse_time", "read_yaml"]

SettingsT = TypeVar("SettingsT", bound=msgspec.Struct)


class Settings(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """What every component's configuration may say; a component's own settings derive from it.

    Declare each key as ``Annotated[type, Meta(description=...)]``: the description is what the reference page and
    the errors say. A ``Path`` is resolved against the folder of the configuration file.
    """

    device: Annotated[
        str, Meta(description='Where the model runs: "cpu", "cuda", "cuda:1", ... as the framework names it.')
    ] = "cpu"
    dtype: Annotated[
        Literal["float32", "float64"], Meta(description="Precision of the arithmetic inside the model.")
    ] = "float32"
    threads: Annotated[
        int,
        Meta(
            ge=1,
            description="CPU threads of the component; of JAX, those that the first component in a process asks for. "
            "Frameworks run one process per core.",
        ),
    ] = 1
    start_time: Annotated[
        datetime.datetime | None,
        Meta(description="Date of time 0 (UTC); needed by components whose physics knows the calendar."),
    ] = None
    end_time: Annotated[
        datetime.datetime | None,
        Meta(description="Date at which the run ends (UTC), with start_time; without it the run has no end."),
    ] = None
    initial_state: Annotated[
        Path | None, Meta(description="State saved by save_state to start from; without it a cold start.")
    ] = None
    partial_step: Annotated[
        Literal["hold", "estimate"],
        Meta(
            description='What outputs say amid a model step: "hold" repeats the latest completed step, "estimate" '
            "tries the step with the forcing given so far."
        ),
    ] = "hold"

    run: Annotated[
        dict[str, Any] | None,
        Meta(
            description="What `bmi-components run` does with the component: forcing, period, output. Components and "
            "coupling frameworks pass it over."
        ),
    ] = None

    @property
    def duration(self) -> float | None:
        """Seconds from ``start_time`` to ``end_time``; None if the run has no end."""
        if self.end_time is None or self.start_time is None:
            return None
        return (self.end_time - self.start_time).total_seconds()

    def __post_init__(self) -> None:
        if self.end_time is not None:
            if self.start_time is None:
                raise ValueError("end_time needs start_time beside it")
            if self.end_time <= self.start_time:
                raise ValueError(f"end_time {self.end_time} must be later than start_time {self.start_time}")


def load(path: str | Path, settings_type: type[SettingsT]) -> SettingsT:
    """Read a YAML configuration file into ``settings_type``.

    Raises
    ------
    ConfigurationError
        Naming the file, the key, and what would be right.
    """
    return convert(read_yaml(path), settings_type, Path(path))


def convert(values: Mapping[str, Any], settings_type: type[SettingsT], source: Path) -> SettingsT:
    """Validate values read from ``source``; relative paths among them are relative to its folder.

    Raises
    ------
    ConfigurationError
        Naming the file, the key, and what would be right.
    """
    prepared = _prepare(values, settings_type, source, "")
    folder = source.parent

    def decode(wanted: type, value: Any) -> Any:
        if wanted is Path and isinstance(value, str):
            return folder / Path(value).expanduser()
        raise ValueError(f"Expected `{wanted.__name__.lower()}`, got `{type(value).__name__}`")

    try:
        return msgspec.convert(prepared, settings_type, dec_hook=decode)
    except msgspec.ValidationError as error:
        raise ConfigurationError(
            f"{source}: {_plainly(str(error), prepared, _schema(settings_type))}"
        ) from None


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read the mapping in a YAML file by the YAML 1.2 core schema.

    So ``1e-3`` is a number, ``no`` and ``12:30`` are text, dates stay text, and a key given twice is an error.

    Raises
    ------
    ConfigurationError
        If the file cannot be read, is not YAML, or does not hold a mapping.
    """
    source = Path(path)
    try:
        text = source.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigurationError(f"{source}: there is no such configuration file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{source}: the configuration file cannot be read ({error})") from None
    try:
        root = yaml.compose(text, _YamlLoader)
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error)
        place = f" line {where.line + 1}" if where is not None else ""
        raise ConfigurationError(f"{source}{place}: not valid YAML: {problem}") from None
    if root is None:
        return {}
    if not isinstance(root, yaml.MappingNode):
        raise ConfigurationError(f"{source}: the file must hold keys and values (key: value)")
    values: dict[str, Any] = _build(root, source)
    return values


_COMPACT_FORMS = {8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M"}


def parse_time(text: str) -> datetime.datetime:
    """Read a date in any of the forms that hydrologists' files use: ISO 8601, ``2020/01/01 00``, ``2020010112``.

    A time zone is converted to UTC; without one the time is UTC.

    Raises
    ------
    ValueError
        If it is none of them.
    """
    cleaned = text.strip().replace("/", "-")
    forms = (
        [_COMPACT_FORMS.get(len(cleaned), "")]
        if cleaned.isdigit()
        else ["", "%Y-%m-%d %H", "%Y-%m-%d_%H:%M:%S"]
    )
    moment = None
    for form in forms:
        try:
            read = datetime.datetime
            moment = read.strptime(cleaned, form) if form else read.fromisoformat(cleaned)
            break
        except ValueError:
            continue
    if moment is None:
        raise ValueError(f"{text!r} is not a date; write it as 2020-01-31 or 2020-01-31 12:00:00")
    if moment.tzinfo is not None:
        moment = moment.astimezone(datetime.UTC).replace(tzinfo=None)
    return moment


def describe(settings_type: type[msgspec.Struct]) -> str:
    """Return a Markdown table of the keys of a settings class, generated from its JSON schema."""
    document = msgspec.json.schema(settings_type, schema_hook=_path_schema)
    definitions = document.get("$defs", {})
    top = definitions.get(settings_type.__name__, document)
    required = set(top.get("required", ()))
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for key, entry in top.get("properties", {}).items():
        default = "**required**" if key in required else f"`{_yaml_text(entry.get('default'))}`"
        meaning = str(entry.get("description", "")).replace("|", "\\|")
        rows.append(f"| `{key}` | {_type_text(entry)} | {default} | {meaning} |")
    return "\n".join(rows) + "\n"


def _prepare(
    values: Mapping[str, Any], struct: type[msgspec.Struct], source: Path, place: str
) -> dict[str, Any]:
    """Refuse unknown and missing keys, and read dates, at every level; ``place`` is the key that holds them."""
    schema = _schema(struct)
    for key in values:
        if key not in schema:
            raise ConfigurationError(f"{source}: unknown key {place + key!r}; {_nearest(key, schema)}")
    prepared = dict(values)
    for key, field in schema.items():
        if key not in values:
            if field.required:
                meaning = f" ({field.description})" if field.description else ""
                raise ConfigurationError(f"{source}: the key {place + key!r} is missing{meaning}")
            continue
        value = values[key]
        if field.is_time and isinstance(value, (str, int)) and not isinstance(value, bool):
            try:
                prepared[key] = parse_time(str(value))
            except ValueError as error:
                raise ConfigurationError(f"{source}: key {place + key!r}: {error}") from None
        elif field.struct is not None and isinstance(value, Mapping):
            prepared[key] = _prepare(value, field.struct, source, f"{place}{key}.")
        elif field.struct is not None and isinstance(value, list):
            prepared[key] = [
                _prepare(item, field.struct, source, f"{place}{key}[{index}].")
                if isinstance(item, Mapping)
                else item
                for index, item in enumerate(value)
            ]
    return prepared


class _Field(msgspec.Struct, frozen=True):
    """What the conversion needs to know of one key."""

    required: bool
    is_time: bool
    description: str
    choices: tuple[Any, ...]
    struct: type[msgspec.Struct] | None


@functools.lru_cache(maxsize=64)
def _schema(settings_type: type[msgspec.Struct]) -> dict[str, _Field]:
    """Return the keys of a settings class, in their order."""
    fields = {}
    for field in msgspec.structs.fields(settings_type):
        parts = _parts(field.type)
        meta = next((part for part in parts if isinstance(part, Meta)), None)
        fields[field.encode_name] = _Field(
            required=field.required,
            is_time=datetime.datetime in parts,
            description=(meta.description or "") if meta is not None else "",
            choices=tuple(
                choice for part in parts if get_origin(part) is Literal for choice in get_args(part)
            ),
            struct=_inner_struct(parts),
        )
    return fields


def _inner_struct(parts: list[Any]) -> type[msgspec.Struct] | None:
    """Return the one settings class that a key (or each item of its list) holds, if that is what it holds."""
    members = [
        member
        for part in parts
        for member in (
            _parts(get_args(part)[0]) if get_origin(part) in (list, tuple) and get_args(part) else [part]
        )
    ]
    structs = [
        member for member in members if isinstance(member, type) and issubclass(member, msgspec.Struct)
    ]
    return structs[0] if len(structs) == 1 and structs[0].__struct_config__.tag is None else None


def _parts(annotation: Any) -> list[Any]:
    """Return the members of a (possibly annotated, possibly united) type."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *extras = get_args(annotation)
        return [*_parts(inner), *extras]
    if origin is Union or origin is types.UnionType:
        return [part for member in get_args(annotation) for part in _parts(member)]
    return [annotation]


def _nearest(key: str, known: Mapping[str, Any]) -> str:
    """Suggest the key that was meant, or list them all."""
    close = difflib.get_close_matches(key.lower(), known, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"known keys are {', '.join(known)}"


def _plainly(message: str, values: Mapping[str, Any], schema: Mapping[str, _Field]) -> str:
    """Say a validation error of msgspec in the user's words: key, value, and what would be right."""
    problem, _, place = message.partition(" - at `$")
    path = place.rstrip("`").lstrip(".")
    if not path:
        return problem
    key = re.split(r"[.\[]", path, maxsplit=1)[0]
    field = schema.get(key)
    given = f" (given: {values[key]!r})" if path == key and key in values else ""
    if field is not None and field.choices and path == key:
        return f"key {path!r}: it must be one of {', '.join(map(str, field.choices))}{given}"
    return f"key {path!r}: {problem[:1].lower()}{problem[1:]}{given}".replace("`", "")


class _YamlLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Composes nodes only; ``_build`` gives plain scalars their YAML 1.2 meaning, so nothing is resolved twice."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}


_NULL = frozenset(("", "~", "null", "Null", "NULL"))
_TRUE = frozenset(("true", "True", "TRUE"))
_FALSE = frozenset(("false", "False", "FALSE"))
_INTEGER = re.compile(r"[-+]?[0-9]+\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_INFINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)\Z")
_NOT_A_NUMBER = frozenset((".nan", ".NaN", ".NAN"))
_PLAIN_TAGS = frozenset(
    f"tag:yaml.org,2002:{kind}"
    for kind in ("str", "int", "float", "bool", "null", "timestamp", "value", "merge", "map", "seq")
)


def _build(node: Any, source: Path) -> Any:
    """Turn a composed node into dicts, lists and scalars."""
    if node.tag not in _PLAIN_TAGS:
        raise _refusal(node, source, f"the tag {node.tag!r} is not supported")
    if isinstance(node, yaml.ScalarNode):
        return node.value if node.style else _scalar(node.value)  # plain is None, or "" from libyaml
    if isinstance(node, yaml.SequenceNode):
        return [_build(item, source) for item in node.value]
    mapping: dict[str, Any] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise _refusal(key_node, source, "a key must be plain text")
        key = key_node.value
        if key in mapping:
            raise _refusal(key_node, source, f"the key {key!r} is given twice")
        mapping[key] = _build(value_node, source)
    return mapping


def _refusal(node: Any, source: Path, problem: str) -> ConfigurationError:
    return ConfigurationError(f"{source} line {node.start_mark.line + 1}: {problem}")


def _scalar(text: str) -> Any:
    """Give a plain scalar its meaning in the YAML 1.2 core schema."""
    if text in _NULL:
        return None
    if text[0] in "-+.0123456789":
        if _INTEGER.match(text):
            return int(text)
        if _FLOAT.match(text):
            return float(text)
        if text.startswith("0x"):
            try:
                return int(text, 16)
            except ValueError:
                return text
        if text.startswith("0o"):
            try:
                return int(text, 8)
            except ValueError:
                return text
        if _INFINITE.match(text):
            return float(text.replace(".", ""))
        return float("nan") if text in _NOT_A_NUMBER else text
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    return text


def _path_schema(kind: type) -> dict[str, Any]:
    if kind is Path:
        return {"type": "string", "format": "path"}
    raise NotImplementedError(f"no schema for {kind}")


def _type_text(entry: Mapping[str, Any]) -> str:
    """Say a JSON-schema entry in words."""
    if "anyOf" in entry:
        return " or ".join(_type_text(member) for member in entry["anyOf"] if member.get("type") != "null")
    if "enum" in entry:
        return " or ".join(f"`{choice}`" for choice in entry["enum"] if choice is not None)
    if "$ref" in entry:
        return str(entry["$ref"]).rsplit("/", 1)[-1]
    kind = entry.get("format") or entry.get("type", "any")
    if kind == "array":
        return f"list of {_type_text(entry['items'])}" if isinstance(entry.get("items"), dict) else "list"
    if kind == "object":
        inner = entry.get("additionalProperties")
        return f"mapping of names to {_type_text(inner)}" if isinstance(inner, dict) else "mapping"
    words = {"date-time": "date", "string": "text", "boolean": "true or false"}
    text = words.get(str(kind), str(kind))
    bounds = [
        f"{sign} {entry[name]:g}"
        for name, sign in (
            ("minimum", "≥"),
            ("exclusiveMinimum", ">"),
            ("maximum", "≤"),
            ("exclusiveMaximum", "<"),
        )
        if name in entry
    ]
    return f"{text} {', '.join(bounds)}" if bounds else text


def _yaml_text(value: Any) -> str:
    """Write a default as one would in the file."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode()
