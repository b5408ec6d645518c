"""Our rows give lm-eval's own accuracies: its published tasks, on the same local rows, against `choice_scores`."""

import math
from pathlib import Path
from types import SimpleNamespace

import datasets
import lm_eval.tasks
import numpy as np
import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from colpipe.config.parts import Architecture, Dataset, Shape
from colpipe.data.records import read
from colpipe.errors import ColpipeError
from colpipe.evaluation import likelihood
from colpipe.evaluation.likelihood import choice_scores, likelihood_scores
from colpipe.hf import logits as known_logits
from colpipe.hf.models import load_model
from colpipe.jobs import usage
from tests.conftest import make_beginning_tokenizer, make_gpt2, make_model, make_tokenizer
from tests.unit.data.test_files import write_table
from tests.unit.hf.stock import CHANGED, stock_model

NOUNS = ["iron", "wood", "wool", "tin", "salt", "oak", "elm", "ash"]


def arc(n):
    choices = {"text": [NOUNS[(n + k) % 8] for k in range(4)], "label": list("ABCD")}
    return {"id": str(n), "question": f"Which is number {n}?", "choices": choices, "answerKey": "ABCD"[n % 4]}


def mmlu(n):
    choices = [NOUNS[(n + k) % 8] for k in range(4)]
    return {"question": f" What is {n}? ", "subject": "anatomy", "choices": choices, "answer": n % 4}


def hellaswag(n):
    endings = [f"{'[step] ' * (n % 2)}{NOUNS[(n + k) % 8]} falls [substeps] down." for k in range(4)]
    return {
        "ind": n,
        "activity_label": "Work",
        "ctx_a": f"[header] How to do {n} [title] Take it.",
        "ctx_b": "then the",
        "ctx": "",
        "endings": endings,
        "source_id": f"wikihow~{n}",
        "label": str(n % 4),
    }


def winogrande(n):
    first, second = NOUNS[n % 8], NOUNS[(n + 3) % 8]
    return {
        "sentence": f"Take {first} or {second}, the _ is {n}.",
        "option1": first,
        "option2": second,
        "answer": "12"[n % 2],
    }


def boolq(n):
    return {
        "question": f"is {NOUNS[n % 8]} a metal",
        "passage": f"About {n}: {NOUNS[n % 8]}.",
        "idx": n,
        "label": n % 2,
    }


def sciq(n):
    others = {f"distractor{k}": f"{NOUNS[(n + k) % 8]}" for k in (1, 2, 3)}
    return {"question": f"Which is {n}?", "support": f" It is {n}.", "correct_answer": NOUNS[n % 8], **others}


def blimp(n):
    good, bad = (f"{NOUNS[(n + k) % 8]} and {NOUNS[n % 5]} fall {n}." for k in (1, 4))
    return {"sentence_good": good, "sentence_bad": bad, "UID": "adjunct_island"}


def lambada(n):
    return {"text": f"Take {NOUNS[n % 8]} or {NOUNS[n % 3]}, {n} times {NOUNS[n % 8]}", "domain": None}


HOME = Path(lm_eval.tasks.__file__).parent
TASKS = {  # reader → lm-eval's task, a row in the published schema, the split that is scored, where the task is defined
    "arc": ("arc_easy", arc, "test", "arc"),
    "mmlu": ("mmlu_anatomy", mmlu, "test", "mmlu/default"),
    "hellaswag": ("hellaswag", hellaswag, "validation", "hellaswag"),
    "winogrande": ("winogrande", winogrande, "validation", "winogrande"),
    "boolq": ("boolq", boolq, "validation", "super_glue/boolq"),
    "sciq": ("sciq", sciq, "test", "sciq"),
    "blimp": ("blimp_adjunct_island", blimp, "train", "blimp"),
}


@pytest.fixture(scope="module")
def model_and_tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    make_gpt2(folder, 2, 2, 16, seed=3, vocabulary=300, positions=256)
    return load_model(folder).eval(), make_tokenizer(NOUNS, 300)


