"""Writes what the embedded teacher, and its weights as the start of a student, answer to the panel of `constrained-instructions`
into answers.json, or those to every Nth question into FILE: python data/panel/make_answers.py [FILE [N]]
"""

import asyncio
import sys
import tempfile
from pathlib import Path

from agents.studies.general_panel import PANEL_ANSWERS, ask_general_panel, build_general_panel, list_panel_questions
from core.sample import text_digest
from core.storage.atomic_files import write_json
from core.weights.packaged_weights import find_embedded_teacher
from flows.data.student_files import configure_student_as_teacher
from flows.evaluate.panel_evaluation import identify_answering
from flows.recipes.recipe_catalog import load_recipe_plan
from flows.terminal.console import SESSION
from students.comparison import write_untrained_student
from students.gguf_export import export_gguf

plan = load_recipe_plan("constrained-instructions")
student = plan.recipe.student
panel = build_general_panel(plan, student.evaluation.panel)
panel = panel._replace(seeds=panel.seeds[:: int(sys.argv[2]) if sys.argv[2:] else 1])
with tempfile.TemporaryDirectory() as folder:
    start = Path(folder) / "start"  # the name is in the file
    write_json(Path(folder) / "student.json", {"config": student.model_dump(mode="json"), "seed": plan.recipe.seed})
    write_untrained_student(Path(folder), start)
    file = export_gguf(start, "q8_0").path
    teacher = plan.recipe.generator_teacher
    models = {find_embedded_teacher(): teacher, file: configure_student_as_teacher(file, teacher)}
    table = {}
    for weights, model in models.items():
        results = asyncio.run(ask_general_panel(panel, model, SESSION.stop, lambda done: print(done, file=sys.stderr)))
        questions = (text_digest(question.canonical) for question in list_panel_questions(panel, model))
        answers = (result.answer for result in results.results)
        table[identify_answering(weights)] = dict(zip(questions, answers, strict=True))
write_json(Path(sys.argv[1]) if sys.argv[1:] else PANEL_ANSWERS, table)
