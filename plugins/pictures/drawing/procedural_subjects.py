"""The shipped subjects of procedural pictures: what a table is about, its rows, and the ranges of its values. Knows no draft."""

from typing import NamedTuple


class DrawnMeasure(NamedTuple):
    """A column of numbers and their range."""

    name: str
    low: float
    high: float
    decimals: int


class TableSubject(NamedTuple):
    """What a table is about."""

    title: str
    label: str
    """The name of the column of labels."""
    row: str
    """What a row is, as a question calls it."""
    labels: tuple[str, ...]
    measures: tuple[DrawnMeasure, ...]
    ordered: bool
    """Whether the labels follow each other, as months do, so that a trend makes sense."""


LABELS = {
    "month": "January February March April May June July August September October November December".split(),
    "year": [str(year) for year in range(2008, 2026)],
    "weekday": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split(),
    "quarter": [f"Q{quarter} {year}" for year in (2022, 2023, 2024) for quarter in (1, 2, 3, 4)],
    "city": "Oslo Lisbon Vienna Prague Dublin Athens Warsaw Helsinki Zagreb Bern Riga Porto Ghent Turin Malmö Graz".split(),
    "country": "Norway Chile Japan Kenya Brazil Canada India Ghana Peru Spain Egypt Nepal Latvia Fiji Cuba Oman".split(),
    "fruit": "Apples Pears Plums Cherries Grapes Figs Melons Peaches Lemons Quinces Kiwis Dates".split(),
    "animal": "Badger Heron Otter Fox Hare Lynx Owl Stork Bat Newt Toad Beaver".split(),
    "team": "Falcons Otters Rovers Comets Pirates Giants Wolves Hornets Sharks Ravens".split(),
    "department": "Sales|Finance|Design|Support|Research|Legal|Logistics|Kitchen|Security|Training".split("|"),
    "product": "Lamp|Desk|Chair|Shelf|Mirror|Rug|Clock|Vase|Stool|Bench|Curtain|Basket".split("|"),
    "tree": "Oak Beech Larch Birch Maple Alder Spruce Willow Hazel Rowan Elm Lime".split(),
    "instrument": "Violin Flute Cello Harp Oboe Trumpet Piano Drum Viola Tuba".split(),
    "river": "Elbe Loire Tagus Vistula Rhône Drava Ebro Thames Po Oder".split(),
    "person": "Ada Bruno Clara Deniz Emil Farah Goran Hanna Ivo Jana Karim Lena Marek Nora Omar Pia".split(),
    "dish": "Soup Salad Pasta Pizza Curry Stew Risotto Pancakes Omelette Dumplings".split(),
    "course": "Algebra Biology Chemistry Drawing English French Geography History Physics Sports".split(),
    "station": "North Gate|Old Mill|Harbour|Museum|Castle Hill|Market|Airport|Stadium|Lakeside|University".split("|"),
}
"""Labels by their kind."""
ORDERED_LABELS = frozenset({"month", "year", "weekday", "quarter"})

