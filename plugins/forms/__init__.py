"""Other forms of a student, as steps of its training: ternary or pruned weights, windows, hybrids, layers that draft; steps that
keep what its start could do; and teachers behind an endpoint.
"""

from core.plugins import Part, Plugin, load_from

part = load_from(__name__)

PLUGIN = Plugin(
    name="forms",
    about="Other forms of a student: ternary and pruned weights, windows, hybrids, layers that draft; ways to keep its start",
    extra="train",
    parts=(
        Part("step", "ternary", part("config:TernaryStep")),
        Part("step", "hybrid", part("config:HybridStep")),
        Part("step", "mtp", part("config:MtpStep")),
        Part("step", "windows", part("config:WindowsStep")),
        Part("step", "sparsity", part("config:SparsityStep")),
        Part("step", "width", part("config:WidthStep")),
        Part("step", "start_kl", part("config:StartKlStep")),
        Part("step", "forgetting_stop", part("config:ForgettingStopStep")),
        Part("step", "average_choice", part("config:AverageChoiceStep")),
        Part("capture", "endpoint", part("prompt_logprobs:PromptLogprobTeacher")),
        Part("hooks", "forms", part("average_choice:HOOKS")),
    ),
)
