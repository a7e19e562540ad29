"""Write `stories.jsonl`: settings crossed with the quantities that one really meets there.

    python data/seeds/make_stories.py

Each line of SETTINGS is a category, a place, two kinds of things that are counted there, a money matter, a matter of time, and a
measure (weight, length, volume, distance or energy). Only combinations that make sense are written down, so none is drawn at
random.
"""

import json
from pathlib import Path

KINDS = ("count", "count", "money", "time", "measure")
SETTINGS = """
food | at a bakery | rolls on trays | cakes and their slices | the price of bread and the day's takings | baking times | kilograms of flour and sugar
food | at a fruit market | crates of apples | bags of oranges | the price of berries and a buyer's change | the hours of a market day | kilograms of fruit on a scale
food | in a school kitchen | plates and trays | servings of soup | the cost of a week of lunches | the time it takes to cook and serve | liters of soup
food | at a pizzeria | pizzas and slices | orders on an evening | bills and tips | delivery times | grams of cheese and dough
food | on a picnic | sandwiches and plums | cups and blankets | what friends share of the cost | the hours from setting out to coming home | liters of lemonade
food | at a juice stand | oranges to be pressed | cups that are sold | the cost of fruit and what the stand earns | minutes a customer waits | milliliters of juice in glasses
food | in a chocolate factory | boxes and bars | machines and wrappers | the cost of cocoa and the price of a box | the hours of a shift | kilograms of cocoa
food | at a tea house | pots and cups | packets of tea | the price of tea and cake | brewing times | grams of tea leaves
farm | on a dairy farm | cows and goats | bottles and crates | the price of milk and feed | milking times | liters of milk
farm | in a chicken coop | hens and eggs | egg cartons | the price of eggs and grain | the days until the grain runs out | kilograms of grain
farm | in an orchard | trees in rows | baskets of pears | the wages of pickers | the days of a harvest | kilograms of pears
farm | in a vegetable garden | rows of carrots and beets | seed packets | the cost of seedlings and tools | the weeks until harvest | liters of water for the beds
farm | on a sheep farm | sheep and lambs | bales of hay | the price of wool | shearing times | kilograms of wool
farm | at a beehive | frames and hives | jars of honey | the price of honey and jars | the weeks of a season | grams of honey in jars
farm | in a greenhouse | pots and seedlings | tomatoes on plants | the cost of heating and the price of flowers | the days until a plant flowers | the heights of plants
farm | in a rice field | sacks of rice | rows of plants | what a harvest brings in | the hours of planting | kilograms of rice
school | in a classroom | pencils and notebooks | desks and chairs | the cost of materials for a class | lessons and breaks | the lengths of paper strips
school | in a library | books on shelves | readers and loans | late fees and the cost of new books | loan periods in days | pages of books
school | on a school trip | pupils and buses | tickets and groups | the cost for each pupil | travel and visiting times | kilometers of a bus ride
school | in a chess club | boards and pieces | games and points | club fees and prizes | thinking times of players | the sizes of boards and tables
school | at a science fair | projects and visitors | batteries and bulbs | the cost of an experiment | minutes for each talk | milliliters in test tubes
school | in a school band | players and chairs | songs and concerts | the cost of instruments and ticket sales | rehearsal times | meters of cable
school | in an art room | brushes and jars | sheets of paper | the price of paints | the hours a painting needs | milliliters of paint
school | at a spelling contest | rounds and words | teams and points | entry fees and prizes | seconds for each word | the lengths of words in letters
sport | in a bicycle race | riders and teams | water bottles and spare tires | entry fees and prize money | lap times | kilometers of a route
sport | at a swimming pool | swimmers and lanes | lockers and towels | tickets and season passes | training times | lengths of a pool in meters
sport | at a football club | goals and points | players and jerseys | membership fees | minutes of play | meters of a field
sport | on a hiking trail | hikers and huts | signs and bridges | the cost of a hut night | walking times | kilometers and meters of altitude
sport | in a climbing hall | ropes and hooks | routes and climbers | entry and rental prices | the times of climbs | meters of rope
sport | at a running club | runners and laps | medals and cups | the price of shoes and a club budget | the times of runs | kilometers in a week of training
sport | at a skating rink | skates and visitors | groups and lockers | rental prices | minutes on the ice | laps in meters
sport | at a rowing regatta | boats and rowers | races and teams | the cost of a new boat | race times | meters of a course
travel | at a train station | passengers and carriages | platforms and suitcases | the price of tickets | departures and delays | kilometers between stations
travel | on a ferry | cars and passengers | life jackets and cabins | fares for cars and people | crossing times | nautical miles
travel | in a parking lot | cars and free spaces | rows and levels | parking fees | hours of parking | the lengths of spaces
travel | on a bus line | stops and passengers | buses and drivers | fares and monthly passes | minutes between buses | kilometers in a day
travel | at a campsite | tents and campers | pegs and lanterns | the price of a night | days of a stay | liters of drinking water
travel | at an airport | suitcases and belts | seats and rows | ticket prices and fees | flight and waiting times | kilograms of baggage
travel | in a hotel | rooms and floors | towels and keys | the price of a room and breakfast | nights of a stay | liters of laundry water
travel | on a road trip | travelers and stops | snacks and songs | the cost of fuel and tolls | driving times | kilometers and liters of fuel
shop | in a toy shop | cars and dolls | boxes and shelves | prices and a child's savings | opening hours | the lengths of toy tracks
shop | at a flower stall | bunches and stems | vases and pots | the price of bouquets | days a flower stays fresh | the lengths of ribbon
shop | in a bookshop | books and boxes | customers and orders | prices, discounts and takings | delivery days | grams of parcels
shop | in a bicycle workshop | wheels and spokes | repairs and customers | the price of parts and labor | repair times | the lengths of chains and cables
shop | in a clothing store | shirts and hangers | buttons and coats | prices and discounts | hours of a sale | meters of fabric
shop | at a flea market | tables and sellers | games and records | bargains and stall fees | hours of a market | the sizes of tables
shop | in a pet shop | fish and tanks | birds and cages | the price of food and cages | feeding times | liters of aquarium water
shop | in a hardware store | screws and boxes | planks and tools | prices and discounts | hours of a workday | meters of wire and boards
home | at a birthday party | guests and balloons | games and candles | the cost of a party | hours of a party | liters of punch
home | on moving day | boxes and helpers | chairs and lamps | the cost of a van | hours of carrying | kilograms of boxes
home | in a laundry room | socks and shirts | loads and baskets | coins for machines | washing and drying times | liters of water and grams of powder
home | on a rainy afternoon at home | puzzle pieces | cards and players | pocket money | minutes of games and films | the lengths of a scarf being knitted
home | in a family kitchen | cookies and trays | jars of jam | the cost of a meal | cooking times | grams and milliliters of a recipe
home | with a model railway | tracks and carriages | bridges and signals | the price of parts | minutes of a round | centimeters of track
home | in a sewing room | buttons and beads | quilts and squares | the price of cloth and thread | hours of sewing | centimeters of ribbon
home | when a room is painted | cans and brushes | walls and windows | the cost of paint | hours of work and drying | liters of paint and square meters of wall
culture | at a theater | seats and rows | tickets and programs | ticket sales and costs | the lengths of acts in minutes | meters of curtain
culture | in a museum | rooms and pictures | visitors and guides | entry fees | opening hours and tours | the sizes of frames
culture | at a kite festival | kites and flyers | tails and spools | entry fees and prizes | minutes in the air | meters of line
culture | in a film studio | scenes and actors | costumes and cameras | the cost of a film | minutes of film | meters of cable
culture | at a street parade | drums and dancers | wagons and flags | donations and costs | hours of a parade | kilometers of a route
culture | in a pottery studio | bowls and shelves | pots and kilns | prices and course fees | firing times | kilograms of clay
nature | in a zoo | penguins and fish | enclosures and keepers | tickets and the cost of feed | feeding times | kilograms of feed
nature | in a forest | trees and seedlings | nests and birds | the cost of planting | years of growth | the heights of trees
nature | on a beach | shells and buckets | towers of a sandcastle | the price of ice cream and umbrellas | the hours of the tides | meters of coast
nature | at a weather station | rainy and sunny days | readings and balloons | the cost of instruments | hours between readings | millimeters of rain
nature | at a pond | frogs and ducks | water lilies and stones | the cost of a small bridge | days of cleaning | liters of water
nature | in an animal shelter | dogs and cats | bowls and blankets | donations and vet bills | days until an adoption | kilograms of food
work | at a post office | letters and sacks | stamps and parcels | postage and change | delivery times | grams of letters and parcels
work | on a building site | bricks and pallets | workers and helmets | wages and the cost of bricks | days of building | meters of a wall and tons of sand
work | in a warehouse | boxes and shelves | pallets and trucks | the cost of storage | hours of loading | kilograms of cargo
work | in a printing shop | pages and copies | posters and rolls | the price of copies | minutes of printing | meters of paper
work | in a recycling center | cans and bottles | bins and trucks | the deposit on bottles | hours of sorting | kilograms of paper and glass
work | in a call center | calls and desks | teams and messages | wages and phone costs | minutes of calls | meters of cable
work | in a fire station | hoses and helmets | drills and crews | the cost of equipment | response times | liters of water in a tank
work | on a fishing boat | nets and crates | buoys and crew | the price of fish | hours at sea | kilograms of fish
health | in a hospital | beds and wards | bandages and boxes | the cost of supplies | shifts and visiting hours | milliliters of medicine
health | at a blood donation | donors and beds | juices and snacks | the cost of a donation day | minutes of a donation | milliliters of blood
health | in a fitness studio | mats and weights | classes and members | membership fees | minutes of training | kilograms on a bar
science | at an observatory | telescopes and nights | stars and photos | the price of a lens | minutes of exposure | distances to stars in light-years
science | in a chemistry laboratory | tubes and racks | trials and samples | the cost of chemicals | minutes of reactions | milliliters and grams of substances
science | on a solar farm | panels and rows | inverters and cables | the income from power | hours of sunshine | kilowatt-hours of energy
"""


def list_stories() -> list[dict[str, str]]:
    """The rows of the seeds file."""
    rows = []
    for line in SETTINGS.strip().splitlines():
        category, place, *quantities = (part.strip() for part in line.split("|"))
        for kind, quantity in zip(KINDS, quantities, strict=True):
            rows.append({"story": f"{quantity} {place}", "category": category, "quantity": kind})
    return rows


def main() -> None:
    text = "".join(json.dumps(row) + "\n" for row in list_stories())
    Path(__file__).with_name("stories.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
