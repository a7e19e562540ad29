"""Numbers in words of German, French, Spanish and Chinese: reads them, by the words that each language writes for 0 to 999.

Articles are read as 1 (`ein Haus`). Knows no check.
"""

import re
from collections.abc import Iterator
from functools import cache

GERMAN = (
    "null ein zwei drei vier funf sechs sieben acht neun zehn elf zwolf dreizehn vierzehn funfzehn sechzehn siebzehn achtzehn "
    "neunzehn"
).split()
GERMAN_TENS = "zwanzig dreissig vierzig funfzig sechzig siebzig achtzig neunzig".split()
FRENCH = "zero un deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize".split()
FRENCH_TENS = "vingt trente quarante cinquante soixante".split()
SPANISH = (
    "cero uno dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince dieciseis diecisiete dieciocho "
    "diecinueve veinte veintiuno veintidos veintitres veinticuatro veinticinco veintiseis veintisiete veintiocho veintinueve"
).split()
SPANISH_TENS = "treinta cuarenta cincuenta sesenta setenta ochenta noventa".split()
SPANISH_HUNDREDS = (
    "ciento doscientos trescientos cuatrocientos quinientos seiscientos setecientos ochocientos novecientos".split()
)
FORMS = {
    "de": {1: "eins eine einen einem einer eines"},
    "fr": {1: "premier premiere"},
    "es": {1: "primero primera primer", 100: "cien"},
}
"""Further words by their number."""
GERMAN_ORDINALS = {1: "erst", 3: "dritt", 7: "siebt", 8: "acht"}
"""Those that are not the number and `t`, or from 20 on `st`."""
GERMAN_ENDINGS = ("e", "er", "en", "es", "em")
SPANISH_ORDINALS = "primer segund tercer cuart quint sext septim octav noven decim".split()
THOUSAND = {"de": "tausend", "fr": "mille", "es": "mil"}
LONGEST = 8
"""Words of a number below 1000: `quatre cent quatre vingt dix neuf`."""
RUN = re.compile(r"[^\W\d_]+(?:[ -]+[^\W\d_]+)*")
DIGITS = {**{char: at for at, char in enumerate("零一二三四五六七八九")}, "〇": 0, "两": 2}
UNITS = {"十": 10, "百": 100, "千": 1000}
NUMERALS = "零〇一二三四五六七八九十百千两廿"
CHINESE_RUN = re.compile(
    rf"(?!千[克米瓦卡])(?:(?<!\d)[十百千]|[零〇一二三四五六七八九两廿])(?:(?!千[克米瓦卡])[{NUMERALS}万])*"
)
MARK = "\x01"
"""Around a number that was written in words, so that it is not joined with digits next to it."""


@cache
def list_number_words(language: str) -> dict[str, int]:
    """The words of 0 to 999 in plain letters, and ordinals, with their values."""
    below_hundred = {"de": _count_german, "fr": _count_french, "es": _count_spanish}[language]
    words = {text: n for n in range(100) for text in below_hundred(n)}
    for n in (*range(100, 1000), *(range(1100, 2000) if language != "es" else ())):  # `neunzehnhundert`
        for text in _count_hundreds(n, language):
            for rest in below_hundred(n % 100) if n % 100 else [""]:
                words.setdefault(f"{text}{rest}" if language == "de" else f"{text} {rest}".strip(), n)
                if language == "de" and rest:
                    words.setdefault(f"{text}und{rest}", n)
    for n, forms in FORMS[language].items():
        words |= dict.fromkeys(forms.split(), n)
    for n in range(1, 100):
        for ordinal in _list_ordinals(n, language):
            words.setdefault(ordinal, n)
    return words


def _list_ordinals(n: int, language: str) -> Iterator[str]:
    if language == "de":
        stem = GERMAN_ORDINALS.get(n) or f"{next(_count_german(n))}{'t' if n < 20 else 'st'}"
        yield from (stem + ending for ending in GERMAN_ENDINGS)
    elif language == "fr":
        for text in _count_french(n):
            yield re.sub("cinq$", "cinqu", re.sub("f$", "v", re.sub("e$|(?<=vingt)s$", "", text))) + "ieme"
    elif n <= len(SPANISH_ORDINALS):
        yield from (SPANISH_ORDINALS[n - 1] + ending for ending in ("o", "a", ""))


