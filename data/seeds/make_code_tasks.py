"""The shipped ideas of programming tasks: domains crossed with operations. Knows no recipe and no run.

    python data/seeds/make_code_tasks.py > data/seeds/code_tasks.jsonl

An operation names the fields that it needs, the variants that fit it, and the levels and domains in which it makes sense. So
every pair is sensible. A variant changes its idea and never forbids it. No example of the prompt has an idea of this table.
"""

# ruff: noqa: E501  # a row of a table is one line

import json
import re
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from random import Random
from typing import Any, NamedTuple

DOMAINS_OF_OPERATION = 9
"""Each operation is crossed with at most that number of the domains in which it makes sense."""
RECORDS = (
    "a list of tuples ({fields})",
    "a list of dicts with the keys {names}",
    "a text with one {record} a line, its fields divided by `;`: {fields}",
)
COLUMNS = "a list for each field, all of equal length: {fields}"


class IdeaDomain(NamedTuple):
    """What records are about. All nouns are lower-case."""

    name: str
    record: str
    records: str
    key: str
    """Who or what a record belongs to."""
    keys: str
    group: str
    """Where it happens, or its kind."""
    groups: str
    amount: str
    """A whole number of something, as a plural noun."""
    opens: str
    """The two events that begin and end a record."""
    closes: str
    code: str
    """How a code is written here."""


DOMAINS = tuple(
    IdeaDomain(*(part.strip() for part in line.split("|")))
    for line in """
    a public library | loan | loans | member | members | branch | branches | books | borrowed | returned | `QA-0769`
    a bus network | trip | trips | vehicle | vehicles | line | lines | passengers | departed | arrived | `L17-042`
    greenhouses | watering | waterings | valve | valves | greenhouse | greenhouses | litres | opened | closed | `G3/118`
    a warehouse | movement | movements | article | articles | aisle | aisles | pieces | stored | taken | `A04-113-7`
    a hospital | stay | stays | patient | patients | ward | wards | meals | admitted | discharged | `W2.0417`
    bicycle sharing | ride | rides | bicycle | bicycles | station | stations | minutes | unlocked | locked | `B-5521`
    a chess league | game | games | player | players | club | clubs | points | started | finished | `R05T12`
    electricity meters | reading | readings | meter | meters | building | buildings | kilowatt-hours | connected | disconnected | `1EM004711`
    a help desk | ticket | tickets | customer | customers | queue | queues | messages | opened | solved | `HD-20417`
    a car park | visit | visits | car | cars | level | levels | coins | entered | left | `P3-118`
    a build server | job | jobs | project | projects | runner | runners | tests | started | finished | `build#4711`
    a choir | performance | performances | singer | singers | voice | voices | songs | joined | left | `S1-Alto`
    parcel delivery | parcel | parcels | courier | couriers | district | districts | grams | collected | delivered | `PX-00412-9`
    a cinema | booking | bookings | customer | customers | hall | halls | seats | booked | cancelled | `H2-R07-S13`
    a web server | request | requests | client | clients | path | paths | bytes | connected | disconnected | `req-7f3a`
    a bakery | order | orders | shop | shops | product | products | loaves | ordered | cancelled | `BR-212`
    rain gauges | measurement | measurements | gauge | gauges | valley | valleys | millimetres | installed | removed | `RG-07-N`
    an airport | flight | flights | airline | airlines | gate | gates | passengers | boarded | departed | `GX 0471`
    music streaming | play | plays | listener | listeners | genre | genres | seconds | started | stopped | `TRK:88213`
    a museum | visit | visits | group | groups | room | rooms | visitors | entered | left | `M-1874.12`
    a laundry | wash | washes | machine | machines | building | buildings | grams | started | emptied | `WM-04`
    a translation agency | assignment | assignments | translator | translators | language | languages | words | accepted | delivered | `EN>PT-0412`
    fishing boats | catch | catches | boat | boats | harbour | harbours | kilograms | sailed | landed | `HB-77 K`
    a call centre | call | calls | agent | agents | topic | topics | seconds | answered | ended | `C-20-4417`
    ski lifts | ride | rides | skier | skiers | lift | lifts | metres | boarded | left | `SL4-0099`
    a radio station | programme item | programme items | presenter | presenters | show | shows | seconds | started | ended | `FM-06:30`
    a recycling yard | delivery | deliveries | lorry | lorries | material | materials | kilograms | weighed in | weighed out | `RY-330-T`
    a seed bank | sample | samples | species | species | shelf | shelves | grains | deposited | withdrawn | `SB-1903-XII`
    a board game café | session | sessions | guest | guests | game | games | points | started | ended | `T4-CATAN`
    a swimming club | heat | heats | swimmer | swimmers | stroke | strokes | lengths | started | finished | `50FR-H2`
    """.strip().splitlines()
)


