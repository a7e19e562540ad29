"""The map of the simulated tools: real towns of thirteen European regions, with coordinates, distances and mean temperatures.

A world uses the towns of one region, which are connected by land, so a road is about as much longer than the straight line
everywhere. Coordinates are those of the towns' centers, in degrees, to two decimals (1 km). Temperatures are climate means,
rounded to degrees. Knows no tool.
"""

from collections.abc import Mapping, Sequence
from math import asin, cos, radians, sin, sqrt
from typing import NamedTuple

EARTH_RADIUS_KM = 6371.0
"""The mean radius."""
DETOUR = 1.2
"""How much longer a road is than the great circle, on average; of 24 pairs of these towns none differs by more than 15 %."""

Coordinates = Sequence[float]
"""Latitude and longitude in degrees."""


class Region(NamedTuple):
    towns: Mapping[str, tuple[float, float]]
    means_c: tuple[int, ...]
    """Mean temperature by month, from January, in °C."""


REGIONS: Mapping[str, Region] = {
    "Low Countries": Region(
        {"Utrecht": (52.09, 5.12), "Amersfoort": (52.16, 5.39), "Leiden": (52.16, 4.50), "Delft": (52.01, 4.36),
         "Zwolle": (52.52, 6.08), "Ghent": (51.05, 3.73), "Leuven": (50.88, 4.70), "Antwerp": (51.22, 4.40),
         "Breda": (51.59, 4.78),
         "Nijmegen": (51.84, 5.85), "Bruges": (51.21, 3.23), "Groningen": (53.22, 6.57)},
        (4, 4, 7, 10, 14, 17, 19, 18, 15, 11, 7, 4),
    ),
    "Po Valley": Region(
        {"Verona": (45.44, 10.99), "Padua": (45.41, 11.88), "Vicenza": (45.55, 11.54), "Mantua": (45.16, 10.79),
         "Bologna": (44.49, 11.34), "Ferrara": (44.84, 11.62), "Modena": (44.65, 10.93), "Treviso": (45.67, 12.24),
         "Parma": (44.80, 10.33), "Udine": (46.06, 13.24)},
        (3, 5, 9, 13, 18, 22, 25, 24, 19, 14, 8, 4),
    ),
    "Southern Germany": Region(
        {"Ulm": (48.40, 9.99), "Augsburg": (48.37, 10.90), "Regensburg": (49.01, 12.10), "Bamberg": (49.90, 10.90),
         "Erlangen": (49.59, 11.00), "Ingolstadt": (48.77, 11.43), "Landshut": (48.54, 12.15), "Bayreuth": (49.95, 11.58),
         "Heilbronn": (49.14, 9.22), "Stuttgart": (48.78, 9.18), "Nuremberg": (49.45, 11.08)},
        (0, 1, 5, 9, 14, 17, 19, 19, 14, 9, 4, 1),
    ),
    "Danube": Region(
        {"Linz": (48.31, 14.29), "Salzburg": (47.81, 13.05), "Wels": (48.16, 14.02), "Steyr": (48.04, 14.42),
         "Vienna": (48.21, 16.37),
         "Melk": (48.23, 15.33), "Krems": (48.41, 15.61), "Passau": (48.57, 13.46), "Amstetten": (48.12, 14.87),
         "Tulln": (48.33, 16.05)},
        (0, 2, 6, 11, 15, 19, 21, 20, 15, 10, 5, 1),
    ),
    "Southern Sweden": Region(
        {"Lund": (55.70, 13.19), "Malmo": (55.61, 13.00), "Helsingborg": (56.05, 12.69), "Kristianstad": (56.03, 14.16),
         "Halmstad": (56.67, 12.86), "Karlskrona": (56.16, 15.59), "Ystad": (55.43, 13.82), "Landskrona": (55.87, 12.83),
         "Kalmar": (56.66, 16.36), "Trelleborg": (55.38, 13.16)},
        (1, 1, 3, 7, 12, 15, 18, 17, 14, 9, 5, 2),
    ),
    "Southern Finland": Region(
        {"Turku": (60.45, 22.27), "Tampere": (61.50, 23.76), "Lahti": (60.98, 25.66), "Kouvola": (60.87, 26.70),
         "Salo": (60.39, 23.13), "Helsinki": (60.17, 24.94), "Pori": (61.49, 21.80), "Kotka": (60.47, 26.95),
         "Hanko": (59.82, 22.97)},
        (-5, -5, -2, 4, 10, 15, 18, 16, 11, 6, 1, -3),
    ),
    "Poland": Region(
        {"Lublin": (51.25, 22.57), "Krakow": (50.06, 19.94), "Warsaw": (52.23, 21.01), "Radom": (51.40, 21.15),
         "Kielce": (50.87, 20.63), "Poznan": (52.41, 16.93), "Torun": (53.01, 18.60), "Bydgoszcz": (53.12, 18.01),
         "Opole": (50.67, 17.93), "Wroclaw": (51.11, 17.03), "Gniezno": (52.53, 17.60), "Tarnow": (50.01, 20.99)},
        (-1, 0, 4, 9, 14, 17, 19, 19, 14, 9, 4, 0),
    ),
    "Czechia": Region(
        {"Brno": (49.20, 16.61), "Olomouc": (49.59, 17.25), "Prague": (50.08, 14.44), "Pardubice": (50.03, 15.78),
         "Tabor": (49.41, 14.66), "Pilsen": (49.75, 13.38), "Kolin": (50.03, 15.20), "Jihlava": (49.40, 15.59),
         "Ostrava": (49.84, 18.28),
         "Prostejov": (49.47, 17.11)},
        (-1, 0, 4, 9, 14, 17, 19, 19, 14, 9, 4, 0),
    ),
    "Hungary": Region(
        {"Debrecen": (47.53, 21.64), "Pecs": (46.07, 18.23), "Szeged": (46.25, 20.15), "Eger": (47.90, 20.38),
         "Miskolc": (48.10, 20.78), "Sopron": (47.69, 16.59), "Budapest": (47.50, 19.04), "Szolnok": (47.18, 20.19),
         "Kaposvar": (46.36, 17.80), "Szombathely": (47.23, 16.62)},
        (0, 2, 7, 12, 17, 20, 22, 22, 17, 12, 6, 1),
    ),
    "Western France": Region(
        {"Nantes": (47.22, -1.55), "Rennes": (48.12, -1.68), "Angers": (47.48, -0.56), "Vannes": (47.66, -2.76),
         "Laval": (48.07, -0.77), "Tours": (47.39, 0.69), "Saumur": (47.26, -0.08), "Poitiers": (46.58, 0.34),
         "Niort": (46.32, -0.46),
         "Cholet": (47.06, -0.88)},
        (6, 6, 9, 11, 15, 18, 20, 20, 17, 14, 9, 6),
    ),
    "Catalonia": Region(
        {"Girona": (41.98, 2.82), "Barcelona": (41.39, 2.17), "Lleida": (41.62, 0.62), "Tarragona": (41.12, 1.25),
         "Reus": (41.16, 1.11), "Figueres": (42.27, 2.96), "Manresa": (41.73, 1.83), "Terrassa": (41.56, 2.01),
         "Granollers": (41.61, 2.29)},
        (9, 10, 12, 14, 18, 22, 25, 25, 21, 17, 13, 10),
    ),
    "Portugal": Region(
        {"Coimbra": (40.21, -8.42), "Aveiro": (40.64, -8.65), "Porto": (41.15, -8.61), "Braga": (41.55, -8.43),
         "Lisbon": (38.72, -9.14),
         "Leiria": (39.74, -8.81), "Santarem": (39.24, -8.69), "Tomar": (39.60, -8.41), "Evora": (38.57, -7.91),
         "Guimaraes": (41.44, -8.30)},
        (10, 11, 13, 15, 17, 21, 22, 23, 21, 17, 13, 11),
    ),
    "Jutland": Region(
        {"Aarhus": (56.16, 10.21), "Horsens": (55.86, 9.85), "Kolding": (55.49, 9.47), "Vejle": (55.71, 9.54),
         "Esbjerg": (55.47, 8.45),
         "Randers": (56.46, 10.04), "Viborg": (56.45, 9.40), "Herning": (56.14, 8.97), "Silkeborg": (56.17, 9.55),
         "Aalborg": (57.05, 9.92)},
        (1, 1, 3, 7, 11, 15, 17, 17, 14, 9, 6, 3),
    ),
}  # fmt: skip
TOWNS = [town for region in REGIONS.values() for town in region.towns]


def great_circle_km(start: Coordinates, end: Coordinates) -> float:
    """The distance on a sphere, by the haversine formula."""
    (lat, lon), (other_lat, other_lon) = (map(radians, place) for place in (start, end))
    half = sin((other_lat - lat) / 2) ** 2 + cos(lat) * cos(other_lat) * sin((other_lon - lon) / 2) ** 2
    return 2 * EARTH_RADIUS_KM * asin(sqrt(half))


def road_km(start: Coordinates, end: Coordinates) -> int:
    """An estimate of the distance by road or rail, in whole kilometers."""
    return round(great_circle_km(start, end) * DETOUR)
