"""The shipped subjects of procedural pictures: what a table is about, its rows, and the ranges of its values. Knows no draft."""

from typing import NamedTuple


class DrawnMeasure(NamedTuple):
    """A column of numbers and their range."""

    name: str
    low: float
    high: float
    decimals: int
    of: str = ""
    """The measure that it is a group of."""


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

COMPANIES = tuple(
    f"{first} {last}"
    for first in "Alder|Blue Harbour|Castle Hill|Dovetail|Elm Street|Fernway|Granite|Hollow Oak|Ivory|Juniper|Kestrel".split(
        "|"
    )
    for last in "& Sons|Supplies|Tools|Workshop|Stationers|Works|Nursery|Trading Co.|Hardware|Builders Ltd".split("|")
)
PLACES = (
    "Ashford|Bristol|Cork|Dover|Exeter|Galway|Hull|Ipswich|Jena|Kiel|Lucerne|Murcia|Nantes|Odense|Parma|Rennes|Salzburg|Tartu|Uppsala|"
    "Verona|Westbury|York|Zadar|Eastbrook|Fairhaven|Glenmore|Hartfield|Kingsmere|Lowmoor|Northgate|Oakley|Riverton|Stonebridge"
).split("|")
SIDES = tuple(
    line.split("|")
    for line in ("North|South|East|West", "Old site|New site|Annex|Depot", "Site A|Site B|Site C|Site D")
)
YEARS = [str(year) for year in range(2018, 2026)]
"""Groups that a measure is split into, as series of one chart or table; years where the rows are none."""
SPREAD_ROWS, DATED_ROWS = frozenset({"city", "country", "river"}), frozenset({"year", "quarter"})
"""Rows that are in many places, so that a title names none, and that have their years."""
NOTES = (
    "Source: annual report of {place}|Source: survey of members, {year}|Source: {place} statistics office|"
    "Figures are provisional|Source: own count, {year}|Data collected in {place}|Rounded figures, {year}|Source: own records"
).split("|")
STREETS = "Mill Lane|Harbour Road|Station Street|Castle Hill|Orchard Way|Bridge Street|Park Road|High Street".split("|")
SURNAMES = "Novak Lindqvist Okafor Marino Schmidt Dubois Kowalska Haddad Ferreira Jansen Tanaka Moreau".split()
GOODS = {
    name: (int(low), int(high))
    for name, low, high in (
        part.split(":")
        for part in (
            "Bolts M8:12:60|Nuts M8:8:40|Washers:4:25|Hinges:180:640|Door handles:890:3400|Screws 4x40:5:30|Wood glue:390:1290|"
            "Sandpaper:60:240|Paint rollers:290:990|Masking tape:190:590|Work gloves:350:1490|Drill bits:210:1800|"
            "Copper wire (m):90:310|Light bulbs:250:1100|Sockets:290:980|Cable ties (100):240:790|Paint, white (l):690:1490|"
            "Padlock:690:2900|Extension lead:890:2490|Shelf bracket:240:890|Varnish (l):990:2290|Toolbox:1490:6900"
        ).split("|")
    )
}
"""What is bought, with its lowest and highest price in cents."""
POSTS = "Travel|Meals|Hotel|Books|Phone|Printing|Parking|Fuel|Training|Postage|Repairs|Cleaning".split("|")
"""Expenses of forms."""
MONTHS = LABELS["month"]
SENTENCES = (
    "This page sums up the figures that were collected during the period.",
    "All values come from the monthly records and were checked by two people before publication.",
    "The figures were collected by hand and entered on the last working day of the period.",
    "Earlier editions of this report used another method, so older values cannot be compared without care.",
    "Readers who need the underlying records can ask for them at the front desk.",
    "A short comment on each line follows in the next section.",
    "Some of the differences are due to the weather, others to works on the access road.",
    "The committee discussed the results at its last meeting and took note of them.",
    "Missing entries were requested again and are included here.",
    "The layout of the table has not changed since the last edition.",
    "Changes of more than a tenth were confirmed with the people in charge.",
    "The next edition will appear in spring, together with a map of all sites.",
    "Two records were illegible and were replaced by those of the week before.",
    "The totals of earlier years are kept in the archive and are not repeated here.",
    "Costs of the survey were shared between the town and the region.",
    "Questions about single entries should name the line and the column.",
    "A list of all people who took part is attached to the printed edition.",
    "The office is open on weekday mornings, and by appointment.",
    "Where a value seemed unlikely, the count was repeated on another day.",
    "Small differences between this page and the press release are due to rounding.",
    "The form of the survey was agreed with the other districts in autumn.",
    "No entry was changed after the deadline.",
    "Photographs of the sites can be seen in the entrance hall.",
)
TERMS = (
    "Please pay by bank transfer and quote the number of this document.",
    "Goods remain our property until they are paid for in full.",
    "Complaints can be made within eight days of delivery.",
    "Thank you for your order. Opening hours: Monday to Friday, 8 a.m. to 5 p.m.",
    "Receipts are attached in the order of the lines above.",
    "I confirm that these expenses were incurred for work.",
)
