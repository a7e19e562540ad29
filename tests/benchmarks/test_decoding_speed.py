"""A model's speed, KV cache and energy on this machine, in llama.cpp; the machine's files by stand-ins of their layout."""

import asyncio
import os
import threading
from pathlib import Path

import gguf
import numpy as np
import pytest

from benchmarks.decoding_speed import (
    INPUT_TOKENS,
    CacheMemory,
    measure_decoding_speed,
    measure_input_speed,
    read_cache_memory,
)
from benchmarks.energy_counters import count_joules, find_energy_counters, read_energy
from benchmarks.read_bandwidth import find_last_level_cache, measure_read_bandwidth, measure_read_rate
from benchmarks.token_reads import count_weight_reads
from core.errors import ProviderError
from students.output.gguf_export import export_gguf
from tests.students.conftest import saved, tiny_llama, tiny_tokenizer
from tests.support.exported_students import export_student


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_student(tmp_path_factory.mktemp("student"))


def write_zone(folder: Path, zone: str, name: str, energy: int, largest: int = 1_000_000) -> Path:
    """A zone of the kernel's power capping framework; returns its counter."""
    (folder / zone).mkdir(parents=True)
    for file, value in {"name": name, "energy_uj": energy, "max_energy_range_uj": largest}.items():
        (folder / zone / file).write_text(f"{value}\n")
    return folder / zone / "energy_uj"


def test_energy_is_that_of_packages_and_memory_also_when_a_counter_begins_again(tmp_path: Path) -> None:
    assert find_energy_counters(tmp_path / "none") == []
    (tmp_path / "intel-rapl").mkdir()
    first = write_zone(tmp_path, "intel-rapl:0", "package-0", 900_000)
    write_zone(tmp_path, "intel-rapl:0:0", "core", 7)
    memory = write_zone(tmp_path, "intel-rapl:0:1", "dram", 5)
    second = write_zone(tmp_path, "intel-rapl:1", "package-1", 100)
    write_zone(tmp_path, "intel-rapl:2", "psys", 1)
    write_zone(tmp_path, "intel-rapl-mmio:0", "package-0", 900_000)
    counters = find_energy_counters(tmp_path)
    assert {counter.file for counter in counters} == {first, memory, second}

    before = read_energy(counters)
    assert count_joules(counters, before, read_energy(counters)) is None, "counters that stand still measure nothing"
    first.write_text("50000\n")  # 100,000 to the end of its range, and 50,000 more
    memory.write_text("10005\n")
    second.write_text("40100\n")
    assert count_joules(counters, before, read_energy(counters)) == pytest.approx(0.2)
    second.write_text("")
    assert read_energy(counters) is None
    assert count_joules(counters, before, None) is None
    assert find_energy_counters(tmp_path) == [], "a sum without one of the packages would be too small"


def test_a_cache_that_processors_share_counts_once(tmp_path: Path) -> None:
    assert find_last_level_cache(tmp_path) is None
    for number in os.sched_getaffinity(0):
        for index, (level, shared, size) in enumerate(
            [(1, number, "48K"), (2, number, "1024K"), (3, "0-255", "32768K")]
        ):
            folder = tmp_path / f"cpu{number}" / "cache" / f"index{index}"
            folder.mkdir(parents=True)
            for name, value in {"level": level, "shared_cpu_list": shared, "size": size}.items():
                (folder / name).write_text(f"{value}\n")
    assert find_last_level_cache(tmp_path) == 32 * 2**20
    assert measure_read_rate(2**20 + 3, 3) > 0
    found = measure_read_bandwidth(3, free=2**20, processors=tmp_path)
    assert found == (3, None, 32 * 2**20), "the buffer would take more than half of the memory"


