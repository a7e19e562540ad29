"""Prints the sizes of the project and exits 1 if one is over its budget in pyproject.toml.

python docs/size.py

Code lines are lines without blanks, comments and docstrings. The core is core, prompts, teachers, agents, filters, students,
flows and stillhouse; words are those of README, docs and plugins' pages.
"""

import ast
import io
import sys
import tokenize
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
CORE = ("core", "prompts", "teachers", "agents", "filters", "students", "flows", "stillhouse")
NO_CODE = (
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER
)  # fmt: skip


def count_code_lines(source: str) -> int:
    prose = {
        line
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NO_CODE:
            code.update(range(token.start[0], token.end[0] + 1))
    blank = {number for number, line in enumerate(source.split("\n"), 1) if not line.strip()}
    return len(code - prose - blank)


def measure_sizes() -> dict[str, int]:
    """By the names of the budget."""
    core = [file for package in CORE for file in (ROOT / package).rglob("*.py")]
    plugins = [file for file in (ROOT / "plugins").rglob("*.py") if not {"tests", "benchmarks"} & set(file.parts)]
    inner = {"tests", "benchmarks", "prompts", "data"}
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    pages += [page for page in (ROOT / "plugins").rglob("*.md") if not inner & set(page.relative_to(ROOT).parts)]
    lines = {file: count_code_lines(file.read_text(encoding="utf-8")) for file in (*core, *plugins)}
    return {
        "core_code_lines": sum(lines[file] for file in core),
        "core_modules": len(core),
        "code_lines": sum(lines.values()),
        "docs_words": sum(len(page.read_text(encoding="utf-8").split()) for page in pages),
    }


def main() -> None:
    budget = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["stillhouse"]["budget"]
    sizes = measure_sizes()
    for name, size in sizes.items():
        sys.stdout.write(f"{name} {size:,} of {budget[name]:,}\n")
    if over := [name for name, size in sizes.items() if size > budget[name]]:
        sys.exit(f"over budget: {', '.join(over)}; delete first, or raise [tool.stillhouse.budget] and say why")


if __name__ == "__main__":
    main()
