import re
import socket
import unicodedata
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

import agents.sources.document_text
from agents.sources.document_text import read_document_text
from agents.sources.documents import DocumentChunk, count_words, hash_documents, read_documents
from core.errors import UsageError

SENTENCE = "The harbour of Tallinn was rebuilt in {} after the great storm had broken its western wall."

ESCAPES = str.maketrans({"(": r"\(", ")": r"\)"})


def read_chunks(folder: Path, **options: int) -> list[DocumentChunk]:
    return read_documents(folder, **options).chunks


def prose(count: int, *, first: int = 1800, to_a_paragraph: int = 4) -> str:
    sentences = [SENTENCE.format(first + n) for n in range(count)]
    return "\n\n".join(" ".join(sentences[n : n + to_a_paragraph]) for n in range(0, count, to_a_paragraph))


def pdf(*pages: list[str]) -> bytes:
    """A PDF of one font, a string for each line."""
    kids = " ".join(f"{4 + 2 * n} 0 R" for n in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    ]
    for n, lines in enumerate(pages):
        shown = "".join(f"({line.translate(ESCAPES)}) Tj T*\n" for line in lines)
        stream = f"BT /F1 11 Tf 14 TL 72 720 Td\n{shown}ET"
        objects.append(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Resources << /Font << /F1 3 0 R >> >> "
            f"/Contents {5 + 2 * n} 0 R >>"
        )
        objects.append(f"<< /Length {len(stream.encode('cp1252'))} >>\nstream\n{stream}\nendstream")
    out, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n".encode("cp1252")
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    size = len(objects) + 1
    end = f"xref\n0 {size}\n0000000000 65535 f \n{table}trailer\n<< /Size {size} /Root 1 0 R >>\nstartxref\n{len(out)}\n%%EOF"
    return out + end.encode()


def encrypted(data: bytes, password: str) -> bytes:
    from pypdf import PdfReader, PdfWriter

    out = BytesIO()
    writer = PdfWriter(clone_from=PdfReader(BytesIO(data)))
    writer.encrypt(password, owner_password="owner", algorithm="AES-256")
    writer.write(out)
    return out.getvalue()


Files = Callable[[dict[str, str | bytes]], Path]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    def make(contents: dict[str, str | bytes]) -> Path:
        for name, content in contents.items():
            path = tmp_path / "docs" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return tmp_path / "docs"

    return make


HTML = """<!doctype html><html><head><title>Tab</title><style>p {color: red}</style></head><body>
<header><nav><a href="/">Home page</a></nav></header>
<main><h1>Bees</h1><p>A queen lays <b>2,000</b> eggs
a day<!-- secret -->. See <a href="https://example.org/x">the book</a>.<p>Unclosed &eacute; paragraph.
<script>alert("run")</script><noscript>No script</noscript><?php echo 1 ?><div hidden>Unseen</div>
<table><tr><th>Caste</th><th>Days</th></tr><tr><td>Drone</td><td>24</td></tr></table>
<ul><li>wax</li><li>honey</li></ul><pre>a  b
  c</pre><img src="http://example.org/i.png" alt="pic"></main>
<aside>Buy now</aside><footer>Imprint</footer></body></html>"""

HTML_TEXT = """# Bees

A queen lays **2,000** eggs a day. See the book.

Unclosed é paragraph.

| Caste | Days |
| --- | --- |
| Drone | 24 |

- wax
- honey

```
a  b
  c
```"""

MARKDOWN = """---
title: Bees
---
# Bees

A queen lays 2,000 eggs
a day.
- wax that
  is soft
- honey

| Caste | Days  |
|-------|-------|
| Drone | 24    |

![dot](data:image/png;base64,iVBORw0KGgo=)

Title
-----
```python
if  x:
    pass
```
"""

MARKDOWN_TEXT = """# Bees

A queen lays 2,000 eggs a day.
- wax that is soft
- honey

| Caste | Days |
|-------|-------|
| Drone | 24 |

![dot]()

Title
-----
```python
if  x:
    pass
```"""

WRAPPED = """\ufeffA Chapter\r
\r
It was a bright cold day in April, and the clocks were striking thirteen.\r
Winston Smith, his chin nuzzled into his breast in an effort to escape the\r
vile wind, slipped quickly through the well-\r
worn doors.\r
   Indented  new paragraph, which is as long as all of the others here are,\r
and goes on.\r
\r
Roses are red,\r
Violets are blue.\r
\r
1. one\r
2. two\r
Caste      Days   of the long table whose rows are as wide as text\r
Drone      24     of the long table whose rows are as wide as text\r
"""

