"""The artifacts of a finished run on Prefect's page: the card, and the collapse metrics as a table."""

import logging
import re

from prefect.artifacts import acreate_markdown_artifact, acreate_table_artifact

from core.runs.records import RunManifest
from core.runs.run_dir import RunDir
from flows.terminal.run_summary import format_run_card
from flows.terminal.text_format import format_number, locate_metric

logger = logging.getLogger("stillhouse")


async def publish_artifacts(run: RunDir, manifest: RunManifest, recipe: str) -> None:
    """Publish the artifacts, keyed by the recipe so that Prefect groups its runs. If the server rejects one, only a warning is
    logged: the run's directory is authoritative.
    """
    key = build_artifact_key(recipe)
    try:
        await acreate_markdown_artifact(
            f"```\n{format_run_card(manifest, run)}\n```", key=f"{key}-card", description=f"Run {manifest.run}"
        )
        if collapse := manifest.collapse:
            await acreate_table_artifact(
                [
                    {
                        "metric": metric.name,
                        "this run": format_number(metric.candidate),
                        "real text" if collapse.reference else "in random order": format_number(metric.reference),
                        "real range" if collapse.reference else "limits": (
                            f"{format_number(metric.low)} to {format_number(metric.high)}"
                        ),
                        "place": locate_metric(metric),
                    }
                    for metric in collapse.metrics
                ],
                key=f"{key}-collapse", description=f"Verdict: {collapse.headline}",
            )  # fmt: skip
    except Exception as error:  # any error of Prefect's client
        logger.warning("Prefect did not store the artifacts of %s: %s", manifest.run, error)


def build_artifact_key(recipe: str) -> str:
    """The beginning of an artifact's key, in the characters that Prefect allows."""
    return re.sub(r"[^a-z0-9]+", "-", recipe.lower()).strip("-")
