"""Simulated tools of a shop and a library: look up, order, renew. Later calls see what they change."""

import re
from random import Random
from typing import Any

from plugins.tools.simulation.scenario_domains import CATALOGUE
from plugins.tools.simulation.simulated_tool import (
    SimulatedTool,
    ToolArguments,
    ToolError,
    ToolOutcome,
    WorldState,
    integer_schema,
    object_schema,
    round_amount,
    text_schema,
    word_enum_schema,
)
from plugins.tools.simulation.simulated_world import TITLES, add_days, find_domain
from plugins.tools.simulation.town_map import REGIONS

ASKS_PRICE = re.compile(
    r"\b(?:costs?|costing|prices?|priced|pricing|how much|expensive|cheap|what is|what's|euros?)\b", re.IGNORECASE
)
ASKS_STOCK = re.compile(
    r"\b(?:stock|in stock|availab\w+|sold out|how many|enough|how many are left|(?:any|some|one|is|are|it|them) left)\b"
    r"|\b(?:you|they|shop|store)(?: \w+)? (?:have|has|got|sells?|carry|carries|keeps?)\b"
    r"|\b(?:sells?|got|has|have) (?:any|some|enough|them|it)\b(?! to\b)"
    r"|\b(?:is|are) (?:there|(?:it|one|any|they|some|two|both) there)\b|\bcan (?:i|we)(?: still)? (?:get|buy)\b",
    re.IGNORECASE,
)
"""A word alone does not tell: `I have to buy one`, `I want to get my son one`, `the boys lost them`, `the shop over there`."""
DELIVERY = {"standard": ("standard delivery", "normal delivery"), "express": ("express delivery",)}
DELIVERY_TERMS = {"standard": (4, 3.90), "express": (1, 9.90)}
"""Days, and euros."""
RENEWALS = {
    7: ["a week", "one week", "another week", "one more week"],
    14: ["two weeks", "a fortnight"],
    28: ["four weeks"],
}


def _find_item(world: WorldState, section: str, name: str, kind: str) -> tuple[str, dict[str, Any]]:
    """The item with a name, and its data; case is ignored. Raises ToolError."""
    for known, thing in world[section].items():
        if known.casefold() == name.casefold():
            return known, thing
    raise ToolError(f"there is no {kind} named {name!r}")


def _run_find_product(world: WorldState, arguments: ToolArguments) -> ToolOutcome:
    name, item = _find_item(world, "shop", arguments["product"], "product")
    return ToolOutcome({"product": name, **item}, world)


def _draw_product(world: WorldState, rng: Random) -> dict[str, Any]:
    return {"product": rng.choice([*world["shop"]])}


def _fail_product(world: WorldState, rng: Random) -> dict[str, Any]:
    return {
        "product": rng.choice([name for name in find_domain(world).goods or CATALOGUE if name not in world["shop"]])
    }


def _run_place_order(world: WorldState, arguments: ToolArguments) -> ToolOutcome:
    name, item = _find_item(world, "shop", arguments["product"], "product")
    quantity, left = arguments["quantity"], item["in_stock"]
    if quantity > left:
        raise ToolError(f"only {left} of {name} in stock" if left else f"{name} is sold out")
    days, fee = DELIVERY_TERMS[arguments["delivery"]["method"]]
    shop = {**world["shop"], name: {**item, "in_stock": left - quantity}}
    result = {
        "product": name,
        "quantity": quantity,
        "total_eur": round_amount(item["price_eur"] * quantity + fee),
        "arrives": add_days(world["today"], days),
    }
    return ToolOutcome(
        {"order": f"A-{world['number']}", **result}, {**world, "shop": shop, "number": world["number"] + 1}
    )


def _draw_order(world: WorldState, rng: Random) -> dict[str, Any]:
    name = rng.choice([name for name, item in world["shop"].items() if item["in_stock"]])
    most = min(CATALOGUE[name].most, world["shop"][name]["in_stock"])
    return {"product": name, "quantity": rng.randint(1, most), "delivery": _draw_delivery(world, rng)}


def _fail_order(world: WorldState, rng: Random) -> dict[str, Any]:
    """More than there are, and no more than a person may want."""
    few = {name: item["in_stock"] for name, item in world["shop"].items() if item["in_stock"] < CATALOGUE[name].most}
    name = rng.choice([*few])
    return {
        "product": name,
        "quantity": rng.randint(few[name] + 1, CATALOGUE[name].most),
        "delivery": _draw_delivery(world, rng),
    }


