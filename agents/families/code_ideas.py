"""The shipped ideas of programming tasks: domains crossed with operations. Knows no recipe and no run.

    python -m agents.families.code_ideas > data/seeds/code_tasks.jsonl

An operation names the fields that it needs, the variants that fit it and the levels at which it makes sense; each domain has
all fields. So every pair is sensible, and what a pair is varied by never contradicts it.
"""

# ruff: noqa: E501  # a row of a table is one line

import json
import re
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

DOMAINS_OF_OPERATION = 9
"""Each operation is crossed with that number of domains."""
RECORDS = (
    "a list of tuples ({fields})",
    "a list of dicts with the keys {names}",
    "a text with one {record} a line, its fields divided by `;`: {fields}",
)
COLUMNS = "lists of equal length, one for each of {fields}"


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
    plan: str
    """A place that can be drawn as rows of characters."""


DOMAINS = tuple(
    IdeaDomain(*(part.strip() for part in line.split("|")))
    for line in """
    a public library | loan | loans | member | members | branch | branches | books | borrowed | returned | `QA-0769` | a reading room
    a bus network | trip | trips | vehicle | vehicles | line | lines | passengers | departed | arrived | `L17-042` | a bus yard
    greenhouses | reading | readings | sensor | sensors | greenhouse | greenhouses | litres | opened | closed | `G3/118` | a greenhouse
    a warehouse | movement | movements | article | articles | aisle | aisles | pieces | stored | taken | `A04-113-7` | a warehouse floor
    a hospital | stay | stays | patient | patients | ward | wards | meals | admitted | discharged | `W2.0417` | a ward
    bicycle sharing | ride | rides | bicycle | bicycles | station | stations | minutes | unlocked | locked | `B-5521` | a square with stands
    a chess league | game | games | player | players | club | clubs | points | started | finished | `R05T12` | a board
    electricity meters | reading | readings | meter | meters | building | buildings | kilowatt-hours | connected | disconnected | `1EM004711` | a cellar
    a help desk | ticket | tickets | customer | customers | queue | queues | messages | opened | solved | `HD-20417` | an office
    a car park | visit | visits | car | cars | level | levels | coins | entered | left | `P3-118` | a parking level
    a build server | job | jobs | project | projects | runner | runners | tests | started | finished | `build#4711` | a server room
    a choir | rehearsal entry | rehearsal entries | singer | singers | voice | voices | songs | came | went | `S1-Alto` | a concert hall
    parcel delivery | parcel | parcels | courier | couriers | district | districts | grams | collected | delivered | `PX-00412-9` | a street map
    a cinema | booking | bookings | customer | customers | hall | halls | seats | booked | cancelled | `H2-R07-S13` | a hall of seats
    a web server | request | requests | client | clients | path | paths | bytes | connected | disconnected | `req-7f3a` | a rack of servers
    a bakery | order | orders | shop | shops | product | products | loaves | ordered | cancelled | `BR-212` | a baking tray
    rain gauges | measurement | measurements | gauge | gauges | valley | valleys | millimetres | set up | emptied | `RG-07-N` | a map of heights
    an airport | flight | flights | airline | airlines | gate | gates | passengers | boarded | departed | `GX 0471` | an apron
    music streaming | play | plays | listener | listeners | genre | genres | seconds | started | stopped | `TRK:88213` | a dance floor
    a museum | visit | visits | group | groups | room | rooms | visitors | entered | left | `M-1874.12` | a floor of rooms
    a laundry | wash | washes | machine | machines | building | buildings | grams | started | emptied | `WM-04` | a cellar
    a translation agency | assignment | assignments | translator | translators | language | languages | words | accepted | delivered | `EN>PT-0412` | an office
    fishing boats | catch | catches | boat | boats | harbour | harbours | kilograms | sailed | landed | `HB-77 K` | a bay with rocks
    a call centre | call | calls | agent | agents | topic | topics | seconds | answered | ended | `C-20-4417` | an office
    ski lifts | ride | rides | skier | skiers | lift | lifts | metres | boarded | left | `SL4-0099` | a slope
    a radio station | programme item | programme items | presenter | presenters | show | shows | seconds | started | ended | `FM-06:30` | a studio
    a recycling yard | delivery | deliveries | lorry | lorries | material | materials | kilograms | weighed in | weighed out | `RY-330-T` | a yard
    a seed bank | sample | samples | species | species | shelf | shelves | grains | deposited | withdrawn | `SB-1903-XII` | a cold room
    a board game café | session | sessions | guest | guests | game | games | points | started | ended | `T4-CATAN` | a game board
    a swimming club | heat | heats | swimmer | swimmers | stroke | strokes | lengths | started | finished | `50FR-H2` | a pool
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
    domains: tuple[str, ...] = ()
    """The domains in which it makes sense; none named: all."""
    shapes: tuple[str, ...] = ()
    """In the place of those that follow from the fields."""


KEY, GROUP, AMOUNT = "the {key}", "the {group}", "the number of {amount}"
START, END, STATE = "the minute of the start", "the minute of the end", "the event, `{opens}` or `{closes}`"
MINUTE = "the minute of the day"
TIES = "ties go to the one that was seen first", "all that are tied are returned, in alphabetical order"
EMPTY = "records in which a field is empty or None are left out, and their number is returned too"
NUMBERS = (
    "a list of whole numbers, the {amount} of each {record} in order",
    "a text with the {amount} of one {record} a line, in order",
    "a dict from the number of each {record}, counted from 1, to its {amount}",
)
PEOPLE = (
    "a chess league", "a choir", "parcel delivery", "a translation agency", "a call centre", "a radio station",
    "a board game café", "a swimming club", "a public library",
)  # fmt: skip
BOTH = (
    "two lists of tuples ({fields}), the earlier one first",
    "two dicts from {key} to {amount}, the earlier one first",
)

OPERATIONS = (
    IdeaOperation("grouping", "total the {amount} of {records} by {group} and keep the {groups} whose total is above a limit", (GROUP, AMOUNT),
        ("the limit is a share of the grand total in percent", EMPTY, "{groups} whose names differ in case only are the same")),
    IdeaOperation("grouping", "name for each {group} the {key} with the second largest total of {amount}", (GROUP, KEY, AMOUNT),
        (*TIES, "a {group} with one {key} only is left out"), ("medium", "hard")),
    IdeaOperation("grouping", "tell for each {key} in how many different {groups} it occurs, leaving out those with one only", (KEY, GROUP),
        ("the {groups} are returned too, in the order in which they were first seen", EMPTY)),
    IdeaOperation("grouping", "join {keys} that are linked by any chain of shared {groups} into clusters", (KEY, GROUP),
        ("a {group} with more than a given number of {keys} links nobody", "the clusters come by size, largest first"), ("hard",)),
    IdeaOperation("ranking", "rank {keys} by {amount} so that equal ones share a place and the next place is skipped", (KEY, AMOUNT),
        ("no place is skipped after a tie", "only the first n places are returned, with all that are tied for the last of them")),
    IdeaOperation("ranking", "name the {keys} whose {amount} rose with every {record} until now", (KEY, AMOUNT),
        ("one fall is forgiven", "{keys} with fewer than three {records} are left out"), ("medium",)),
    IdeaOperation("ranking", "keep the three {records} with the most {amount} of each {key}, in the order of the input", (KEY, AMOUNT),
        ("the number that is kept is a parameter, and 0 keeps nothing", *TIES), ("medium",)),
    IdeaOperation("ranking", "find the {key} that is nearest to the middle when all are sorted by total of {amount}", (KEY, AMOUNT), TIES),
    IdeaOperation("running state", "find the {record} with which the running total of {amount} first passes a limit", (KEY, AMOUNT),
        ("the total starts again at 0 whenever it has passed the limit, and all such {records} are returned", EMPTY)),
    IdeaOperation("running state", "replay the events {opens} and {closes} of each {key} and report the positions of those that cannot have happened", (KEY, STATE),
        ("an event that repeats the one before it is ignored, not reported", "at most n {keys} can be in the state `{opens}` at once"), ("medium",)),
    IdeaOperation("running state", "find the longest run of {records} in a row in which the {amount} never fall", (AMOUNT,),
        ("one fall of at most a given size is allowed", "the start and the length of the run are returned; of equal ones the last"), shapes=NUMBERS),
    IdeaOperation("running state", "count how often the lead among {keys} by running total of {amount} changes", (KEY, AMOUNT),
        ("a tie keeps the old leader", "the leaders are returned in order, not their number"), ("medium", "hard")),
    IdeaOperation("running state", "carry the {amount} above a capacity over to the next {record} and tell what is left at the end", (AMOUNT,),
        ("the largest carry is returned too", "the capacity falls by one after each {record} that was full"), shapes=NUMBERS),
    IdeaOperation("intervals", "find the greatest number of {records} that were open at once, and since which minute", (START, END),
        ("a {record} that starts in the minute in which another ends does not overlap it", "the total of minutes at this number is returned too"), ("medium", "hard")),
    IdeaOperation("intervals", "merge {records} of one {key} whose pause is shorter than a given number of minutes", (KEY, START, END),
        ("a {record} that ends before it starts goes past midnight", "the longest merged {record} of each {key} alone is returned"), ("medium", "hard")),
    IdeaOperation("intervals", "list the free times of a {group} between its {records} within opening hours", (START, END),
        ("free times shorter than a given number of minutes are left out", "{records} outside the opening hours are cut to them"), ("medium",)),
    IdeaOperation("intervals", "find all pairs of {records} of one {group} that overlap", (GROUP, START, END),
        ("the overlapping minutes of each pair are returned too", "an overlap of one minute is allowed"), ("medium",)),
    IdeaOperation("intervals", "add up the minutes in which at least n {keys} were present", (KEY, START, END),
        ("several {records} of one {key} at a time count once", "{records} without an end last until a given minute"), ("hard",)),
    IdeaOperation("reading text", "check lines about {records} and return the number of each bad line with a reason out of a fixed list", (KEY, GROUP, AMOUNT),
        ("blank lines and lines that begin with `#` are skipped, but counted", "only the first bad line of each reason is returned"), ("medium",),
        shapes=("a text with one {record} a line, its fields divided by `;`: {fields}", "a list of lines, each `key=value` pairs divided by blanks, with the keys {names}")),
    IdeaOperation("reading text", "read durations such as `1h05`, `45m` or `2d3h` in notes on {records} and add them up in minutes", (),
        ("a duration with a minus is taken off", "a note without a duration counts as a default"), ("medium",),
        shapes=("a list of notes", "a text with one note a line")),
    IdeaOperation("reading text", "unify the names of {keys} typed with other case, blanks or hyphens, and count each once", (),
        ("the spelling that is most frequent is kept, of equal ones the first", "two names are also the same if one is the other with a word at its end"), ("medium",),
        shapes=("a list of names", "a text with names divided by commas")),
    IdeaOperation("reading text", "expand a compact list of {record} numbers such as `3-6,9,12-13`", (),
        ("a step may follow, as in `3-11/2`", "a number with `!` before it is taken out again"), ("medium",), shapes=("one string",)),
    IdeaOperation("reading text", "split commands such as `move 12 from A to B` about {amount} and carry them out on a stock for each place", (),
        ("a command that would make a stock negative is skipped and listed", "`undo` takes back the last command that was carried out"), ("medium", "hard"),
        shapes=("a stock as a dict and a list of commands", "a stock as a dict and a text with one command a line")),
    IdeaOperation("codes", "check codes of {records} such as {code} part by part and tell which part is wrong", (),
        ("missing leading zeros are added and the repaired code is returned", "letters that look like digits (O, I) are read as digits"), ("medium",),
        shapes=("one code as a string", "a list of codes")),
    IdeaOperation("codes", "add a check character to codes such as {code}, from a weighted sum of its letters and digits", (),
        ("a code that has one already is checked", "the weights are a parameter and start again when they are used up"), ("medium",),
        shapes=("one code as a string", "a list of codes")),
    IdeaOperation("codes", "shorten the names of {keys} to the fewest first letters that tell them apart", (),
        ("every short form has at least two letters", "a name that is the start of another one gets a dot"), ("medium", "hard"), shapes=("a list of different names",)),
    IdeaOperation("codes", "number {records} as an outline (1, 1.1, 1.2, 2) from the depth of each", (),
        ("a depth that is skipped is numbered 0", "the deepest level has letters, not numbers"), ("medium",), shapes=("a list of whole numbers, the depth of each {record}", "a text whose lines are indented by two blanks for each level")),
    IdeaOperation("comparison", "compare two states of the {amount} of each {key} and report what was added, removed and changed", (KEY, AMOUNT),
        ("changes of at most a given number do not count", "a {key} whose name alone changed, with an equal and unique number, is reported as renamed"), ("medium",), shapes=BOTH),
    IdeaOperation("comparison", "find {keys} that occur in one list of {records} exactly as often as in another", (KEY,),
        ("the result is ordered by how often they occur, then by name", "names are compared without case"), shapes=("two lists of names",)),
    IdeaOperation("comparison", "match each {closes} with the latest open {opens} of its {key} and list what stays unmatched", (KEY, MINUTE, STATE),
        ("the earliest open one is matched", "a match that lasted longer than a limit counts as unmatched"), ("medium", "hard")),
    IdeaOperation("comparison", "merge two sorted lists of {records} into one and mark which list each came from, dropping repeated ones", (MINUTE, KEY),
        ("a {record} counts as repeated if it is within a given number of minutes", "at the same minute the second list comes first"), ("medium",), shapes=("two lists of tuples ({fields}), each sorted",)),
    IdeaOperation("windows", "give the median of the {amount} of the last n {records} after each {record}", (AMOUNT,),
        ("a value below 0 is a failed one and is skipped", "nothing is returned until n {records} were seen"), ("medium",), shapes=NUMBERS),
    IdeaOperation("windows", "find the window of n minutes in which most {records} start", (KEY, MINUTE),
        ("windows begin at full hours only", "the day is a circle, and a window may go past midnight"), ("medium", "hard")),
    IdeaOperation("windows", "mark {records} whose {amount} differ from the mean of both neighbours by more than a limit", (AMOUNT,),
        ("a marked value is replaced by this mean before going on", "the first and the last are compared with their one neighbour"), shapes=NUMBERS),
    IdeaOperation("windows", "count {records} in buckets of equal width, with the empty ones in between", (KEY, MINUTE),
        ("the width is chosen from 5, 15 and 60 so that there are at most n buckets", "a bucket at the edge is as short as the data")),
    IdeaOperation("simulation", "handle {records} in their order at n places, each for its own number of minutes, and tell when each is done", (KEY, "the number of minutes"),
        ("one that would wait longer than a limit is given up and listed", "one place is for short ones of at most a given number of minutes"), ("medium", "hard")),
    IdeaOperation("simulation", "pass half of the {amount} of each {key}, rounded down, to the next one for n rounds", (KEY, AMOUNT),
        ("all pass at the same time", "it stops as soon as a round changes nothing, and the number of rounds is returned"), ("medium",)),
    IdeaOperation("simulation", "rotate a duty among {keys} day by day, passing over those who are absent, so that nobody has it twice in a row", (),
        ("who was passed over comes first on the next day", "on days without anybody present None is entered, and the turn stays"), ("medium", "hard"), PEOPLE,
        shapes=("a list of names and a list with the set of absent names for each day", "a list of names and a dict from day number to absent names")),
    IdeaOperation("scheduling", "give {records} the fewest {groups} so that no two at the same time share one", (START, END),
        ("there must be a given number of minutes between two", "a {record} that needs two {groups} is marked"), ("hard",)),
    IdeaOperation("scheduling", "find the smallest capacity in {amount} with which all {records}, in order, fit into n loads", (AMOUNT,),
        ("a load has at most a given number of {records}", "the loads themselves are returned too"), ("medium", "hard"), shapes=NUMBERS),
    IdeaOperation("sharing", "share out {amount} among {keys} in proportion to their requests, in whole numbers, the rest by largest remainder", (KEY, AMOUNT),
        ("nobody gets more than the request", "each {key} with a request gets at least one"), ("medium", "hard")),
    IdeaOperation("sharing", "cut a list of {records} into two parts, without changing the order, whose totals of {amount} are as equal as possible", (AMOUNT,),
        ("into three parts", "the first part must be the larger one"), ("medium",), shapes=NUMBERS),
    IdeaOperation("searching", "find the fewest {records} whose {amount} add up to exactly a target", (AMOUNT,),
        ("of several such choices the one with the earliest positions", "at most one {record} may be used twice"), ("hard",), shapes=NUMBERS),
    IdeaOperation("searching", "find the first {record} whose {amount} are the sum of two different earlier ones", (AMOUNT,),
        ("the two must be among the last n", "the positions of all three are returned"), ("medium",), shapes=NUMBERS),
    IdeaOperation("graphs", "put {groups} into an order in which each comes after those that it depends on, and report a circle", (),
        ("where several are possible, the alphabetical first", "those that can be done at the same time form one step"), ("hard",),
        shapes=("a list of pairs (before, after)", "a dict from a name to the names it depends on", "a text with lines such as `b: a, c`")),
    IdeaOperation("graphs", "find the {groups} that can be reached from one over at most n links", (),
        ("links have one direction", "closed {groups} are given and cannot be passed"), ("medium", "hard"),
        shapes=("a list of pairs of names", "a dict from a name to the list of its neighbours")),
    IdeaOperation("graphs", "find the cheapest way between two {groups} where each link has a price in coins and each change of line costs one coin more", (),
        ("at most n links", "the way itself is returned, of equal ones the one with fewer links"), ("hard",), shapes=("a list of tuples (name, name, price, line)",)),
    IdeaOperation("grids", "count the free places of {plan} that touch at least three taken ones, corners included", (),
        ("places at the border have one taken neighbour outside", "their positions are returned, not their number"), ("medium",), shapes=("a list of rows of equal length, with `#` for taken and `.` for free", "one string with rows divided by line breaks, with `#` and `.`")),
    IdeaOperation("grids", "follow moves such as `N2 E1` through {plan} with obstacles and tell where they end", (),
        ("a move that meets an obstacle stops in front of it and the next one begins", "the number of different places that were visited is returned too"), ("medium", "hard"), shapes=("a list of rows with `#` for obstacles, a start as (row, column), and a text of moves",)),
    IdeaOperation("grids", "find the largest rectangle of free places in {plan}", (),
        ("it must not touch the border", "its upper left corner is returned too, of equal ones the topmost"), ("hard",), shapes=("a list of rows of equal length, with `#` for taken and `.` for free",)),
    IdeaOperation("tables", "write {keys} and their {amount} as lines of text, names to the left and numbers to the right, in columns of equal width", (KEY, AMOUNT),
        ("thousands are divided by blanks", "names longer than a limit are cut and end in `…`", "a last line has the total")),
    IdeaOperation("tables", "turn {records} into a cross table of {keys} and {groups} with totals of {amount}, sorted, and 0 where there is none", (KEY, GROUP, AMOUNT),
        ("a last row and column have the sums", "rows whose total is 0 are left out"), ("medium",)),
)  # fmt: skip


def build_code_rows() -> Iterator[dict[str, Any]]:
    """The rows of `data/seeds/code_tasks.jsonl`: each operation with `DOMAINS_OF_OPERATION` domains, all about equally."""
    turn = 0
    for operation in OPERATIONS:
        domains = [domain for domain in DOMAINS if not operation.domains or domain.name in operation.domains]
        for i in range(DOMAINS_OF_OPERATION):
            domain = domains[(turn + i) * 7 % len(domains)]
            words = domain._asdict()
            fields = [field.format(**words) for field in operation.fields]
            listed = {"fields": ", ".join(fields), "names": ", ".join(_name_field(field) for field in fields)}
            shapes = operation.shapes or (*RECORDS, *([COLUMNS] if len(fields) > 1 else []))
            yield {
                "idea": f"{domain.name}: {operation.idea.format(**words)}",
                "category": operation.category,
                "domain": domain.name,
                "level": list(operation.levels),
                "shape": [shape.format(**words, **listed) for shape in shapes],
                "twist": [twist.format(**words) for twist in operation.twists],
            }
        turn += DOMAINS_OF_OPERATION


def _name_field(field: str) -> str:
    """The key of a field in a dict: its last noun."""
    words = re.findall(r"[\w-]+", field.removeprefix("the number of ").removeprefix("the ").partition(",")[0])
    return f"`{'start' if field == START else 'end' if field == END else words[0].replace('-', '_')}`"


if __name__ == "__main__":
    sys.stdout.writelines(f"{json.dumps(row, ensure_ascii=False)}\n" for row in build_code_rows())
