"""The study that `colpipe init` writes: valid, short, of the sizes asked for; every mistake in one line."""

import json
import random
import re
import subprocess
import sys

import pytest
import yaml

from colpipe.__main__ import main
from colpipe.config.loading import load_study, read_study
from colpipe.config.parts import Architecture, Shape
from colpipe.cost.inputs import model_in
from colpipe.pipeline.plan import Plan
from colpipe.tools import given
from tests.conftest import CHECKOUT, WORDS, make_tokenizer, snakemake

FAMILIES = {
    "gpt2": Shape(layers=12, heads=8, hidden=128),
    "gpt_neox": Shape(layers=12, heads=8, hidden=128),
    "llama": Shape(layers=12, heads=8, kv_heads=4, head_dim=16, hidden=128, ffn=352),
    "qwen2": Shape(layers=12, heads=8, kv_heads=4, head_dim=16, hidden=128, ffn=352),
    "qwen3": Shape(layers=12, heads=8, kv_heads=4, head_dim=32, hidden=128, ffn=352),
}
ROWS = [{"instruction": f"Say {word} {n}.", "input": "", "output": word} for word in WORDS for n in range(4)]


def make_text(documents: int = 2500) -> str:
    chance = random.Random(0)
    return "\n\n".join(" ".join(chance.choices(WORDS, k=40)) for _ in range(documents))