@pytest.mark.parametrize("reader", TASKS)
def test_accuracies_are_those_of_lm_evals_task_on_the_same_rows(reader, model_and_tokenizer, tmp_path, monkeypatch):
    model, tokenizer = model_and_tokenizer
    name, make, split, folder = TASKS[reader]
    published = [make(n) for n in range(24)]
    write_table(tmp_path / f"{split}.parquet", published)

    local = datasets.DatasetDict({key: datasets.Dataset.from_list(published) for key in ("train", split, "dev")})
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: local)
    tasks = TaskManager(include_path=[HOME / folder], include_defaults=False).load([name])
    scorer = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1, max_length=256)
    expected = evaluate(scorer, tasks, bootstrap_iters=0, verbosity="ERROR")["results"][name]

    records = list(read(Dataset(source={"path": str(tmp_path)}, reader=reader), tmp_path))
    rows = [record for record in records if record["split"] == "test"]
    found = choice_scores(model, tokenizer, rows)
    assert len(rows) == 24 and 0 < sum(found["likelihood"]) < 24
    assert sum(found["likelihood"]) / 24 == pytest.approx(expected["acc,none"])
    if "acc_norm,none" in expected:
        assert sum(found["likelihood_normalised"]) / 24 == pytest.approx(expected["acc_norm,none"])
    assert found == choice_scores(model, tokenizer, rows, batch_size=5)


def test_last_words_are_guessed_as_in_lm_evals_lambada(tmp_path, monkeypatch):
    """A model that has learnt its rows: some of their last words are the most probable ones, some are not."""
    make_gpt2(tmp_path, 2, 2, 32, seed=3, vocabulary=300, positions=256)
    model, tokenizer = load_model(tmp_path), make_tokenizer(NOUNS, 300)
    published = [lambada(n) for n in range(24)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(96):
        ids = torch.tensor([tokenizer(published[step % 24]["text"])["input_ids"]])
        model(ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    write_table(tmp_path / "data" / "test.parquet", published)
    local = datasets.DatasetDict({"test": datasets.Dataset.from_list(published)})
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: local)
    tasks = TaskManager(include_path=[HOME / "lambada"], include_defaults=False).load(["lambada_openai"])
    scorer = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1, max_length=256)
    expected = evaluate(scorer, tasks, bootstrap_iters=0, verbosity="ERROR")["results"]["lambada_openai"]

    rows = list(read(Dataset(source={"path": str(tmp_path)}, reader="lambada"), tmp_path / "data"))
    found = likelihood_scores(model, tokenizer, rows)
    assert set(found) == {"last_word", "answer_bits_per_byte"} and 0 < sum(found["last_word"]) < 24
    assert sum(found["last_word"]) / 24 == pytest.approx(expected["acc,none"])
    nats = [
        bits * math.log(2) * len(f" {row['output']}")
        for bits, row in zip(found["answer_bits_per_byte"], rows, strict=True)
    ]
    assert math.exp(sum(nats) / 24) == pytest.approx(expected["perplexity,none"], rel=1e-5)
    for row, guessed in zip(rows, found["last_word"], strict=True):  # token by token, by a plain loop
        ids = tokenizer(row["input"])["input_ids"]
        for _ in range(count := len(tokenizer(f" {row['output']}")["input_ids"])):
            with torch.no_grad():
                ids = [*ids, int(model(torch.tensor([ids])).logits[0, -1].argmax())]
        assert guessed == float(tokenizer.decode(ids[-count:]) == f" {row['output']}")


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("one_token", [True, False])
def test_log_likelihoods_are_lm_evals(one_token, known, model_and_tokenizer, monkeypatch):
    if not known:
        monkeypatch.setattr(known_logits, "HEADS", {})
    model, tokenizer = model_and_tokenizer
    pairs = [(f"{noun} and {'x ' * n}", f" {end}") for n, noun in enumerate(NOUNS) for end in ("tin", "elm", "oak ash")]
    pairs = [(context, end.split()[0]) for context, end in pairs] if one_token else [*pairs, ("", "wool")]
    pairs.append(("wood " * 300, " salt oak"))  # longer than the model can read
    requests = [Instance("loglikelihood", {}, pair, number) for number, pair in enumerate(pairs)]
    settings = {"pretrained": model, "tokenizer": tokenizer, "batch_size": 16, "max_length": 256}
    theirs, ours = (
        scorer(**settings).loglikelihood(requests, disable_tqdm=True) for scorer in (HFLM, likelihood._Scorer)
    )
    assert [log for log, _ in ours] == pytest.approx([log for log, _ in theirs], rel=1e-6, abs=1e-6)
    assert [best for _, best in ours] == [best for _, best in theirs] and len({log for log, _ in ours}) > len(NOUNS)


