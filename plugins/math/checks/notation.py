"""Mathematics as people and models write it, plain or in simple LaTeX, read into Python syntax trees. What can be read in
two ways is refused. Knows no values and never executes anything.
"""

import ast
import re
import unicodedata
from fractions import Fraction
from typing import NamedTuple

from agents.checks.text.answer_equality import UnreadableNotation, normalize_notation, unwrap_latex

MAX_LENGTH = 400
MAX_DIGITS = 30
"""Of any number."""
MAX_DEPTH = 30
"""Of brackets within brackets."""
MAX_MEMBERS = 16
"""Of all lists together: the members of sets are compared each with each."""
FUNCTIONS = ("sqrt", "exp", "log", "ln", "sin", "cos", "tan", "abs")
BARE_FUNCTIONS = ("log", "ln", "sin", "cos", "tan")
"""Functions whose argument may be written without parentheses: sin x, ln 2x."""
CONSTANTS = ("pi", "e")
GREEK = {name: unicodedata.lookup(f"GREEK SMALL LETTER {name}") for name in (
    "alpha", "beta", "gamma", "delta", "theta", "mu", "rho", "sigma", "tau", "phi", "omega",
)} | {"lambda": "λ"}  # fmt: skip
WORDS = frozenset(
    "am an as at be by do go he if in is it me my no nor not of off on or so the to too up us we yes all and any are but "
    "few for had has her him his how its may new now old one our out per she six sum ten two was who why you cm km kg mg "
    "mm ml ft min sec hr nan inf oo zoo"
    .split()
)  # fmt: skip
"""Words and units that are not products of letters: `no` differs from `on`."""


class TreeGroup(NamedTuple):
    """Parts in brackets, or the two sides of an equation."""

    kind: str
    """The brackets, such as `()`, `{}` and `[)`, or `=`."""
    parts: "tuple[ExpressionTree, ...]"


ExpressionTree = ast.expr | TreeGroup


def parse_notation(text: str) -> ExpressionTree:
    """The tree of an expression, an equation, or parts in brackets.

    Raises:
        UnreadableNotation: with the reason.
    """
    written = normalize_notation(text)
    if not written:
        raise UnreadableNotation("it is empty")
    if written.count(",") >= MAX_MEMBERS:
        raise UnreadableNotation(f"it has {written.count(',')} commas, at most {MAX_MEMBERS} members are compared")
    if len(text) > MAX_LENGTH or len(written) > MAX_LENGTH:
        raise UnreadableNotation(f"it has {len(text)} characters, at most {MAX_LENGTH} are read")
    if max(_bracket_depths(written), default=0) > MAX_DEPTH:
        raise UnreadableNotation(f"it has more than {MAX_DEPTH} brackets within brackets")
    written = _replace_latex(written)
    if not re.search(r"[()\[\]{}⦃⦄]", written):
        written = re.sub(r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?![\d,])", lambda m: m[0].replace(",", ""), written)
    return _parse_tree(written)


def _bracket_depths(text: str) -> list[int]:
    depth, depths = 0, []
    for char in text:
        depth += (char in "([{⦃") - (char in ")]}⦄")
        depths.append(depth)
    return depths


def _split_at(text: str, mark: str) -> list[str]:
    """At the marks outside of all brackets."""
    cuts = [i for i, depth in enumerate(_bracket_depths(text)) if depth == 0 and text[i] == mark]
    return [text[i + 1 : j] for i, j in zip([-1, *cuts], [*cuts, len(text)], strict=True)]


def _parse_tree(text: str) -> ExpressionTree:
    text = text.strip()
    sides = _split_at(text, "=")
    if len(sides) == 2:
        # `f(x)` to the left of an equation is the name of a function, not a product.
        if named := re.fullmatch(r"\s*([a-zA-Z])\s*\(\s*([a-zA-Z])\s*\)\s*", sides[0]):
            left: ExpressionTree = TreeGroup("of", (_parse_expression(named[1]), _parse_expression(named[2])))
        else:
            left = _parse_tree(sides[0])
        return TreeGroup("=", (left, _parse_tree(sides[1])))
    if len(sides) > 2:
        raise UnreadableNotation("it has more than one =")
    inner, brackets = text[1:-1], text[:1] + text[-1:]
    if text and text[0] in "([{⦃" and 0 not in _bracket_depths(text)[:-1] and brackets[1] in ")]}⦄":
        kind = {"⦃⦄": "{}"}.get(brackets, brackets)
        if kind not in ("()", "[]", "[)", "(]", "{}"):
            raise UnreadableNotation(f"{kind} are no pair of brackets")
        parts = _split_at(inner, ",")
        if len(parts) > 1 or kind == "{}":
            return TreeGroup(kind, tuple(_parse_tree(part) for part in parts) if inner.strip() else ())
    return _parse_expression(text)