def make_folder(folder, family: str = "llama"):
    """What `init` looks at of a model: its configuration, its tokenizer, and that there are weights."""
    shape = FAMILIES[family]
    architecture = Architecture(family=family, vocabulary=300, positions=256)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(architecture.configure(shape, 0)))
    make_tokenizer([make_text(50)], 300).save_pretrained(folder)
    (folder / "model.safetensors").touch()
    return architecture.parameters(shape)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder with model/, text.txt and rows.jsonl; cores as fast as anywhere."""
    make_folder(tmp_path / "model")
    (tmp_path / "text.txt").write_text(make_text())
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("colpipe.tools.estimate.training_rate", lambda precision="float32": 1e9)
    monkeypatch.setattr("colpipe.tools.proposal.has_bfloat16", lambda: False)
    monkeypatch.setattr("colpipe.tools.proposal.cores", lambda: 2)
    monkeypatch.setattr("colpipe.tools.init.cores", lambda: 2)
    return tmp_path


def lines_of(path) -> list[str]:
    """Without comments and what is empty."""
    return [line for line in path.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("more", [[], ["--instructions", "rows.jsonl"]])
def test_a_study_of_every_family(home, capsys, family, more):
    whole = make_folder(home / family, family)
    sizes = [round(share * whole) for share in (0.85, 0.7, 0.45)]
    main(["init", family, "--text", "text.txt", "--sizes", ",".join(map(str, sizes)), *more])
    study = load_study(read_study(f"{family}.yaml"))
    assert study.architecture.family == family and study.architecture.vocabulary == 300
    made = [study.parameters(desnet.shape) for desnet in study.desnets.values()]
    assert made == pytest.approx(sizes, rel=0.01)
    largest, smallest = (study.parameters(member.shape) for member in study.chain.values())
    assert largest == made[0] and smallest == made[-1]
    assert len(lines_of(home / f"{family}.yaml")) <= 40
    assert model_in(Plan(study), Plan(study).start(family)).parameters == whole
    assert study.stages.fit.tokens == 16384 and all(build[1] == "fit" for build in study.builds_of(family))
    assert bool(study.stages.sft) == bool(study.tasks) == bool(more)
    if more:
        assert study.stages.distill.data == ["text", "rows"] and study.stages.sft.instructions == "rows"
        task, rows = study.tasks["rows"], study.instructions["rows"]
        assert 8 <= task.max_new_tokens <= 16 and rows.max_tokens % 32 == 0 and rows.max_tokens <= 128
    told = capsys.readouterr().out
    assert told.endswith(f"\ncolpipe run {family}.yaml all published --cores 2\n")
    plan = Plan(study)
    jobs = len(plan.jobs()) + 1 + len(plan.cards())  # the report and what is published: all that the command runs
    assert re.search(rf"^{family}.yaml: {jobs} jobs, about [\d.]+ h on 2 cores, ", told)


def test_a_size_that_cannot_be_planned_between_its_neighbours_has_a_shape(home):
    """Between members of nearly the same units only whole layers are planned."""
    sizes = ["2150k", "1990k", "1950k", "1900k"]
    main(["init", "model", "--text", "text.txt", "--sizes", ",".join(sizes)])
    study = load_study(read_study("model.yaml"))
    made = [study.parameters(desnet.shape) / 1000 for desnet in study.desnets.values()]
    assert list(study.desnets) == sizes and made == pytest.approx([2150, 1990, 1950, 1900], rel=0.01)


def test_a_processor_with_bfloat16_trains_in_it(home, monkeypatch):
    """More steps fit into the same hours; where it would be emulated, or nobody knows, none is written."""
    steps = {}
    for has in (True, False, None):
        monkeypatch.setattr("colpipe.tools.proposal.has_bfloat16", lambda has=has: has)
        monkeypatch.setattr(
            "colpipe.tools.estimate.training_rate",
            lambda precision="float32": 2e9 if precision == "bfloat16" else 1e9,
        )
        main(["init", "model", "--text", "text.txt", "--sizes", "2M", "--hours", "1", "--name", f"x{has}"])
        stages = load_study(read_study(f"x{has}.yaml")).stages
        own = {stage.precision for stage in (stages.order, stages.fit, stages.distill, stages.recover)}
        assert own == {"bfloat16" if has else "float32"}
        steps[has] = stages.distill.steps
    assert steps[True] > 1.5 * steps[False] and steps[None] == steps[False]


def test_a_model_that_chats_is_asked_in_its_own_template(home):
    """Where there is something to ask."""
    (home / "model/chat_template.jinja").write_text("{{ messages[0].content }}")
    for more, prompts in ([], "paper"), (["--instructions", "rows.jsonl"], "chat"):
        main(["init", "model", "--text", "text.txt", "--sizes", "2M", "--name", prompts, *more])
        assert load_study(read_study(f"{prompts}.yaml")).tokenizer.prompts == prompts


@pytest.mark.parametrize("license", ["apache-2.0", "my own: 2", "1.0", None])
def test_the_licence_of_the_model(home, license):
    main(["init", "model", "--text", "text.txt", "--sizes", "2M", *(["--license", license] if license else [])])
    assert load_study(read_study("model.yaml")).models["model"].license == license


def test_one_size_alone(home):
    main(["init", "model", "--text", "text.txt", "--sizes", "2M"])
    study = load_study(read_study("model.yaml"))
    assert list(study.chain) == ["2M"] and study.desnets["2M"].shape == study.chain["2M"].shape
    assert "# between the two is one line: 1800k: {params: 1800k}." in (home / "model.yaml").read_text()


def test_hours_decide_steps_and_tokens_and_no_more_than_the_text_has(home, capsys):
    found = []
    for hours in (0.3, 0.6, 1000):
        main(
            ["init", "model", "--text", "text.txt", "--sizes", "2M,1500k", "--hours", str(hours), "--name", f"h{hours}"]
        )
        study = load_study(read_study(f"h{hours}.yaml"))
        found.append((study.stages.distill.steps, study.budgets[0]))
        note = "note: the text is short: 3 passes over it take less than 1000 h, and more would not help"
        assert (note in capsys.readouterr().out) == (hours == 1000)
    assert sorted(set(found)) == found
    text = given.read_text(home / "text.txt", home / "model")
    assert 0.8 * text.train < found[-1][1] <= 0.9 * text.train
    assert found[-1][0] == pytest.approx(3 * text.train / 1024, rel=0.01)
    main(["init", "model", "--text", "text.txt", "--sizes", "2M", "--hours", "0.0001", "--name", "short"])
    said = capsys.readouterr().out
    hours = re.search(r"note: 0.0001 h are too few: 10 steps for each member, the fewest, take about ([0-9.]+) h", said)
    assert hours and f"about {hours[1]} h on" in said
    assert "the least that makes sense, more than fits into 0.0001 h." in (home / "short.yaml").read_text()
    assert "what 1000 h allow." in (home / "h1000.yaml").read_text()


@pytest.mark.parametrize("has", [True, False])
def test_a_device_takes_longer_batches_in_half_precision(home, capsys, monkeypatch, has):
    monkeypatch.setattr("colpipe.tools.proposal.has_bfloat16", lambda: has)  # of the CPU, on which DesNets are fitted
    main(["init", "model", "--text", "text.txt", "--sizes", "2M", "--hours", "1", "--device", "H100"])
    stages = load_study(read_study("model.yaml")).stages
    assert {getattr(stages, name).precision for name in ("order", "distill", "recover")} == {"bfloat16"}
    assert stages.fit.precision == ("bfloat16" if has else "float32")
    assert stages.distill.batch_size == 16
    assert " h on one H100, " in capsys.readouterr().out


def test_a_model_in_the_cache_is_named_with_its_revision(home, monkeypatch, capsys):
    snapshot = home / "cache" / "0123abcd"
    snapshot.parent.mkdir()
    (home / "model").rename(snapshot)
    monkeypatch.setattr(given, "model_folder", lambda name, source: snapshot if source.hub == "owner/small" else None)
    monkeypatch.setattr("colpipe.cost.inputs.model_folder", lambda name, source: snapshot)
    main(["init", "owner/small", "--text", "text.txt", "--sizes", "2M"])
    assert yaml.safe_load((home / "small.yaml").read_text())["models"] == {
        "small": {"source": {"hub": "owner/small", "revision": "0123abcd"}}
    }
    with pytest.raises(SystemExit) as refusal:
        main(["init", "owner/other", "--text", "text.txt", "--sizes", "2M"])
    said = "is no folder here, and is not in the Hugging Face cache; fetch it: hf download owner/other"
    assert str(refusal.value) == f"colpipe init: error: owner/other: {said}"


@pytest.mark.slow
def test_it_can_be_planned(home):
    main(["init", "model", "--text", "text.txt", "--sizes", "2M,1800k,1M", "--instructions", "rows.jsonl"])
    planned = snakemake(home, "-n", "--configfile", "model.yaml")
    assert re.search(r"^distill +2$", planned.stdout, re.MULTILINE) and not (home / "results").exists()


def test_no_torch(home):
    program = (
        "import sys; from colpipe.tools.init import main; "
        "main(['model', '--text', 'text.txt', '--sizes', '2M']); print('torch' in sys.modules)"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={"PYTHONPATH": str(CHECKOUT)}
    )
    assert found.stdout.splitlines()[-1] == "False", found.stderr


def edit(path, **changes):
    found = json.loads(path.read_text())
    path.write_text(json.dumps({**found, **changes}))


TEXT = ["--text", "text.txt", "--sizes", "2M"]
MISTAKES = {
    "another family": (
        lambda home: edit(home / "model/config.json", model_type="opt"),
        ["model", *TEXT],
        "model/config.json: model_type 'opt' is none of gpt2, gpt_neox, llama, mistral, qwen2, qwen3, smollm3, granite, "
        "olmo2, gemma3_text, phi3; of another family only a study "
        "with a bridge can be made, by hand (config/README.md)",
    ),
    "no folder": (None, ["nowhere", *TEXT], "nowhere: is no folder (relative paths start at {home})"),
    "a folder that is not there": (
        None,
        ["./model-1", *TEXT],
        "./model-1: is no folder (relative paths start at {home}); did you mean model?",
    ),
    "a folder in a folder that is not there": (
        lambda home: (home / "models" / "smollm2-135m").mkdir(parents=True),
        ["{home}/models/smollm-135m/", *TEXT],
        "{home}/models/smollm-135m/: is no folder (relative paths start at {home}); did you mean smollm2-135m?",
    ),
    "a folder that could be a repository": (
        lambda home: (home / "models" / "smollm2-135m").mkdir(parents=True),
        ["models/smollm-135m", *TEXT],
        "models/smollm-135m: is no folder here, and is not in the Hugging Face cache; fetch it: hf download "
        "models/smollm-135m; did you mean smollm2-135m?",
    ),
    "no configuration": (
        lambda home: (home / "model/config.json").unlink(),
        ["model", *TEXT],
        "model: has no config.json; give the folder that save_pretrained wrote",
    ),
    "an incomplete configuration": (
        lambda home: edit(home / "model/config.json", num_hidden_layers="many"),
        ["model", *TEXT],
        "model: num_hidden_layers is 'many'; it has to be a whole number of 1 or more",
    ),
    "no tokenizer": (
        lambda home: (home / "model/tokenizer.json").unlink(),
        ["model", *TEXT],
        "model: has no tokenizer (tokenizer.json, vocab.json, tokenizer.model); save it there: tokenizer.save_pretrained(…)",
    ),
    "a tokenizer for another package": (
        lambda home: (home / "model/tokenizer.json").rename(home / "model/tokenizer.model"),
        ["model", *TEXT],
        "model: its tokenizer is tokenizer.model alone, which is not read without a package (pip install sentencepiece)",
    ),
    "a broken tokenizer": (
        lambda home: (home / "model/tokenizer.json").write_text("{"),
        ["model", *TEXT],
        "model/tokenizer.json: cannot be read as a tokenizer (EOF while parsing an object at line 1 column 1); "
        "save it again",
    ),
    "no weights": (
        lambda home: (home / "model/model.safetensors").unlink(),
        ["model", *TEXT],
        "model: has no weights in safetensors (model.safetensors or model.safetensors.index.json); model.save_pretrained "
        "writes them",
    ),
    "a GGUF file": (
        lambda home: (home / "small.gguf").touch(),
        ["small.gguf", *TEXT],
        "small.gguf: is a GGUF file; make a model folder of it first: python -m colpipe.stages.fetch_model --settings "
        '\'{{"path": "small.gguf"}}\' --output small',
    ),
    "no text": (
        None,
        ["model", "--text", "none.txt", "--sizes", "2M"],
        "none.txt: is no file (relative paths start at {home})",
    ),
    "a text of another format": (
        lambda home: (home / "text.txt").rename(home / "text.md"),
        ["model", "--text", "text.md", "--sizes", "2M"],
        "text.md: its name has to end in one of .jsonl, .ndjson, .json, .csv, .tsv, .parquet, .arrow, .txt (and .gz, .bz2, "
        ".xz, .zst after that)",
    ),
    "an empty text": (lambda home: (home / "text.txt").write_text(""), ["model", *TEXT], "text.txt: is empty"),
    "a blank text": (
        lambda home: (home / "text.txt").write_text("\n \n"),
        ["model", *TEXT],
        "text.txt: the text reader found no rows in ['text.txt']",
    ),
    "a text in another encoding": (
        lambda home: (home / "text.txt").write_bytes("größer".encode("latin-1")),
        ["model", *TEXT],
        "text.txt: is not UTF-8 (invalid start byte 0xf6) in line 1; convert it first: "
        "iconv -f latin1 -t utf-8 text.txt > NEW",
    ),
    "a short text": (
        lambda home: (home / "text.txt").write_text(make_text(20)),
        ["model", *TEXT],
        "text.txt: holds about {short} tokens ({bytes} bytes); a fit needs 22,528 (about {needed} bytes)",
    ),
    "one document": (
        lambda home: (home / "text.txt").write_text(make_text().replace("\n\n", "\n")),
        ["model", *TEXT],
        "text.txt: has 1 documents, of which too little can be held out to judge the models on; put blank lines between "
        "documents, one for each paragraph if need be",
    ),
    "a size above the model": (
        None,
        ["model", "--text", "text.txt", "--sizes", "2M,90M"],
        "--sizes 90M: 90,000,000 parameters are more than the model's {whole:,}; give {least:,} to {whole:,}",
    ),
    "a size far below it": (
        None,
        ["model", "--text", "text.txt", "--sizes", "2M,1k"],
        "--sizes 1k: 1,000 parameters are less than a tenth of the model's {whole:,}; give {least:,} to {whole:,}",
    ),
    "a size that is none": (
        None,
        ["model", "--text", "text.txt", "--sizes", "60M,large"],
        "--sizes large: is no number of parameters; write 60M, 1.5B or 60000000",
    ),
    "a size twice": (None, ["model", "--text", "text.txt", "--sizes", "2M,2000000"], "--sizes 2000000: is there twice"),
    "no size": (None, ["model", "--text", "text.txt", "--sizes", ","], "--sizes: names none; write 60M,90M"),
    "no hours": (None, ["model", *TEXT, "--hours", "0"], "--hours 0: give a number above 0"),
    "a name that is none": (
        None,
        ["model", *TEXT, "--name", "a b"],
        "--name 'a b': letters, digits, dots, dashes and underscores make a name",
    ),
    "a study that is there": (
        lambda home: (home / "model.yaml").write_text("mine"),
        ["model", *TEXT],
        "model.yaml: exists already; give another --out, or another --name",
    ),
    "a folder for it that is not there": (
        None,
        ["model", *TEXT, "--out", "none/model.yaml"],
        "none/model.yaml: cannot be written (No such file or directory)",
    ),
    "few instructions": (
        lambda home: (home / "rows.jsonl").write_text(json.dumps(ROWS[0])),
        ["model", *TEXT, "--instructions", "rows.jsonl"],
        "rows.jsonl: has less than 50 rows; some are held out, and the rest would teach nothing",
    ),
    "instructions of other fields": (
        lambda home: (home / "rows.jsonl").write_text(json.dumps({"question": "?", "answer": "!"})),
        ["model", *TEXT, "--instructions", "rows.jsonl"],
        "rows.jsonl:1: has no field 'instruction'; it has ['answer', 'question']",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_line(home, monkeypatch, name):
    spoil, words, line = MISTAKES[name]
    whole = Architecture(family="llama", vocabulary=300, positions=256).parameters(FAMILIES["llama"])
    monkeypatch.setattr(given, "find_spec", lambda module: None)
    if spoil:
        spoil(home)
    before = (home / "model.yaml").read_text() if (home / "model.yaml").exists() else None
    with pytest.raises(SystemExit) as refusal:
        main(["init", *(word.replace("{home}", str(home)) for word in words)])
    pattern = re.escape(line.format(home=home, whole=whole, least=-(-whole // 10), short="%", bytes="%", needed="%"))
    assert re.fullmatch(f"colpipe init: error: {pattern}".replace("%", r"[\d,]+"), str(refusal.value)), refusal.value
    assert ((home / "model.yaml").read_text() if (home / "model.yaml").exists() else None) == before
