"""datatrove: its four stages with its defaults, 14 bands of 8 rows, 64 bits. One worker, so that all of its CPU time is
measured.
"""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
)
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.hashing import HashConfig
from datatrove.utils.typeshelper import Languages

from benchmarks.peers.dedup_work import main, read_texts

HALVES = 2


def find_dropped_rows(source: Path) -> Iterator[int]:
    config = MinhashConfig(hash_config=HashConfig(precision=64))
    with tempfile.TemporaryDirectory() as folder:
        halves = Path(folder) / "in"
        halves.mkdir()
        lines = source.read_text(encoding="utf-8").splitlines(keepends=True)
        for half in range(HALVES):
            part = lines[half * len(lines) // HALVES : (half + 1) * len(lines) // HALVES]
            (halves / f"{half}.jsonl").write_text("".join(part), encoding="utf-8")
        reader = JsonlReader(str(halves), id_key="row")
        signatures, buckets, removed, kept = (
            f"{folder}/{name}" for name in ("signatures", "buckets", "removed", "kept")
        )
        stages = [
            ([reader, MinhashDedupSignature(signatures, config=config, language=Languages.english)], HALVES),
            ([MinhashDedupBuckets(signatures, buckets, config=config)], config.num_buckets),
            ([MinhashDedupCluster(buckets, removed, config=config)], 1),
            ([reader, MinhashDedupFilter(removed), JsonlWriter(kept, compression=None)], HALVES),
        ]
        for i, (pipeline, tasks) in enumerate(stages):
            LocalPipelineExecutor(pipeline, tasks=tasks, workers=1, logging_dir=f"{folder}/logs{i}").run()
        left = [json.loads(line) for file in Path(kept).glob("*.jsonl") for line in file.open(encoding="utf-8")]
        ids = {document.get("id", 0) for document in left}  # it omits ids of 0
        yield from (row for row, _ in read_texts(source) if row not in ids)


if __name__ == "__main__":
    main(find_dropped_rows)
