"""Math-Verify on pairs of answers: `verify(parse(expected), parse(given))` with its own defaults and timeouts.

    python -m benchmarks.peers.answers_math_verify ROWS.jsonl OUT.json

Writes a verdict per row and per way of handing over a text, with the seconds and the exception, if any.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from math_verify import parse, verify  # type: ignore[import-not-found]
from math_verify.errors import TimeoutException  # type: ignore[import-not-found]

WAYS = {"plain": "{}", "dollars": "${}$", "boxed": "$\\boxed{{{}}}$"}
"""Math-Verify looks for LaTeX between dollars or in a box, and for plain expressions anywhere."""


def compare_row(row: dict[str, Any], way: str) -> dict[str, Any]:
    started = time.perf_counter()
    try:
        expected, given = (parse(WAYS[way].format(row[side]), raise_on_error=True) for side in ("expected", "given"))
        equal, error = bool(verify(expected, given, raise_on_error=True)), ""
    except (Exception, TimeoutException) as exception:  # the timeout derives from BaseException
        equal, error = False, type(exception).__name__
    return {"equal": equal, "error": error, "seconds": time.perf_counter() - started}


if __name__ == "__main__":
    rows = [json.loads(line) for line in Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()]
    compare_row(rows[0], "plain")  # the first call loads the grammar
    found = {way: [compare_row(row, way) for row in rows] for way in WAYS}
    Path(sys.argv[2]).write_text(json.dumps(found), encoding="utf-8")
