"""Masks or drops personal data: e-mail addresses, phone numbers, IP addresses, and the numbers of bank accounts, cards and
persons.

A number counts only if a maintained library accepts it: phone numbers by Google's numbering plans (phonenumbers), addresses by
email-validator, IBANs, Luhn digits and national numbers by python-stdnum. Addresses without an owner (private networks,
example.com) and numbers without their usual format are ignored, since every calculation contains such numbers. Does not find
names or postal addresses: those need a model.
"""

import ipaddress
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from core.config.filters import PersonalDataFilter, PersonalDataKind
from core.sample import RejectionReason
from filters.base import Document, DroppedDocument, MaskedDocument
from filters.masks import TextMask

PLACEHOLDERS: dict[PersonalDataKind, str] = {
    "email": "[EMAIL]",
    "iban": "[IBAN]",
    "card": "[CARD]",
    "id": "[ID]",
    "ip": "[IP]",
    "phone": "[PHONE]",
}


class PersonalDataMatch(NamedTuple):
    """Personal data in a text, and its position."""

    kind: PersonalDataKind
    start: int
    text: str

    @property
    def end(self) -> int:
        return self.start + len(self.text)


def find_personal_data(text: str, config: PersonalDataFilter) -> list[PersonalDataMatch]:
    """All matches in text order. If matches of two kinds overlap, the first kind in `FINDERS` counts."""
    matches: list[PersonalDataMatch] = []
    for kind, finder in FINDERS.items():
        if kind in config.kinds:
            for start, value in finder(text, config):
                match = PersonalDataMatch(kind, start, value)
                if all(match.end <= other.start or other.end <= match.start for other in matches):
                    matches.append(match)
    return sorted(matches, key=lambda match: match.start)


def mask_or_drop_personal_data(
    documents: Sequence[Document], config: PersonalDataFilter
) -> list[DroppedDocument | MaskedDocument]:
    """Mask or drop each document that contains personal data in any of its messages."""
    decisions: list[DroppedDocument | MaskedDocument] = []
    for document in documents:
        matches = [match for part in document.parts for match in find_personal_data(part, config)]
        if matches and config.action == "mask":
            masks = dict.fromkeys(TextMask(match.text, PLACEHOLDERS[match.kind]) for match in matches)
            decisions.append(MaskedDocument(document.id, tuple(masks)))
        elif matches:
            # Kinds and counts only: reports are passed on, so they must not contain the data.
            counts = {kind: sum(match.kind == kind for match in matches) for kind in PLACEHOLDERS}
            what = ", ".join(f"{kind} {count}" for kind, count in counts.items() if count)
            decisions.append(document.drop(config, RejectionReason.personal_data, f"has {what}", len(matches)))
    return decisions


TextSpans = Iterator[tuple[int, str]]
"""Start positions and the text there."""

EMAIL = re.compile(r"(?<![\w.+%-])[\w.+%-]{1,64}@(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}\b")

EXAMPLE_DOMAINS = (".example.com", ".example.org", ".example.net", ".example")
"""Domains for examples (RFC 2606)."""


def _find_emails(text: str, _config: PersonalDataFilter) -> TextSpans:
    from email_validator import EmailNotValidError, validate_email

    for match in EMAIL.finditer(text):
        try:
            domain = validate_email(match[0], check_deliverability=False).ascii_domain
        except EmailNotValidError:
            continue
        if not f".{domain.lower()}".endswith(EXAMPLE_DOMAINS):
            yield match.start(), match[0]


IBAN = re.compile(r"(?<![A-Za-z0-9])((?:[A-Za-z0-9]*[a-z])?)[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}(?![A-Za-z0-9])")
WORD_REST = re.compile(r"[A-Za-z0-9]*")


def _find_ibans(text: str, _config: PersonalDataFilter) -> TextSpans:
    """The longest prefix of each match that is an IBAN, since words in capitals may follow. Adjacent letters and digits are
    included, since masks cover whole words.
    """
    from stdnum import iban

    for match in IBAN.finditer(text):
        text_found, start = match[0], len(match[1])
        ends = [i for i in range(len(text_found), start + 14, -1) if text_found[i - 1] != " "]
        if end := next((i for i in ends if iban.is_valid(text_found[start:i], check_country=False)), None):
            rest = WORD_REST.match(text_found, end)
            yield match.start(), text_found[: rest.end() if rest else end]


CARD = re.compile(r"(?<![\w.-])(?:\d{4}([ -])\d{4}\1\d{4}\1\d{4}|\d{4}([ -])\d{6}\2\d{5}|\d{13,19})(?![\w-]|\.\d)")
ISSUERS = re.compile(
    r"4\d{12}(?:\d{3}){0,2}"  # Visa
    r"|(?:5[1-5]\d{2}|222[1-9]|22[3-9]\d|2[3-6]\d{2}|27[01]\d|2720)\d{12}"  # Mastercard
    r"|3[47]\d{13}"  # American Express
    r"|6(?:011|5\d{2}|4[4-9]\d)\d{12}"  # Discover
    r"|3(?:0[0-5]|[68]\d)\d{11}"  # Diners Club
    r"|35(?:2[89]|[3-8]\d)\d{12}"  # JCB
)
"""Numbers by issuer (ISO/IEC 7812)."""