@pytest.mark.parametrize("name", [*CHANGED, "smollm3", "mistral", "olmo2", "phi3"])
def test_log_likelihoods_of_stock_models_are_lm_evals(name):
    """Read alone and packed: lm-eval takes the logits of the stock forward of whole texts."""
    model = stock_model(name, vocab_size=300, max_position_embeddings=64)
    settings = {"pretrained": model, "tokenizer": make_tokenizer(NOUNS, 300), "batch_size": 4, "max_length": 64}
    pairs = [(f"{noun} and {'x ' * n}", f" {end}") for n, noun in enumerate(NOUNS) for end in ("tin", "oak ash")]
    requests = [Instance("loglikelihood", {}, pair, number) for number, pair in enumerate(pairs)]
    theirs = HFLM(**settings).loglikelihood(requests, disable_tqdm=True)
    for packed in {False, likelihood._can_pack(model)}:
        ours = likelihood._Scorer(**settings)
        ours.packed = packed
        found = ours.loglikelihood(requests, disable_tqdm=True)
        assert [log for log, _ in found] == pytest.approx([log for log, _ in theirs], rel=1e-5, abs=1e-4)
        assert [best for _, best in found] == [best for _, best in theirs]


@pytest.mark.parametrize("end", [False, True])
@pytest.mark.parametrize("known", [True, False])
def test_behind_a_begin_token_log_likelihoods_are_lm_evals_with_it(known, end, model_and_tokenizer, monkeypatch):
    """Read alone and packed, with an empty context too; a tokenizer that puts an end behind a text puts none here."""
    if not known:
        monkeypatch.setattr(known_logits, "HEADS", {})
    model, tokenizer = model_and_tokenizer[0], make_beginning_tokenizer(NOUNS, 300)
    pairs = [(f"{noun} and {'x ' * n}", f" {end}") for n, noun in enumerate(NOUNS) for end in ("tin", "oak ash")]
    pairs += [("", "wool"), ("", " oak elm")]
    requests = [Instance("loglikelihood", {}, pair, number) for number, pair in enumerate(pairs)]
    theirs = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4, max_length=256, add_bos_token=True)
    expected = theirs.loglikelihood(requests, disable_tqdm=True)
    bare = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4, max_length=256, add_bos_token=False)
    assert abs(expected[0][0] - bare.loglikelihood(requests[:1], disable_tqdm=True)[0][0]) > 1e-3
    scorer = likelihood._scorer(model, make_beginning_tokenizer(NOUNS, 300, end), 4)
    for scorer.packed in (False, True):
        found = scorer.loglikelihood(requests, disable_tqdm=True)
        assert [log for log, _ in found] == pytest.approx([log for log, _ in expected], rel=1e-5, abs=1e-5)
        assert [best for _, best in found] == [best for _, best in expected]


def test_a_context_that_is_too_long_is_cut_behind_its_begin_token(model_and_tokenizer):
    """By a plain loop; lm-eval cuts the begin token away first."""
    model, tokenizer = model_and_tokenizer[0], make_beginning_tokenizer(NOUNS, 300)
    context, continuation = "wood " * 300, " salt oak"
    whole = tokenizer(context.rstrip() + " " + continuation, add_special_tokens=False)["input_ids"]
    count = len(whole) - len(tokenizer(context.rstrip(), add_special_tokens=False)["input_ids"])
    ids = [tokenizer.bos_token_id, *whole[-256:]]
    with torch.no_grad():
        steps = model(torch.tensor([ids[:-1]])).logits[0].double().log_softmax(-1)
    nats = sum(steps[at - 1, ids[at]].item() for at in range(len(ids) - count, len(ids)))
    scorer = likelihood._scorer(model, tokenizer, 4)
    for scorer.packed in (False, True):
        [(found, _)] = scorer.loglikelihood(
            [Instance("loglikelihood", {}, (context, continuation), 0)], disable_tqdm=True
        )
        assert found == pytest.approx(nats, rel=1e-5)


