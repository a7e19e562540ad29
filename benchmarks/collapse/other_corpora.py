"""Real data that is not English prose, from Debian and Python packages: code, records, arithmetic, dialogues, other languages.

Each corpus names its kind (`filters.collapse.text_kinds`). A document is one text: a function, a JSON record, a worked sum, a
dialogue as the JSON of its messages, a passage. Knows no measurement. Needs apt-get and pip with a network, and dpkg-deb.
"""

import ast
import csv
import gzip
import html
import json
import random
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

from benchmarks.collapse.corpora import MOST_DOCUMENTS
from core.storage.atomic_files import write_atomically
from filters.collapse.text_kinds import TEXT_KINDS
from filters.text_normalization import SPACELESS
from plugins.math.checks.expression import NotArithmetic, evaluate_expression

FEWEST_UNITS, MOST_UNITS = {"json": 3, "arithmetic": 4}, {"code": 200, "dialogue": 400, "characters": 200}
"""Units of a document, where it is not 8 to 80."""
ARITHMETIC_DOCUMENTS = 20_000
WORDS_PATTERN = re.compile(r"\w+")


class OtherCorpus(NamedTuple):
    kind: str
    """Name of a kind in `filters.collapse.text_kinds`."""
    read: Callable[[Path], Iterator[str]]


def load_other_corpus(name: str, folder: Path) -> list[str]:
    """The documents of the corpus, shuffled once; created in `folder` if missing."""
    path = folder / f"{name}.jsonl"
    if not path.exists():
        corpus = OTHER_CORPORA[name]
        texts = list(_select_different(corpus.read(folder), corpus.kind))
        random.Random(0).shuffle(texts)
        with write_atomically(path) as partial, partial.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(text) + "\n" for text in texts[:MOST_DOCUMENTS])
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _select_different(texts: Iterator[str], kind: str) -> Iterator[str]:
    """Texts of the right length, without exact duplicates."""
    fewest, most = FEWEST_UNITS.get(kind, 8), MOST_UNITS.get(kind, 80)
    split = TEXT_KINDS[kind].split
    seen = set()
    for text in texts:
        if text not in seen and fewest <= len(split(text)) <= most:
            seen.add(text)
            yield text


def extract_package(package: str, folder: Path, *patterns: str) -> Path:
    """The files of a Debian package that match the patterns."""
    out = folder / "extracted" / re.sub(r"[^\w.]+", "-", " ".join([package, *patterns])).strip("-")
    if not out.exists():
        if not list(folder.glob(f"{package}_*.deb")):
            subprocess.run(["apt-get", "download", "-q", package], cwd=folder, check=True, capture_output=True)
        out.mkdir(parents=True)
        with subprocess.Popen(
            ["dpkg-deb", "--fsys-tarfile", next(folder.glob(f"{package}_*.deb"))], stdout=subprocess.PIPE
        ) as archive:
            subprocess.run(["tar", "-x", "-C", out, "--wildcards", *patterns], stdin=archive.stdout, check=True)
    return out


def extract_distribution(distribution: str, folder: Path) -> Path:
    """The files of a Python package."""
    out = folder / "extracted" / distribution
    if not out.exists():
        downloads = folder / "distributions" / distribution
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":none:", distribution]
        subprocess.run([*command, "-d", downloads], check=True, capture_output=True)
        with zipfile.ZipFile(next(downloads.iterdir())) as archive:
            archive.extractall(out)
    return out


# Code


def read_functions(package: str) -> Callable[[Path], Iterator[str]]:
    """The functions and methods of a package's modules, without those of its tests."""

    def read(folder: Path) -> Iterator[str]:
        for module in sorted(extract_package(package, folder, "*.py").rglob("*.py")):
            if not any(part.startswith("test") for part in module.parts):
                yield from _split_functions(module.read_text(encoding="utf-8", errors="replace"))

    return read


