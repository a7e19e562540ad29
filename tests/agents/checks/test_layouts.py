"""What the check `occurs` reads in forms, tables, HTML and quoted messages."""

import pytest

from agents.checks.text.layouts import read_flags, read_layout
from agents.checks.text.value_in_text import find_value_faults

HTML = """<main><h1>Parts</h1><p>For <b>Nadia</b> Brandt, in <i>all</i>: 52&nbsp;&pound;.</p>
<table><tr><th>Part</th><th>Price</th><th>Ordered</th></tr>
<tr><td>pump&nbsp;4</td><td>&pound;48.50</td><td>yes</td></tr><tr><td>hose</td><td></td><td>no</td></tr></table>
<dl><dt>Guest</dt> <dd>Jo &amp; Al</dd><dt>Phone</dt><dd>-</dd></dl><!-- Room: 9 --></main>"""


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("We meet, as always, at noon.\nBring cups, cake, and chairs.\nLove, Jo, and Al", None),
        ("| Part | Price |\n|---|---:|\n| pump | 12 |\n| hose | - |", "Part: pump | Price: 12\nPart: hose"),
        ("| Field | Value |\n|---|---|\n| Guest | Nadia |\n| Phone | |", "Guest: Nadia"),
        ("Part\tPrice\tOrdered\npump\t12\tyes\nhose\t\tno", "Part: pump | Price: 12 | Ordered: yes\nPart: hose | Ordered: no"),
        ("Part    Price   Shelf\n------  ------  -----\npump    12      A\nhose            B",
         "Part: pump | Price: 12 | Shelf: A\nPart: hose | Shelf: B"),
        ('Stock\nPart,Price,Shelf\n"pump, old",12,A\nhose,,B',
         "Stock\nPart: pump, old | Price: 12 | Shelf: A\nPart: hose | Shelf: B"),
        ("Phone: ____\nFax: n/a\nGuest: Jo\nAddress:\n9 Mill Lane", "\n\nGuest: Jo\nAddress:\n9 Mill Lane"),
        ("Lift: [ ] yes [x] no\n[x] urgent  [ ] can wait", "Lift:  no\n urgent  "),
        ("Weight, g: 38 400 g\nTelephone: 170 555 0199", "Weight, g: 38 400 (38400) g\nTelephone: 170 555 0199"),
        ("Dear Ms Clara Ivers:\n\nThe wall is damp.", None),
        ("Phone:\n\nFax:\n\nGuest: Jo\nRoom:\n\n", "\n\nGuest: Jo\n"),
        ("| Item | Ordered |\n|---|---|\n| pump | yes |", "Item: pump | Ordered: yes"),
        ("<p>a <![x]> b</p>", "\na  b"),
        ("<p>a</p><![ ", "\na\n<![ "),
        ("<p>a</p><!--[if mso]><b>x</b><![endif]--><![CDATA[ x > y ]]>c", "\na\nc"),
        ("<table><tr><th>Phone</th><td></td></tr><tr><th>Guest</th><td>Jo</td></tr></table>", "\nGuest: Jo"),
        ("<select><option>A<option selected>B</select> day", "B day"),
        ("<table><tr><th>Boat<th>Hours<tr><td>canoe<td>9</table><p>Bye</p>", "\nBoat: canoe | Hours: 9\nBye"),
        ("> On Monday we\n> met Jo.", "On Monday we\nmet Jo."),
    ],
)  # fmt: skip
def test_a_layout_becomes_plain_lines(text: str, read: str | None) -> None:
    assert read_layout(text) == (text if read is None else read)


@pytest.mark.parametrize(
    ("text", "car"),
    [
        ("Childcare: no\nCar: yes", True), ("No car: yes", False), ("No vehicle: no", True), ("Vehicle: yes", True),
        ("Car-free: yes", False), ("Cars: no", None), ("Car:\nyes, please", None),
    ],
)  # fmt: skip
def test_the_label_of_a_flag_has_its_name_or_a_word_for_it(text: str, car: bool | None) -> None:
    terms = {"true": ["vehicle", "car"], "false": ["car-free"]}
    schema = {"type": "object", "properties": {"car": {"type": "boolean", "x-evidence": terms}}}
    refused = [bool(find_value_faults({"car": value}, text, schema, share=0.9)) for value in (True, False)]
    assert car is None or refused == [not car, car]


def test_html_is_read_without_tags_and_comments() -> None:
    read = read_layout(HTML)
    assert "For Nadia Brandt, in all: 52" in read
    assert "Part: pump 4 | Price: £48.50 | Ordered: yes\nPart: hose | Ordered: no" in read.replace("\xa0", " ")
    assert "Guest: Jo & Al" in read
    assert "Room" not in read
    assert "Phone" not in read
    assert read_flags(read) == [("ordered", True), ("ordered", False)]


SCHEMA = {
    "type": "object",
    "properties": {
        "phone": {"type": ["string", "null"], "x-evidence": ["phone", "call"]},
        "parts": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "part": {"type": "string"},
                    "price": {"type": ["number", "null"]},
                    "ordered": {"type": "boolean", "x-evidence": {"true": ["on order"], "false": ["in stock"]}},
                },
            },
        },
    },
}
PUMP, HOSE = {"part": "pump 4", "price": 48.5, "ordered": True}, {"part": "hose", "price": None, "ordered": False}


@pytest.mark.parametrize(
    ("phone", "pump", "hose", "fault"),
    [
        (None, PUMP, HOSE, ""),
        ("555", PUMP, HOSE, "phone"),
        (None, PUMP | {"ordered": False}, HOSE, "parts.0.ordered"),
        (None, PUMP, HOSE | {"ordered": True}, "parts.1.ordered"),
        (None, PUMP | {"price": None}, HOSE | {"price": 48.5}, "parts.1.price"),
        (None, PUMP | {"price": 9}, HOSE, "parts.0.price"),
        (None, PUMP | {"part": "Room 9"}, HOSE, "parts.0.part"),
    ],
)
def test_values_belong_to_their_row(
    phone: str | None, pump: dict[str, object], hose: dict[str, object], fault: str
) -> None:
    faults = find_value_faults({"phone": phone, "parts": [pump, hose]}, HTML, SCHEMA, share=0.5)
    assert bool(faults) == bool(fault)
    assert not fault or fault in [one.split()[0] for one in faults]
