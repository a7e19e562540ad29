"""Personal data found, and what only looks like it; how often chance makes some; masks in text and in JSON."""

import random
from collections.abc import Callable
from typing import Any

import pytest
from phonenumbers import PhoneNumberMatcher

from core.config.filters import PersonalDataFilter
from core.sample import RejectionReason
from filters.base import Document
from filters.chain.filter_chain import apply_filters
from filters.masks import TextMask, mask_text, mask_value
from filters.rules.personal_data import PLACEHOLDERS, find_personal_data

PII = PersonalDataFilter(type="pii")
DROP = PersonalDataFilter(type="pii", action="drop")


@pytest.mark.parametrize(
    ("text", "kind", "found"),
    [
        ("Write to anna.lee+news@mail.uni-wien.ac.at, please.", "email", "anna.lee+news@mail.uni-wien.ac.at"),
        ("<bob@acme.io>", "email", "bob@acme.io"),
        ("mailto:Carl_O@Acme.COM.", "email", "Carl_O@Acme.COM"),
        ("650-253-0000@acme.io", "email", "650-253-0000@acme.io"),
        ("Pay to DE89 3704 0044 0532 0130 00 today.", "iban", "DE89 3704 0044 0532 0130 00"),
        ("IBAN: GB82WEST12345698765432", "iban", "GB82WEST12345698765432"),
        ("ibanDE89370400440532013000 here", "iban", "ibanDE89370400440532013000"),
        ("IBAN DE89370400440532013000BIC here", "iban", "DE89370400440532013000BIC"),
        ("FR14 2004 1010 0505 0001 3M02 606 IS MINE", "iban", "FR14 2004 1010 0505 0001 3M02 606"),
        ("Card 4111 1111 1111 1111, exp 09/29", "card", "4111 1111 1111 1111"),
        ("5555-5555-5555-4444", "card", "5555-5555-5555-4444"),
        ("378282246310005.", "card", "378282246310005"),
        ("3782 822463 10005", "card", "3782 822463 10005"),
        ("6011111111111117", "card", "6011111111111117"),
        ("SSN 536-90-4399", "id", "536-90-4399"),
        ("CPF 529.982.247-25", "id", "529.982.247-25"),
        ("DNI 12345678Z", "id", "12345678Z"),
        ("NIE X-1234567-L", "id", "X-1234567-L"),
        ("RSSMRA85T10A562S", "id", "RSSMRA85T10A562S"),
        ("henkilötunnus 131052-308T", "id", "131052-308T"),
        ("PESEL: 44051401359", "id", "44051401359"),
        ("NIR 2 95 10 99 126 111 93", "id", "2 95 10 99 126 111 93"),
        ("personnummer 880320-0016", "id", "880320-0016"),
        ("SIN 123-456-782", "id", "123-456-782"),
        ("It came from 93.184.216.34:8080.", "ip", "93.184.216.34"),
        ("host 2606:2800:220:1:248:1893:25c8:1946 answered", "ip", "2606:2800:220:1:248:1893:25c8:1946"),
        ("Call +44 20 7946 0958 now", "phone", "+44 20 7946 0958"),
        ("Call (650) 253-0000.", "phone", "(650) 253-0000"),
        ("650-253-0000 or mail", "phone", "650-253-0000"),
        ("tel +4930123456", "phone", "+4930123456"),
        ("电话+8613812345678请联系我", "phone", "+8613812345678"),
    ],
)
def test_personal_data_is_found_and_masked(text: str, kind: str, found: str) -> None:
    assert [(one.kind, one.text) for one in find_personal_data(text, PII)] == [(kind, found)]
    (place,) = find_personal_data(text, PII)
    assert text[place.start : place.end] == found
    (kept,), _ = apply_filters([Document("a", text)], [PII])
    assert kept.text == text.replace(found, PLACEHOLDERS[place.kind])


@pytest.mark.parametrize(
    "text",
    [
        "Write to anna@example.com or to someone@mail.example.org.",
        "user@localhost, a@b, @anna, anna@, C@t",
        "The operator in x@y.T is a product of matrices.",
        "DE89 3704 0044 0532 0130 01",  # wrong check digits
        "GB82 WEST 1234",
        "4111 1111 1111 1112",  # Luhn
        "1234567812345670",  # Luhn holds, no issuer
        "0.4111111111111111",
        "4111111111111111.5",
        "078-05-1120",  # the number printed on a sample card
        "000-12-3456",
        "529.982.247-26",
        "12345678A",
        "44051401358",
        "127.0.0.1, 10.0.0.5, 192.168.1.1 and 172.16.0.9",
        "256.300.1.2 and 1.2.3",
        "Python version 3.11.2.1 and v2.10.4.8, see section 4.1.2.3",
        "::1 fe80::1 2001:db8::1 at 12:30:45",
        "In 2024-11-25 we sold 1234567890 units at 3.14159265.",
        "212.5551234",  # a decimal number
        "2125551234",  # without groups
        "ISBN 978-3-16-148410-0",
        "1600 1700 1800 and 12, 345, 6789",
        "650 + 253 = 903, 650-253 = 397",
        "555-0123",
        "",
    ],
)
def test_text_that_resembles_personal_data_is_kept(text: str) -> None:
    assert find_personal_data(text, PII) == []


