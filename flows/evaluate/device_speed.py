"""Models on this machine: decoding against the memory roof, KV cache, energy, and speed by length of the input.

Knows no recipe and no answers.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from core.errors import ProviderError, UsageError
from core.shared_options import CacheType
from core.storage.atomic_files import read_json
from flows.data.student_files import import_student_module
from flows.terminal.console import CommandSession
from flows.terminal.text_format import format_percent, format_table

if TYPE_CHECKING:
    from teachers.decoding_speed import CacheMemory, DecodingSpeed, InputSpeed

DEFAULT_CACHE_TYPE: CacheType = "f16"
CACHE_BLOCK = 32
"""Values of a head that share a scale in a KV cache of 8 bits or fewer."""


class DeviceRecord(BaseModel):
    """The machine of an evaluation."""

    model_config = ConfigDict(frozen=True)

    threads: int
    """Of llama.cpp, and of the measured reading."""
    read_bandwidth: float | None
    """Bytes per second read from a buffer at least four times as large as the last-level cache, the fastest of ten passes;
    None if too little memory was free."""
    cache: int | None
    """Bytes of the last-level caches; None if the system does not say."""


class InputResult(BaseModel):
    """A model with an input of `tokens` tokens."""

    model_config = ConfigDict(frozen=True)

    tokens: int
    prefill_seconds: float
    """To read the input."""
    tokens_per_second: float
    """Decoded after it."""
    cache_bytes: int | None
    """KV caches and recurrent states with room for the input and the decoded tokens."""

    @property
    def prefill_per_second(self) -> float:
        return self.tokens / self.prefill_seconds


class DeviceResult(BaseModel):
    """What decoding takes from the machine, in a single conversation."""

    model_config = ConfigDict(frozen=True)

    cache_type: str
    """The type of the KV cache."""
    cache_bytes: int | None
    """KV caches and recurrent states of a conversation of `cache_tokens` tokens."""
    cache_tokens: int
    token_reads: int | None
    """Bytes that decoding a token reads: the weights that a token needs, and the cache up to its position."""
    roof_share: float | None
    """These bytes times tokens per second, over the machine's read bandwidth: the share of the memory roof. Above 1 if a cache of
    the processor holds the weights; None if the model was on a GPU."""
    cache_bandwidth: float | None = None
    """Bytes per second read from a buffer as large as these bytes, if the last-level caches can hold it."""
    cache_share: float | None = None
    """The share of that roof, which is the one that counts for these weights."""
    joules_per_token: float | None = None
    """Of all processors and their memory, idling and other processes included; None if no counter can be read."""
    inputs: list[InputResult] = []


class DeviceMeasurements(NamedTuple):
    """By role, where it could be measured."""

    device: DeviceRecord
    speeds: "dict[str, DecodingSpeed]"
    results: dict[str, DeviceResult]
    notes: list[str]


def check_device_options(student: Path, inputs: Sequence[int], cache_type: CacheType | None) -> None:
    """Raises UsageError if the student in the folder is made for shorter inputs, or its heads cannot have such a cache."""
    from teachers.decoding_speed import INPUT_TOKENS

    settings: dict[str, Any] = read_json(student / "config.json")
    context = settings.get("max_position_embeddings")
    if inputs and context and max(inputs) + INPUT_TOKENS > context:
        raise UsageError(
            f"--inputs {max(inputs)}: the student's context is {context:,} tokens, of which {INPUT_TOKENS} are decoded; its "
            f"longest input has {context - INPUT_TOKENS:,}"
        )
    head = settings.get("head_dim") or settings.get("hidden_size", 0) // settings.get("num_attention_heads", 1)
    if cache_type and cache_type.startswith("q") and head % CACHE_BLOCK:
        raise UsageError(
            f"--cache-type {cache_type}: the student's heads have {head} dimensions, and this type needs a multiple of "
            f"{CACHE_BLOCK}; use f16"
        )


async def measure_device_speeds(
    files: Mapping[str, Path],
    cache_types: Mapping[str, CacheType | None],
    inputs: Sequence[int],
    session: CommandSession,
) -> DeviceMeasurements:
    """Measure the machine and the GGUF files, by role. Raises RunStopped on the stop signal."""
    from teachers.decoding_speed import measure_decoding_speed, measure_input_speed, measure_memory_roof

    roof = measure_memory_roof()
    device = DeviceRecord(threads=roof.threads, read_bandwidth=roof.bytes_per_second, cache=roof.cache)
    speeds: dict[str, DecodingSpeed] = {}
    results: dict[str, DeviceResult] = {}
    notes = []
    for role, file in files.items():
        session.print_unless_stopped(f"evaluate: speed of the {role}")
        cache_type = cache_types.get(role)
        try:
            speeds[role] = await session.run_unless_stopped(measure_decoding_speed(file, cache_type))
            results[role] = _build_device_result(file, speeds[role], cache_type, device)
        except ProviderError as error:
            notes.append(f"{error}.")
            continue
        if (cache := speeds[role].cache) and cache.device != "CPU":
            notes.append(f"The roof is that of the processors' memory; llama.cpp ran the {role} on {cache.device}.")
        found = []
        for length in inputs:
            session.print_unless_stopped(f"evaluate: {role}: an input of {length:,} tokens")
            try:
                speed = await session.run_unless_stopped(measure_input_speed(file, length, cache_type))
            except ProviderError as error:
                notes.append(f"{error}.")
                break
            found.append(_build_input_result(speed))
        results[role] = results[role].model_copy(update={"inputs": found})
    return DeviceMeasurements(device, speeds, results, notes)


def _build_device_result(
    file: Path, speed: "DecodingSpeed", cache_type: CacheType | None, device: DeviceRecord
) -> DeviceResult:
    from teachers.device.read_bandwidth import measure_read_rate

    cache: CacheMemory | None = speed.cache
    reads = None
    if cache and cache.device == "CPU":
        weights: int = import_student_module("comparison.token_reads").count_weight_reads(file)
        reads = weights + round(cache.count_reads(speed.position))
    demand = reads * speed.decoded if reads else None
    fits_cache = reads and device.cache and reads <= device.cache
    cache_bandwidth = measure_read_rate(reads, device.threads) if reads and fits_cache else None
    return DeviceResult(
        cache_type=cache_type or DEFAULT_CACHE_TYPE,
        cache_bytes=cache.total if cache else None,
        cache_tokens=speed.slot_tokens,
        token_reads=reads,
        roof_share=demand / device.read_bandwidth if demand and device.read_bandwidth else None,
        cache_bandwidth=cache_bandwidth,
        cache_share=demand / cache_bandwidth if demand and cache_bandwidth else None,
        joules_per_token=speed.joules,
    )


def _build_input_result(speed: "InputSpeed") -> InputResult:
    return InputResult(
        tokens=speed.tokens,
        prefill_seconds=speed.seconds,
        tokens_per_second=speed.decoded,
        cache_bytes=speed.cache.total if speed.cache else None,
    )


def describe_device(device: DeviceRecord) -> str:
    """The machine in a line."""
    threads = f"{device.threads} thread{'s' * (device.threads != 1)}"
    read = f"reads {device.read_bandwidth / 1e9:.1f} GB/s" if device.read_bandwidth else "read bandwidth not measured"
    cache = f"; last-level cache {device.cache / 1e6:.0f} MB" if device.cache else ""
    return f"memory with {threads} {read}{cache}"


def list_device_lines(device: DeviceRecord, results: Mapping[str, tuple[DeviceResult, float | None]]) -> list[str]:
    """The lines of the card. Each role has its result and its prefill speed in tokens per second."""
    energy = any(result.joules_per_token for result, _ in results.values())
    table = [["", "of the roof", "MB read/token", "prefill tokens/s", "KV cache MB", *(["J/token"] * energy)]]
    for role, (result, prefill) in results.items():
        cache = _format_optional(result.cache_bytes and result.cache_bytes / 1e6, ",.1f")
        table.append(
            [
                role,
                format_percent(result.roof_share) + " *" * bool(result.cache_share) if result.roof_share else "-",
                _format_optional(result.token_reads and result.token_reads / 1e6, ",.1f"),
                _format_optional(prefill, ",.0f"),
                f"{cache} ({result.cache_type}, {result.cache_tokens:,} tokens)",
                *([_format_optional(result.joules_per_token, ".3g")] * energy),
            ]
        )
    lines = [f"  {describe_device(device)}", *format_table(table)]
    for role, (result, _) in results.items():
        if result.cache_bandwidth and result.cache_share:
            rate = f"{format_percent(result.cache_share)} of the {result.cache_bandwidth / 1e9:.0f} GB/s"
            lines.append(f"  * the {role}'s bytes fit in the cache: {rate} at which it is read")
    rows = [
        [
            role,
            f"{one.tokens:,}",
            f"{one.prefill_seconds:,.2f}",
            f"{one.prefill_per_second:,.0f}",
            f"{one.tokens_per_second:,.0f}",
            _format_optional(one.cache_bytes and one.cache_bytes / 1e6, ",.1f"),
        ]
        for role, (result, _) in results.items()
        for one in result.inputs
    ]
    if rows:
        lines += format_table([["", "input", "prefill s", "prefill tokens/s", "tokens/s", "KV cache MB"], *rows])
    return lines


def _format_optional(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"
