"""What `validate` finds out about a valid recipe beyond its keys: gate, prices, weights, abilities, and what plugins find."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from core.config.recipe import list_recipe_plugins
from core.config.teacher_prices import PriceRecord
from core.plugins import load_hooks
from flows.release.release_gate import build_gate_record, describe_release_gate

if TYPE_CHECKING:
    from agents.planning.run_plan import RunPlan


class RecipeFindings(NamedTuple):
    """All but the gate by name of the teacher."""

    gate: str
    prices: Mapping[str, PriceRecord]
    weights: Mapping[str, Path | None]
    """None if they are not downloaded."""
    abilities: Mapping[str, str]
    """Empty if no teacher was asked."""
    facts: Mapping[str, Mapping[str, Sequence[str]]]
    """Of plugins, by their name and source."""

    def to_json(self) -> dict[str, Any]:
        return {
            "live": self.abilities,
            **self.facts,
            "gate": self.gate,
            "weights": {name: file and str(file) for name, file in self.weights.items()},
            "prices": {name: record.model_dump(mode="json") for name, record in self.prices.items()},
        }


async def inspect_recipe(plan: "RunPlan", *, live: bool) -> RecipeFindings:
    """With `live`, each teacher is asked a few short questions, and plugins ask what they name, as servers of tools.

    Raises:
        ProviderError: as `probe_teachers`.
        RunFailed: if a source of a plugin cannot be used.
    """
    from teachers.local_weights import list_local_weights

    recipe = plan.recipe
    abilities: dict[str, str] = {}
    if live:
        from agents.studies.teacher_probe import probe_teachers

        abilities = await probe_teachers(plan)
    facts = {}
    for name in list_recipe_plugins(recipe):
        for hooks in load_hooks([name]):
            if found := await hooks.find_recipe_facts(plan, live=live):
                facts[name] = found
    return RecipeFindings(
        describe_release_gate(recipe, build_gate_record(recipe)),
        plan.prices,
        list_local_weights(recipe),
        abilities,
        facts,
    )