SUBJECTS = tuple(
    TableSubject(
        title,
        label,
        row,
        tuple(LABELS[row]),
        tuple(
            DrawnMeasure(name.strip(), float(low), float(high), int(decimals))
            for name, low, high, decimals in (measure.split(":") for measure in measures.split(";"))
        ),
        row in ORDERED_LABELS,
    )
    for title, label, row, measures in (
        tuple(part.strip() for part in line.split("|"))
        for line in """
    Bicycle rentals by month | Month | month | City bikes: 120: 980: 0; Cargo bikes: 15: 160: 0; E-bikes: 60: 540: 0
    Rainfall by month | Month | month | Rainfall (mm): 8: 190: 0; Rainy days: 2: 24: 0
    Electricity use by month | Month | month | Offices (MWh): 20: 95: 1; Workshops (MWh): 12: 88: 1
    Visitors of the city museum | Month | month | Adults: 400: 5200: 0; Children: 150: 2600: 0; Groups: 4: 60: 0
    Members of the sailing club | Year | year | Members: 80: 460: 0; Boats: 18: 120: 0
    Harvest of the orchard | Year | year | Apples (t): 12: 88: 1; Pears (t): 6: 51: 1
    Books borrowed by year | Year | year | Novels: 900: 7800: 0; Comics: 300: 4100: 0; Guides: 120: 1900: 0
    Sales of the corner shop | Day | weekday | Bread: 20: 180: 0; Coffee: 45: 320: 0; Papers: 5: 90: 0
    Steps per day | Day | weekday | Steps: 2400: 16800: 0; Minutes walked: 18: 160: 0
    Revenue by quarter | Quarter | quarter | Revenue (k€): 110: 940: 0; Costs (k€): 70: 720: 0
    New subscribers | Quarter | quarter | Print: 30: 610: 0; Online: 120: 1900: 0
    Hotel nights by city | City | city | Nights (thousand): 12: 480: 1; Hotels: 14: 260: 0
    Tram lines by city | City | city | Lines: 2: 36: 0; Stops: 40: 620: 0
    Area of parks | City | city | Park area (ha): 45: 970: 0; Playgrounds: 8: 140: 0
    Medals at the games | Country | country | Gold: 0: 24: 0; Silver: 0: 26: 0; Bronze: 1: 31: 0
    Coffee drunk per person | Country | country | Coffee (kg): 0.4: 9.8: 1; Tea (kg): 0.1: 3.4: 1
    Fruit sold at the market | Fruit | fruit | Saturday (kg): 14: 230: 0; Sunday (kg): 8: 190: 0
    Price of fruit | Fruit | fruit | Price (€ per kg): 0.9: 8.4: 2; Last year (€ per kg): 0.8: 7.9: 2
    Animals counted in the reserve | Animal | animal | Spring count: 3: 140: 0; Autumn count: 3: 155: 0
    Goals of the season | Team | team | Goals scored: 18: 92: 0; Goals conceded: 15: 84: 0
    Staff by department | Department | department | Full time: 4: 120: 0; Part time: 1: 48: 0
    Training days | Department | department | Days: 2: 38: 0; Courses: 1: 17: 0
    Furniture in stock | Product | product | In stock: 0: 340: 0; On order: 0: 120: 0
    Furniture prices | Product | product | Price (€): 19: 480: 0; Weight (kg): 0.8: 48: 1
    Trees planted | Tree | tree | North side: 10: 420: 0; South side: 12: 390: 0
    Lessons at the music school | Instrument | instrument | Beginners: 3: 64: 0; Advanced: 1: 38: 0
    Water level of rivers | River | river | Level (m): 1.1: 9.6: 1; Long-term mean (m): 1.4: 8.8: 1
    Kilometres run in the team | Runner | person | This week (km): 4: 78: 0; Last week (km): 3: 81: 0
    Votes for the committee | Candidate | person | Votes: 12: 190: 0
    Orders in the canteen | Dish | dish | Lunch: 12: 210: 0; Dinner: 5: 140: 0
    Average marks | Course | course | Class A: 41: 97: 1; Class B: 38: 98: 1
    Passengers by station | Station | station | Morning: 120: 4800: 0; Evening: 140: 5100: 0
    """.strip().splitlines()
    )
)
"""Each line: the title, the column of labels, the kind of its labels, and its measures as name, lowest, highest, decimals."""

COMPANIES = (
    "Alder & Sons|Blue Harbour Supplies|Castle Hill Tools|Dovetail Workshop|Elm Street Bakery|Fernway Stationers|"
    "Granite Works|Hollow Oak Nursery|Ivory Tile Company|Juniper Textiles"
).split("|")
STREETS = "12 Mill Lane|7 Harbour Road|88 Station Street|3 Castle Hill|41 Orchard Way|19 Bridge Street".split("|")
SURNAMES = "Novak Lindqvist Okafor Marino Schmidt Dubois Kowalska Haddad Ferreira Jansen Tanaka Moreau".split()
GOODS = (
    "Bolts M8|Nuts M8|Washers|Hinges|Door handles|Screws 4x40|Wood glue|Sandpaper|Paint rollers|Masking tape|Work gloves|"
    "Drill bits|Copper wire|Light bulbs|Sockets|Cable ties"
).split("|")
POSTS = "Travel|Meals|Hotel|Books|Phone|Printing|Parking|Fuel|Training|Postage|Repairs|Cleaning".split("|")
"""Expenses of forms."""
MONTHS = LABELS["month"]
REPORT_OPENINGS = (
    "This page sums up the figures that were collected during the period. All values come from the monthly records.",
    "The table below lists the figures of the period. They were checked by two people before publication.",
    "The figures were collected by hand and entered on the last working day of the period.",
)
