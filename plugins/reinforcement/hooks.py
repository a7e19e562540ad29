"""Makes a run's student of the trained one by reinforcement learning, if its recipe has the step `grpo`."""

from collections.abc import Sequence

from agents.planning.run_plan import RunPlan
from core.errors import UsageError
from core.hooks import RunHooks
from core.runs.records import RunManifest
from core.runs.run_dir import RunDir
from core.runs.student_records import StudentRecord
from core.sample import Message, Seed
from plugins.reinforcement.config import GrpoStep
from plugins.reinforcement.grading import find_reward_fault


class ReinforcementHooks(RunHooks):
    def list_seed_problems(self, plan: RunPlan, seeds: Sequence[Seed]) -> Sequence[str]:
        fault = _find_step(plan) and find_reward_fault(plan, plan.family.questions(seeds[0]))
        return [f"student.steps: grpo: {fault}"] if fault else []

    async def finish_student(
        self,
        run: RunDir,
        plan: RunPlan,
        manifest: RunManifest,
        trained: StudentRecord,
        held_out: Sequence[Sequence[Message]],
    ) -> StudentRecord | None:
        step = _find_step(plan)
        if step is None:
            return None
        from plugins.reinforcement.reinforced_student import reinforce_run_student

        try:
            return await reinforce_run_student(run, plan, step, held_out)
        except UsageError as error:
            manifest.shortfalls.append(f"the student has its weights before reinforcement: {error}")
            (run.path / "wip" / "student").rename(run.student)
            return trained


HOOKS = ReinforcementHooks()


def _find_step(plan: RunPlan) -> GrpoStep | None:
    steps = plan.recipe.student.steps if plan.recipe.student else ()
    return next((step for step in steps if isinstance(step, GrpoStep)), None)
