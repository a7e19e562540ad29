"""Write `stories.jsonl`: settings crossed with the quantities that one really meets there.

    python data/seeds/make_stories.py

Each line of SETTINGS is a category, a place, two kinds of things that are counted there, a money matter, a duration, and a
measure (weight, length, area, volume, energy). Each quantity is one thing with one unit: its numbers can be added, compared,
shared and multiplied with each other. The things that are counted come in equal groups (`rolls on trays`). Only combinations that
make sense are written down, so none is drawn at random.

A mark after a quantity says how large its numbers are in life: `<` small, `>` large (`COUNTED`). Durations and measures begin
with their unit, which has its own numbers (`UNITS`).
"""

import json
import re
from pathlib import Path
from typing import Any

KINDS = ("count", "count", "money", "time", "measure")
COUNTED = {"<": [20, 100], "": [100, 1_000], ">": [1_000, 10_000]}
"""The largest numbers that stories use, of things and of money: each problem draws one."""
UNITS = {
    "seconds": [100, 600],
    "minutes": [100, 300],
    "hours": [20, 100],
    "nights": [20, 60],
    "kilometers": [20, 100, 1_000],
    "nautical miles": [20, 100],
    "meters": [20, 100, 1_000],
    "square meters": [100, 1_000],
    "centimeters": [100, 1_000],
    "millimeters": [100, 1_000],
    "tons": [20, 100],
    "kilograms": [20, 100, 1_000],
    "grams": [1_000, 5_000],
    "liters": [20, 100, 1_000],
    "milliliters": [1_000, 5_000],
    "gigabytes": [100, 1_000],
    "kilowatt-hours": [100, 1_000],
}
DECIMALS = {
    "kilometers": 1, "nautical miles": 1, "meters": 1, "square meters": 1, "centimeters": 1, "tons": 1, "kilograms": 1,
    "liters": 1, "gigabytes": 1, "kilowatt-hours": 1,
}  # fmt: skip
"""Of a measure. Money up to 100 has 2, everything else none."""
SETTINGS = """
food | at a bakery | rolls on trays | slices of cakes < | the price of bread < | minutes of baking | kilograms of flour
food | at a fruit market | apples in crates | oranges in bags | the price of berries < | hours of selling at a stall | kilograms of cherries
food | in a school kitchen | plates in stacks | servings of soup in pots | the cost of lunches | minutes of cooking | liters of soup
food | at a pizzeria | slices of pizzas < | orders per evening < | the price of pizzas < | minutes of delivery rides | grams of cheese
food | on a picnic | sandwiches in baskets < | plums in bags < | what friends pay for food < | minutes of games in the meadow | liters of lemonade
food | at a juice stand | oranges pressed for glasses of juice | cups in packs | the price of juice < | minutes of pressing oranges | milliliters of juice
food | in a chocolate factory | chocolates in boxes | bars of chocolate from machines > | the price of chocolate boxes < | hours of work at the machines | kilograms of cocoa
food | at a tea house | cups of tea poured from pots < | tea bags in packets | the price of tea and cake < | minutes of brewing | grams of tea leaves
farm | on a dairy farm | cows in barns | bottles of milk in crates | the cost of feed > | minutes of milking | liters of milk
farm | in a chicken coop | eggs laid by hens < | eggs in cartons | the price of eggs < | minutes of feeding and cleaning | kilograms of grain
farm | in an orchard | trees in rows | pears in baskets | the wages of pickers | hours of picking | kilograms of pears
farm | in a vegetable garden | carrots in rows | seeds in packets | the price of seedlings < | minutes of weeding | liters of water for the beds
farm | on a sheep farm | sheep in pastures | bales of hay on wagons | the price of wool | minutes of shearing | kilograms of wool
farm | at a beehive | frames in hives < | jars of honey on shelves | the price of honey < | minutes of work at the hives | grams of honey
farm | in a greenhouse | seedlings in boxes | tomatoes on plants < | the price of flowers < | hours of heating | liters of water for the plants
farm | in a rice field | sacks of rice on carts < | rice plants in rows | what a harvest brings in > | hours of planting | kilograms of rice
school | in a classroom | pencils in boxes | desks in rows < | the cost of notebooks and pens < | minutes of lessons | centimeters of paper strip
school | in a library | books on shelves | books lent to readers < | late fees < | minutes of reading | kilograms of books in boxes
school | on a school trip | pupils on buses | pupils in groups < | the cost of tickets | minutes of guided tours | kilometers of a bus ride
school | in a chess club | pieces in boxes < | points won in games < | club fees < | minutes of chess games | meters of shelf for the boards
school | at a science fair | projects in halls < | batteries in lamps < | the cost of experiments < | minutes of talks | milliliters of water in test tubes
school | in a school band | players in rows < | songs in concerts < | the cost of instruments > | minutes of rehearsal | meters of cable
school | in an art room | brushes in jars < | sheets of paper in pads | the price of paints < | minutes of painting | milliliters of paint
school | at a spelling contest | words in rounds < | points of teams | entry fees < | seconds of thinking | meters of banner for the hall
sport | in a bicycle race | riders in teams < | water bottles for riders | entry fees | minutes of laps | kilometers of a route
sport | at a swimming pool | swimmers in lanes < | towels on shelves < | the price of tickets < | minutes of training | meters of swimming
sport | at a football club | goals in games < | players in teams < | membership fees | minutes of play | meters of line to be painted on a field
sport | on a hiking trail | hikers in huts < | signs on paths < | the cost of hut nights | minutes of walking | kilometers of a trail
sport | in a climbing hall | hooks on walls | climbs of routes < | rental prices < | minutes of climbing | meters of rope
sport | at a running club | laps of runners < | cups on tables < | the price of running shoes | minutes of running | kilometers of running
sport | at a skating rink | pairs of skates on shelves | skaters in groups < | rental prices < | minutes on the ice | meters of skating
sport | at a rowing regatta | rowers in boats < | boats in races < | entry fees | minutes of rowing | meters of a course
travel | at a train station | passengers in carriages | suitcases on carts < | the price of train tickets | minutes of train rides | kilometers of a train ride
travel | on a ferry | cars on decks < | life jackets in chests | fares for passengers | minutes of crossings | nautical miles of a crossing
travel | in a parking lot | cars in rows < | spaces on levels | parking fees < | hours of parking | meters of parking space
travel | on a bus line | passengers on buses | stops on routes < | fares < | minutes of bus rides | kilometers of bus rides
travel | at a campsite | tents in rows < | pegs for tents | the price of nights at a campsite | nights of a stay | liters of drinking water
travel | at an airport | suitcases on belts | seats in rows | baggage fees | minutes of flights | kilograms of baggage
travel | in a hotel | rooms on floors | towels in rooms | the price of rooms | minutes of cleaning rooms | liters of laundry water
travel | on a road trip | photos per stop < | sandwiches for travelers < | the cost of tolls < | minutes of driving | kilometers of driving
shop | in a toy shop | toy cars in boxes | dolls on shelves < | the price of toys < | minutes of wrapping gifts | centimeters of toy track
shop | at a flower stall | roses in bunches | flower pots on shelves < | the price of bouquets < | minutes of tying bouquets | centimeters of ribbon
shop | in a bookshop | books in boxes | orders per day < | the price of books < | minutes of packing orders | grams of parcels
shop | in a bicycle workshop | spokes in wheels | repairs per day < | the price of spare parts < | minutes of repairs | meters of cable
shop | in a clothing store | shirts on racks | buttons on coats < | the price of clothes | hours of work in the store | meters of fabric
shop | at a flea market | games on tables < | records in boxes | the price of old things < | minutes of setting up tables | kilograms of old books
shop | in a pet shop | fish in tanks | birds in cages < | the price of pet food < | minutes of cleaning tanks | liters of aquarium water
shop | in a hardware store | screws in boxes | planks in stacks | the price of tools | minutes of sawing | meters of wire
home | at a birthday party | balloons in packs < | guests at tables < | the cost of a party | minutes of party games | liters of punch
home | on moving day | boxes in vans < | books in boxes | the cost of vans | hours of carrying | kilograms of boxes
home | in a laundry room | shirts in loads < | socks in baskets < | coins for machines < | minutes of washing | grams of washing powder
home | on a rainy afternoon at home | puzzle pieces in boxes | cards dealt to players < | pocket money < | minutes of films | centimeters of a scarf being knitted
home | in a family kitchen | cookies on trays < | jars of jam on shelves < | the cost of meals < | minutes of cooking | grams of flour
home | with a model railway | pieces of track in boxes | carriages on trains < | the price of model trains | seconds of rounds | centimeters of track
home | in a sewing room | beads in bags | buttons on shirts < | the price of cloth < | minutes of sewing | centimeters of lace
home | when a room is painted | cans of paint on shelves < | tiles in rows < | the cost of paint | hours of painting | square meters of wall
culture | at a theater | seats in rows | tickets sold for shows | ticket prices | minutes of acts | meters of curtain
culture | in a museum | pictures in rooms < | visitors in groups | entry fees < | minutes of tours | centimeters of picture frame
culture | at a kite festival | kites of teams < | bows on kite tails < | the price of kites < | minutes of flying kites | meters of kite line
culture | in a film studio | costumes for actors < | scenes in films < | the cost of costumes > | minutes of film | gigabytes of film
culture | at a street parade | drummers in rows < | flags on wagons < | donations | minutes of music | kilometers of a route
culture | in a pottery studio | bowls on shelves < | tiles in kilns | course fees | hours of firing | kilograms of clay
nature | in a zoo | fish fed to penguins < | monkeys in enclosures < | the price of zoo tickets | minutes of feeding | kilograms of feed
nature | in a forest | seedlings in rows | birds in nests < | the cost of young trees | hours of planting | meters of fence
nature | on a beach | shells in buckets < | children in sandcastle teams < | the price of ice cream < | minutes of swimming lessons | kilometers of coast
nature | at a weather station | readings per day < | balloons in boxes < | the cost of instruments | minutes of measuring | millimeters of rain
nature | at a pond | ducks in flocks < | stones along paths | the cost of water lilies | hours of cleaning | liters of water
nature | in an animal shelter | dogs in pens < | blankets in baskets < | donations | minutes of walking dogs | kilograms of dog food
work | at a post office | letters in sacks | stamps on sheets | postage < | minutes of sorting letters | grams of parcels
work | on a building site | bricks on pallets > | workers in crews < | the cost of bricks > | hours of building | tons of sand
work | in a warehouse | boxes on shelves | pallets on trucks < | the cost of storage > | minutes of loading | kilograms of cargo
work | in a printing shop | pages of copies | posters in rolls < | the price of copies < | minutes of printing | meters of paper
work | in a recycling center | bottles in bins | bales of cans on trucks < | the deposit on bottles < | hours of sorting | kilograms of paper
work | in a call center | calls answered per hour < | desks in rows < | wages | minutes of calls | meters of cable
work | in a fire station | hoses on trucks < | helmets on shelves < | the cost of helmets > | minutes of drills | liters of water in a tank
work | on a fishing boat | crates of fish in stacks < | buoys on nets < | the price of fish < | hours at sea | kilograms of fish
health | in a hospital | beds in wards | bandages in boxes | the cost of supplies | minutes of visits | milliliters of medicine
health | at a blood donation | donors per hour < | bottles of juice in crates < | the cost of snacks for donors | minutes of donations | milliliters of blood
health | in a fitness studio | mats in rows < | members in classes < | membership fees | minutes of training | kilograms of weights on a bar
science | at an observatory | photos of stars per night | visitors in groups < | the price of lenses > | minutes of exposure | gigabytes of photos
science | in a chemistry laboratory | tubes in racks < | trials per day < | the cost of chemicals | minutes of reactions | grams of salt
science | on a solar farm | panels in rows | cables in boxes | the cost of panels > | hours of maintenance | kilowatt-hours of energy
"""