class IdeaOperation(NamedTuple):
    """What a function does with records, with places such as `{records}` for a domain's words."""

    category: str
    idea: str
    fields: tuple[str, ...] = ()
    """Of a record; the shapes of the input follow from them."""
    twists: tuple[str, ...] = ()
    """Variants that fit."""
    levels: tuple[str, ...] = ("easy", "medium")
    domains: Collection[str] = ()
    """The domains in which it makes sense; none named: all. A mapping gives what `{things}` are in each."""
    shapes: tuple[str, ...] = ()
    """In the place of those that follow from the fields."""


KEY, GROUP, AMOUNT = "the {key}", "the {group}", "the number of {amount}"
START, END, STATE = "the minute of the start", "the minute of the end", "the event, `{opens}` or `{closes}`"
MINUTE = "the minute of the day"
TIES = "ties go to the one that was seen first", "all that are tied are returned, in alphabetical order"
EMPTY = "records in which a field is empty or None are left out, and their number is returned too"
PAST_MIDNIGHT = "a {record} that ends before it starts goes past midnight"
NUMBERS = (
    "a list of whole numbers, the {amount} of each {record} in order",
    "a text with the {amount} of one {record} a line, in order",
    "a dict from the number of each {record}, counted from 1, to its {amount}",
)
NAMES = ("a list of names in order", "a text with names divided by commas, in order")
PEOPLE = (
    "a chess league", "a choir", "parcel delivery", "a translation agency", "a call centre", "a radio station",
    "a board game café", "a swimming club", "a public library",
)  # fmt: skip
LASTING = (
    "a bus network", "greenhouses", "a hospital", "bicycle sharing", "a chess league", "a help desk",
    "a car park", "a build server", "music streaming", "a museum", "a laundry", "a translation agency", "a call centre",
    "ski lifts", "a radio station", "a board game café", "a swimming club",
)  # fmt: skip
"""Domains whose records have a start and an end."""
BOTH = (
    "two lists of tuples ({fields}), the earlier one first",
    "two dicts from {key} to {amount}, the earlier one first",
)
GRID = "a list of rows of equal length, with `#` for taken and `.` for free"