# LaTeX

FIRST = r"\s*(?:\{([^{}]*)\}|([0-9a-zA-Z]))"
LAST = rf"{FIRST}(?<![0-9](?=[0-9.]))"
"""The argument of a command: braces, or one character, after which a digit would look like part of a number."""
SIGNS = {
    r"\\(?:left|right|displaystyle|[,;:! ]|q?quad)(?![a-zA-Z])": " ",
    r"\\(?:cdot|times)(?![a-zA-Z])|[×·⋅∙∗]": "*",
    r"\\div(?![a-zA-Z])|÷": "/",
    r"\\[dtc]frac(?![a-zA-Z])": r"\\frac",
    r"\\\{": "⦃",
    r"\\\}": "⦄",
    r"(?<=\d)\{,\}(?=\d{3})": "",
    r"π|\\pi(?![a-zA-Z])": " pi ",
    r"√\s*\(": r" sqrt(",
    r"√\s*(\d+|[a-zA-Z])(?![\w.])": r" sqrt(\1)",
    rf"\\({'|'.join(f for f in FUNCTIONS if f != 'sqrt')})(?![a-zA-Z])": r" \1 ",
}


def _replace_latex(text: str) -> str:
    text = unwrap_latex(text)
    for pattern, sign in SIGNS.items():
        text = re.sub(pattern, sign, text)
    text = re.sub(r"\\([a-z]+)", lambda m: GREEK.get(m[1], m[0]), text)
    for _ in range(MAX_LENGTH):
        before = text
        text = re.sub(rf"\\sqrt\s*\[([^\[\]{{}}]*)\]{LAST}", r" ((\2\3)^(1/(\1)))", text)
        text = re.sub(rf"(?:\\|\b)sqrt{LAST}", r" sqrt(\1\2)", text)
        text = re.sub(rf"(\d?)\s*\\frac{FIRST}{LAST}", _replace_fraction, text)
        text = re.sub(r"([\^_])\s*\{([^{}]*)\}", r"\1(\2)", text)
        if text == before or len(text) > 4 * MAX_LENGTH:
            break
    # |x| and |x||y| are absolute values. Bars within bars, and those that could be, stay and are refused.
    outside, inside = (pieces := text.split("|"))[::2], pieces[1::2]
    paired = len(outside) == len(inside) + 1
    whole = all(piece.strip() and min(depths := _bracket_depths(piece)) == depths[-1] == 0 for piece in inside)
    opening = rf"(?:.*(?:[-+*/^=(,\[{{⦃]|\b(?:{'|'.join(FUNCTIONS)})))?\s*"
    certain = len(inside) == 1 or all(re.fullmatch(opening, piece, re.DOTALL) for piece in outside[:-1])
    if paired and whole and certain:
        closed = [f"{before} (abs({within}))" for before, within in zip(outside, inside, strict=False)]
        text = "".join([*closed, outside[-1]])
    return text


def _replace_fraction(match: re.Match[str]) -> str:
    before, *parts = match.groups(default="")
    above, below = parts[0] + parts[1], parts[2] + parts[3]
    if before and re.fullmatch(r"[\d\s]+", above + below):
        raise UnreadableNotation(r"a number before \frac is a mixed number to some and a product to others")
    return f"{before} (({above})/({below}))"


# Plain text to Python's grammar

TOKEN = re.compile(r"\s*(?:(\d+(?:\.\d+)?|\.\d+)|([a-zA-Z]+|[α-ωΑ-Ω])|(\*\*|[-+*/^(),_]))", re.ASCII)


def _parse_expression(text: str) -> ast.expr:
    tokens: list[str] = []
    at, text = 0, text.rstrip()
    while at < len(text):
        match = TOKEN.match(text, at)
        if not match:
            raise UnreadableNotation(f"{text[at:].strip()[:20]!r} cannot be read")
        number, letters, sign = match.groups()
        tokens += [number] if number else _split_letters(letters) if letters else ["^" if sign == "**" else sign]
        at = match.end()
    python = _PythonWriter(tokens).all()
    try:
        return ast.parse(python, mode="eval").body
    except (SyntaxError, MemoryError, RecursionError):
        raise UnreadableNotation(f"{text.strip()!r} is not an expression") from None