def _draw_delivery(world: WorldState, rng: Random) -> dict[str, str]:
    """To a town of the user's region, which is the world's, or any."""
    towns = [*world.get("towns", ())] or [*rng.choice([*REGIONS.values()]).towns]
    return {"method": rng.choice([*DELIVERY]), "town": rng.choice(towns)}


def _run_find_book(world: WorldState, arguments: ToolArguments) -> ToolOutcome:
    title, book = _find_item(world, "library", arguments["title"], "book")
    due = {"due": book["due"]} if book["due"] else {}
    return ToolOutcome({"title": title, "author": book["author"], "status": book["status"], **due}, world)


def _draw_book(world: WorldState, rng: Random) -> dict[str, Any]:
    """A book that the user has not borrowed."""
    return {"title": rng.choice([title for title, book in world["library"].items() if not book["mine"]])}


def _fail_book(world: WorldState, rng: Random) -> dict[str, Any]:
    return {"title": rng.choice([title for title in TITLES if title not in world["library"]])}


def _run_renew_loan(world: WorldState, arguments: ToolArguments) -> ToolOutcome:
    title, book = _find_item(world, "library", arguments["title"], "book")
    if not book["mine"]:
        raise ToolError(f"{title!r} is not on loan to this user")
    if book["reserved"]:
        raise ToolError(f"{title!r} cannot be renewed: another reader has reserved it")
    due = add_days(book["due"], arguments.get("days", 14))
    return ToolOutcome(
        {"title": title, "due": due}, {**world, "library": {**world["library"], title: {**book, "due": due}}}
    )


def _draw_renewal(world: WorldState, rng: Random) -> dict[str, Any]:
    mine = [title for title, book in world["library"].items() if book["mine"] and not book["reserved"]]
    asked = {"title": rng.choice(mine)}
    return {**asked, "days": rng.choice([*RENEWALS])} if rng.random() < 0.6 else asked


def _fail_renewal(world: WorldState, rng: Random) -> dict[str, Any]:
    """A book of the user's that another reader waits for."""
    return {"title": rng.choice([t for t, book in world["library"].items() if book["reserved"] and book["mine"]])}


SHOP_TOOLS = (
    SimulatedTool(
        name="find_product",
        description="Price and stock of a product of the shop.",
        need="to know what something costs in the shop and whether it is there",
        parameters=object_schema({"product": text_schema("the name of the product")}),
        run=_run_find_product,
        draw=_draw_product,
        fail=_fail_product,
        tells=("price_eur", "in_stock"),
        asks={"price_eur": ASKS_PRICE, "in_stock": ASKS_STOCK},
        sections=("shop",),
        current=True,
        label="product",
    ),
    SimulatedTool(
        name="place_order",
        description="Order a product of the shop and have it delivered to a town.",
        need="something ordered from the shop",
        parameters=object_schema(
            {
                "product": text_schema("the name of the product"),
                "quantity": integer_schema("how many", 1, 20),
                "delivery": object_schema(
                    {"method": word_enum_schema(DELIVERY, "how fast"), "town": text_schema("where it is delivered")}
                ),
            }
        ),
        run=_run_place_order,
        acts=True,
        draw=_draw_order,
        fail=_fail_order,
        tells=("total_eur", "arrives"),
        sections=("shop",),
        asked={"quantity": ("how many", "quantity", "number")},
    ),
    SimulatedTool(
        name="find_book",
        description="Whether the library has a book, by whom it is, and when it is due back if it is on loan.",
        need="to know whether the library has a book and whether it can be borrowed",
        parameters=object_schema({"title": text_schema("the title of the book")}),
        run=_run_find_book,
        draw=_draw_book,
        fail=_fail_book,
        tells=("status", "due"),
        sections=("library",),
        label="title",
    ),
    SimulatedTool(
        name="renew_loan",
        description="Keep a borrowed book of the library for longer; 14 days if nothing else is said.",
        need="the loan of a library book made longer",
        parameters=object_schema(
            {"title": text_schema("the title of the book")},
            {
                "days": {
                    "type": "integer",
                    "enum": [*RENEWALS],
                    "description": "for how many days more",
                    "x-evidence": {str(days): some for days, some in RENEWALS.items()},
                }
            },
        ),
        run=_run_renew_loan,
        acts=True,
        draw=_draw_renewal,
        fail=_fail_renewal,
        tells=("due",),
        sections=("library",),
    ),
)