@pytest.mark.parametrize("name", ["gemma3_text", "llama"])
def test_choices_behind_a_begin_token_by_a_plain_loop(name):
    model, tokenizer = (
        stock_model(name, vocab_size=300, max_position_embeddings=512),
        make_beginning_tokenizer(NOUNS, 300),
    )
    rows = [question(n) for n in range(6)]
    expected = []
    for row in rows:
        logs = []
        for context, continuation in zip(*row["likelihood"].values(), strict=True):
            whole, start = tokenizer(context + continuation)["input_ids"], len(tokenizer(context)["input_ids"])
            with torch.no_grad():
                steps = model(torch.tensor([whole])).logits[0].double().log_softmax(-1)
            logs.append(sum(steps[t - 1, whole[t]].item() for t in range(start, len(whole))))
        right = row["choices"].index(row["output"])
        nats = -logs[right] / math.log(2) / len(row["likelihood"]["continuations"][right])
        expected.append((float(logs.index(max(logs)) == right), nats))
    found = likelihood_scores(model, tokenizer, rows)
    assert found["likelihood"] == [best for best, _ in expected]
    assert found["answer_bits_per_byte"] == pytest.approx([nats for _, nats in expected], rel=1e-4)


def question(n: int) -> dict:
    """A row with choices of one to three words; every third has a context of its own for each choice."""
    choices = [f"{NOUNS[(n + k) % 8]}{' falls' * (k % 3)}" for k in range(4)]
    contexts = [f"What is {'so ' * n}{NOUNS[k] if n % 3 == 0 else 'it'}?" for k in range(4)]
    scored = {"contexts": contexts, "continuations": [f" {choice}" for choice in choices]}
    return {"choices": choices, "output": choices[n % 4], "likelihood": scored}


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "qwen2", "qwen3"])
def test_choices_read_at_once_score_as_those_read_alone(family, tmp_path, monkeypatch):
    grouped = {} if family in ("gpt2", "gpt_neox") else {"kv_heads": 2}
    chain = Architecture(family=family, vocabulary=300, positions=128)
    make_model(tmp_path, chain, Shape(layers=2, heads=4, hidden=32, **grouped), seed=1)
    model, tokenizer, rows = load_model(tmp_path).eval(), make_tokenizer(NOUNS, 300), [question(n) for n in range(20)]
    rows.append(question(60))  # its choices are longer than the model can read
    found, tokens, log_likelihoods = {}, {}, likelihood._log_likelihoods
    for can in (True, False):
        logs: list = []
        monkeypatch.setattr(likelihood, "_can_pack", lambda _, can=can: can)
        monkeypatch.setattr(
            likelihood, "_log_likelihoods", lambda *given, logs=logs: logs.append(log_likelihoods(*given)) or logs[-1]
        )
        before = usage.counted["tokens"]
        scores = choice_scores(model, tokenizer, rows, batch_size=8)
        found[can], tokens[can] = (np.concatenate(logs[0]), scores), usage.counted["tokens"] - before
    assert np.allclose(found[True][0], found[False][0], rtol=1e-5, atol=1e-5) and found[True][1] == found[False][1]
    assert tokens[True] < 0.75 * tokens[False]


def test_choices_that_rounding_might_decide_are_read_alone(model_and_tokenizer, monkeypatch):
    first = [[-3.0, -3.0005, -9.0], [-3.0, -5.0, -9.0], [-2.0, -1.0]]
    logs = iter([*first, [-3.0005, -3.0, -9.0], [-2.0, -1.0001]])
    asked = []

    def given(scorer, rows):
        asked.append((scorer.packed, len(rows)))
        return [np.array(next(logs)) for _ in rows]

    monkeypatch.setattr(likelihood, "_log_likelihoods", given)
    texts = {"contexts": ["x"] * 3, "continuations": [" a", " b", " c"]}
    rows = [{"choices": ["a", "b", "c"], "output": "b", "likelihood": texts} for _ in range(2)]
    texts = {"contexts": ["x"] * 2, "continuations": [" aa", " b"]}  # divided by their lengths they are equal
    rows.append({"choices": ["aa", "b"], "output": "b", "likelihood": texts})
    found = choice_scores(*model_and_tokenizer, rows)
    assert asked == [(True, 3), (False, 2)]
    assert found == {"likelihood": [1.0, 0.0, 1.0], "likelihood_normalised": [1.0, 0.0, 0.0]}


