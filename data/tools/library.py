"""A small public library: tools for a recipe with tools of its own. It runs in the sandbox with the standard library.

Every sample gets a world of its own from `make_world`; a function's first parameter `world` is that world, the others are the tool's.
"""

from random import Random
from typing import Literal, TypedDict

TITLES = {
    "The Glass Harbour": "Ines Falk", "A Winter of Salt": "Tomas Wren", "Seven Small Rivers": "Maud Ellery",
    "The Clockmaker's Garden": "Piet Aarons", "Letters to Nobody": "Ruth Okafor", "The Orchard Code": "Lena Brandt",
    "Night Trains North": "Owen Pryce", "The Paper Lighthouse": "Signe Dahl",
}  # fmt: skip
SHELVES = "ABCDEFGH"


class Loan(TypedDict):
    title: str
    days: int


class World:
    def __init__(self, seed: int) -> None:
        rng = Random(seed)
        self.books = {
            title: {"author": author, "shelf": f"{rng.choice(SHELVES)}{rng.randint(1, 40)}", "copies": rng.randint(0, 4)}
            for title, author in rng.sample(sorted(TITLES.items()), 5)
        }
        self.cards: dict[str, list[Loan]] = {f"{rng.choice('KMRT')}-{rng.randint(1000, 9999)}": [] for _ in range(3)}


def make_world(seed: int) -> World:
    return World(seed)


def describe_world(world: World) -> str:
    """For the writer of the user's requests only: what there is, and no answer."""
    books = "; ".join(f'"{title}" by {book["author"]}' for title, book in world.books.items())
    cards = ", ".join(f'"{card}"' for card in world.cards)
    return f"Books: {books}. Numbers of library cards: {cards}."


def find_book(world: World, title: str) -> dict:
    """Look up a book: its author, its shelf, and how many copies are in.

    Args:
        title: The book's whole title.
    """
    if title not in world.books:
        raise LookupError(f"the library has no book called {title}")
    return {"title": title, **world.books[title]}


def lend_book(world: World, title: str, card: str, days: Literal[7, 14, 28] = 14) -> dict:
    """Lend a copy of a book on a library card.

    Args:
        title: The book's whole title.
        card: The number of the library card, as K-1234.
        days: For how many days.
    """
    book = find_book(world, title)
    if card not in world.cards:
        raise LookupError(f"there is no card {card}")
    if not book["copies"]:
        raise ValueError(f"no copy of {title} is in")
    world.books[title]["copies"] -= 1
    world.cards[card].append({"title": title, "days": days})
    return {"lent": title, "card": card, "days": days, "copies_left": world.books[title]["copies"]}


def list_loans(world: World, card: str) -> list[Loan]:
    """List the books that are lent on a library card.

    Args:
        card: The number of the library card, as K-1234.
    """
    if card not in world.cards:
        raise LookupError(f"there is no card {card}")
    return world.cards[card]


def convert_fee(amount_eur: float, currency: Literal["USD", "GBP", "CHF"]) -> dict:
    """Convert a fee in euros into another currency at the library's fixed rate.

    Args:
        amount_eur: The fee in euros.
        currency: The currency to convert into.
    """
    return {"amount": round(amount_eur * {"USD": 1.1, "GBP": 0.85, "CHF": 0.95}[currency], 2), "currency": currency}
