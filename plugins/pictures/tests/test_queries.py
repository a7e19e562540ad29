from random import Random

import pytest

from benchmarks.picture_answers import is_right
from plugins.pictures.drawing.drafts import PictureDraft
from plugins.pictures.drawing.procedural_drafts import draw_draft
from plugins.pictures.drawing.queries import DataTable, NoAnswer, Query, compute_answer

MEDALS = DataTable(
    ["Country", "Silver"], [["Japan", 13], ["Cuba", 4], ["Ghana", 13], ["Peru", 15], ["Chad", 2], ["Fiji", 2]]
)


@pytest.mark.parametrize(("row", "answer"), [("Peru", "1"), ("Japan", None), ("Cuba", None), ("Chad", None)])
def test_a_rank_after_a_tie_has_two_answers_and_is_not_asked(row: str, answer: str | None) -> None:
    """Cuba is fourth by rows and third by values. Rows below a tie of their own do not matter to Peru."""
    query = Query(op="rank", column="Silver", row=row)
    if answer is None:
        with pytest.raises(NoAnswer, match="a tie"):
            compute_answer(query, MEDALS)
    else:
        assert compute_answer(query, MEDALS) == answer


def test_a_wrong_answer_is_found_by_the_second_implementation() -> None:
    draft = PictureDraft.model_validate(draw_draft(Random(5), "tables", 8, "", values=True))
    for asked in draft.questions:
        program = asked.program.model_dump(exclude_defaults=True)
        answer = compute_answer(asked.program, draft.table)
        other = str(float(answer) + 1) if answer.replace(".", "").isdigit() else "nobody"
        assert is_right(answer, program, asked.question, draft)
        assert not is_right(other, program, asked.question, draft)
