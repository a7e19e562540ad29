"""Weights of what seeds draw, from what was measured of a student by value: their file, and the choice of seeds by them.

A seed that a family draws is used with a probability proportional to its weight (rejection sampling, von Neumann 1951). The used
seeds have the family's own distribution times the weight.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from random import Random
from statistics import fmean, pvariance
from typing import Any

from pydantic import ValidationError

from core.errors import UsageError
from core.intervals import IntervalEstimate
from core.sample import FrozenModel, iterate_labels
from filters.collapse.seed_spread import list_attributes
from plugins.focus.measures import FocusMeasure

LEAST_WEIGHT, MOST_WEIGHT = 0.5, 2.0
"""Of a value, and of a seed: no value is starved, and at least one seed in four is used as it was drawn."""
MIN_VALUE_REQUESTS = 5
"""A value with fewer requests has the weight 1."""


class WeightedValue(FrozenModel):
    """One value of an attribute of the seeds, with what was measured of the student at it."""

    attribute: str
    """As in the table "Spread" of a run's page."""
    value: str
    requests: int
    measured: IntervalEstimate | None
    """The share of failed requests, or the mean loss in nats per token, with its 95 % interval; None with too few requests."""
    weight: float


class FocusWeights(FrozenModel):
    """What `stillhouse focus` writes: a choice of seeds (`core.hooks.SeedChoice`)."""

    run: str
    by: FocusMeasure
    overall: float
    """The share of failed requests, or the mean loss, over all requests."""
    values: tuple[WeightedValue, ...]
    requests: tuple[str, ...]
    """The requests that the weights were measured on, in the form of `join_requests`; empty for losses."""

    @property
    def steered(self) -> list[WeightedValue]:
        """The values whose weight is not 1, the highest first."""
        return sorted((one for one in self.values if one.weight != 1), key=lambda one: -one.weight)

    @cached_property
    def _weights(self) -> dict[tuple[str, str], float]:
        return {(one.attribute, one.value): one.weight for one in self.steered}

    def weigh(self, data: Mapping[str, Any]) -> float:
        """The product over a seed's attributes, each with the mean weight of the seed's values, within the bounds."""
        weight = 1.0
        for name, labels in iterate_labels(data):
            if labels:
                weight *= fmean(self._weights.get((name, label), 1.0) for label in labels)
        return min(max(weight, LEAST_WEIGHT), MOST_WEIGHT)

    def accepts(self, data: Mapping[str, Any], rng: Random) -> bool:
        return rng.random() * MOST_WEIGHT < self.weigh(data)


def weigh_values(
    seeds: Sequence[Mapping[str, Any]],
    measured: Sequence[float],
    estimate: Callable[[Sequence[float]], IntervalEstimate | None],
    *,
    inverse: bool = False,
) -> list[WeightedValue]:
    """The weight of each value of each categorical attribute: its mean over the overall mean, shrunk to 1 by as much as chance
    explains of the differences between the attribute's values, so that chance steers little.

    Args:
        seeds: the data of each request's seed.
        measured: of each request: 1 for a failure and 0 for none, or a loss.
        estimate: the mean of such numbers with its 95 % interval, which is shown.
        inverse: one over that weight, as a control.
    """
    overall, variance = fmean(measured), pvariance(measured)
    weighted: list[WeightedValue] = []
    for attribute, column in list_attributes(seeds).items():
        values = sorted(set[str]().union(*column))
        own = {
            value: [one for one, labels in zip(measured, column, strict=True) if value in labels] for value in values
        }
        means = {value: fmean(numbers) for value, numbers in own.items() if len(numbers) >= MIN_VALUE_REQUESTS}
        chance = {value: variance / len(own[value]) for value in means}
        spread = _estimate_spread(list(means.values()), list(chance.values()))
        for value, numbers in own.items():
            weight = 1.0
            if value in means and spread:
                shrunk = overall + spread / (spread + chance[value]) * (means[value] - overall)
                weight = overall / shrunk if inverse else shrunk / overall
            weight = round(min(max(weight, LEAST_WEIGHT), MOST_WEIGHT), 3)
            found, requests = estimate(numbers) if value in means else None, len(numbers)
            one = WeightedValue(attribute=attribute, value=value, requests=requests, measured=found, weight=weight)
            weighted.append(one)
    return weighted


def _estimate_spread(means: Sequence[float], chance: Sequence[float]) -> float:
    """The variance between true means, given measured means with the variances that chance gives them: the method of moments of
    DerSimonian and Laird (1986, Controlled Clinical Trials 7: 177, equation 8); 0 where chance explains all.
    """
    if len(means) < 2 or not all(chance):
        return 0.0
    precision = [1 / one for one in chance]
    middle = sum(p * mean for p, mean in zip(precision, means, strict=True)) / sum(precision)
    excess = sum(p * (mean - middle) ** 2 for p, mean in zip(precision, means, strict=True)) - (len(means) - 1)
    return max(0.0, excess / (sum(precision) - sum(p * p for p in precision) / sum(precision)))


def read_focus_weights(path: Path) -> FocusWeights:
    """Raises UsageError if the file cannot be read, or has a weight out of bounds."""
    try:
        weights = FocusWeights.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be read: {error.strerror}; `stillhouse focus RUN --out {path.name}` writes it"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise UsageError(f"{path}: is no file of `stillhouse focus`: {where}: {first['msg']}") from None
    for one in weights.values:
        if not LEAST_WEIGHT <= one.weight <= MOST_WEIGHT:
            bounds = f"{LEAST_WEIGHT:g} to {MOST_WEIGHT:g}"
            raise UsageError(
                f"{path}: the weight of {one.attribute} = {one.value!r} must be {bounds}, not {one.weight:g}"
            )
    return weights
