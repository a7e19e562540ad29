"""Prints how hard the pages are to read and exits 1 if a count is over its budget in pyproject.toml, which only falls.

python docs/language.py [--list]    --list also prints each long sentence and each listed word, by page

Counted is prose: no code, no tables, no generated pages. A long sentence has more than 30 words.
"""

import collections
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
GENERATED = ("docs/recipe.md", "requirements/licenses.md", "tests/ATTACKS.md", "reference.md", "SKILL.md")
LISTED = re.compile(
    r"\b(?:licence|labelled|colour|behaviour|honour|mend(?:ed|s)?|told|beside|dearer|dearest|surely|the very|so many|goes on|"
    r"for ever|nobody at the keyboard|grave|manner)\b",
    re.IGNORECASE,
)
CODE = re.compile(r"^(`{3,}).*?^\1$", re.MULTILINE | re.DOTALL)
LONG = 30


def list_pages() -> list[Path]:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "plugins").glob("*/*.md")]
    return sorted(page for page in pages if not str(page.relative_to(ROOT)).endswith(GENERATED))


def list_sentences(page: Path) -> list[str]:
    """Sentences of paragraphs and list items; a table row, a heading and a block of code are none."""
    text = CODE.sub("", page.read_text(encoding="utf-8"))
    blocks = re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.) )", text)
    prose = [" ".join(block.split()) for block in blocks if not block.lstrip().startswith(("|", "#", "<", "!"))]
    plain = [re.sub(r"`[^`]*`", "code", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", block)) for block in prose]
    return [sentence for block in plain for sentence in re.split(r"(?<=[.!?:])\s+(?=[A-Z\"'(`])", block) if sentence]


def main() -> None:
    budget = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["stillhouse"]["language"]
    counts = collections.Counter({name: 0 for name in budget})
    for page in list_pages():
        for sentence in list_sentences(page):
            long, listed = len(sentence.split()) > LONG, LISTED.findall(sentence)
            counts["long_sentences"] += long
            counts["semicolons"] += sentence.count(";")
            counts["parentheses"] += sentence.count("(")
            counts["listed_words"] += len(listed)
            if "--list" in sys.argv and (long or listed):
                sys.stdout.write(f"{page.relative_to(ROOT)}: {', '.join(listed) or 'long'}: {sentence}\n")
    for name, limit in budget.items():
        sys.stdout.write(f"{name} {counts[name]:,} of {limit:,}\n")
    if over := [name for name, limit in budget.items() if counts[name] > limit]:
        sys.exit(f"over budget: {', '.join(over)}; shorten first: python docs/language.py --list shows where")


if __name__ == "__main__":
    main()