def _count_german(n: int) -> Iterator[str]:
    if n < 20:
        yield GERMAN[n]
        if n == 1:
            yield "eins"
    else:
        tens = GERMAN_TENS[n // 10 - 2]
        yield f"{GERMAN[n % 10]}und{tens}" if n % 10 else tens


def _count_french(n: int) -> Iterator[str]:
    """With `septante`, `huitante` and `nonante`."""
    if n < 17:
        yield from (FRENCH[n], "une") if n == 1 else [FRENCH[n]]
    elif n < 20:
        yield f"dix {FRENCH[n - 10]}"
    else:
        for names, low, high in ((FRENCH_TENS, 20, 70), (("septante", "huitante", "nonante"), 70, 100)):
            if low <= n < high:
                tens = names[(n - low) // 10]
                yield tens if not n % 10 else f"{tens} et un" if n % 10 == 1 else f"{tens} {FRENCH[n % 10]}"
                if n % 10 == 1:
                    yield f"{tens} et une"
        if 70 <= n < 80:
            yield "soixante et onze" if n == 71 else f"soixante {next(_count_french(n - 60))}"
        if n >= 80:
            yield from ("quatre vingts", "quatre vingt") if n == 80 else [f"quatre vingt {next(_count_french(n - 80))}"]


def _count_spanish(n: int) -> Iterator[str]:
    if n < 30:
        yield SPANISH[n]
        if n % 10 == 1 and n != 11:
            yield from (SPANISH[n].removesuffix("o"), SPANISH[n].removesuffix("o") + "a")
    else:
        tens = SPANISH_TENS[n // 10 - 3]
        yield from (
            (f"{tens} y {one}" for one in ([SPANISH[n % 10]] if n % 10 != 1 else ["uno", "un", "una"]))
            if n % 10
            else [tens]
        )


def _count_hundreds(n: int, language: str) -> Iterator[str]:
    hundreds = n // 100
    if language == "es":
        name = SPANISH_HUNDREDS[hundreds - 1]
        yield name
        if hundreds > 1:
            yield f"{name[:-2]}as"
    elif language == "fr":
        count = next(_count_french(hundreds))
        yield from ("cent" if hundreds == 1 else f"{count} cent", f"{count} cents")
    else:
        yield f"{GERMAN[hundreds]}hundert"
        if hundreds == 1:
            yield "hundert"


def write_digits(plain: str, language: str) -> str:
    """A text in plain letters with its number words in digits, each between two `MARK`."""
    if language == "zh":
        return CHINESE_RUN.sub(lambda run: f"{MARK}{_write_chinese_run(run[0])}{MARK}", plain)
    return RUN.sub(lambda run: _write_run(run[0], language), plain)


def _write_run(run: str, language: str) -> str:
    tokens = re.split(r"([ -]+)", run)  # words at even places, what joins them at odd ones
    written, at = list[str](), 0
    while at < len(tokens):
        value, end = _read_number(tokens, at, language)
        if value is None:
            written.append(tokens[at])
            at += 1
        else:
            written.append(f"{MARK}{value}{MARK}")
            at = end
        if at < len(tokens):
            written.append(tokens[at])
            at += 1
    return "".join(written)


def _read_number(tokens: list[str], at: int, language: str) -> tuple[int | None, int]:
    """The number that begins at a word, or None, and the place after it."""
    if language == "de":
        return _read_compound(tokens[at]), at + 1
    value, end = _read_small(tokens, at, language)
    if end < len(tokens) - 1 and value is not None and tokens[end + 1] == THOUSAND[language]:
        end += 2
    elif value is None and tokens[at] == THOUSAND[language]:
        value, end = 1, at + 1
    else:
        return value, end
    rest, further = _read_small(tokens, end + 1, language) if end < len(tokens) - 1 else (None, end)
    return 1000 * value + (rest or 0), further if rest is not None else end


def _read_small(tokens: list[str], at: int, language: str) -> tuple[int | None, int]:
    words = list_number_words(language)
    for count in range(min(LONGEST, (len(tokens) - at + 1) // 2), 0, -1):
        end = at + 2 * count - 1
        if (value := words.get(" ".join(tokens[at:end:2]))) is not None:
            return value, end
    return None, at + 1


def _read_compound(word: str) -> int | None:
    """`zweiundvierzigtausenddreihundert`."""
    words = list_number_words("de")
    left, thousand, right = word.partition("tausend")
    if not thousand:
        return words.get(word)
    right = right.removeprefix("und")
    if (left and left not in words) or (right and right not in words):
        return None
    return 1000 * words.get(left, 1) + words.get(right, 0)


def _write_chinese_run(run: str) -> str:
    """Digits in a row, `二〇二四`, as they are; two that follow each other, `七八`, are two numbers."""
    run = run.replace("廿", "二十")
    if set(run) & {*UNITS, "万"}:
        return str(read_chinese_number(run))
    digits = [str(DIGITS[char]) for char in run]
    about = len(run) == 2 and 0 < DIGITS[run[0]] == DIGITS[run[1]] - 1
    return f"{MARK}、{MARK}".join(digits) if about else "".join(digits)


def read_chinese_number(run: str) -> int:
    """The value of numerals with units. A digit after a unit counts tenths of it: `三百五`, `两万五`."""
    high, _, low = run.rpartition("万")
    if high:
        tenths = 1000 if len(low) == 1 and low not in UNITS else 1
        return read_chinese_number(high) * 10_000 + (read_chinese_number(low) * tenths if low else 0)
    total, digit = 0, 0
    for char in low:
        if char in UNITS:
            total += (digit or 1) * UNITS[char]
            digit = 0
        else:
            digit = DIGITS[char]
    return total + digit * (UNITS.get(low[-2:-1], 10) // 10)