def _find_cards(text: str, _config: PersonalDataFilter) -> TextSpans:
    from stdnum import luhn

    for match in CARD.finditer(text):
        digits = re.sub(r"\D", "", match[0])
        if ISSUERS.fullmatch(digits) and luhn.is_valid(digits):
            yield match.start(), match[0]


NATIONAL_ID_SHAPES: dict[str, str] = {
    "us.ssn": r"\d{3}-\d{2}-\d{4}",  # United States
    "br.cpf": r"\d{3}\.\d{3}\.\d{3}-\d{2}",  # Brazil
    "ca.sin": r"\d{3}-\d{3}-\d{3}",  # Canada
    "cn.ric": r"\d{17}[\dX]",  # China
    "es.dni": r"\d{8}-?[A-Z]",  # Spain
    "es.nie": r"[XYZ]-?\d{7}-?[A-Z]",  # Spain, foreigners
    "fi.hetu": r"\d{6}[-+A]\d{3}[0-9A-Z]",  # Finland
    "fr.nir": r"[12] ?\d{2} ?\d{2} ?\d[\dAB] ?\d{3} ?\d{3} ?\d{2}",  # France
    "in_.aadhaar": r"\d{4} \d{4} \d{4}",  # India
    "it.codicefiscale": r"[A-Z]{6}\d{2}[A-EHLMPR-T]\d{2}[A-Z]\d{3}[A-Z]",  # Italy
    "pl.pesel": r"\d{11}",  # Poland
    "se.personnummer": r"(?:\d{2})?\d{6}[-+]\d{4}",  # Sweden
    "be.nn": r"\d{2}\.\d{2}\.\d{2}-\d{3}\.\d{2}",  # Belgium
}
"""The format of national numbers in text, by module of python-stdnum. Each has check digits, except the American number, which
has ranges that were never issued. Other countries' numbers of only digits are left out: a tenth of all nine-digit numbers would
be valid.
"""


def _find_national_ids(text: str, _config: PersonalDataFilter) -> TextSpans:
    for pattern, is_valid in _compile_national_ids():
        for match in pattern.finditer(text):
            if is_valid(match[0]):
                yield match.start(), match[0]


@lru_cache
def _compile_national_ids() -> list[tuple[re.Pattern[str], Callable[[str], bool]]]:
    from importlib import import_module

    return [
        (re.compile(rf"(?<![\w.-])(?<!\d )(?:{shape})(?![\w-]|\.\d| \d)"), import_module(f"stdnum.{name}").is_valid)
        for name, shape in NATIONAL_ID_SHAPES.items()
    ]


IP_ADDRESS = re.compile(
    r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}(?!\w|\.\d)|(?:[0-9a-fA-F]{0,4}:){2,7}[0-9a-fA-F]{0,4}(?![\w:]|\.\d))"
)
NOT_AN_IP_ADDRESS = re.compile(r"(?:\b(?:version|release|v|ver|section|chapter|clause)\.?|§|\+) *$", re.IGNORECASE)


def _find_ip_addresses(text: str, _config: PersonalDataFilter) -> TextSpans:
    """Addresses on the public internet, except version numbers such as `version 1.2.3.4`."""
    for match in IP_ADDRESS.finditer(text):
        try:
            public = ipaddress.ip_address(match[0]).is_global
        except ValueError:
            continue
        if public and not NOT_AN_IP_ADDRESS.search(text[max(0, match.start() - 20) : match.start()]):
            yield match.start(), match[0]


DECIMAL = re.compile(r"\d+\.\d+")


def _find_phones(text: str, config: PersonalDataFilter) -> TextSpans:
    """Numbers that can exist. Numbers without a country code must be written in groups."""
    from phonenumbers import Leniency, PhoneNumberMatcher

    leniency, tries = Leniency.STRICT_GROUPING, sys.maxsize
    for match in PhoneNumberMatcher(text, config.region or None, leniency=leniency, max_tries=tries):
        number: str = match.raw_string
        if number.startswith("+") or (re.search(r"\d[ )./-]+\d", number) and not DECIMAL.fullmatch(number)):
            yield match.start, number


FINDERS: dict[PersonalDataKind, Callable[[str, Any], TextSpans]] = {
    "email": _find_emails,
    "iban": _find_ibans,
    "card": _find_cards,
    "id": _find_national_ids,
    "ip": _find_ip_addresses,
    "phone": _find_phones,
}