def _split_letters(letters: str) -> list[str]:
    """`xy` is x times y; `sinx`, `pir` and what could be a word have no certain reading: `cat` is not `act`."""
    if letters in FUNCTIONS or letters in CONSTANTS or len(letters) == 1:
        return [letters]
    is_word = letters.lower() in WORDS or (
        len(letters) == 3 and letters != "abc" and re.search("[aiou]", letters, re.I)
    )
    certain = len(letters) <= 3 and not is_word
    if not certain or any(name in letters for name in (*FUNCTIONS, *CONSTANTS)):
        raise UnreadableNotation(f"{letters!r} is neither a name nor a product of single letters for certain")
    return list(letters)


def _is_operand(token: str) -> bool:
    return token[:1].isalnum() or token[:1] == "."


class _PythonWriter:
    """Writes tokens as Python, with the products that were left out."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.at = 0

    def all(self) -> str:
        written = self.sequence()
        if self.at < len(self.tokens):
            raise UnreadableNotation(f"{self.tokens[self.at]!r} has no beginning, or a list has no brackets")
        return written

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def next(self) -> str:
        token = self.peek()
        self.at += 1
        return token

    def sequence(self) -> str:
        """Up to the end or to a parenthesis or comma that does not belong to it."""
        out: list[str] = []
        operand = divided = False
        while self.peek() and self.peek() not in ("),"):
            token = self.peek()
            if token == "(" or _is_operand(token):
                if operand:
                    if divided:
                        raise UnreadableNotation(
                            "a product without a sign after / can be read in two ways; put parentheses"
                        )
                    if token[0] in ".0123456789" and self.tokens[self.at - 1] != ")":
                        raise UnreadableNotation(f"{token} follows {self.tokens[self.at - 1]} without a sign")
                    out.append("*")
                out.append(self.operand())
                operand = True
            elif token == "_":
                raise UnreadableNotation("subscripts are not read")
            else:
                operand = False
                divided = token == "/" or (divided and token == "^")
                out.append("**" if self.next() == "^" else token)
        return " ".join(out)

    def operand(self) -> str:
        token = self.next()
        if token == "(":
            return self.group()
        if token in FUNCTIONS:
            return self.call(token)
        if token.isalpha():
            if token in "fgh" and self.peek() == "(":
                raise UnreadableNotation(f"{token}(…) is a function to some and a product to others")
            return f"{token}_"
        return _number_source(token)

    def group(self) -> str:
        inner = self.sequence()
        if self.next() != ")":
            raise UnreadableNotation("a parenthesis is not closed, or holds a list")
        return f"({inner})"

    def call(self, function: str) -> str:
        base = f", {self.short()}" if function == "log" and self.take("_") else ""
        power = self.short() if self.take("^") else "1"
        if not re.fullmatch(r"\(?[1-9]\d?\)?", power):
            raise UnreadableNotation(f"{function}^{power} can be read in two ways")
        argument = self.group() if self.take("(") else f"({self.bare(function)})"
        return f"({function}({argument}{base}) ** {power})"

    def take(self, token: str) -> bool:
        if self.peek() == token:
            self.at += 1
            return True
        return False

    def short(self) -> str:
        """A number, a letter, or the content of parentheses."""
        token = self.peek()
        if not token or token in FUNCTIONS or not (token == "(" or _is_operand(token)):
            raise UnreadableNotation(f"{token!r} is no base and no exponent")
        return self.operand()

    def bare(self, function: str) -> str:
        """The argument in sin x, ln 2x and log 100; what comes after it must be plainly outside."""
        parts = []
        if function in BARE_FUNCTIONS and self.peek()[:1].isdigit():
            parts.append(_number_source(self.next()))
        if function in BARE_FUNCTIONS and self.peek().isalpha() and self.peek() not in FUNCTIONS:
            parts.append(f"{self.next()}_")
        after = self.peek()
        if not parts or not (after in ("", "+", "-", "*", ")", ",") or after in FUNCTIONS):
            raise UnreadableNotation(f"where the argument of {function} ends can be read in two ways; put parentheses")
        return " * ".join(parts)


def _number_source(token: str) -> str:
    if len(token) > MAX_DIGITS:
        raise UnreadableNotation(f"{token[:10]}… has more than {MAX_DIGITS} digits")
    exact = Fraction(token)
    return str(exact.numerator) if exact.denominator == 1 else f"({exact.numerator} / {exact.denominator})"


def expression_letters(node: ast.expr) -> set[str]:
    """The letters of an expression as its tree has them, without constants."""
    names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and n.id.endswith("_")}
    return {name for name in names if name.removesuffix("_") not in CONSTANTS}
