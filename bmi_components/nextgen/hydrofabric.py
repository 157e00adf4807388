"""The hydrofabric: catchments with their area, outlet nexus and place, from GeoJSON or a GeoPackage.

Read with the standard library alone. A GeoPackage is an SQLite file: the layer ``divides`` holds the catchments
(``divide_id``, ``toid``, ``areasqkm``, ... and a geometry in EPSG:5070), ``divide-attributes`` (2.2; in 2.1
``model-attributes``) their attributes.
"""

from __future__ import annotations

import json
import math
import sqlite3
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bmi_components.errors import ConfigurationError, UnknownNameError

__all__ = ["Divide", "is_geopackage", "read_divides", "read_table"]

Ring = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Divide:
    """One catchment of the hydrofabric.

    Attributes
    ----------
    id
        ``cat-27``.
    area_km2, nexus, latitude, longitude
        None where the hydrofabric does not say.
    properties
        All its columns that are numbers.
    """

    id: str
    area_km2: float | None
    nexus: str | None
    latitude: float | None
    longitude: float | None
    properties: Mapping[str, float]


def read_divides(path: Path, ids: Sequence[str] | None = None) -> dict[str, Divide]:
    """Read the catchments of a hydrofabric, all or those named, in the order named.

    Raises
    ------
    ConfigurationError
        If the file is absent, damaged, or holds no catchments.
    UnknownNameError
        If a catchment is not in it.
    """
    if not path.is_file():
        raise ConfigurationError(f"{path}: there is no such hydrofabric")
    divides = _of_geopackage(path, ids) if is_geopackage(path) else _of_geojson(path)
    if not divides and not ids:
        raise ConfigurationError(f"{path}: there is no catchment in it")
    if ids is None:
        return divides
    for name in ids:
        if name not in divides:
            others = ", ".join(list(divides)[:8])
            raise UnknownNameError(
                f"{path}: there is no catchment {name!r}" + (f"; it has {others}, ..." if others else "")
            )
    return {name: divides[name] for name in ids}


def is_geopackage(path: Path) -> bool:
    """Tell an SQLite file by its first bytes."""
    with open(path, "rb") as file:
        return file.read(16) == b"SQLite format 3\0"


def read_table(path: Path, tables: Sequence[str]) -> tuple[str, list[str], list[tuple[Any, ...]]]:
    """Read the first of some tables that a GeoPackage has: its name, columns and rows.

    Raises
    ------
    ConfigurationError
        If it has none of them, or is damaged.
    """
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as base:
            present = {row[0] for row in base.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            name = next((table for table in tables if table in present), None)
            if name is None:
                raise ConfigurationError(
                    f"{path}: there is no layer {' or '.join(map(repr, tables))}; it has "
                    f"{', '.join(sorted(t for t in present if not t.startswith(('gpkg_', 'rtree_', 'sqlite_'))))}"
                )
            cursor = base.execute(f'SELECT * FROM "{name}"')
            return name, [column[0] for column in cursor.description], cursor.fetchall()
    except sqlite3.Error as error:
        raise ConfigurationError(f"{path}: the GeoPackage cannot be read ({error})") from None


def _numbers(properties: Mapping[str, Any]) -> dict[str, float]:
    return {
        key: float(value)
        for key, value in properties.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def _divide(name: str, properties: Mapping[str, Any], place: tuple[float, float] | None) -> Divide:
    numbers = _numbers(properties)
    nexus = properties.get("toid")
    return Divide(
        id=name,
        area_km2=numbers.get("areasqkm", numbers.get("area_sqkm")),
        nexus=str(nexus) if nexus is not None else None,
        longitude=place[0] if place else None,
        latitude=place[1] if place else None,
        properties=numbers,
    )


# --- GeoJSON ---------------------------------------------------------------------------------------------------------


def _of_geojson(path: Path) -> dict[str, Divide]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path}: neither a GeoPackage nor valid GeoJSON ({error})") from None
    features = content.get("features") if isinstance(content, dict) else None
    if not isinstance(features, list):
        raise ConfigurationError(f"{path}: this is no GeoJSON FeatureCollection")
    divides: dict[str, Divide] = {}
    for feature in features:
        properties = feature.get("properties") or {}
        name = feature.get("id", properties.get("divide_id", properties.get("id")))
        if name is None:
            raise ConfigurationError(f"{path}: a feature has no id; ngen needs one such as cat-27")
        if str(name) in divides:
            raise ConfigurationError(f"{path}: the catchment {name!r} is there twice; ids must differ")
        place = _centroid(list(_rings(feature.get("geometry") or {})))
        divides[str(name)] = _divide(str(name), properties, place)
    return divides


def _rings(geometry: Mapping[str, Any]) -> Iterator[Ring]:
    """Give the rings of a polygon or several: outer ones, and holes, which run the other way round."""
    kind, coordinates = geometry.get("type"), geometry.get("coordinates", [])
    polygons = coordinates if kind == "MultiPolygon" else [coordinates] if kind == "Polygon" else []
    for polygon in polygons:
        for index, ring in enumerate(polygon):
            yield _oriented([(float(p[0]), float(p[1])) for p in ring], hole=index > 0)


def _oriented(ring: Ring, *, hole: bool) -> Ring:
    """Turn a ring so that outer ones run one way and holes the other, as not every writer does."""
    return ring if (_signed_area(ring) < 0.0) == hole else ring[::-1]


def _signed_area(ring: Ring) -> float:
    return sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(ring, [*ring[1:], ring[0]], strict=True)) / 2.0


