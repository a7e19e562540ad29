"""Domains of life in which people use the simulated tools: who asks, why, with which tools, and about which things.

A scenario crosses a domain's personas, purposes and tools; its world and calls use the domain's things only,
    so that a plan fits its
persona. Prices are those of European shops in euros. Knows no tool but its name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


class Product(NamedTuple):
    least_eur: float
    most_eur: float
    most: int
    """The most that one person orders at once."""


class EventTitle(NamedTuple):
    title: str
    minutes: tuple[int, ...]
    first_hour: int = 9
    """It begins at this hour or later, and before `last_hour`."""
    last_hour: int = 17


class Measure(NamedTuple):
    from_unit: str
    to_unit: str
    least: float
    step: float
    steps: int
    """The value is `least` plus 0 to `steps` times `step`."""
    about: str


class Payment(NamedTuple):
    from_currency: str
    to_currency: str
    least: int
    most: int
    about: str


class SharedBill(NamedTuple):
    least_each: int
    most_each: int
    """In euros, for each person, before the tip."""
    least_people: int
    most_people: int
    tip: bool
    about: str


@dataclass(frozen=True)
class Domain:
    name: str
    weight: float
    personas: tuple[str, ...]
    """Each goes with each purpose."""
    purposes: tuple[str, ...]
    """The end of `NAME, who …`."""
    tools: Mapping[str, float]
    """The tools that fit, by weight."""
    needs: tuple[str, ...]
    """Requests of these people that no tool can fulfil, as the end of `the user wants`."""
    goods: tuple[str, ...] = ()
    reminders: tuple[str, ...] = ()
    events: tuple[EventTitle, ...] = ()
    measures: tuple[Measure, ...] = ()
    payments: tuple[Payment, ...] = ()
    bills: tuple[SharedBill, ...] = ()
    trips: tuple[str, ...] = ()
    """What routes are asked for."""
    weather: tuple[str, ...] = ()
    """What the forecast is asked for."""
    modes: Mapping[str, float] = field(default_factory=lambda: {"car": 1, "train": 1, "bicycle": 0.5})
    """Weights of the modes of travel."""
    reach_km: int = 250
    """How far they travel by car or train."""
    cycling_km: int = 20
    """How far they travel by bicycle."""
    outdoors: bool = False
    """Whether it belongs to the warm half of the year."""


CATALOGUE: Mapping[str, Product] = {
    # kitchen and baking
    "cast iron pan": Product(25, 60, 3),
    "baking tin": Product(8, 22, 6), "rolling pin": Product(7, 20, 3), "kitchen scale": Product(12, 40, 2),
    "mixing bowl": Product(9, 30, 6), "cake stand": Product(15, 45, 4), "oven thermometer": Product(8, 20, 2),
    "bread knife": Product(10, 45, 3), "cooling rack": Product(8, 20, 4), "piping bag": Product(5, 14, 6),
    "serving tray": Product(9, 28, 12), "water jug": Product(8, 25, 15), "table cloth": Product(12, 40, 15),
    "chafing dish": Product(35, 90, 6), "insulated box": Product(30, 95, 6), "salad bowl": Product(10, 30, 12),
    "paper napkin pack": Product(2, 6, 15), "soup ladle": Product(5, 15, 6),
    # garden
    "garden hose": Product(18, 55, 2), "watering can": Product(10, 30, 3), "bird feeder": Product(9, 30, 3),
    "pruning saw": Product(12, 40, 2), "plant pot": Product(4, 20, 12), "wheelbarrow": Product(45, 120, 2),
    "garden rake": Product(12, 35, 3), "compost bin": Product(35, 90, 2), "seed tray": Product(3, 9, 15),
    "garden fleece": Product(8, 25, 6),
    # outdoors
    "head torch": Product(15, 50, 4), "rain jacket": Product(45, 140, 2), "camping stove": Product(30, 85, 2),
    "sleeping mat": Product(25, 90, 4), "water bottle": Product(8, 25, 6), "hiking pole": Product(15, 50, 4),
    "bicycle pump": Product(12, 40, 2), "inner tube": Product(5, 9, 6), "bicycle lock": Product(20, 80, 2),
    "pannier bag": Product(35, 110, 2), "map case": Product(10, 30, 3), "dry bag": Product(10, 35, 6),
    # office, study and teaching
    "desk lamp": Product(18, 60, 4), "phone stand": Product(8, 25, 4), "notebook": Product(3, 9, 15), "whiteboard": Product(25,
    90, 2),
    "document folder": Product(2, 6, 15), "desk chair": Product(70, 180, 2),
    "flip chart": Product(50, 120, 2), "label printer": Product(35, 90, 2),
    # music
    "music stand": Product(15, 45, 12), "metronome": Product(15, 50, 2), "choir folder": Product(8, 20, 15),
    "guitar strap": Product(8, 30, 3), "microphone cable": Product(9, 30, 6), "drum stool": Product(40, 110, 2),
    "violin rosin": Product(5, 15, 4), "instrument case": Product(45, 150, 2), "stand light": Product(10, 30, 12),
    # sports
    "football": Product(15, 45, 12), "training cone set": Product(8, 20, 6), "first aid kit": Product(12, 40, 4),
    "sports bag": Product(20, 60, 12), "running vest": Product(18, 50, 6), "whistle": Product(4, 12, 6),
    "goalkeeper glove pair": Product(18, 60, 3), "ball pump": Product(8, 25, 3),
    # home
    "wool blanket": Product(30, 90, 3), "wall clock": Product(15, 50, 2), "door mat": Product(9, 30, 2),
    "spice rack": Product(12, 40, 2),
    "tool box": Product(20, 60, 2), "step ladder": Product(30, 80, 2), "curtain rod": Product(12, 40, 6),
    "storage box": Product(6, 25, 12), "coat rack": Product(20, 70, 2), "bath mat": Product(10, 30, 3), "floor lamp": Product(35,
    120, 2),
    # trades
    "paint roller": Product(5, 18, 6), "dust sheet": Product(4, 14, 12), "spirit level": Product(12, 45, 3),
    "wood clamp": Product(8, 30, 12), "cordless drill": Product(60, 170, 2), "sanding block": Product(3, 10, 12),
    "tape measure": Product(6, 20, 4), "masking tape roll": Product(3, 8, 15), "work lamp": Product(25, 70, 4),
    "saw blade": Product(10, 35, 6),
    # photography, markets, parties, pets
    "camera bag": Product(35, 130, 2), "tripod": Product(40, 170, 2), "lens cloth": Product(3, 9, 6),
    "memory card": Product(12, 45, 6), "rain cover": Product(10, 30, 3), "camera strap": Product(12, 45, 2),
    "market umbrella": Product(60, 170, 2), "cash box": Product(15, 45, 2), "price tag pack": Product(3, 9, 12),
    "folding table": Product(35, 95, 6), "display crate": Product(9, 28, 15), "honey jar": Product(1, 3, 20),
    "party tent": Product(80, 180, 2), "string of lights": Product(10, 35, 6), "paper lantern": Product(3, 9, 15),
    "picnic basket": Product(25, 70, 3), "balloon pack": Product(3, 8, 12), "garland": Product(4, 12, 12),
    "dog lead": Product(8, 30, 6), "cat basket": Product(15, 55, 4), "feeding bowl": Product(5, 20, 12),
    "pet carrier": Product(20, 70, 4),
    "litter tray": Product(8, 30, 6), "dog blanket": Product(9, 30, 12), "scratching post": Product(20, 70, 3),
    "grooming brush": Product(6, 20, 6), "water fountain": Product(18, 50, 3),
}  # fmt: skip
"""The shop's products by name."""
PEOPLE = "Agnes Boris Carla Dmitri Elif Farah Gustav Hanna Idris Jolanta Kofi Leonie".split()
"""In titles of events, in the place of `NAME`."""
CALL = EventTitle("call with NAME", (30, 45, 60, 90))
"""Fits any hour and every domain."""
LUNCH = EventTitle("lunch with NAME", (45, 60, 90), 12, 14)

