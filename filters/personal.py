"""Finds personal data in text, to be masked or dropped: e-mail addresses, phone numbers, IP addresses, and the numbers of
bank accounts, cards and persons.

A number counts only if a well-kept library says it can exist: phone numbers by Google's numbering plans (phonenumbers),
addresses by email-validator, IBANs, Luhn's digit and national numbers by python-stdnum. Left alone are addresses that are
nobody's (private networks, example.com) and numbers without their usual shape, which are found in every calculation.
Knows no names and no postal addresses: those need a model.
"""

import ipaddress
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from core.filter_config import PersonalData, PersonalDataFilter
from core.sample import Reason
from filters.base import Document, Drop, Mask, Masked

PLACEHOLDERS: dict[PersonalData, str] = {
    "email": "[EMAIL]",
    "iban": "[IBAN]",
    "card": "[CARD]",
    "id": "[ID]",
    "ip": "[IP]",
    "phone": "[PHONE]",
}


class Found(NamedTuple):
    """Where in a text personal data stands."""

    kind: PersonalData
    start: int
    text: str

    @property
    def end(self) -> int:
        return self.start + len(self.text)


def find_personal_data(text: str, config: PersonalDataFilter) -> list[Found]:
    """What is found, in the order of the text. Where two kinds overlap, the first in the order of `FINDERS` counts."""
    found: list[Found] = []
    for kind, finder in FINDERS.items():
        if kind in config.kinds:
            for start, said in finder(text, config):
                one = Found(kind, start, said)
                if all(one.end <= other.start or other.end <= one.start for other in found):
                    found.append(one)
    return sorted(found, key=lambda one: one.start)


def mask_or_drop(documents: Sequence[Document], config: PersonalDataFilter) -> list[Drop | Masked]:
    """Mask or drop each document in which personal data is found, whoever says it."""
    judged = []
    for document in documents:
        found = [one for part in document.parts for one in find_personal_data(part, config)]
        if found:
            judged.append(_masked(document, found) if config.action == "mask" else _drop(document, found, config))
    return judged


def _masked(document: Document, found: Sequence[Found]) -> Masked:
    masks = dict.fromkeys(Mask(one.text, PLACEHOLDERS[one.kind]) for one in found)
    return Masked(document.id, tuple(masks))


def _drop(document: Document, found: Sequence[Found], config: PersonalDataFilter) -> Drop:
    """Names kinds and places; what was found is not told, since reports travel."""
    counts = {kind: sum(one.kind == kind for one in found) for kind in PLACEHOLDERS}
    what = ", ".join(f"{kind} {count}" for kind, count in counts.items() if count)
    return Drop(id=document.id, filter=config.type, reason=Reason.personal_data, score=len(found), detail=f"has {what}")


Spans = Iterator[tuple[int, str]]
"""Beginnings and what stands there."""

EMAIL = re.compile(r"(?<![\w.+%-])[\w.+%-]{1,64}@(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}\b")

NOBODYS = (".example.com", ".example.org", ".example.net", ".example")
"""Domains for examples (RFC 2606)."""


def _emails(text: str, _config: PersonalDataFilter) -> Spans:
    from email_validator import EmailNotValidError, validate_email

    for match in EMAIL.finditer(text):
        try:
            domain = validate_email(match[0], check_deliverability=False).ascii_domain
        except EmailNotValidError:
            continue
        if not f".{domain.lower()}".endswith(NOBODYS):
            yield match.start(), match[0]


IBAN = re.compile(r"(?<![A-Za-z0-9])((?:[A-Za-z0-9]*[a-z])?)[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}(?![A-Za-z0-9])")
REST = re.compile(r"[A-Za-z0-9]*")


def _ibans(text: str, _config: PersonalDataFilter) -> Spans:
    """The longest beginning of each match that is an IBAN, since words in capitals may follow; with what is written right before
    and after it, since masks are put on whole words.
    """
    from stdnum import iban

    for match in IBAN.finditer(text):
        said, start = match[0], len(match[1])
        ends = [i for i in range(len(said), start + 14, -1) if said[i - 1] != " "]
        if end := next((i for i in ends if iban.is_valid(said[start:i], check_country=False)), None):
            rest = REST.match(said, end)
            yield match.start(), said[: rest.end() if rest else end]


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


def _cards(text: str, _config: PersonalDataFilter) -> Spans:
    from stdnum import luhn

    for match in CARD.finditer(text):
        digits = re.sub(r"\D", "", match[0])
        if ISSUERS.fullmatch(digits) and luhn.is_valid(digits):
            yield match.start(), match[0]


NATIONAL: dict[str, str] = {
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
"""National numbers by python-stdnum's module: the shape that a number must have in a text. Each has check
digits but the American one, which has ranges that were never given. What is only digits elsewhere is left out: a tenth of
all nine-digit numbers would be somebody's."""


def _national(text: str, _config: PersonalDataFilter) -> Spans:
    for pattern, is_valid in _national_finders():
        for match in pattern.finditer(text):
            if is_valid(match[0]):
                yield match.start(), match[0]


@lru_cache
def _national_finders() -> list[tuple[re.Pattern[str], Callable[[str], bool]]]:
    from importlib import import_module

    return [
        (re.compile(rf"(?<![\w.-])(?<!\d )(?:{shape})(?![\w-]|\.\d| \d)"), import_module(f"stdnum.{name}").is_valid)
        for name, shape in NATIONAL.items()
    ]


ADDRESS = re.compile(
    r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}(?!\w|\.\d)|(?:[0-9a-fA-F]{0,4}:){2,7}[0-9a-fA-F]{0,4}(?![\w:]|\.\d))"
)
NOT_AN_ADDRESS = re.compile(r"(?:\b(?:version|release|v|ver|section|chapter|clause)\.?|§|\+) *$", re.IGNORECASE)


def _addresses(text: str, _config: PersonalDataFilter) -> Spans:
    """Those on the public internet; `version 1.2.3.4` is none."""
    for match in ADDRESS.finditer(text):
        try:
            public = ipaddress.ip_address(match[0]).is_global
        except ValueError:
            continue
        if public and not NOT_AN_ADDRESS.search(text[max(0, match.start() - 20) : match.start()]):
            yield match.start(), match[0]


DECIMAL = re.compile(r"\d+\.\d+")


def _phones(text: str, config: PersonalDataFilter) -> Spans:
    """Those that can exist; without a country code only where they are written in groups."""
    from phonenumbers import Leniency, PhoneNumberMatcher

    leniency, tries = Leniency.STRICT_GROUPING, sys.maxsize
    for match in PhoneNumberMatcher(text, config.region or None, leniency=leniency, max_tries=tries):
        said: str = match.raw_string
        if said.startswith("+") or (re.search(r"\d[ )./-]+\d", said) and not DECIMAL.fullmatch(said)):
            yield match.start, said


FINDERS: dict[PersonalData, Callable[[str, Any], Spans]] = {
    "email": _emails,
    "iban": _ibans,
    "card": _cards,
    "id": _national,
    "ip": _addresses,
    "phone": _phones,
}
