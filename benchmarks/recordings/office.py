"""The office of a property manager: tools for a recipe with tools of its own. It runs in the sandbox with the standard library.

Every sample gets a world of its own from `make_world`; a function's first parameter `world` is that world, the others are the
tool's.
"""

from random import Random
from typing import Literal, TypedDict

FIRST = "Ada Bela Cora Dario Edith Farid Gus Hedda Imre Jonas Kaja Lorenz Mira Nils Olga Pia Quirin Runa Sami Tilda Uwe Vera"
LAST = (
    "Albrecht Bonnet Cerny Duarte Eriksen Fodor Grimaldi Hegedus Ilic Jensen Kaya Lowe Mazur Nemeth Oduya Peeters Roth"
)
PROBLEMS = [
    "cold radiator",
    "dripping tap",
    "blocked drain",
    "dead socket",
    "stuck lock",
    "broken window",
    "mice",
    "loud lift",
]
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday")


class Report(TypedDict):
    flat: str
    problem: str
    urgent: bool
    visit: str | None


class World:
    def __init__(self, seed: int) -> None:
        rng = Random(seed)
        flats = rng.sample([f"{floor}{door}" for floor in range(1, 10) for door in "ABCDEF"], 5)
        self.tenants = {
            flat: {
                "tenant": f"{rng.choice(FIRST.split())} {rng.choice(LAST.split())}",
                "phone": f"555-{rng.randint(1000, 9999)}",
            }
            for flat in flats
        }
        numbers = rng.sample(range(1000, 9999), 9)
        self.reports: dict[str, Report] = {
            f"R-{number}": {
                "flat": rng.choice(flats),
                "problem": rng.choice(PROBLEMS),
                "urgent": rng.random() < 0.3,
                "visit": rng.choice([None, None, f"{rng.choice(DAYS)} at {rng.randint(8, 17)}:00"]),
            }
            for number in numbers[:4]
        }
        self.free_numbers = numbers[4:]


def make_world(seed: int) -> World:
    return World(seed)


def describe_world(world: World) -> str:
    """For the writer of the user's requests only: what there is, and no answer."""
    return f"Flats: {', '.join(world.tenants)}. Numbers of open reports: {', '.join(world.reports)}."


def _find_report(world: World, report: str) -> Report:
    if report not in world.reports:
        raise LookupError(f"there is no open report {report}")
    return world.reports[report]


def find_tenant(world: World, flat: str) -> dict:
    """Look up who rents a flat, and the phone number.

    Args:
        flat: The flat, as 4B.
    """
    if flat not in world.tenants:
        raise LookupError(f"there is no flat {flat}")
    return {"flat": flat, **world.tenants[flat]}


def open_report(world: World, flat: str, problem: str, urgent: bool = False) -> dict:
    """Open a report about a problem in a flat.

    Args:
        flat: The flat, as 4B.
        problem: The problem in two to five words.
        urgent: Whether somebody must come today.
    """
    find_tenant(world, flat)
    report = f"R-{world.free_numbers.pop(0)}"
    world.reports[report] = {"flat": flat, "problem": problem, "urgent": urgent, "visit": None}
    return {"report": report, **world.reports[report]}


def show_report(world: World, report: str) -> dict:
    """Show an open report: flat, problem, whether it is urgent, and the visit that is booked.

    Args:
        report: The report's number, as R-1234.
    """
    return {"report": report, **_find_report(world, report)}


def book_visit(
    world: World, report: str, day: Literal["Monday", "Tuesday", "Wednesday", "Thursday", "Friday"], hour: int
) -> dict:
    """Book the repairer's visit for an open report.

    Args:
        report: The report's number, as R-1234.
        day: The day of the week.
        hour: The full hour from 8 to 17.
    """
    found = _find_report(world, report)
    if not 8 <= hour <= 17:
        raise ValueError(f"hour {hour}: visits are from 8 to 17")
    found["visit"] = f"{day} at {hour}:00"
    return {"report": report, "visit": found["visit"]}


def close_report(world: World, report: str) -> dict:
    """Close a report whose problem is solved.

    Args:
        report: The report's number, as R-1234.
    """
    _find_report(world, report)
    del world.reports[report]
    return {"closed": report, "open_reports": len(world.reports)}
