"""What sliding windows save at long inputs in llama.cpp, and what they do not save at short ones: cache, reading and decoding.

Half of the embedded teacher's layers, with full attention and with windows, untrained: speed and memory do not depend on the
weights. At inputs inside the window the two should be equal: what they differ there is the noise of the machine.

    python -m benchmarks.input_speed [LENGTH...]
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks.decoding_speed import InputSpeed, measure_input_speed
from benchmarks.machine import describe_measurement
from plugins.forms.windows import add_start_windows
from students.gguf_export import export_gguf
from students.start_model import StartModel, start_from_layers

LAYERS, WINDOW, FULL_EVERY = 16, 256, 4
LENGTHS = (128, 1024, 4096)
ROUNDS = 3
"""In turns, so that other work on the machine meets both."""
FULL, WINDOWS = "full attention", f"windows of {WINDOW} tokens, every {FULL_EVERY}th layer full"


def table(lengths: Sequence[int] = LENGTHS) -> str:
    with tempfile.TemporaryDirectory() as name:
        files = {
            FULL: export(start_from_layers(LAYERS), Path(name) / "full"),
            WINDOWS: export(add_start_windows(start_from_layers(LAYERS), WINDOW, FULL_EVERY), Path(name) / "windows"),
        }
        found: dict[tuple[str, int], list[InputSpeed]] = {(arm, length): [] for length in lengths for arm in files}
        for length in lengths:
            for _ in range(ROUNDS):
                for arm, file in files.items():
                    found[arm, length].append(asyncio.run(measure_input_speed(file, length)))
    lines = [
        f"{describe_measurement()}. `python -m benchmarks.input_speed`",
        "",
        f"{LAYERS} layers of the embedded teacher in Q8_0, one conversation; medians of {ROUNDS} rounds, in turns. Ratios: "
        "windows to full attention.",
        "",
        "| tokens of the input | | cache MB | read s | decoded tokens/s |",
        "|---:|---|---:|---:|---:|",
    ]
    for length in lengths:
        values = {arm: summarize(found[arm, length]) for arm in (FULL, WINDOWS)}
        for arm, (cache, seconds, decoded) in values.items():
            lines.append(f"| {length:,} | {arm} | {cache:.1f} | {seconds:.2f} | {decoded:.0f} |")
        ratios = (windows / full for full, windows in zip(values[FULL], values[WINDOWS], strict=True))
        lines.append(f"| | **ratio** | {' | '.join(f'{ratio:.2f}' for ratio in ratios)} |")
    return "\n".join(lines)


def export(start: StartModel, folder: Path) -> Path:
    start.model.save_pretrained(folder)
    start.tokenizer.save_pretrained(folder)
    return export_gguf(folder, "q8_0").path


def summarize(speeds: Sequence[InputSpeed]) -> tuple[float, float, float]:
    """MB of the cache, seconds to read the input, tokens per second after it."""
    cache = speeds[0].cache
    assert cache, "llama.cpp reports its caches"
    return (
        cache.total / 1e6, median(speed.seconds for speed in speeds), median(speed.decoded for speed in speeds),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lengths", nargs="*", type=int, default=LENGTHS)
    sys.stdout.write(f"{table(parser.parse_args().lengths)}\n")


if __name__ == "__main__":
    main()
