"""Which keys of a recipe identify a run. Knows no run and no file.

A run keeps its identity when a later version adds a key: a key counts if it was there from the first, or has another value than
its default. So the default of a later key must never change.
"""

from collections.abc import Mapping
from typing import Any

from core.config.agents import VerifierConfig
from core.config.base import RecipeTable

FIRST_KEYS: Mapping[str, str] = {
    "AgentConfig": "teacher temperature top_p max_tokens max_repairs",
    "AgentsConfig": "generator critic verifier",
    "AttentionConfig": "window full_every sinks",
    "BoilerplateFilter": "type",
    "CollapseConfig": "reference",
    "ContaminationFilter": "type sets columns ngram coverage",
    "CriticConfig": "teacher temperature top_p max_tokens max_repairs type min_score",
    "DatasetConfig": "formats jsonl",
    "DecisionQuestion": "name ask type labels meanings low high",
    "DifficultyConfig": "teacher attempts wanted temperature max_tokens reasoning max_repairs",
    "DistillationConfig": (
        "teacher api_key_env signals cache top_k draws temperature beta skew alpha_beta dpo_beta lmbda "
        "max_new_tokens"
    ),
    "ExactFilter": "type keep of",
    "FeaturesFilter": "type dictionary",
    "GeneratorConfig": "teacher temperature top_p max_tokens max_repairs examples",
    "ImageDuplicatesFilter": "type keep max_pixels threshold same_question",
    "ImagesConfig": "patch size",
    "ImagesFilter": "type max_pixels min_side min_deviation",
    "LanguageFilter": "type languages min_confidence min_letters",
    "LengthFilter": "type min_words max_words",
    "LineageConfig": "policy budget real min_real_share",
    "LoraConfig": "rank alpha targets",
    "MinHashFilter": "type keep of threshold ngram permutations index",
    "MtpConfig": "depth weight",
    "NoveltyFilter": "type keep threshold",
    "PersonalDataFilter": "type action kinds region",
    "PreferenceConfig": "margin pairs_per_prompt",
    "QualityFilter": "type sets rules without limits",
    "QuotasConfig": "by keep",
    "Recipe": (
        "name family seed samples answers_per_seed keep quotas shard_size seeds prompts task teachers topology "
        "agents verifiers filters collapse lineage dataset preference student"
    ),
    "RefusalFilter": "type",
    "ReplayConfig": "share weight loss most max_tokens temperature cache",
    "RepetitionFilter": "type scale",
    "SeedsConfig": "path documents chunk_words bootstrap draw",
    "SemanticFilter": "type keep of threshold numbers",
    "SparsityConfig": "method share pattern conversations",
    "StudentConfig": (
        "start objective distillation layers hidden_size vocabulary epochs learning_rate schedule decay batch_size "
        "accumulate packing precision evaluate_steps patience lora sparsity max_tokens held_out checkpoint_steps "
        "track"
    ),
    "TeacherConfig": "model base_url slot_tokens structured extra seeded logprobs engine faults",
    "TeacherFaults": "malformed refusal repetition unavailable seconds contradiction drift omission miscoordination",
    "ToolSourceConfig": "module schemas command env url api_key_env only seconds memory_mb",
    "TopologyConfig": "kind max_revisions debaters rounds",
    "VerifierConfig": "type path",
}  # fmt: skip
"""By table: the keys that count with every value. Only a new table is ever added here, with its keys at that time. Of tables of
installed packages, all keys count."""


LATER_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "answer": {"of": "seed"},
    "code": {"probes": 60},
    "on_topic": {"similarity": None},
    "read_again": {"similarity": None},
    "solved_again": {"probes": 60, "agree": 0.0},
    "steps": {"of": "reasoning"},
    "supported": {"text": "text"},
    "votes": {"by": "votes"},
}
"""By check: options that it got later, with their defaults."""
LATER_TASK_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "constrained_instructions": {"styles": {}, "purposes": 0.0},
    "grounded_qa": {"distractors": 0},
    "instructions": {"kinds": {}, "fields": {}, "lengths": {}, "openings": {}},
}
"""By family: options of `[task]` that it got later, with their defaults."""


def find_later_defaults(table: RecipeTable) -> set[str]:
    """The keys of `table` that do not count: later ones with their default."""
    kind = type(table)
    if kind.__name__ not in FIRST_KEYS or not kind.__module__.startswith("core."):
        return set()
    fields, later = kind.model_fields, kind.model_fields.keys() - set(FIRST_KEYS[kind.__name__].split())
    found = {key for key in later if getattr(table, key) == fields[key].get_default(call_default_factory=True)}
    if isinstance(table, VerifierConfig) and table.path is None:
        options = LATER_OPTIONS.get(table.type, {})
        found |= {key for key, default in options.items() if table.options.get(key) == default}
    return found


def remove_later_defaults(value: Any, dumped: Any) -> None:
    """Remove from `dumped`, which is `value` as JSON, the keys of all tables in it that do not count."""
    if isinstance(dumped, dict) and {"family", "task"} <= dumped.keys():  # a recipe
        later = LATER_TASK_OPTIONS.get(dumped["family"], {})
        dumped["task"] = {k: v for k, v in dumped["task"].items() if k not in later or v != later[k]}
    if isinstance(value, RecipeTable):
        for key in find_later_defaults(value):
            dumped.pop(key, None)
        value = dict(value)
    if isinstance(value, Mapping) and isinstance(dumped, dict):
        for key in value.keys() & dumped.keys():
            remove_later_defaults(value[key], dumped[key])
    elif isinstance(value, tuple | list) and isinstance(dumped, list):
        for part, dumped_part in zip(value, dumped, strict=True):
            remove_later_defaults(part, dumped_part)