DOMAINS: tuple[Domain, ...] = (
    Domain(
        "baking", 1.0,
        ("an amateur baker", "a pastry cook", "a retired baker", "a cookery student", "the owner of a tea room"),
        ("tries American recipes", "bakes for the weekend", "equips a small kitchen", "tests recipes for a blog"),
        {"convert_units": 3, "find_product": 3, "place_order": 2, "convert_currency": 1.5, "set_reminder": 2},
        ("a recipe for a gluten-free cake", "a cake decorated and delivered", "the calories of a slice of cheesecake",
         "a course in bread baking found", "a photo of a cake made brighter"),
        goods=("baking tin", "rolling pin", "kitchen scale", "mixing bowl", "cake stand", "oven thermometer", "cooling rack",
               "piping bag", "bread knife"),
        reminders=("feed the sourdough", "take the butter out of the fridge", "soak the raisins", "order more flour",
                   "take the bread out of the freezer", "return the borrowed cake stand"),
        measures=(Measure("fahrenheit", "celsius", 300, 25, 6, "the oven temperature in an American recipe"),
                  Measure("pound", "kilogram", 1, 0.5, 8, "the flour in an American recipe"),
                  Measure("celsius", "fahrenheit", 150, 10, 8, "an oven temperature for a reader in the USA")),
        payments=(Payment("USD", "EUR", 20, 90, "an American cookery book"), Payment("GBP", "EUR", 15, 80,
            "a cake tin in a British shop")),
    ),
    Domain(
        "catering", 1.0,
        ("a caterer", "the head of a canteen", "a kitchen manager", "an event cook", "the owner of a small restaurant"),
        ("prepares a wedding for eighty guests", "plans next week's events", "feeds a conference", "stocks up for the season"),
        {"find_product": 3, "place_order": 3, "convert_units": 1.5, "add_event": 2, "find_free_slots": 2, "get_weather": 1.5,
         "set_reminder": 1.5},
        ("a wine recommended for the fish", "a waiter hired for an evening", "an allergy list checked",
         "the menu translated into French", "a table booked in another restaurant"),
        goods=("serving tray", "water jug", "table cloth", "chafing dish", "insulated box", "salad bowl", "paper napkin pack",
               "soup ladle", "mixing bowl", "cast iron pan"),
        reminders=("confirm the number of guests", "call the butcher", "collect the hired glasses", "send the final menu",
                   "pay the fish supplier", "thaw the stock"),
        events=(EventTitle("tasting with NAME", (60, 90), 11, 16), EventTitle("menu meeting", (30, 45, 60)), CALL,
                EventTitle("kitchen inspection", (60, 90), 9, 15), LUNCH),
        measures=(Measure("gallon", "litre", 2, 1, 10, "the punch in an American recipe"),
                  Measure("kilogram", "pound", 5, 2.5, 10, "the meat that a guest asked about"),
                  Measure("celsius", "fahrenheit", 60, 5, 6, "the core temperature of a roast")),
        weather=("a marquee", "a buffet in the open air", "an open terrace"),
        outdoors=True,
    ),
    Domain(
        "gardening", 1.0,
        ("a gardener", "an allotment holder", "the keeper of a churchyard", "a landscape apprentice",
         "the owner of a plant nursery"),
        ("works outdoors all week", "plants a new bed", "looks after young trees", "has a hedge to cut"),
        {"get_weather": 3, "find_product": 2.5, "place_order": 2, "set_reminder": 2, "convert_units": 1.5},
        ("a sick rose recognised in a photo", "the price of a load of gravel", "a tree surgeon found", "a plan for a pond drawn",
         "the name of a beetle"),
        goods=("garden hose", "watering can", "bird feeder", "pruning saw", "plant pot", "wheelbarrow", "garden rake",
            "compost bin",
               "seed tray", "garden fleece"),
        reminders=("water the ferns", "turn the compost", "sharpen the shears", "empty the rain barrel", "air the greenhouse",
                   "return the borrowed wheelbarrow"),
        measures=(Measure("foot", "metre", 3, 1, 12, "the planting distance in an American guide"),
                  Measure("gallon", "litre", 1, 1, 8, "the water in an American guide"),
                  Measure("fahrenheit", "celsius", 32, 2, 10, "the lowest temperature that a plant bears, in a seed catalogue")),
        weather=("a day of planting", "a day of digging", "a delivery of young plants", "a day of hedge cutting"),
        outdoors=True,
    ),
    Domain(
        "hiking and cycling", 1.3,
        ("a cyclist", "a hiker", "a leader of walking tours", "a traveller with a tent", "a bicycle courier on holiday"),
        ("rides from town to town", "gets ready for a week outdoors", "plans short stages", "checks the equipment before a tour"),
        {"plan_route": 3, "get_weather": 3, "convert_units": 2, "find_product": 2, "place_order": 1},
        ("a hostel bed booked", "a punctured tyre repaired", "the opening hours of a mountain hut", "a hiking song played",
         "a bird recognised by its call"),
        goods=("head torch", "rain jacket", "camping stove", "sleeping mat", "water bottle", "hiking pole", "bicycle pump",
            "inner tube",
               "bicycle lock", "pannier bag", "map case", "dry bag"),
        measures=(Measure("mile", "kilometre", 5, 2.5, 18, "a stage in a British guidebook"),
                  Measure("foot", "metre", 300, 100, 25, "a climb in a British guidebook"),
                  Measure("kilogram", "pound", 6, 0.5, 18, "the weight of the luggage for a friend in the USA")),
        trips=("the next stage", "the way back from a tour", "a detour to see friends"),
        weather=("a day on the road", "a night in the tent", "a rest day in town"),
        reach_km=150,
        cycling_km=60,
        modes={"bicycle": 3, "train": 1},
        outdoors=True,
    ),
    Domain(
        "reading", 1.0,
        ("a retired teacher", "a night porter", "a bookshop owner", "a member of a reading circle", "a long-distance commuter"),
        ("reads a book a week", "has books all over the flat", "collects novels about journeys",
         "chooses books for an evening group"),
        {"find_book": 3, "renew_loan": 2.5, "set_reminder": 2},
        ("a summary of a novel's ending", "a book read aloud", "a signed copy bought at auction", "a review written",
         "a quotation's author found"),
        reminders=("return the library books", "call about the reading circle", "order new glasses", "write to the author",
                   "bring the books to Hanna", "repair the reading lamp"),
    ),
    Domain(
        "studying abroad", 1.0,
        ("an exchange student", "a doctoral student", "a student of architecture", "a language student",
         "a student with a part-time job"),
        ("counts what the term costs", "shares a flat with others", "writes a thesis", "settles in a new town"),
        {"convert_currency": 2.5, "split_bill": 2, "find_book": 2, "renew_loan": 2, "set_reminder": 2},
        ("an essay corrected", "a room found for the summer", "the date of the next exam", "a student card extended",
         "a formula explained"),
        reminders=("hand in the form", "pay the semester fee", "print the poster", "call home", "return the library books",
                   "ask the tutor about the deadline"),
        payments=(Payment("EUR", "USD", 200, 900, "the rent"), Payment("GBP", "EUR", 30, 400, "a refund from home"),
                  Payment("NOK", "EUR", 500, 4000, "savings from a summer job in Norway"),
                  Payment("CHF", "EUR", 40, 600, "a grant from Switzerland")),
        bills=(SharedBill(8, 20, 3, 8, True, "a supper after the exam"), SharedBill(15, 60, 3, 5, False,
            "the electricity of the flat"),
               SharedBill(5, 12, 3, 6, False, "the shopping for the flat")),
    ),
    Domain(
        "office", 1.2,
        ("a secretary in a law firm", "a project manager", "a freelance translator", "an office manager", "an accountant"),
        ("keeps a full calendar in order", "works with clients in other countries", "prepares a busy week",
         "stands in for a colleague"),
        {"find_free_slots": 3, "add_event": 3, "set_reminder": 2, "convert_currency": 2, "find_product": 1.5, "place_order": 1},
        ("an e-mail sent to a colleague", "a contract translated", "the tracking of a parcel", "a meeting room unlocked",
         "a phone number found"),
        goods=("desk lamp", "phone stand", "notebook", "whiteboard", "document folder", "desk chair", "flip chart",
            "label printer"),
        reminders=("send the signed contract", "back up the laptop", "write the minutes", "call the tax office",
            "approve the invoices",
                   "water the plants in the office"),
        events=(EventTitle("budget review", (60, 90)), EventTitle("planning session", (45, 60, 90)), EventTitle("job interview",
            (45, 60)),
                EventTitle("team meeting", (30, 45, 60)), CALL, LUNCH),
        payments=(Payment("USD", "EUR", 150, 900, "a client's fee"), Payment("GBP", "EUR", 80, 900, "an invoice from London"),
                  Payment("CHF", "EUR", 100, 900, "a client's fee from Zurich"), Payment("EUR", "JPY", 60, 500,
                      "an offer to Osaka")),
    ),
    Domain(
        "choir and band", 1.0,
        ("a choir leader", "the bass player of a wedding band", "the secretary of a brass band", "a string quartet's cellist",
         "a musical society's treasurer"),
        ("organises a weekend of rehearsals", "prepares a concert tour", "keeps the group together", "looks for rehearsal times"),
        {"add_event": 2.5, "find_free_slots": 2.5, "split_bill": 1.5, "plan_route": 2, "set_reminder": 1.5, "find_product": 1.5,
         "convert_currency": 1.5},
        ("a song played", "sheet music transposed", "a piano tuned", "concert tickets sold", "a second tenor found"),
        goods=("music stand", "metronome", "choir folder", "guitar strap", "microphone cable", "drum stool", "violin rosin",
               "instrument case", "stand light"),
        reminders=("bring the choir folder", "book the church", "copy the parts", "collect the microphones", "pay the soloist",
                   "print the programme"),
        events=(EventTitle("choir rehearsal", (60, 90)), EventTitle("piano lesson", (30, 45, 60)), EventTitle("sound check", (30,
            45, 60)),
                CALL, EventTitle("instrument repair", (30, 45), 9, 16)),
        payments=(Payment("EUR", "GBP", 150, 900, "a fee for a soloist from Leeds"), Payment("SEK", "EUR", 500, 6000,
            "a fee from Uppsala")),
        bills=(SharedBill(12, 30, 5, 14, True, "a supper after a concert"), SharedBill(10, 25, 6, 14, False,
            "the hire of a hall")),
        trips=("the concert", "the rehearsal weekend", "the recording"),
        modes={"car": 1, "train": 1},
    ),
    Domain(
        "sports club", 1.0,
        ("the treasurer of a football club", "a youth coach", "a volleyball team's captain", "a running club's organiser",
         "the manager of a handball team"),
        ("settles the team's travel", "prepares an away match", "plans a tournament", "orders equipment for the season"),
        {"split_bill": 2, "plan_route": 2.5, "get_weather": 2, "set_reminder": 1.5, "find_product": 2, "place_order": 1.5,
         "convert_units": 1, "convert_currency": 1},
        ("the score of last night's match", "a referee replaced", "a floodlight switched off", "a sprained ankle treated",
         "a ticket for the cup final bought"),
        goods=("football", "training cone set", "first aid kit", "sports bag", "running vest", "whistle", "goalkeeper glove pair",
               "ball pump", "water bottle"),
        reminders=("collect the team shirts", "pay the referee", "pack the first aid kit", "book the minibus", "send the line-up",
                   "wash the bibs"),
        measures=(Measure("mile", "kilometre", 3, 0.5, 20, "a running route in a British magazine"),
                  Measure("metre", "foot", 50, 10, 7, "the length of the pitch for an American visitor")),
        payments=(Payment("EUR", "CHF", 100, 700, "the fee of a tournament in Switzerland"), Payment("GBP", "EUR", 80, 600,
            "training goals from a British shop")),
        bills=(SharedBill(10, 25, 8, 16, False, "the minibus"), SharedBill(12, 28, 8, 16, True, "a meal after the match")),
        trips=("an away match", "a tournament", "a training camp"),
        weather=("a home match", "a training session outdoors", "a run"),
        modes={"car": 2, "train": 1},
    ),
    Domain(
        "household", 1.2,
        ("a father of three", "a flatmate", "a newcomer to the town", "a widower", "a mother of twins"),
        ("runs the household between two jobs", "moves into a new flat", "puts the house in order", "has visitors soon"),
        {"find_product": 2.5, "place_order": 2.5, "add_event": 2, "find_free_slots": 2, "set_reminder": 3},
        ("a taxi to come", "the lights in the living room switched off", "a leaking tap repaired",
         "the opening hours of the dump",
         "a babysitter found"),
        goods=("wool blanket", "wall clock", "door mat", "spice rack", "tool box", "step ladder", "curtain rod", "storage box",
            "coat rack",
               "bath mat", "floor lamp"),
        reminders=("call the plumber", "pay the gas bill", "pick up the parcel", "put out the bins", "renew the passport",
                   "collect the birthday cake", "feed the neighbour's cat", "look for the spare keys"),
        events=(EventTitle("dentist appointment", (30, 45, 60)), EventTitle("eye test", (30, 45)), EventTitle("car inspection",
            (60, 90)),
                EventTitle("house viewing", (30, 45, 60)), EventTitle("haircut", (30, 45)), CALL, LUNCH),
    ),
    Domain(
        "trades", 1.0,
        ("a carpenter", "a house painter", "a roofer", "a joiner's apprentice", "a stage builder"),
        ("works from an American plan", "has three sites this week", "quotes for a new job", "needs material by the weekend"),
        {"convert_units": 3, "find_product": 2.5, "place_order": 2, "get_weather": 2, "plan_route": 1.5},
        ("a building permit applied for", "a wall's moisture measured", "an invoice written", "a skip emptied",
         "a colour matched to a sample"),
        goods=("paint roller", "dust sheet", "spirit level", "wood clamp", "cordless drill", "sanding block", "tape measure",
               "masking tape roll", "work lamp", "saw blade"),
        measures=(Measure("foot", "metre", 4, 0.5, 40, "a board in an American plan"),
                  Measure("metre", "foot", 1.2, 0.3, 20, "a beam for an American customer"),
                  Measure("gallon", "litre", 1, 0.5, 10, "the paint in an American plan"),
                  Measure("pound", "kilogram", 20, 10, 20, "the load that a hinge bears")),
        trips=("the next site", "the timber yard", "a customer"),
        weather=("a day on the roof", "painting a facade", "unloading timber"),
        reach_km=90,
        modes={"car": 3, "train": 0.5},
    ),
    Domain(
        "group travel", 1.2,
        ("a tour guide", "a teacher with an exchange class", "the leader of a senior group", "an au pair with visiting parents",
         "an uncle with visitors from overseas"),
        ("shows guests around", "answers the questions of American guests", "plans the days of a trip",
         "keeps the travel costs in view"),
        {"plan_route": 2.5, "get_weather": 2.5, "convert_units": 2.5, "convert_currency": 2.5, "split_bill": 2},
        ("a museum's opening hours", "a hotel room changed", "a concert ticket bought", "a lost suitcase found",
         "a street sign translated"),
        measures=(Measure("kilometre", "mile", 2, 0.5, 30, "a walk in the guidebook"),
                  Measure("metre", "foot", 40, 5, 30, "the height of a church tower"),
                  Measure("kilogram", "pound", 8, 1, 15, "a suitcase at the airport")),
        payments=(Payment("USD", "EUR", 40, 900, "the travel money"), Payment("EUR", "USD", 12, 400, "a souvenir"),
                  Payment("EUR", "USD", 150, 600, "a guided tour")),
        bills=(SharedBill(12, 35, 4, 12, True, "a dinner in the old town"), SharedBill(25, 70, 4, 9, False, "a holiday house"),
               SharedBill(5, 15, 4, 12, False, "a taxi")),
        trips=("a day trip", "the next stop of the trip", "the way to the airport town"),
        weather=("a walk through the old town", "a day trip", "a boat trip"),
        reach_km=180,
        modes={"car": 1, "train": 2},
    ),
    Domain(
        "care", 1.0,
        ("a physiotherapist", "a community nurse", "a vet's receptionist", "a midwife", "a speech therapist"),
        ("fills the gaps in the week", "visits patients at home", "changes shifts with a colleague",
         "plans appointments around a course"),
        {"find_free_slots": 3, "add_event": 3, "set_reminder": 2.5, "plan_route": 2, "get_weather": 1},
        ("a doctor's advice about a rash", "a prescription renewed", "a patient's file found", "a blood test read",
         "a wheelchair hired out"),
        reminders=("call the laboratory", "charge the tablet", "order new gloves", "send the report to the clinic",
            "clean the treatment room",
                   "ask about the new shift plan"),
        events=(EventTitle("physiotherapy", (30, 45)), EventTitle("home visit", (30, 45, 60)), EventTitle("first aid course",
            (60, 90)),
                EventTitle("handover with NAME", (30, 45)), EventTitle("team meeting", (30, 45, 60)), CALL),
        trips=("a home visit", "a course", "the clinic"),
        weather=("a day of home visits by bicycle", "a free afternoon outdoors"),
        reach_km=70,
        modes={"car": 2, "train": 1, "bicycle": 2},
    ),
    Domain(
        "field sales", 1.0,
        ("a sales representative", "a service technician", "an estate agent", "a wine merchant", "an insurance adviser"),
        ("visits customers in several towns", "plans the route of the week", "has a gap between two appointments",
         "takes over a colleague's customers"),
        {"plan_route": 3, "find_free_slots": 2.5, "add_event": 2.5, "get_weather": 1.5, "set_reminder": 1.5},
        ("a parking space reserved", "a hotel room booked", "the latest news about a competitor", "a customer's credit checked",
         "a contract printed"),
        reminders=("send the offer", "call the garage", "prepare the samples", "charge the car", "write the visit report",
            "renew the business cards"),
        events=(EventTitle("customer visit", (45, 60, 90)), EventTitle("product demonstration", (60, 90)),
            EventTitle("meeting with NAME", (30, 45, 60)),
                CALL, LUNCH),
        trips=("a customer", "a trade fair", "the head office"),
        weather=("a long drive", "a viewing with a garden", "a trade fair outdoors"),
        modes={"car": 2, "train": 2},
    ),
    Domain(
        "photography", 0.9,
        ("a wedding photographer", "a landscape photographer", "a film student", "a nature photographer", "a press photographer"),
        ("waits for the right light", "plans an outdoor shoot", "travels to the next location", "replaces worn-out equipment"),
        {"get_weather": 3, "plan_route": 2, "add_event": 2, "find_free_slots": 2, "find_product": 2, "place_order": 1.5},
        ("a photo made brighter", "a model hired", "the time of sunrise", "a drone flight approved", "a print framed"),
        goods=("camera bag", "tripod", "lens cloth", "memory card", "rain cover", "camera strap", "head torch", "dry bag"),
        events=(EventTitle("portrait session", (60, 90)), EventTitle("briefing with NAME", (30, 45)),
            EventTitle("location visit", (45, 60, 90)),
                CALL, EventTitle("gallery meeting", (45, 60))),
        trips=("a shoot", "a location visit", "a wedding"),
        weather=("an outdoor shoot", "a wedding in the open", "a morning by the river"),
        reach_km=180,
        modes={"car": 2, "train": 1},
    ),
    Domain(
        "market stall", 1.0,
        ("a beekeeper", "a cheese maker", "a potter", "a flower seller", "a basket weaver"),
        ("sells at weekly markets", "prepares for a fair", "shares a stall with others", "has customers from other countries"),
        {"get_weather": 2.5, "plan_route": 2.5, "convert_currency": 2.5, "split_bill": 1.5, "find_product": 2,
            "place_order": 1.5},
        ("a stall permit extended", "a card reader repaired", "a flyer designed", "the name of a customer found",
         "a delivery van hired"),
        goods=("market umbrella", "cash box", "price tag pack", "folding table", "display crate", "honey jar", "work lamp",
            "table cloth"),
        payments=(Payment("USD", "EUR", 10, 90, "a banknote from a tourist"), Payment("CHF", "EUR", 20, 200,
            "a customer's payment"),
                  Payment("EUR", "GBP", 15, 150, "a parcel for a customer in Leeds"), Payment("EUR", "SEK", 30, 300,
                      "an order from Sweden")),
        bills=(SharedBill(20, 60, 2, 5, False, "the rent of the stall"), SharedBill(8, 20, 3, 6, True,
            "a lunch with the other stalls")),
        trips=("the market", "a fair", "a wholesaler"),
        weather=("the market", "a fair in the open air", "a day of loading"),
        reach_km=120,
        modes={"car": 3, "train": 0.5},
        outdoors=True,
    ),
    Domain(
        "teaching", 1.0,
        ("a language teacher", "a primary school teacher", "a private tutor", "a university lecturer", "a driving instructor"),
        ("prepares lessons for the week", "gives lessons at home and online", "loses track of due dates",
         "fits extra lessons in"),
        {"find_book": 2, "renew_loan": 2, "find_free_slots": 2.5, "add_event": 2.5, "set_reminder": 2},
        ("homework marked", "a pupil's parents called", "a worksheet printed", "a film shown in class", "a classroom heated"),
        reminders=("copy the worksheets", "return the projector", "enter the marks", "book the computer room",
            "write to the parents",
                   "bring the atlas"),
        events=(EventTitle("lesson with NAME", (45, 60, 90)), EventTitle("staff meeting", (45, 60)),
            EventTitle("talk with a parent", (30, 45)),
                EventTitle("oral exam", (30, 45)), CALL, LUNCH),
    ),
    Domain(
        "celebrations", 1.0,
        ("a neighbour with a long table", "the host's cousin", "a godmother", "the head of a parents' committee",
         "a neighbour with a big garden"),
        ("plans a birthday party", "prepares a garden party", "collects money for a present", "has too few hands"),
        {"find_product": 2.5, "place_order": 2.5, "split_bill": 2.5, "set_reminder": 2, "get_weather": 2, "convert_currency": 1},
        ("invitations designed", "a clown hired", "a playlist put together", "a speech written", "a bouncy castle insured"),
        goods=("party tent", "string of lights", "paper lantern", "picnic basket", "balloon pack", "garland", "folding table",
            "water jug",
               "paper napkin pack"),
        reminders=("collect the birthday cake", "buy candles", "pick up the drinks", "invite the neighbours",
            "borrow the benches",
                   "wrap the present"),
        payments=(Payment("GBP", "EUR", 20, 150, "a present from a British shop"), Payment("EUR", "USD", 25, 200,
            "a present for a niece in Boston")),
        bills=(SharedBill(8, 25, 5, 20, False, "a present"), SharedBill(10, 28, 5, 16, True, "a dinner"), SharedBill(5, 15, 5,
            20, False, "the drinks")),
        weather=("a garden party", "a village fair", "a barbecue"),
        outdoors=True,
    ),
    Domain(
        "pets", 0.9,
        ("a volunteer at an animal shelter", "a dog walker", "a breeder of cats", "the owner of two old dogs",
         "a riding teacher"),
        ("cares for animals all day", "takes in a new animal", "drives animals to the vet", "buys for several animals"),
        {"find_product": 2.5, "place_order": 2, "set_reminder": 2, "find_free_slots": 2, "add_event": 2, "plan_route": 1.5,
            "get_weather": 1.5},
        ("a lost cat found", "a limping dog examined", "a pet passport issued", "a puppy trained", "a name for a kitten"),
        goods=("dog lead", "cat basket", "feeding bowl", "pet carrier", "litter tray", "dog blanket", "scratching post",
            "grooming brush",
               "water fountain"),
        reminders=("give the old dog its tablet", "order the dry food", "trim the claws", "clean the cages", "call the vet",
            "weigh the kittens"),
        events=(EventTitle("vet visit", (30, 45)), EventTitle("adoption talk", (30, 45, 60)), EventTitle("riding lesson", (45,
            60, 90)),
                EventTitle("kennel inspection", (60, 90)), CALL),
        trips=("the vet", "a new home for an animal", "an animal show"),
        weather=("a long walk", "an open day", "a ride out"),
        reach_km=90,
        modes={"car": 3, "train": 0.5},
    ),
)  # fmt: skip
DOMAINS_BY_NAME: Mapping[str, Domain] = {domain.name: domain for domain in DOMAINS}
