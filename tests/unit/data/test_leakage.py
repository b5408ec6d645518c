import random

from colpipe.data.leakage import WORDS, overlaps

CHANCE = random.Random(0)


def sentence(length: int) -> str:
    return " ".join(f"w{CHANCE.randrange(10_000)}" for _ in range(length))


def row(
    input: str,
    output: str = "yes",
    instruction: str = "Answer this question with yes or with no and with nothing else at all.",
) -> dict:
    return {"instruction": instruction, "input": input, "output": output}


def test_equal_rows_and_shared_runs_of_words_are_counted():
    same, long, other = sentence(30), sentence(40), sentence(30)
    run, short = " ".join(long.split()[5 : 5 + WORDS]), " ".join(long.split()[5 : 4 + WORDS])
    evaluated = {"passages": [row(same), row(long), row(other)], "none": [row(sentence(20))]}
    trained = [
        row(same.title() + "!"),  # equal but for case and punctuation
        {"text": f"{sentence(9)}, {run}. {sentence(9)}"},
    ]
    found = overlaps(evaluated, iter(trained))
    assert found == {
        "passages": {"rows": 3, "exact": 1, "overlapping": 2},
        "none": {"rows": 1, "exact": 0, "overlapping": 0},
    }
    assert overlaps(evaluated, [{"text": short}])["passages"]["overlapping"] == 0


def test_an_instruction_that_all_rows_share_leaks_none_of_them():
    assert overlaps({"a": [row(sentence(20))]}, [row(sentence(20))])["a"]["overlapping"] == 0
    asked = sentence(20)
    found = overlaps({"a": [row("", "b", asked)]}, [row("", "c", asked)])["a"]
    assert found == {"rows": 1, "exact": 0, "overlapping": 1}


def test_counts_are_those_of_plain_sets():
    rows = [row("", sentence(4), sentence(25)) for _ in range(40)]
    texts = [f"{each['instruction']} {each['output']}".split() for each in rows]
    trained = [
        {"text": " ".join(CHANCE.choice(texts)[start:][: CHANCE.randrange(10, 20)])} for start in range(0, 12, 2)
    ]
    runs = {tuple(t["text"].split()[k : k + WORDS]) for t in trained for k in range(len(t["text"].split()) - WORDS + 1)}
    expected = sum(any(tuple(t[k : k + WORDS]) in runs for k in range(len(t) - WORDS + 1)) for t in texts)
    assert overlaps({"a": rows}, trained)["a"]["overlapping"] == expected > 0
