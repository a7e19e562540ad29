import pytest

from core.config.recipe import recipe_digest
from core.errors import RecipeError
from flows.recipes.recipe_catalog import load_recipe_plan


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("scale.workers=2", "scale: `workers` and `address` need runner"),
        ("scale.runner=dask", "scale: runner = 'dask' needs either `workers`, to start here, or the `address`"),
    ],
)
def test_each_mistake_has_a_sentence(setting: str, sentence: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe_plan("smoke", [setting])
    assert any(str(problem).startswith(sentence) for problem in caught.value.problems)


def test_who_makes_the_samples_does_not_change_the_digest() -> None:
    elsewhere = load_recipe_plan("smoke", ['scale={runner="dask",workers=2}']).recipe
    assert recipe_digest(elsewhere, {}) == recipe_digest(load_recipe_plan("smoke").recipe, {})
