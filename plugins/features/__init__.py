"""What a dataset lacks compared with real text: topics, words, and forms, by a sparse autoencoder on a layer of a model."""

from core.plugins import Part, Plugin, load_from

part = load_from(__name__)

PLUGIN = Plugin(
    name="features",
    about="What a dataset lacks: topics, words, and forms of text by a sparse autoencoder; a filter, and rows that cover most",
    extra="train",
    parts=(
        Part("command", "gaps", part("commands:app")),
        Part("function", "gaps", part("dataset_gaps:gaps")),
        Part("command", "features", part("commands:app")),
        Part("command", "feature-gaps", part("commands:app")),
        Part("command", "select", part("commands:app")),
        Part("section", "features", part("config:FeaturesConfig")),
        Part("filter", "features", part("requested_features:FeaturesFilter")),
        Part("hooks", "features", part("hooks:HOOKS")),
    ),
)
