"""What Prefect's page shows of a run that ended: its card, and the collapse metrics as a table."""

import logging
import re

from prefect.artifacts import acreate_markdown_artifact, acreate_table_artifact

from core.run import Manifest, RunDir
from flows.card import run_card
from flows.words import number, place_of

logger = logging.getLogger("stillhouse")


async def publish(run: RunDir, manifest: Manifest, recipe: str) -> None:
    """Each under a key of the recipe, so that Prefect keeps those of its runs together. The run's directory is what counts: a
    server that takes no artifact is a warning.
    """
    key = key_of(recipe)
    try:
        await acreate_markdown_artifact(
            f"```\n{run_card(manifest, run)}\n```", key=f"{key}-card", description=f"Run {manifest.run}"
        )
        if collapse := manifest.collapse:
            await acreate_table_artifact(
                [
                    {
                        "metric": metric.name, "this run": number(metric.candidate), "real text": number(metric.reference),
                        "real range": f"{number(metric.low)} to {number(metric.high)}", "place": place_of(metric),
                    }
                    for metric in collapse.metrics
                ],
                key=f"{key}-collapse", description=f"{collapse.verdict.capitalize()}. {collapse.note}",
            )  # fmt: skip
    except Exception as error:  # whatever Prefect's client meets
        logger.warning("Prefect took no artifact of %s: %s", manifest.run, error)


def key_of(recipe: str) -> str:
    """What Prefect takes as the beginning of an artifact's key."""
    return re.sub(r"[^a-z0-9]+", "-", recipe.lower()).strip("-")