OPERATIONS = (
    IdeaOperation("grouping", "total the {amount} of {records} by {group} and keep the {groups} whose total is above a limit", (GROUP, AMOUNT),
        ("the limit is a share of the grand total in percent", EMPTY, "{groups} whose names differ in case only are the same")),
    IdeaOperation("grouping", "name for each {group} the {key} with the second largest total of {amount}", (GROUP, KEY, AMOUNT),
        (*TIES, "a {group} with one {key} only is left out"), ("medium", "hard")),
    IdeaOperation("grouping", "count the different {groups} of each {key}, leaving out {keys} with one only", (KEY, GROUP),
        ("the {groups} are returned too, in the order in which they were first seen", EMPTY)),
    IdeaOperation("grouping", "find the sets of {groups} that have {records} of exactly the same {keys}", (KEY, GROUP),
        ("a {group} with one {key} only is left out", "the sets with the most {groups} come first"), ("medium", "hard")),
    IdeaOperation("grouping", "number the {records} of each {key} from 1 on and mark the last one of each", (KEY, GROUP),
        ("the {records} of each {key} are numbered by {group} too, as in `2/1`", "{keys} with one {record} only get no number")),
    IdeaOperation("ranking", "divide {keys} by total of {amount} into four bands that are as equal in size as possible", (KEY, AMOUNT),
        ("{keys} with equal totals share the better band", "the number of bands is a parameter"), ("medium",)),
    IdeaOperation("ranking", "name the {keys} whose number of {amount} rose from each {record} to the next", (KEY, AMOUNT),
        ("one fall is forgiven", "{keys} with fewer than three {records} are left out"), ("medium",)),
    IdeaOperation("ranking", "find the {key} in the middle when all {keys} are sorted by total of {amount}", (KEY, AMOUNT),
        ("of an even number of {keys} both in the middle are returned", "totals that are equal count as one place, with all their {keys}")),
    IdeaOperation("running state", "find the {record} with which the running total of {amount} first passes a limit", (KEY, AMOUNT),
        ("the total starts again at 0 whenever it has passed the limit, and all such {records} are returned", EMPTY)),
    IdeaOperation("running state", "replay the events `{opens}` and `{closes}` of each {key} and report the positions of those that cannot have happened", (KEY, STATE),
        ("an event that repeats the one before it is ignored, not reported", "at most n {keys} can be in the state `{opens}` at once"), ("medium",)),
    IdeaOperation("running state", "find the longest run of {records} in which the number of {amount} never falls from one to the next", (AMOUNT,),
        ("one fall of at most a given size is allowed", "{records} with 0 {amount} are passed over"), shapes=NUMBERS),
    IdeaOperation("running state", "count how often the lead among {keys} by running total of {amount} changes", (KEY, AMOUNT),
        ("a tie keeps the old leader", "the leaders are returned in order, not their number"), ("medium", "hard")),
    IdeaOperation("running state", "tell after each {record} which {key} has the smallest running total of {amount} so far", (KEY, AMOUNT),
        (TIES[0], "until n {keys} have been seen, None is entered")),
    IdeaOperation("running state", "carry the {amount} above a capacity over to the next {record} and tell what is left at the end", (AMOUNT,),
        ("the largest carry is returned too", "the capacity falls by one after each {record} that was full"), shapes=NUMBERS,
        domains=("a bus network", "a bakery", "a laundry", "a translation agency", "a recycling yard", "an airport")),
    IdeaOperation("intervals", "find the greatest number of {records} at the same time, and the minute in which it was first reached", (START, END),
        ("a {record} that starts in the minute in which another ends does not overlap it", "the total of minutes at this number is returned too"), ("medium", "hard"), LASTING),
    IdeaOperation("intervals", "merge {records} of one {key} if the pause between them is shorter than a given number of minutes", (KEY, START, END),
        (PAST_MIDNIGHT, "only the longest merged {record} of each {key} is returned"), ("medium", "hard"), LASTING),
    IdeaOperation("intervals", "list the times between two given minutes in which there is no {record}", (START, END),
        ("times shorter than a given number of minutes are left out", "each time is cut at full hours"), ("medium",), LASTING),
    IdeaOperation("intervals", "find all pairs of {records} of one {group} that overlap", (GROUP, START, END),
        ("the overlapping minutes of each pair are returned too", "an overlap of at most a given number of minutes is allowed"), ("medium",), LASTING),
    IdeaOperation("intervals", "add up the minutes of {records} in each hour of the day", (START, END),
        (PAST_MIDNIGHT, "hours without a {record} are left out"), ("medium",), LASTING),
    IdeaOperation("intervals", "find for each {key} the longest pause between one {record} and the next", (KEY, START, END),
        ("a pause that contains a given minute does not count", "{keys} with one {record} only are returned with None"), ("medium",), LASTING),
    IdeaOperation("reading text", "check lines about {records} and return the number of each bad line with a reason out of a fixed list", (KEY, GROUP, AMOUNT),
        ("blank lines and lines that begin with `#` are skipped, but counted", "only the first bad line of each reason is returned"), ("medium",),
        shapes=("a text with one {record} a line, its fields divided by `;`: {fields}", "a list of lines, each of `key=value` pairs divided by blanks, with the keys {names}")),
    IdeaOperation("reading text", "add up durations such as `1h05`, `45m` or `2d3h` that occur in notes on {records}, in minutes", (),
        ("a duration with a minus in front is subtracted", "a note without a duration counts as a given number of minutes"), ("medium",), LASTING,
        shapes=("a list of notes", "a text with one note a line")),
    IdeaOperation("reading text", "list the different {keys} in names that were typed with different case, blanks and hyphens", (),
        ("the most frequent spelling is kept, of equally frequent ones the first", "a word in brackets at the end of a name does not count"), ("medium",),
        shapes=("a list of names", "a text with names divided by commas")),
    IdeaOperation("reading text", "read blocks of `key: value` lines, divided by blank lines, into one dict for each {record}", (),
        ("a line that begins with a blank continues the value before it", "a block without the key `{field}` is skipped, and their number is returned too"), ("medium",), shapes=("one text", "a list of lines")),
    IdeaOperation("reading text", "fill placeholders such as `<name>` in a message about {records} from a dict", (),
        ("`<name|text>` has a default after the bar", "those without a value stay as they are and are listed"), ("medium",), shapes=("a text and a dict of texts",)),
    IdeaOperation("reading text", "expand a compact list of {record} numbers such as `3-6,9,12-13`", (),
        ("a step may follow, as in `3-11/2`", "a number with `!` before it is taken out again"), ("medium",), shapes=("one string",)),
    IdeaOperation("codes", "check codes of {records} such as {code} part by part and name the first part that is wrong", (),
        ("missing leading zeros are added and the repaired code is returned", "letters that look like digits (O, I) are read as digits where a digit belongs"), ("medium",),
        shapes=("one code as a string", "a list of codes")),
    IdeaOperation("codes", "shorten the names of {keys} to the fewest first letters that tell them apart", (),
        ("every short form has at least two letters", "a name that is the start of another one gets a dot"), ("medium", "hard"), shapes=("a list of different names",)),
    IdeaOperation("codes", "write the numbers that are missing among numbered {records} as ranges such as `4-6, 9`", (),
        ("numbers that occur twice are returned too", "a range of two numbers is written as two single ones"), ("medium",), shapes=("a list of whole numbers in any order",)),
    IdeaOperation("codes", "write the {groups} of {records} in order as a short text such as `3xA B 2xC`", (),
        ("a run of two is written out, as in `A A`", "no number is above 9, and a longer run is divided"), ("easy", "medium"), shapes=NAMES),
    IdeaOperation("codes", "number the entries of {things} as an outline (1, 1.1, 1.2, 2) from the depth of each", (),
        ("a level that is skipped is numbered 0", "the deepest level has letters, not numbers"), ("medium",),
        {"a public library": "a catalogue of subjects", "a warehouse": "a packing list", "a help desk": "a guide for customers", "a museum": "a catalogue of rooms", "a translation agency": "a contract", "a bakery": "a recipe"},
        ("a list of whole numbers, the depth of each entry", "a text whose lines are indented by two blanks for each level")),
    IdeaOperation("comparison", "compare two lists of {keys} with their {amount} and report what was added, removed and changed", (KEY, AMOUNT),
        ("changes of at most a given number do not count", "a {key} that was removed and one that was added with the same number are reported as renamed, if no other has this number"), ("medium",), shapes=BOTH),
    IdeaOperation("comparison", "find the {keys} that occur in one list of {records} exactly as often as in another", (KEY,),
        ("the result is ordered by how often they occur, then by name", "names are compared without case"), shapes=("two lists of names",)),
    IdeaOperation("comparison", "find the {keys} that are in at least two of three lists", (KEY,),
        ("the numbers of the lists are returned with each", "names are compared without case"), shapes=("three lists of names",)),
    IdeaOperation("comparison", "pair {keys} of two lists whose names differ in at most one letter", (KEY,),
        ("each name is used at most once, and equal names are paired first", "two neighbouring letters that are swapped count as one difference"), ("medium", "hard"), shapes=("two lists of names",)),
    IdeaOperation("comparison", "merge two sorted lists of {records} into one without repetitions and tell which list each came from", (MINUTE, KEY),
        ("two {records} of one {key} less than a given number of minutes apart count as a repetition", "at the same minute the second list comes first"), ("medium",), shapes=("two lists of tuples ({fields}), each sorted",)),
    IdeaOperation("windows", "give after each {record} the median of the {amount} of the last n {records}", (AMOUNT,),
        ("a value below 0 is an error and is skipped", "nothing is returned until n {records} were seen"), ("medium",), shapes=NUMBERS),
    IdeaOperation("windows", "find the window of n minutes in which most {records} start", (KEY, MINUTE),
        ("windows begin at full hours only", "the day is a circle, and a window may go past midnight"), ("medium", "hard"), LASTING),
    IdeaOperation("windows", "find the shortest stretch of {records} in which at least n different {keys} occur", (KEY,),
        ("{keys} of a given set do not count", "of equally short ones the last is returned"), ("hard",), shapes=NAMES),
    IdeaOperation("windows", "report the {keys} with more than n {records} within m minutes", (KEY, MINUTE),
        ("after a report the count of this {key} starts again at 0", "the minute in which it first had too many is returned too"), ("medium", "hard")),
    IdeaOperation("windows", "count {records} in time slots of equal length, with the empty slots in between", (KEY, MINUTE),
        ("the length is chosen from 5, 15 and 60 minutes so that there are at most n slots", "the slots begin with the first {record}, not with the day")),
    IdeaOperation("simulation", "serve {records} in their order with n {things}, each for its own number of minutes, and tell when each is done", ("the name of the {record}", "the number of minutes"),
        ("a {record} that would wait longer than a limit is given up and listed", "the first of the {things} takes only {records} of at most a given number of minutes"), ("medium", "hard"),
        {"a help desk": "desks", "a bakery": "ovens", "a build server": "runners", "a laundry": "machines", "a call centre": "agents", "a translation agency": "translators", "a recycling yard": "ramps"}),
    IdeaOperation("simulation", "keep the n {keys} that were seen last and count the {records} whose {key} was not among them", (KEY,),
        ("of those that are kept, the one with the fewest {records} goes first", "{keys} of a given set are never dropped"), ("medium", "hard"), shapes=NAMES),
    IdeaOperation("simulation", "let each of the {things} in a ring pass half of its {amount}, rounded down, to the next one, for n rounds", (),
        ("all pass at the same time", "it stops as soon as a round changes nothing, and the number of rounds is returned"), ("medium",),
        {"a warehouse": "aisles", "a bakery": "shops", "a seed bank": "shelves", "a recycling yard": "containers"},
        ("a list of whole numbers, the {amount} of each", "a list of tuples (name, number of {amount})")),
    IdeaOperation("simulation", "rotate a duty among {keys} day by day, passing over those who are absent, so that nobody has it twice in a row", (),
        ("who was passed over comes first on the next day", "on days without anybody present None is entered, and the turn stays"), ("medium", "hard"), PEOPLE,
        shapes=("a list of names and a list with the set of absent names for each day", "a list of names and a dict from day number to absent names")),
    IdeaOperation("scheduling", "find the smallest capacity in {amount} with which all {records}, in order, fit into n loads", (AMOUNT,),
        ("a load has at most a given number of {records}", "the loads themselves are returned too"), ("medium", "hard"), shapes=NUMBERS,
        domains=("parcel delivery", "a laundry", "a recycling yard", "a bakery", "fishing boats")),
    IdeaOperation("scheduling", "plan {records} one after the other by deadline and name those that are late", (),
        ("of {records} with the same deadline the shortest comes first", "some {records} are marked as urgent and come before all others"), ("easy", "medium"),
        ("a help desk", "a build server", "a translation agency", "a bakery", "a laundry", "parcel delivery"), ("a list of tuples (name, deadline, length), both in minutes", "a dict from name to a tuple (deadline, length), both in minutes")),
    IdeaOperation("sharing", "cut a list of {records} into two parts, without changing the order, whose totals of {amount} are as equal as possible", (AMOUNT,),
        ("into three parts", "the first part must have the larger total"), ("medium",), shapes=NUMBERS),
    IdeaOperation("searching", "find the fewest {records} whose {amount} add up to exactly a target", (AMOUNT,),
        ("of several such choices the one with the earliest positions is returned", "at most one {record} may be used twice"), ("hard",), shapes=NUMBERS),
    IdeaOperation("searching", "find the first {record} whose {amount} are the sum of those of two different earlier ones", (AMOUNT,),
        ("the two must be among the last n", "the positions of all three are returned"), ("medium",), shapes=NUMBERS),
    IdeaOperation("graphs", "put {things} into an order in which each comes after those that it depends on, and report a cycle", (),
        ("where several are possible, the alphabetically first", "those that can be done at the same time form one step"), ("hard",),
        {"a build server": "projects", "a bakery": "steps of a recipe", "a museum": "steps of a restoration", "an airport": "tasks before a departure", "a radio station": "parts of a show", "a translation agency": "chapters"},
        ("a list of pairs (before, after)", "a dict from a name to the names it depends on", "a text with lines such as `b: a, c`")),
    IdeaOperation("graphs", "find the {things} that can be reached from one over at most n links", (),
        ("links have one direction", "closed {things} are given and cannot be passed"), ("medium", "hard"),
        {"a bus network": "stops", "a museum": "rooms", "ski lifts": "stations", "a warehouse": "aisles", "parcel delivery": "depots", "an airport": "airports", "a web server": "pages"},
        ("a list of pairs of names", "a dict from a name to the list of its neighbours")),
    IdeaOperation("graphs", "find the cheapest route between two {things} where each link has a price in coins and each change of line costs one coin more", (),
        ("at most n links", "the route itself is returned, of equally cheap ones the one with fewer links"), ("hard",),
        {"a bus network": "stops", "an airport": "airports", "parcel delivery": "depots"}, ("a list of tuples (name, name, price, line)",)),
    IdeaOperation("grids", "count the free {things} that touch at least three taken ones, corners included", (),
        ("those at the border have one taken neighbour outside", "their positions are returned, not their number"), ("medium",),
        {"a cinema": "seats", "a car park": "spaces of a level", "a public library": "seats of a reading room", "greenhouses": "plant places", "a bus network": "places of a bus yard", "a warehouse": "places of a shelf"},
        (GRID, "one string with rows divided by line breaks, with `#` for taken and `.` for free")),
    IdeaOperation("grids", "find the largest rectangle of free {things}", (),
        ("it must not touch the border", "its upper left corner is returned too, of equally large ones the topmost, then the leftmost"), ("hard",),
        {"a warehouse": "floor tiles", "a car park": "spaces of a level", "greenhouses": "plant places", "a cinema": "seats"}, (GRID,)),
    IdeaOperation("grids", "find the first row with n free {things} next to each other", (),
        ("a taken place in between is allowed once", "of several stretches in the row the one nearest to its middle"), ("easy", "medium"),
        {"a cinema": "seats", "a car park": "spaces", "a choir": "places on the stage", "an airport": "seats of a plane", "a bus network": "seats of a bus"}, (GRID,)),
    IdeaOperation("tables", "write {keys} and their {amount} as lines of text, names to the left and numbers to the right, in columns of equal width", (KEY, AMOUNT),
        ("thousands are divided by blanks", "names longer than a limit are cut and end in `…`", "a last line has the total")),
    IdeaOperation("tables", "turn {records} into a cross table of {keys} and {groups} with totals of {amount}, sorted, and 0 where there is none", (KEY, GROUP, AMOUNT),
        ("a last row and column have the sums", "rows whose total is 0 are left out"), ("medium",)),
    IdeaOperation("tables", "read a table of {records} with cells divided by `|` and total the column that is named", (),
        ("rows with a wrong number of cells are skipped, and their number is returned too", "the name of the column is compared without case and blanks"), ("medium",), shapes=("a text whose first line has the names of the columns", "a list of lines, the first with the names of the columns")),
    IdeaOperation("tables", "write for each {group} a line with its name and its {keys}, divided by commas and wrapped at a width", (GROUP, KEY),
        ("a line that continues another is indented by two blanks", "only the first n {keys} are written, then `and N more`"), ("medium",)),
)  # fmt: skip


