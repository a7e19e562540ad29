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
    "fr": {1: "une premier premiere"},
    "es": {1: "un una primero primera primer", 21: "veintiun veintiuna", 100: "cien"},
}
"""Further words by their number."""
ORDINALS = {
    "de": "erst zweit dritt viert funft sechst siebt acht neunt zehnt elft zwolft dreizehnt vierzehnt funfzehnt",
    "fr": "premier deuxieme troisieme quatrieme cinquieme sixieme septieme huitieme neuvieme dixieme onzieme douzieme",
    "es": "primer segund tercer cuart quint sext septim octav noven decim",
}
ORDINAL_ENDINGS = {"de": ("e", "er", "en", "es", "em"), "fr": ("",), "es": ("o", "a", "")}
THOUSAND = {"de": "tausend", "fr": "mille", "es": "mil"}
MILLION, BILLION = 10**6, 10**9
SCALES = {
    "de": {
        "tausend": 1000,
        "million": MILLION,
        "millionen": MILLION,
        "mio": MILLION,
        "milliarde": BILLION,
        "mrd": BILLION,
    }
    | {"milliarden": BILLION, "dutzend": 12},
    "fr": {"mille": 1000, "million": MILLION, "millions": MILLION, "milliard": BILLION, "milliards": BILLION}
    | {"douzaine": 12, "douzaines": 12},
    "es": {"mil": 1000, "millon": MILLION, "millones": MILLION, "docena": 12, "docenas": 12},
}
"""Words after a number that multiply it."""
LONGEST = 8
"""Words of a number below 1000: `quatre cent quatre vingt dix neuf`."""
RUN = re.compile(r"[^\W\d_]+(?:[ -]+[^\W\d_]+)*")
DIGITS = {**{char: at for at, char in enumerate("零一二三四五六七八九")}, "〇": 0, "两": 2, "廿": 20}
UNITS = {"十": 10, "百": 100, "千": 1000}
NUMERALS = "零〇一二三四五六七八九十百千两廿"
CHINESE_RUN = re.compile(rf"[{NUMERALS}][{NUMERALS}万]*")
MARK = "\x01"
"""Around a number that was written in words, so that it is not joined with digits next to it."""


@cache
def list_number_words(language: str) -> dict[str, int]:
    """The words of 0 to 999 in plain letters, and ordinals, with their values."""
    below_hundred = {"de": _count_german, "fr": _count_french, "es": _count_spanish}[language]
    words = {text: n for n in range(100) for text in below_hundred(n)}
    for n in range(100, 1000):
        for text in _count_hundreds(n, language):
            for rest in below_hundred(n % 100) if n % 100 else [""]:
                words.setdefault(f"{text}{rest}" if language == "de" else f"{text} {rest}".strip(), n)
                if language == "de" and rest:
                    words.setdefault(f"{text}und{rest}", n)
    for n, forms in FORMS[language].items():
        words |= dict.fromkeys(forms.split(), n)
    for n, stem in enumerate(ORDINALS[language].split(), 1):
        words |= {stem + ending: n for ending in ORDINAL_ENDINGS[language]}
    return words


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
        yield FRENCH[n]
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
        yield "cent" if hundreds == 1 else f"{FRENCH[hundreds]} cent"
        yield f"{FRENCH[hundreds]} cents"
    else:
        yield f"{GERMAN[hundreds]}hundert"
        if hundreds == 1:
            yield "hundert"


def write_digits(plain: str, language: str) -> str:
    """A text in plain letters with its number words in digits, each between two `MARK`."""
    if language == "zh":
        return CHINESE_RUN.sub(lambda run: f"{MARK}{read_chinese_number(run[0])}{MARK}", plain)
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


def read_chinese_number(run: str) -> int:
    """The value of Chinese numerals; of digits in a row, `二〇二四`, that number."""
    if not set(run) & {*UNITS, "万"}:
        return int("".join(str(DIGITS[char]) for char in run))
    high, _, low = run.rpartition("万")
    if high:
        return read_chinese_number(high) * 10_000 + (read_chinese_number(low) if low else 0)
    total, digit = 0, 0
    for char in low:
        if char in UNITS:
            total += (digit or 1) * UNITS[char]
            digit = 0
        else:
            digit = DIGITS[char] if char != "廿" else 20
    return total + digit