def list_stories() -> list[dict[str, Any]]:
    """The rows of the seeds file."""
    rows = []
    for line in SETTINGS.strip().splitlines():
        category, place, *quantities = (part.strip() for part in line.split("|"))
        for kind, marked in zip(KINDS, quantities, strict=True):
            quantity = marked.rstrip(" <>")
            row = {"story": f"{quantity} {place}", "category": category, "quantity": _refine_kind(kind, quantity)}
            rows.append({**row, **_find_numbers(kind, quantity, marked[len(quantity) :].strip())})
    return rows


def _refine_kind(kind: str, quantity: str) -> str:
    """`length` for a measure that is long or far and not much."""
    return "length" if kind == "measure" and re.match(r"(kilo|centi)?meters |nautical miles ", quantity) else kind


def _find_numbers(kind: str, quantity: str, mark: str) -> dict[str, Any]:
    """`limits`: largest numbers of the story; `decimals` of its amounts, if they have some."""
    if kind in ("count", "money"):
        return {"limits": COUNTED[mark], **({"decimals": 2} if kind == "money" and mark != ">" else {})}
    unit = next(unit for unit in sorted(UNITS, key=len, reverse=True) if quantity.startswith(unit))
    return {"limits": UNITS[unit], **({"decimals": DECIMALS[unit]} if unit in DECIMALS else {})}


def main() -> None:
    text = "".join(json.dumps(row) + "\n" for row in list_stories())
    Path(__file__).with_name("stories.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
