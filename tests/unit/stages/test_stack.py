"""What the models of a stack read."""

from collections import Counter
from types import SimpleNamespace

import pytest

from colpipe.stages.stack import Settings, _prompts
from tests.conftest import WORDS, make_beginning_tokenizer, make_tokenizer


@pytest.mark.parametrize("positions", [64, 96, 400])
@pytest.mark.parametrize("step", ["", "Say in a few words what is asked for."])
@pytest.mark.parametrize("make", [make_tokenizer, make_beginning_tokenizer])
def test_prompts_leave_room_for_answers(positions, step, make):
    tokenizer = make([f"{word} ### Instruction: Response: Input:" for word in WORDS], 300)
    stack = {"ancestor": "a", "member": "b", "tasks": ["c"], "max_new_tokens": 8, "fine_tune": {"steps": 1}}
    task = {"instructions": "c", "max_new_tokens": 3}
    base = 300 - 64  # of the template, which this tokenizer writes letter by letter
    settings = Settings.model_validate({"stack": stack, "tasks": {"c": task}, "positions": base + positions})
    rows = [{"instruction": "known", "input": " ".join(WORDS[:count])} for count in (0, 1, 5, 20)]
    notes = [["the old stone", "river"], [], [" ".join(WORDS)], [" ".join(WORDS)] * 3]
    cut, missing = Counter(), Counter()
    for row, written, text in zip(rows, notes, _prompts(settings, tokenizer, rows, notes, cut, step), strict=True):
        assert len(tokenizer(text)["input_ids"]) + 8 <= settings.positions
        if positions == 400 and not written:
            assert row["input"] in text
        question = f"{row['instruction']}\n{row['input']}".strip() if step else row["input"]
        missing.update({"questions": question not in text, "notes": "\n".join(written) not in text})
    assert cut == missing and (positions == 400 or cut["notes"] > 0)
    settings.stack.fine_tune.max_length = 5000
    cut, settings = Counter(), SimpleNamespace(**{**vars(settings), "positions": 5000})
    whole = _prompts(settings, tokenizer, rows, notes, cut, step)
    assert not cut.total()
    assert "river" in whole[0] and whole[3].count("built by city") == 3 + ("built by city" in rows[3]["input"])