def _split_functions(source: str) -> Iterator[str]:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = source.splitlines()[node.lineno - 1 : node.end_lineno]
            indent = len(lines[0]) - len(lines[0].lstrip())
            yield "\n".join(line[indent:] if not line[:indent].strip() else line for line in lines)


# Records


def read_package_records(folder: Path) -> Iterator[str]:
    """A record for each of Debian's binary packages."""
    text = _read_apt_file(folder, "*_trixie_main_binary-*_Packages*")
    for stanza in text.split("\n\n"):
        fields = dict(re.findall(r"^([\w-]+): (.*)$", stanza, re.MULTILINE))
        if "Package" in fields:
            record: dict[str, Any] = {
                name.lower().replace("-", "_"): fields[name]
                for name in ("Package", "Source", "Version", "Architecture", "Maintainer", "Section", "Priority")
                if name in fields
            }
            record["installed_size"] = int(fields.get("Installed-Size", 0))
            if "Depends" in fields:
                record["depends"] = [re.split(r"[ (:]", part)[0] for part in fields["Depends"].split(", ")]
            yield json.dumps(record)


def read_code_records(folder: Path) -> Iterator[str]:
    """Languages, countries, their parts, scripts and currencies of the ISO standards."""
    place = extract_package("iso-codes", folder, "*/iso-codes/json/iso_*.json")
    for file in sorted(place.rglob("iso_*.json")):
        for records in json.loads(file.read_text(encoding="utf-8")).values():
            yield from (json.dumps(record, ensure_ascii=False) for record in records)


def read_vendor_records(folder: Path) -> Iterator[str]:
    """Owners of network addresses (IEEE)."""
    for file in sorted(extract_package("ieee-data", folder, "*.csv").rglob("*.csv")):
        if not file.is_symlink():
            with file.open(encoding="utf-8", newline="") as lines:
                for row in csv.DictReader(lines):
                    address = row["Organization Address"].split()
                    yield json.dumps(
                        {
                            "registry": row["Registry"],
                            "assignment": row["Assignment"],
                            "organization": row["Organization Name"].strip(),
                            "address": {
                                "lines": " ".join(address[:-2]),
                                "postcode": address[-1] if address else None,
                                "country": address[-2] if len(address) > 1 else None,
                            },
                        }
                    )


# Arithmetic


def read_worked_sums(folder: Path) -> Iterator[str]:
    """Sums of the operation trees that the arithmetic family draws, with numbers in its ranges, step by step."""
    from plugins.math.families.operation_trees import draw_limit, draw_tree

    rng = random.Random(0)
    for _ in range(ARITHMETIC_DOCUMENTS):
        tree = draw_tree(rng, rng.choice((1, 2, 3)))
        limit = draw_limit(rng, tree)
        letters = sorted(set(re.findall(r"[a-z]", tree.form)))
        numbers = {letter: str(rng.randint(2, limit)) for letter in letters}
        written = "".join(numbers.get(letter, letter) for letter in tree.form)
        try:
            value = evaluate_expression(written)
        except (NotArithmetic, ZeroDivisionError):
            continue
        if value == Fraction(round(value)):
            yield f"{written} = {round(value)}"


def read_drawn_sums(folder: Path) -> Iterator[str]:
    """Expressions of reasoning-gym's generator, with their values."""
    from reasoning_gym import create_dataset

    drawn = create_dataset(
        "basic_arithmetic", size=ARITHMETIC_DOCUMENTS, seed=1, min_terms=3, max_terms=6, max_digits=3
    )
    for number in range(ARITHMETIC_DOCUMENTS):
        with suppress(ZeroDivisionError):  # the generator divides by zero now and then
            entry = drawn[number]
            yield f"{entry['metadata']['expression']} = {entry['answer']}"


