"""What a dataset lacks compared with real text: topics, words, and forms, by a sparse autoencoder on a layer of a model."""

from typing import Any

from core.plugins import Part, Plugin


def _load_commands() -> Any:
    from plugins.features.commands import app

    return app


def _load_gaps() -> Any:
    from plugins.features.dataset_gaps import gaps

    return gaps


def _load_section() -> Any:
    from plugins.features.config import FeaturesConfig

    return FeaturesConfig


def _load_filter() -> Any:
    from plugins.features.requested_features import FeaturesFilter

    return FeaturesFilter


def _load_hooks() -> Any:
    from plugins.features.hooks import FeatureHooks

    return FeatureHooks()


PLUGIN = Plugin(
    name="features",
    about="What a dataset lacks: topics, words, and forms of text by a sparse autoencoder; a filter, and rows that cover most",
    extra="train",
    parts=(
        Part("command", "gaps", _load_commands),
        Part("function", "gaps", _load_gaps),
        Part("command", "features", _load_commands),
        Part("command", "feature-gaps", _load_commands),
        Part("command", "select", _load_commands),
        Part("section", "features", _load_section),
        Part("filter", "features", _load_filter),
        Part("hooks", "features", _load_hooks),
    ),
)
