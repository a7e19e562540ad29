"""NeMo Data Designer: two structured columns and a validator over a seed dataset, at its defaults but for concurrency."""

import os
from importlib.metadata import version
from typing import Any

os.environ["NEMO_TELEMETRY_ENABLED"] = "false"

import data_designer.config as dd
import pandas as pd
from data_designer.interface import DataDesigner

from benchmarks.peers.work import (
    CRITIC,
    DRAFT_PROMPT,
    REVIEW_PROMPT,
    WRITER,
    Draft,
    PeerResult,
    PeerTask,
    Review,
    is_right,
    run_driver,
)


def check_rows(rows: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {"is_valid": [is_right(t, _read_answer(d)) for t, d in zip(rows["topic"], rows["draft"], strict=True)]}
    )


def _read_answer(draft: Any) -> Any:
    return draft.get("answer") if isinstance(draft, dict) else None


def run_pipeline(task: PeerTask) -> PeerResult:
    provider = dd.ModelProvider(name="endpoint", endpoint=task.url, api_key="none")
    model = dd.ModelConfig(
        alias="teacher",
        model="model",
        provider="endpoint",
        skip_health_check=True,
        inference_parameters=dd.ChatCompletionInferenceParams(max_parallel_requests=task.concurrency, max_tokens=160),
    )
    builder = dd.DataDesignerConfigBuilder(model_configs=[model])
    builder.with_seed_dataset(dd.LocalFileSeedSource.from_dataframe(
        pd.DataFrame({"topic": task.topics}), str(task.out / "seeds.parquet")
    ))  # fmt: skip
    builder.add_column(dd.LLMStructuredColumnConfig(
        name="draft", model_alias="teacher", system_prompt=WRITER, output_format=Draft,
        prompt=DRAFT_PROMPT.format(topic="{{ topic }}"),
    ))  # fmt: skip
    builder.add_column(dd.LLMStructuredColumnConfig(
        name="review", model_alias="teacher", system_prompt=CRITIC, output_format=Review,
        prompt=REVIEW_PROMPT.format(topic="{{ topic }}", answer="{{ draft.answer }}"),
    ))  # fmt: skip
    builder.add_column(dd.ValidationColumnConfig(
        name="passed", target_columns=["topic", "draft"], validator_type="local_callable",
        validator_params=dd.LocalCallableValidatorParams(validation_function=check_rows),
    ))  # fmt: skip
    designer = DataDesigner(artifact_path=task.out, model_providers=[provider])
    made = designer.create(builder, num_records=len(task.topics), resume=dd.ResumeMode.IF_POSSIBLE).load_dataset()
    return PeerResult([(row["topic"], _read_answer(row["draft"])) for row in made.to_dict("records")])


if __name__ == "__main__":
    run_driver(run_pipeline, f"data-designer {version('data-designer')}")