def read_word_problems(folder: Path) -> Iterator[str]:
    """Solutions of word problems (reasoning-gym's templates of GSM-Symbolic), sums among words."""
    from reasoning_gym import create_dataset

    for entry in create_dataset("gsm_symbolic", size=ARITHMETIC_DOCUMENTS // 2, seed=1):
        yield str(entry["metadata"]["answer_cot"])


# Dialogues


CAMPAIGNS = ("did", "dm", "dw", "ei", "httt", "l", "low", "nr", "sof", "sota", "sotbe", "thot", "trow", "tsg", "ttb",
             "utbs", "wof")  # fmt: skip


def read_game_dialogues(folder: Path) -> Iterator[str]:
    """Lines of the campaigns of Battle for Wesnoth: what one character says, and what another replies."""
    for campaign in CAMPAIGNS:
        place = extract_package(f"wesnoth-1.18-{campaign}", folder, "*.cfg")
        for file in sorted(place.rglob("*.cfg")):
            for event in file.read_text(encoding="utf-8", errors="replace").split("[event]"):
                lines = re.findall(r'\[message\]\s*speaker=(\S+)[^\[]*?message= *_ *"([^"]+)"', event)
                turns = [
                    " ".join(" ".join(text for _, text in group).split())
                    for _, group in groupby(lines, lambda line: line[0])
                ]
                for asked, replied in zip(turns[::2], turns[1::2], strict=False):
                    yield format_dialogue(asked, replied)


def read_bot_dialogues(folder: Path) -> Iterator[str]:
    """Conversations of chatterbot-corpus, and patterns with their replies of A.L.I.C.E. (python-aiml)."""
    import yaml  # type: ignore[import-untyped]

    place = extract_distribution("chatterbot-corpus", folder) / "chatterbot_corpus" / "data" / "english"
    for file in sorted(place.glob("*.yml")):
        for turns in yaml.safe_load(file.read_text(encoding="utf-8"))["conversations"]:
            yield format_dialogue(*map(str, turns))
    for file in sorted(extract_distribution("python-aiml", folder).rglob("*.aiml")):
        try:
            categories = list(ElementTree.parse(file).iter("category"))
        except ElementTree.ParseError:
            continue
        for category in categories:
            pattern, template = category.find("pattern"), category.find("template")
            if pattern is not None and template is not None and not list(template.iter("srai")):
                asked, replied = (" ".join("".join(part.itertext()).split()) for part in (pattern, template))
                if len(replied.split()) > 2 and len(asked.split()) > 2:
                    yield format_dialogue(asked.lower(), replied)


def format_dialogue(*turns: str) -> str:
    """The turns, the first by the user, as the JSON of messages."""
    roles = ("user", "assistant")
    return json.dumps([{"role": roles[i % 2], "content": turn} for i, turn in enumerate(turns)], ensure_ascii=False)


# Languages

MANUAL_MARKUP = re.compile(r"(?:^|\s)\.[A-Z]{2}\b|\\f.|\\f\[\w*\]|\\\(\w\w|\\[&|/,^]|\\s[+-]?\d")


def read_descriptions(language: str) -> Callable[[Path], Iterator[str]]:
    """Paragraphs of Debian's package descriptions in a language."""

    def read(folder: Path) -> Iterator[str]:
        for entry in _read_apt_file(folder, f"*_trixie_main_i18n_Translation-{language}*").split("\n\n"):
            body = re.split(r"^Description-(?!md5)\w+: ", entry, maxsplit=1, flags=re.MULTILINE)[-1].partition("\n")[2]
            for paragraph in re.split(r"\n \.\n", body):
                if not any(re.match(r"  |\s*[-*+•]", line) for line in paragraph.split("\n")):
                    yield " ".join(paragraph.split())

    return read


def read_manual_pages(package: str, language: str) -> Callable[[Path], Iterator[str]]:
    """Paragraphs of manual pages, without their markup."""

    def read(folder: Path) -> Iterator[str]:
        place = extract_package(package, folder, f"*/man/{language}/*")
        for page in sorted(path for path in place.rglob("*.gz") if not path.is_symlink()):
            source = gzip.decompress(page.read_bytes()).decode("utf-8", errors="replace")
            for block in re.split(r"(?m)^(?:[.'].*)?$", source):
                text = MANUAL_MARKUP.sub("", block).replace("\\-", "-")
                yield " ".join(text.replace("\\", "").split())

    return read


def read_handbook(language: str) -> Callable[[Path], Iterator[str]]:
    """Paragraphs of The Debian Administrator's Handbook."""

    def read(folder: Path) -> Iterator[str]:
        place = extract_package("debian-handbook", folder, f"*/html/{language}/*.html")
        for page in sorted(place.rglob("*.html")):
            source = page.read_text(encoding="utf-8", errors="replace")
            for block in re.findall(r'(?s)<div class="para">(.*?)</div>', source):
                yield " ".join(html.unescape(re.sub(r"<[^>]+>", "", block)).split())

    return read


def join_wrapped_lines(read: Callable[[Path], Iterator[str]]) -> Callable[[Path], Iterator[str]]:
    """Chinese texts without the spaces between characters, where a line was wrapped; texts left in English are left out."""

    def read_joined(folder: Path) -> Iterator[str]:
        for text in read(folder):
            if TEXT_KINDS["characters"].matches(text):
                yield re.sub(rf"(?<=[{SPACELESS}]) (?=[{SPACELESS}])", "", text)

    return read_joined


def chain_readers(*readers: Callable[[Path], Iterator[str]]) -> Callable[[Path], Iterator[str]]:
    def read(folder: Path) -> Iterator[str]:
        for reader in readers:
            yield from reader(folder)

    return read


def _read_apt_file(folder: Path, pattern: str) -> str:
    lists = folder / "lists-other"
    if not list(lists.glob(pattern)):
        (lists / "partial").mkdir(parents=True, exist_ok=True)
        languages = "Acquire::Languages=de,fr,es,zh_CN"
        command = ["apt-get", "update", "-q", "-o", languages, "-o", f"Dir::State::lists={lists}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    found = min(lists.glob(pattern))
    done = subprocess.run(["/usr/lib/apt/apt-helper", "cat-file", str(found)], check=True, capture_output=True)
    return done.stdout.decode()


OTHER_CORPORA = {
    "code_library": OtherCorpus("code", read_functions("libpython3.13-stdlib")),
    "code_django": OtherCorpus("code", read_functions("python3-django")),
    "code_sympy": OtherCorpus("code", read_functions("python3-sympy")),
    "records_packages": OtherCorpus("json", read_package_records),
    "records_codes": OtherCorpus("json", read_code_records),
    "records_vendors": OtherCorpus("json", read_vendor_records),
    "sums_trees": OtherCorpus("arithmetic", read_worked_sums),
    "sums_drawn": OtherCorpus("arithmetic", read_drawn_sums),
    "sums_solutions": OtherCorpus("arithmetic", read_word_problems),
    "dialogues_game": OtherCorpus("dialogue", read_game_dialogues),
    "dialogues_bots": OtherCorpus("dialogue", read_bot_dialogues),
    "german_manual": OtherCorpus("prose", read_manual_pages("manpages-de", "de")),
    "german_packages": OtherCorpus("prose", read_descriptions("de")),
    "spanish_manual": OtherCorpus("prose", read_manual_pages("manpages-es", "es")),
    "spanish_packages": OtherCorpus("prose", chain_readers(read_descriptions("es"), read_handbook("es-ES"))),
    "chinese_manual": OtherCorpus("characters", join_wrapped_lines(read_manual_pages("manpages-zh", "zh_CN"))),
    "japanese_manual": OtherCorpus("characters", join_wrapped_lines(read_manual_pages("manpages-ja", "ja"))),
    "chinese_packages": OtherCorpus(
        "characters", join_wrapped_lines(chain_readers(read_descriptions("zh*CN"), read_handbook("zh-CN")))
    ),
}
"""By name. The German and Spanish manuals and the Chinese one are translations of overlapping pages."""