def build_code_rows() -> Iterator[dict[str, Any]]:
    """The rows of `data/seeds/code_tasks.jsonl`: each operation with up to `DOMAINS_OF_OPERATION` of its domains, at random
    among those that have the fewest rows so far.
    """
    rows_of_domain: Counter[str] = Counter()
    for operation in OPERATIONS:
        allowed = [domain for domain in DOMAINS if not operation.domains or domain.name in operation.domains]
        Random(operation.idea).shuffle(allowed)
        for domain in sorted(allowed, key=lambda domain: rows_of_domain[domain.name])[:DOMAINS_OF_OPERATION]:
            rows_of_domain[domain.name] += 1
            words = domain._asdict() | {"field": domain.key.replace(" ", "_")}
            if isinstance(operation.domains, Mapping):
                words["things"] = operation.domains[domain.name]
            fields = [field.format(**words) for field in operation.fields]
            listed = {"fields": ", ".join(fields), "names": ", ".join(_name_field(field) for field in fields)}
            shapes = operation.shapes or (*RECORDS, *([COLUMNS] if len(fields) > 1 else []))
            yield {
                "idea": f"{domain.name}: {_fill(operation.idea, words)}",
                "category": operation.category,
                "domain": domain.name,
                "level": list(operation.levels),
                "shape": [_fill(shape, words | listed) for shape in shapes],
                "twist": [_fill(twist, words) for twist in operation.twists],
            }


def _fill(text: str, words: Mapping[str, str]) -> str:
    """A text with a domain's words, and "an" before a vowel. No word of a domain that follows "a" begins with "u"."""
    return re.sub(r"\b([Aa]) (?=[aeio])", r"\1n ", text.format(**words))


def _name_field(field: str) -> str:
    """The key of a field in a dict: its last noun."""
    words = re.findall(r"[\w-]+", field.removeprefix("the number of ").removeprefix("the ").partition(",")[0])
    return f"`{'start' if field == START else 'end' if field == END else words[0].replace('-', '_')}`"


if __name__ == "__main__":
    sys.stdout.writelines(f"{json.dumps(row, ensure_ascii=False)}\n" for row in build_code_rows())