def _centroid(rings: Sequence[Ring]) -> tuple[float, float] | None:
    """Return the area's centre of mass (shoelace formula), x and y."""
    if not rings:
        return None
    x0, y0 = rings[0][0]  # near by, so that large coordinates lose no digits
    area = x = y = 0.0
    for ring in rings:
        near = [(px - x0, py - y0) for px, py in ring]
        for (ax, ay), (bx, by) in zip(near, [*near[1:], near[0]], strict=True):
            cross = ax * by - bx * ay
            area += cross / 2.0
            x += (ax + bx) * cross / 6.0
            y += (ay + by) * cross / 6.0
    return (x0 + x / area, y0 + y / area) if area else (x0, y0)


# --- GeoPackage ------------------------------------------------------------------------------------------------------


def _of_geopackage(path: Path, ids: Sequence[str] | None) -> dict[str, Divide]:
    name, columns, rows = read_table(path, ("divides",))
    key = "divide_id" if "divide_id" in columns else "id"
    if key not in columns:
        raise ConfigurationError(f"{path}: the layer {name!r} has neither a column divide_id nor id")
    geometry = next((c for c in ("geom", "geometry", "shape") if c in columns), None)
    wanted = None if ids is None else set(ids)
    divides = {}
    for row in rows:
        properties = dict(zip(columns, row, strict=True))
        identifier = str(properties[key])
        if wanted is not None and identifier not in wanted:
            continue
        blob = properties.pop(geometry, None) if geometry else None
        place = _place(blob, f"{path}: catchment {identifier}") if isinstance(blob, bytes) else None
        divides[identifier] = _divide(identifier, properties, place)
    return divides


def _place(blob: bytes, where: str) -> tuple[float, float] | None:
    """Return longitude and latitude of a GeoPackage geometry's centre, where its coordinates are known."""
    if blob[:2] != b"GP" or len(blob) < 8:
        raise ConfigurationError(f"{where}: its geometry is damaged")
    flags = blob[3]
    (system,) = struct.unpack_from("<i" if flags & 1 else ">i", blob, 4)
    envelope = {0: 0, 1: 32, 2: 48, 3: 48, 4: 64}.get((flags >> 1) & 7)
    if envelope is None or flags & 16:  # empty
        return None
    try:
        rings, _ = _well_known_binary(blob, 8 + envelope)
    except (struct.error, IndexError):
        raise ConfigurationError(f"{where}: its geometry is damaged") from None
    centre = _centroid(rings)
    if centre is None or system in (4326, 4269):
        return centre
    return _from_conus_albers(*centre) if system == 5070 else None


def _well_known_binary(data: bytes, at: int) -> tuple[list[Ring], int]:
    """Read the rings of a (multi)polygon, and where it ends."""
    order = "<" if data[at] == 1 else ">"
    (kind,) = struct.unpack_from(f"{order}I", data, at + 1)
    at += 5
    dimensions = 2 + (1 if kind // 1000 in (1, 2) else 2 if kind // 1000 == 3 else 0)
    (count,) = struct.unpack_from(f"{order}I", data, at)
    at += 4
    rings: list[Ring] = []
    if kind % 1000 == 6:
        for _ in range(count):
            inner, at = _well_known_binary(data, at)
            rings += inner
        return rings, at
    if kind % 1000 != 3:
        return [], at
    for index in range(count):
        (points,) = struct.unpack_from(f"{order}I", data, at)
        values = struct.unpack_from(f"{order}{points * dimensions}d", data, at + 4)
        at += 4 + 8 * points * dimensions
        ring = list(zip(values[::dimensions], values[1::dimensions], strict=True))
        rings.append(_oriented(ring, hole=index > 0))
    return rings, at


def _from_conus_albers(x: float, y: float) -> tuple[float, float]:
    """Return longitude and latitude of a point in EPSG:5070 (NAD83 / Conus Albers), degrees.

    Snyder, Map Projections: A Working Manual (USGS Professional Paper 1395), equations 14-8 to 14-11 and 3-16.
    """
    a, flattening = 6_378_137.0, 1.0 / 298.257222101
    e2 = flattening * (2.0 - flattening)
    e = math.sqrt(e2)

    def q_of(phi: float) -> float:
        s = math.sin(phi)
        return (1.0 - e2) * (s / (1.0 - e2 * s * s) - math.log((1.0 - e * s) / (1.0 + e * s)) / (2.0 * e))

    def m_of(phi: float) -> float:
        return math.cos(phi) / math.sqrt(1.0 - e2 * math.sin(phi) ** 2)

    origin, south, north = (math.radians(v) for v in (23.0, 29.5, 45.5))
    m1, m2, q0, q1, q2 = m_of(south), m_of(north), q_of(origin), q_of(south), q_of(north)
    n = (m1 * m1 - m2 * m2) / (q2 - q1)
    c = m1 * m1 + n * q1
    rho0 = a * math.sqrt(c - n * q0) / n
    rho = math.hypot(x, rho0 - y)
    q = (c - (rho * n / a) ** 2) / n
    phi = math.asin(q / 2.0)
    for _ in range(8):
        s = math.sin(phi)
        phi += ((1.0 - e2 * s * s) ** 2 / (2.0 * math.cos(phi))) * (
            q / (1.0 - e2) - s / (1.0 - e2 * s * s) + math.log((1.0 - e * s) / (1.0 + e * s)) / (2.0 * e)
        )
    return -96.0 + math.degrees(math.atan2(x, rho0 - y) / n), math.degrees(phi)