WRAPPED_TEXT = """A Chapter

It was a bright cold day in April, and the clocks were striking thirteen. \
Winston Smith, his chin nuzzled into his breast in an effort to escape the \
vile wind, slipped quickly through the well-worn doors.
Indented new paragraph, which is as long as all of the others here are, and goes on.

Roses are red,
Violets are blue.

1. one
2. two
Caste  Days  of the long table whose rows are as wide as text
Drone  24  of the long table whose rows are as wide as text"""

PAGES = [
    [
        "Report on Bees",
        "1 Queens",
        "A queen lays two thousand eggs a day when the weather is war\u00admer,",
        "and each of them is fed by nurses. The hive knows her by her commu-",
        "nication, which is chemical. Without her the hive would come to an",
        "end.",
        "A drone hatches after twenty-four days, and it leaves the hive for a",
        "1",
    ],
    ["Report on Bees", "flight (its only one) of some miles.", "2 Wax", "Wax is made by young workers.", "2"],
    ["Report on Bees", "Honey keeps for years.", "3"],
]

PAGES_TEXT = """1 Queens
A queen lays two thousand eggs a day when the weather is warmer, \
and each of them is fed by nurses. The hive knows her by her communication, \
which is chemical. Without her the hive would come to an end.
A drone hatches after twenty-four days, and it leaves the hive for a flight (its only one) of some miles.
2 Wax
Wax is made by young workers.
Honey keeps for years."""


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.html", HTML, HTML_TEXT),
        ("a.md", MARKDOWN, MARKDOWN_TEXT),
        ("a.txt", WRAPPED, WRAPPED_TEXT),
        ("A.PDF", pdf(*PAGES), PAGES_TEXT),
        ("locked.pdf", encrypted(pdf(["Free to read."]), ""), "Free to read."),
        ("nfd.txt", unicodedata.normalize("NFD", "Žižek’s\u00a0 naïve\u200b 🐝 漢字"), "Žižek’s naïve 🐝 漢字"),
        ("soft.txt", "cafe\u00ad\u0301", "café"),
        ("utf16.txt", "čaj\n\n\n\npijú".encode("utf-16"), "čaj\n\npijú"),
        ("latin.html", b'<meta charset="iso-8859-1"><p>\x93caf\xe9\x94 \x96 na', "“café” – na"),
        ("wrong.html", '<meta charset="utf-16"><p>čaj', "čaj"),
        ("cyrillic.htm", '<meta charset="windows-1251"><p>мёд'.encode("cp1251"), "мёд"),
        ("xhtml.html", '<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><body><p>x</p></body></html>', "x"),
        ("locator.html", "https://example.org/not-a-file", "https://example.org/not-a-file"),
        ("entity.html", '<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]><p>a &f; b</p>', "]>\n\na &f; b"),
    ],
)  # fmt: skip
def test_a_document_becomes_text(files: Files, name: str, content: str | bytes, text: str) -> None:
    assert read_document_text(files({name: content}) / name) == text