def digits(chance: random.Random, count: int) -> str:
    return "".join(chance.choices("0123456789", k=count))


@pytest.mark.parametrize(
    ("shape", "most"),
    [
        (lambda c: digits(c, 9), 0.0),
        (lambda c: digits(c, 10), 0.0),
        (lambda c: digits(c, 12), 0.0),
        (lambda c: f"{c.randint(1, 999)},{digits(c, 3)},{digits(c, 3)}", 0.0),
        (lambda c: f"{c.randint(1, 999)}.{digits(c, c.randint(1, 12))}", 0.0),
        (lambda c: f"{c.randint(100, 999)} + {c.randint(100, 999)} = {c.randint(1000, 9999)}", 0.0),
        (lambda c: " ".join(str(c.randint(1, 999)) for _ in range(8)), 0.002),
        (lambda c: ", ".join(digits(c, 4) for _ in range(5)), 0.0),
        (lambda c: f"{c.randint(0, 23)}:{digits(c, 2)}:{digits(c, 2)}", 0.0),
        (lambda c: digits(c, 11), 0.03),  # PESEL: a date and a check digit
        (lambda c: digits(c, 16), 0.05),  # a card: an issuer and a check digit
    ],
)
def test_random_numbers_are_seldom_personal_data(shape: Callable[[random.Random], str], most: float) -> None:
    chance = random.Random(7)
    found = sum(bool(find_personal_data(f"It is {shape(chance)} here.", PII)) for _ in range(500))
    assert found <= most * 500


def test_masks_change_the_document_for_later_filters_and_are_returned() -> None:
    given = Document("a", "Mail anna@acme.io, anna@acme.io.", asked="Who is +44 20 7946 0958?", around="ip 8.8.8.8")
    (kept,), dropped = apply_filters([given], [PII])
    assert dropped == []
    assert kept.text == "Mail [EMAIL], [EMAIL]."
    assert (kept.asked, kept.around) == ("Who is [PHONE]?", "ip [IP]")
    assert set(kept.masks) == {
        TextMask("anna@acme.io", "[EMAIL]"),
        TextMask("+44 20 7946 0958", "[PHONE]"),
        TextMask("8.8.8.8", "[IP]"),
    }


def test_the_detail_of_a_drop_contains_kinds_and_no_personal_data() -> None:
    given = [Document("a", "Mail anna@acme.io or bob@acme.io, 8.8.8.8."), Document("b", "Mail nobody.")]
    kept, (drop,) = apply_filters(given, [DROP])
    assert [document.id for document in kept] == ["b"]
    assert (drop.reason, drop.score, drop.detail) == (RejectionReason.personal_data, 3, "has email 2, ip 1")


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("at 1.2.3.4, 1.2.3.4", "at [IP], [IP]"),
        ("11.2.3.45 and 1.2.3.4", "11.2.3.45 and [IP]"),
        ('{"said": "one\\n1.2.3.4"}', '{"said": "one\\n[IP]"}'),
        ("", ""),
    ],
)
def test_masks_replace_whole_words_in_text_and_in_json(text: str, masked: str) -> None:
    assert mask_text(text, [TextMask("1.2.3.4", "[IP]")]) == masked


@pytest.mark.parametrize(
    ("value", "masked"),
    [
        ({"card": 4111111111111111, "n": 1, "ok": True}, {"card": "[CARD]", "n": 1, "ok": True}),
        ({"a": [{"bob@acme.io": "x"}]}, {"a": [{"[EMAIL]": "x"}]}),
        ({"bob@acme.io": 1, "amy@acme.io": 2, "[EMAIL]": 3}, {"[EMAIL]'": 1, "[EMAIL]''": 2, "[EMAIL]": 3}),
        ([("bob@acme.io", 4111111111111111)], [("[EMAIL]", "[CARD]")]),
    ],
)
def test_keys_and_numbers_are_masked_and_no_value_is_lost(value: Any, masked: Any) -> None:
    masks = [
        TextMask("4111111111111111", "[CARD]"),
        TextMask("bob@acme.io", "[EMAIL]"),
        TextMask("amy@acme.io", "[EMAIL]"),
    ]
    assert mask_value(value, masks) == masked


def test_a_phone_number_is_found_after_many_invalid_numbers() -> None:
    """The library itself gives up after 65,535 of them."""
    only = PersonalDataFilter(type="pii", kinds=("phone",))
    text = "01/02/2024\n" * 66_000 + "+1 650-253-0000"
    assert [*PhoneNumberMatcher(text, None)] == []
    assert [one.text for one in find_personal_data(text, only)] == ["+1 650-253-0000"]


def test_longer_masks_are_applied_before_those_inside_them() -> None:
    masks = [TextMask("b@acme.io", "[EMAIL]"), TextMask("a-b@acme.io", "[OTHER]")]
    assert mask_text("a-b@acme.io b@acme.io", masks) == "[OTHER] [EMAIL]"