@pytest.mark.parametrize("tied", [True, False])
def test_a_token_reads_all_weights_but_the_rows_of_other_tokens(tied: bool, tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    file = export_gguf(saved(tiny_llama(len(tokenizer), tied=tied), tokenizer, tmp_path), "f32").path
    parameters = tiny_llama(len(tokenizer), tied=tied).num_parameters()
    other_rows = 0 if tied else (len(tokenizer) - 1) * 64
    assert count_weight_reads(file) == 4 * (parameters - other_rows)


def test_a_token_reads_its_experts_only_and_no_drafting_layer(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "experts.gguf", "qwen35moe")
    writer.add_block_count(2)
    writer.add_uint32("qwen35moe.nextn_predict_layers", 1)
    writer.add_expert_count(8)
    writer.add_expert_used_count(2)
    for name, shape in {
        "token_embd.weight": (100, 4), "output.weight": (100, 4), "blk.0.attn_q.weight": (4, 4),
        "blk.0.ffn_up_exps.weight": (8, 6, 4), "blk.1.nextn.eh_proj.weight": (4, 8),
    }.items():  # fmt: skip
        writer.add_tensor(name, np.zeros(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert count_weight_reads(tmp_path / "experts.gguf") == 4 * (4 + 400 + 16 + 2 * 6 * 4)


LOG = """0.00.1 I llama_context: constructing llama_context
0.00.1 I llama_kv_cache:        CPU KV buffer size =     0.00 MiB
0.00.1 I llama_kv_cache: size =    9.00 MiB (  2048 cells,   3 layers,  1/1 seqs), K (f16):    4.50 MiB, V (f16):    4.50 MiB
0.00.2 I llama_context: constructing llama_context
0.00.2 I llama_kv_cache:      CUDA0 KV buffer size =    10.00 MiB
0.00.2 I llama_kv_cache: size =   10.00 MiB (  1000 cells,   1 layers,  1/1 seqs), K (f16):    5.00 MiB, V (f16):    5.00 MiB
0.00.2 I llama_kv_cache:        CPU KV buffer size =     2.00 MiB
0.00.2 I llama_kv_cache: size =    2.00 MiB (   200 cells,   2 layers,  1/1 seqs), K (f16):    1.00 MiB, V (f16):    1.00 MiB
0.00.2 I llama_memory_recurrent:        CPU RS buffer size =     1.00 MiB
0.00.2 I llama_memory_recurrent: size =    1.00 MiB (     1 cells,   3 layers,  1 seqs), R (f32):    0.25 MiB, S (f32): 0.75 MiB
"""


def test_windows_and_recurrent_states_are_read_as_far_as_they_reach() -> None:
    cache = read_cache_memory(LOG)
    assert cache == CacheMemory(((10 * 2**20, 1000), (2 * 2**20, 200), (2**20, 1)), "CUDA0"), "the last context's"
    assert cache.total == 13 * 2**20
    assert cache.count_reads(100) == (1 + 1 + 1) * 2**20
    assert cache.count_reads(500) == (5 + 2 + 1) * 2**20, "the window is full"
    assert read_cache_memory("nothing that it knows") is None


CELL = 2 * 2 * 32
"""Values of a token in the cache of `tiny_llama`: keys and values of two layers with one head of 32 dimensions."""


@pytest.mark.slow
def test_a_cache_of_8_bits_takes_half_of_one_of_16_and_energy_is_that_of_decoding(
    weights: Path, tmp_path: Path
) -> None:
    counter = write_zone(tmp_path, "intel-rapl:0", "package-0", 0, 10**9)
    ended = threading.Event()

    def count() -> None:
        """A processor that uses 1 J in each hundredth of a second."""
        used = 0
        while not ended.wait(0.01):
            used += 10**6
            replaced = counter.with_name("next")
            replaced.write_text(f"{used}\n")
            replaced.replace(counter)

    thread = threading.Thread(target=count)
    thread.start()
    try:
        for _ in range(20):  # the model may decode between two steps of the counter
            full = asyncio.run(measure_decoding_speed(weights, powercap=tmp_path))
            if full.joules is not None:
                break
    finally:
        ended.set()
        thread.join()
    half = asyncio.run(measure_decoding_speed(weights, "q8_0", powercap=tmp_path))
    assert full.cache
    assert half.cache
    [[size, cells]] = full.cache.parts
    assert (cells, full.slot_tokens, full.cache.device) == (1536, 1536, "CPU")
    assert size == pytest.approx(2 * CELL * 1536, abs=0.006 * 2**20), "two digits of MiB are printed"
    assert half.cache.total == pytest.approx(34 / 32 * CELL * 1536, abs=0.006 * 2**20), "a scale for 32 values"
    assert full.joules
    assert half.joules is None, "the counter stood still"
    assert 64 < full.position < 1536


@pytest.mark.slow
def test_an_input_has_its_length_and_one_that_is_too_long_is_a_sentence(weights: Path) -> None:
    short, long = (asyncio.run(measure_input_speed(weights, length)) for length in (100, 900))
    assert (short.tokens, long.tokens) == (100, 900)
    assert short.cache
    assert long.cache
    assert short.cache.parts[0][1] == 256, "164 tokens, in steps of 256"
    assert long.cache.total == pytest.approx(4 * short.cache.total, rel=0.1)
    assert short.decoded > 0 < short.seconds
    longest = 2048 - INPUT_TOKENS
    message = (
        f"an input of {longest + 1:,} tokens and {INPUT_TOKENS} decoded tokens are longer than its context of 2,048"
    )
    with pytest.raises(ProviderError, match=message):
        asyncio.run(measure_input_speed(weights, longest + 1))
