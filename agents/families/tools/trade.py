"""Simulated tools of a shop and a library: look up, order, renew. What they change is there for later calls."""

from random import Random
from typing import Any

from agents.families.tools.base import Arguments, Ran, Tool, ToolError, World, integer, neat, parameters, text, words
from agents.families.tools.world import GOODS, TITLES, TOWNS, later

DELIVERY = {"standard": ("standard delivery", "normal delivery"), "express": ("express delivery",)}
TAKES = {"standard": (4, 3.90), "express": (1, 9.90)}
"""Days, and euros."""
RENEWALS = {7: ["a week", "one week"], 14: ["two weeks", "a fortnight"], 28: ["four weeks"]}


def _of(world: World, section: str, name: str, kind: str) -> tuple[str, dict[str, Any]]:
    """What is sold or lent under a name, small and capital letters aside. Raises ToolError."""
    for known, thing in world[section].items():
        if known.casefold() == name.casefold():
            return known, thing
    raise ToolError(f"there is no {kind} named {name!r}")


def _product(world: World, arguments: Arguments) -> Ran:
    name, found = _of(world, "shop", arguments["product"], "product")
    return Ran({"product": name, **found}, world)


def _draw_product(world: World, rng: Random) -> dict[str, Any]:
    return {"product": rng.choice([*world["shop"]])}


def _fail_product(world: World, rng: Random) -> dict[str, Any]:
    return {"product": rng.choice([name for name in GOODS if name not in world["shop"]])}


def _order(world: World, arguments: Arguments) -> Ran:
    name, found = _of(world, "shop", arguments["product"], "product")
    quantity, left = arguments["quantity"], found["in_stock"]
    if quantity > left:
        raise ToolError(f"only {left} of {name} in stock" if left else f"{name} is sold out")
    days, fee = TAKES[arguments["delivery"]["method"]]
    shop = {**world["shop"], name: {**found, "in_stock": left - quantity}}
    told = {
        "product": name,
        "quantity": quantity,
        "total_eur": neat(found["price_eur"] * quantity + fee),
        "arrives": later(world["today"], days),
    }
    return Ran({"order": f"A-{world['number']}", **told}, {**world, "shop": shop, "number": world["number"] + 1})


def _draw_order(world: World, rng: Random) -> dict[str, Any]:
    there = [name for name, found in world["shop"].items() if found["in_stock"] > 1]
    name = rng.choice(there)
    most = min(6, world["shop"][name]["in_stock"])
    return {"product": name, "quantity": rng.randint(2, max(2, most)), "delivery": _delivery(rng)}


def _fail_order(world: World, rng: Random) -> dict[str, Any]:
    name = rng.choice([*world["shop"]])
    return {
        "product": name,
        "quantity": world["shop"][name]["in_stock"] + rng.randint(1, 4),
        "delivery": _delivery(rng),
    }


def _delivery(rng: Random) -> dict[str, str]:
    return {"method": rng.choice([*DELIVERY]), "town": rng.choice(TOWNS)}


def _book(world: World, arguments: Arguments) -> Ran:
    title, found = _of(world, "library", arguments["title"], "book")
    due = {"due": found["due"]} if found["due"] else {}
    return Ran({"title": title, "author": found["author"], "status": found["status"], **due}, world)


def _draw_book(world: World, rng: Random) -> dict[str, Any]:
    return {"title": rng.choice([*world["library"]])}


def _fail_book(world: World, rng: Random) -> dict[str, Any]:
    return {"title": rng.choice([title for title in TITLES if title not in world["library"]])}


def _renew(world: World, arguments: Arguments) -> Ran:
    title, found = _of(world, "library", arguments["title"], "book")
    if not found["mine"]:
        raise ToolError(f"{title!r} is not on loan to this user")
    if found["reserved"]:
        raise ToolError(f"{title!r} cannot be renewed: another reader has reserved it")
    due = later(found["due"], arguments.get("days", 14))
    return Ran({"title": title, "due": due}, {**world, "library": {**world["library"], title: {**found, "due": due}}})


def _draw_renewal(world: World, rng: Random) -> dict[str, Any]:
    mine = [title for title, found in world["library"].items() if found["mine"] and not found["reserved"]]
    asked = {"title": rng.choice(mine)}
    return {**asked, "days": rng.choice([*RENEWALS])} if rng.random() < 0.6 else asked


def _fail_renewal(world: World, rng: Random) -> dict[str, Any]:
    return {"title": rng.choice([t for t, found in world["library"].items() if found["reserved"] or not found["mine"]])}


TRADE = (
    Tool(
        name="find_product",
        description="Price and stock of a product of the shop.",
        need="to know what something costs in the shop and whether it is there",
        parameters=parameters({"product": text("the name of the product")}),
        run=_product,
        draw=_draw_product,
        fail=_fail_product,
        tells=("price_eur", "in_stock"),
        sections=("shop",),
        label="product",
    ),
    Tool(
        name="place_order",
        description="Order a product of the shop and have it delivered to a town.",
        need="something ordered from the shop",
        parameters=parameters(
            {
                "product": text("the name of the product"),
                "quantity": integer("how many", 1, 20),
                "delivery": parameters({"method": words(DELIVERY, "how fast"), "town": text("where it is delivered")}),
            }
        ),
        run=_order,
        acts=True,
        draw=_draw_order,
        fail=_fail_order,
        tells=("total_eur", "arrives"),
        sections=("shop",),
        asked={"quantity": ("how many", "quantity", "number")},
    ),
    Tool(
        name="find_book",
        description="Whether the library has a book, by whom it is, and when it is due back if it is on loan.",
        need="to know whether the library has a book and whether it can be borrowed",
        parameters=parameters({"title": text("the title of the book")}),
        run=_book,
        draw=_draw_book,
        fail=_fail_book,
        tells=("status", "due"),
        sections=("library",),
        label="title",
    ),
    Tool(
        name="renew_loan",
        description="Keep a borrowed book of the library for longer; 14 days if nothing else is said.",
        need="the loan of a library book made longer",
        parameters=parameters(
            {"title": text("the title of the book")},
            {
                "days": {
                    "type": "integer",
                    "enum": [*RENEWALS],
                    "description": "for how many days more",
                    "x-evidence": {str(days): some for days, some in RENEWALS.items()},
                }
            },
        ),
        run=_renew,
        acts=True,
        draw=_draw_renewal,
        fail=_fail_renewal,
        tells=("due",),
        sections=("library",),
    ),
)