def test_nothing_is_fetched(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a document reached for the network")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)
    page = (
        '<!DOCTYPE html PUBLIC "x" "http://example.org/x.dtd"><base href="http://example.org">'
        '<link rel="stylesheet" href="x.css"><iframe src="http://example.org"></iframe><img src="//example.org/i.png">'
    )
    folder = files({"a.html": page + prose(2), "b.md": "![i](http://example.org/i.png) " + prose(2)})
    assert len(read_chunks(folder)) == 2


@pytest.mark.parametrize("ending", ["txt", "md", "html", "pdf"])
@pytest.mark.parametrize("words", [40, 180])
def test_chunks_are_whole_sentences_near_the_target(files: Files, ending: str, words: int) -> None:
    text = prose(40)
    paragraphs = text.split("\n\n")
    contents: dict[str, str | bytes] = {
        "html": "".join(f"<p>{paragraph}</p>" for paragraph in paragraphs),
        "pdf": pdf(*([f"{part}." for part in paragraph.rstrip(".").split(". ")] for paragraph in paragraphs)),
    }
    folder = files({f"a.{ending}": contents.get(ending, text)})
    chunks = read_chunks(folder, words=words)
    whole = read_document_text(folder / f"a.{ending}")
    assert [chunk.number for chunk in chunks] == list(range(1, len(chunks) + 1))
    for chunk in chunks:
        assert whole[chunk.start : chunk.start + len(chunk.text)] == chunk.text
        assert chunk.text.startswith("The harbour")
        assert chunk.text.endswith("wall.")
        assert 0.7 * words <= count_words(chunk.text) <= words or chunk is chunks[-1]
    assert re.findall(r"\d{4}", " ".join(chunk.text for chunk in chunks)) == [str(1800 + n) for n in range(40)]


@pytest.mark.attack(
    "HTML with a Python codec as encoding (`unicode_escape`, `utf-7`, `idna`, …)",
    "refused, with the file's name",
)
@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.pdf", pdf([SENTENCE])[:300], r"a\.pdf: cannot be read as PDF \(.+\); repair it, or take it out of the folder"),
        ("a.pdf", b"", r"a\.pdf: cannot be read as PDF \(EmptyFileError: .+\)"),
        ("a.pdf", b"hello " * 100, r"a\.pdf: cannot be read as PDF"),
        ("a.pdf", pdf(), r"a\.pdf: has 0 pages, not 1 to 5,000"),
        ("a.pdf", encrypted(pdf([SENTENCE]), "secret"), r"a\.pdf: is encrypted; save it without a password"),
        ("a.txt", "café".encode("latin-1"), r"a\.txt: is not utf-8 text \(byte 3 is 0xe9\); save it as UTF-8"),
        ("a.html", b'<meta charset="klingon">', r"a\.html: declares the encoding 'klingon', which is unknown"),
        ("a.html", b'<meta charset="unicode_escape">\\ud800', r"a\.html: declares the encoding 'unicode_escape'"),
        ("a.html", b'<meta charset="utf-7">+2AA-', r"a\.html: declares the encoding 'utf-7', which is unknown"),
        ("a.html", b'<meta charset="zip">', r"a\.html: declares the encoding 'zip', which is unknown"),
        ("a.html", b'<meta charset="undefined">', r"a\.html: declares the encoding 'undefined', which is unknown"),
        ("a.html", "<div>" * 2000 + "x", r"a\.html: is HTML nested too deeply"),
        ("a.docx", b"PK", r"docs: has no document \(\.txt, .+\.pdf\); 1 other files are there"),
        ("a.txt", "Too little.", r"docs: has no text of 10 words; a\.txt has 2 words, under 10"),
    ],
)  # fmt: skip
def test_a_document_that_cannot_be_read_is_named(files: Files, name: str, content: str | bytes, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence) as caught:
        read_chunks(files({name: content}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("limit", "value", "name", "content", "sentence"),
    [
        ("MAX_MB", 0.001, "a.txt", prose(100), r"a\.txt: has 0 MB, over 0.001; split it"),
        ("MAX_PAGES", 1, "a.pdf", pdf([SENTENCE], [SENTENCE]), r"a\.pdf: has 2 pages, not 1 to 1"),
        ("MAX_PDF_SECONDS", -1, "a.pdf", pdf([SENTENCE]), r"a\.pdf: takes over -1 s to read; split it"),
    ],
)
def test_sizes_are_limited(
    files: Files, monkeypatch: pytest.MonkeyPatch, limit: str, value: float, name: str, content: str, sentence: str
) -> None:
    monkeypatch.setattr(agents.sources.document_text, limit, value)
    with pytest.raises(UsageError, match=sentence):
        read_chunks(files({name: content}))


@pytest.mark.parametrize("text", [prose(4000), "a " * 250_000, "x" * 500_000])
def test_long_documents_are_split_in_parts_that_lose_nothing(files: Files, text: str) -> None:
    chunks = read_chunks(files({"a.txt": text}))
    assert "".join("".join(chunk.text.split()) for chunk in chunks) == "".join(text.split())


def test_the_hash_covers_names_and_bytes(files: Files) -> None:
    folder = files({"a.txt": "one", "sub/b.md": "two"})
    hashes = [hash_documents(folder)]
    files({"c.docx": b"skipped", ".d.txt": "hidden"})
    assert hash_documents(folder) == hashes[0]
    files({"a.txt": "One"})
    hashes.append(hash_documents(folder))
    (folder / "a.txt").rename(folder / "e.txt")
    hashes.append(hash_documents(folder))
    (folder / "sub" / "b.md").rename(folder / "b.md")
    hashes.append(hash_documents(folder))
    files({"f.txt": ""})
    hashes.append(hash_documents(folder))
    assert len(set(hashes)) == 5
    assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in hashes)