def test_layers_that_look_through_a_window_read_choices_alone(model_and_tokenizer):
    model = model_and_tokenizer[0]
    assert likelihood._can_pack(model)
    for name, value in (
        ("sliding_window", 8),
        ("layer_types", ["full_attention", "sliding_attention"]),
        ("_attn_implementation", "eager"),
    ):
        config = SimpleNamespace(**{"_attn_implementation": "sdpa", name: value})
        assert not likelihood._can_pack(SimpleNamespace(config=config))


def test_the_length_of_a_choice_counts_the_blank_that_a_bracket_leaves(model_and_tokenizer, monkeypatch):
    row = {
        "choices": ["b", "c"],
        "output": "b",
        "likelihood": {"contexts": ["a"] * 2, "continuations": ["  b", " c"]},  # lm-eval's choices are " b" and "c"
    }
    for logs, normalised in (((-1.9, -1.0), 1.0), ((-2.1, -1.0), 0.0)):  # per character -0.95 or -1.05, and -1
        monkeypatch.setattr(HFLM, "loglikelihood", lambda *_, logs=logs, **__: [(log, False) for log in logs])
        assert choice_scores(*model_and_tokenizer, [row])["likelihood_normalised"] == [normalised]


def test_the_most_probable_choice_by_a_plain_loop(model_and_tokenizer, tmp_path):
    model, tokenizer = model_and_tokenizer
    write_table(tmp_path / "test.jsonl", [arc(n) for n in range(8)])
    rows = list(read(Dataset(source={"path": str(tmp_path)}, reader="arc"), tmp_path))
    expected = []
    for row in rows:
        logs = []
        for context, continuation in zip(*row["likelihood"].values(), strict=True):
            whole = tokenizer(context + continuation)["input_ids"]
            start = len(tokenizer(context)["input_ids"])
            with torch.no_grad():
                steps = model(torch.tensor([whole])).logits[0].double().log_softmax(-1)
            logs.append(sum(steps[t - 1, whole[t]].item() for t in range(start, len(whole))))
        expected.append(float(row["choices"][logs.index(max(logs))] == row["output"]))
    assert choice_scores(model, tokenizer, rows)["likelihood"] == expected


def test_bits_per_byte_of_right_answers_by_a_plain_loop(model_and_tokenizer):
    model, tokenizer = model_and_tokenizer
    rows = [question(n) for n in range(10)]
    rows[3]["choices"][rows[3]["choices"].index(rows[3]["output"])] = rows[3]["output"] = "élan"
    right = rows[3]["choices"].index("élan")
    rows[3]["likelihood"]["continuations"][right] = " élan"
    found = likelihood_scores(model, tokenizer, rows)
    assert {name: values for name, values in found.items() if name != "answer_bits_per_byte"} == choice_scores(
        model, tokenizer, rows
    )
    for row, bits in zip(rows, found["answer_bits_per_byte"], strict=True):
        place = row["choices"].index(row["output"])
        context, text = (row["likelihood"][name][place] for name in ("contexts", "continuations"))
        start, whole = len(tokenizer(context)["input_ids"]), tokenizer(context + text)["input_ids"]
        with torch.no_grad():
            steps = model(torch.tensor([whole])).logits[0].double().log_softmax(-1)
        nats = -sum(steps[t - 1, whole[t]].item() for t in range(start, len(whole)))
        assert bits == pytest.approx(nats / math.log(2) / len(text.encode("utf-8")), rel=1e-5)
    assert len(" élan".encode()) == 6


def test_rows_that_have_nothing_to_compare_are_refused(model_and_tokenizer):
    word = {"id": "w", "output": "tin", "likelihood": {"contexts": ["a"], "continuations": [" tin"]}}
    with pytest.raises(ColpipeError, match=r"row q: has no texts whose likelihood to compare; set likelihood: false"):
        likelihood_scores(*model_and_tokenizer, [word, {"id": "q", "choices": ["a", "b"], "output": "a"}])
    with pytest.raises(ColpipeError, match=r"rows with and without choices have no likelihood in common"):
        likelihood_scores(*model_and_tokenizer, [word, question(1)])
