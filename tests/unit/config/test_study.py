import pytest

from colpipe.config.loading import load_study
from colpipe.config.parts import Architecture, Shape, parse_tokens, tokens_label
from colpipe.config.validation import not_quantisable_shapes
from colpipe.errors import ColpipeError


@pytest.fixture(autouse=True)
def _here(inputs, monkeypatch):
    monkeypatch.chdir(inputs.parent)
    if inputs.name != "inputs":
        link = inputs.parent / "inputs"
        if not link.exists():
            link.symlink_to(inputs)


def refused(study: dict) -> str:
    with pytest.raises(ColpipeError) as error:
        load_study(study, "my.yaml")
    return str(error.value)


def test_the_tiny_study_is_valid(study):
    assert load_study(study).members() == ["large", "medium", "small"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.update(colour="red"), "my.yaml: colour: unknown key"),
        (lambda s: s["chain"]["medium"].update(lr=1), "my.yaml: chain.medium.lr: unknown key"),
        (
            lambda s: s["stages"]["distill"].update(learnin_rate=1),
            "my.yaml: stages.distill.learnin_rate: unknown key; near that is learning_rate",
        ),
        (
            lambda s: s["stages"].update(evaluate={"continued": ["It is", " \n"]}),
            "my.yaml: stages.evaluate.continued: ' \\n': give the beginning of a text, or [] for none",
        ),
        (
            lambda s: s["stages"].update(evaluate={"continued": ["It is", "a", "It is"]}),
            "my.yaml: stages.evaluate.continued: 'It is' is there twice; give each beginning once",
        ),
        (
            lambda s: s["datasets"]["articles"].update(raeder="text"),
            "my.yaml: datasets.articles.raeder: unknown key; near that is reader",
        ),
        (
            lambda s: s["chain"]["medium"]["shape"].update(layers="four"),
            "my.yaml: chain.medium.shape.layers: 'four': input should be a valid integer",
        ),
        (
            lambda s: s["chain"]["medium"]["shape"].update(hidden=17),
            "my.yaml: chain.medium.shape: hidden 17 is not a multiple of heads 2",
        ),
        (
            lambda s: s["chain"]["small"]["shape"].update(layers=9, heads=8, hidden=64),
            "my.yaml: chain.small: 490,944 parameters follow medium's",
        ),
        (
            lambda s: s["desnets"]["upper"]["shape"].update(layers=12, heads=4, hidden=32),
            "my.yaml: desnets.upper.shape: 12L/4H/32 has 172,992 parameters, above the chain's largest member large",
        ),
        (
            lambda s: s["desnets"]["lower"]["shape"].update(layers=5, heads=1, hidden=8),
            "my.yaml: desnets.lower.shape.layers: 5 is more than the 3 of its larger neighbour medium; at most 3",
        ),
        (
            lambda s: s["desnets"]["lower"]["shape"].update(heads=1),
            "my.yaml: desnets.lower.shape: head_dim is 16, but 8 in small",
        ),
        (
            lambda s: s["ancestors"]["llama"].update(model="lama"),
            "my.yaml: ancestors.llama.model: 'lama' is not in models (llama, bridge)",
        ),
        (
            lambda s: s["tokenizer"].update(prompts="chat"),
            "my.yaml: tokenizer: prompts: chat needs model: a tokenizer that is trained here has no chat template",
        ),
        (
            lambda s: s["ancestors"].update(own={"model": "llama"}) or s["models"]["llama"].update(prompts="chat"),
            "my.yaml: models.llama.prompts: 'chat', tokenizer.prompts 'paper': the model is fine-tuned once",
        ),
        (
            lambda s: s["models"]["bridge"].update(prompts="chat"),
            "my.yaml: models.bridge.prompts: 'chat' is for an ancestor that has a bridge; a chain with the ancestor's own",
        ),
        (
            lambda s: s["models"]["llama"]["source"].update(path="inputs/nowhere"),
            "my.yaml: models.llama.source: path 'inputs/nowhere' does not exist",
        ),
        (
            lambda s: s["models"]["llama"].update(source={"pypi": "a==1", "files": ["x"]}),
            "my.yaml: models.llama.source: a pypi source needs sha256",
        ),
        (
            lambda s: s["models"]["llama"].update(source={"pypi": ["a==1", "b==1"], "sha256": ["0" * 64], "files": ["x"]}),
            "my.yaml: models.llama.source: sha256 has 1 for the 2 of pypi: give one for each wheel, in the same order",
        ),
        (
            lambda s: s["models"]["llama"].update(source={"pypi": ["a==1"] * 2, "sha256": ["0" * 64] * 2, "files": ["x"]}),
            "my.yaml: models.llama.source.pypi: ['a==1', 'a==1'] names a wheel twice; give each once",
        ),
        (
            lambda s: s["models"]["llama"].update(source={"pypi": "a", "sha256": "0" * 63, "files": ["x"]}),
            "my.yaml: models.llama.source.pypi: 'a' is no published wheel: give name==version",
        ),
        (
            lambda s: s["models"]["llama"].update(terms="https://example.org/terms"),
            "my.yaml: models.llama: terms https://example.org/terms belong to a license: give its name, too",
        ),
        (
            lambda s: s["models"]["llama"]["source"].update(hub="a/b"),
            "names ['hub', 'path'] of hub, path, pypi; give exactly one",
        ),
        (lambda s: s["stages"].pop("answers"), "my.yaml: stages.answers: missing, but ancestors.llama.bridge needs it"),
        (
            lambda s: s["chain"]["large"].update(distill={"step": 3}),
            "my.yaml: chain.large.distill.step: unknown key",
        ),
        (
            lambda s: s["ancestors"]["llama"].update(distill={"objective": "kl"}),
            "my.yaml: ancestors.llama.distill.objective: 'kl': input should be 'reverse_kl', 'forward_kl'",
        ),
        (
            lambda s: s["initialisers"].update(alone={"kind": "distilled", "distill": {"step": 1}}),
            "my.yaml: initialisers.alone.distill.step: unknown key",
        ),
        (
            lambda s: s["initialisers"].update(alone={"kind": "distilled", "distill": {"objective": "minillm", "data": []}}),
            "my.yaml: initialisers.alone.distill: data: [] are corpora only; objective 'minillm' answers prompts",
        ),
        (
            lambda s: s["initialisers"]["nested"].update(distill={"steps": 1}),
            "my.yaml: initialisers.nested.distill: goes with kind 'distilled' only, this is 'linit'",
        ),
        (
            lambda s: s["ancestors"]["llama"].update(desnets=["uper"]),
            "my.yaml: ancestors.llama.desnets.0: 'uper' is not in desnets (upper, lower)",
        ),
        (
            lambda s: s["chain"]["small"].update(elastic=True),
            "my.yaml: chain.small.elastic: the last member has no next one to go down to; give elastic.smallest",
        ),
        (
            lambda s: s["chain"]["medium"].update(elastic={"smallest": {"layers": 4, "heads": 1, "hidden": 8}}),
            "my.yaml: chain.medium: elastic.smallest has layer 4, the member 3",
        ),
        (
            lambda s: s["initialisers"].update(cut={"kind": "linit", "method": "cut"}),
            "my.yaml: desnets.upper: its larger neighbour large is not elastic in llama's chain, nothing can be cut",
        ),
        (
            lambda s: (
                s["ancestors"]["llama"].update(elastic=True),
                s["initialisers"].update(cut={"kind": "linit", "method": "cut"}),
                s["desnets"]["upper"]["shape"].update(ffn=10, layers=4, heads=3, hidden=24),
            ),
            "my.yaml: desnets.upper.shape: ffn is 10, but large is elastic down to 64 only (elastic.smallest)",
        ),
        (
            lambda s: s["chain"]["small"].update(distill={"data": ["descrive"]}),
            "my.yaml: chain.small.distill.data.0: 'descrive' is in neither corpora nor instructions",
        ),
        (
            lambda s: s["stages"]["distill"].update(objective="minillm", data=["stories"]),
            "my.yaml: stages.distill: data: ['stories'] are corpora only; objective 'minillm' answers prompts",
        ),
        (
            lambda s: s["ancestors"]["llama"].update(distill={"objective": "on_policy", "rollout": {"size": 6}}),
            "my.yaml: ancestors.llama.distill: rollout.size: 6 is not a multiple of batch_size 4",
        ),
        (
            lambda s: s["chain"]["small"].update(distill={"objective": "seqkd", "signal": 8}),
            "my.yaml: chain.small.distill: signal: 8; objective 'seqkd' is not on the data's tokens: null is allowed",
        ),
        (
            lambda s: s["ancestors"]["llama"].update(teacher="ancestor", distill={"signal": 8})
            or s["chain"]["small"].update(distill={"signal": 16}),
            "my.yaml: ancestors.llama: the students of the ancestor want its cached log-probabilities with different signal",
        ),
        (
            lambda s: s["ancestors"]["llama"].update(teacher="ancestor", distill={"signal": 8})
            or s["chain"]["small"].update(distill={"precision": "bfloat16"}),
            "with different signal, max_length, data or precision [(8, ",
        ),
        (
            lambda s: s["stages"]["distill"].update(steps=6, warmup=7),
            "my.yaml: stages.distill: warmup: 7 steps are more than steps 6; a share such as 0.02 fits any",
        ),
        (
            lambda s: s["stages"]["recover"].update(warmup=1.5),
            "my.yaml: stages.recover: warmup: 1.5: give a share of the steps below 1, or a whole number of steps",
        ),
        (
            lambda s: s["stages"]["recover"].update(warmup=9),
            "my.yaml: stages.recover.warmup: 9 steps are more than the 8 of 512 tokens; a share of the steps, such as 0.02",
        ),
        (
            lambda s: s["stages"]["recover"].update(stop_at=0.95, evaluations=0),
            "my.yaml: stages.recover: stop_at: 0.95 is looked for at evaluations, and evaluations is 0; take some",
        ),
        (
            lambda s: s["stages"]["recover"].update(stop_at=95),
            "my.yaml: stages.recover.stop_at: 95 nats per token are no better than a uniform guess (6.24, ln 512); give",
        ),
        (lambda s: s["stages"]["recover"].update(stop_at=0), "my.yaml: stages.recover.stop_at: 0: input should be greater"),
        (lambda s: s["stages"]["pretrain"].update(stop_at=0.95), "my.yaml: stages.pretrain.stop_at: unknown key"),
        (lambda s: s["chain"]["large"].update(start="pretrained"), "model goes with start 'pretrained' only"),
        (lambda s: s.update(budgets=["78 million"]), "my.yaml: budgets.0: '78 million': input should be a valid integer"),
        (
            lambda s: s["stages"]["distill"].update(max_length=1000),
            "my.yaml: stages.distill.max_length: 1000 is more than architecture.positions 128",
        ),
        (
            lambda s: s["tasks"].update(stories=s["tasks"]["boolq"]),
            "my.yaml: tasks.stories: a corpus under perplexity has this name too; scores need different names",
        ),
        (
            lambda s: s["stages"].update(evaluate={"max_length": 256}),
            "my.yaml: stages.evaluate.max_length: 256 is more than architecture.positions 128",
        ),
        (
            lambda s: s["tasks"]["boolq"].update(max_new_tokens=30),
            "my.yaml: tasks.boolq.max_new_tokens: 30 after prompts of up to 110 tokens",
        ),
        (
            lambda s: s["tasks"].update(boolq={"instructions": "boolq", "max_new_tokens": 0}),
            "my.yaml: tasks.boolq: max_new_tokens: 0 leaves nothing to score; set likelihood: true",
        ),
        (
            lambda s: s["tasks"]["boolq"].update(max_new_tokens=0, likelihood=True),
            "my.yaml: tasks.boolq: fine_tune: is not used with max_new_tokens 0: likelihoods are those of the weights",
        ),
        (
            lambda s: s["datasets"]["questions"].update(test=1.0),
            "my.yaml: datasets.questions: validation 0.03 and test 1 are more than all rows; lower one (validation: 0)",
        ),
        (
            lambda s: s.update(
                tasks={"boolq": {"instructions": "boolq", "max_new_tokens": 0, "likelihood": True}},
                stacks={"fslm": {"ancestor": "llama", "member": "small", "tasks": ["boolq"]}},
            ),
            "my.yaml: stacks.fslm.tasks: 'boolq' generates nothing (max_new_tokens: 0), and a stack does nothing else",
        ),
        (lambda s: s["initialisers"]["nested"].update(alpha=1.5), "initialisers.nested.alpha"),
        (
            lambda s: s["desnets"]["upper"].update(alpha=0.5, initialisers=["rand"]),
            "my.yaml: desnets.upper.alpha: 0.5: nothing that it is built with mixes two neighbours (rand); leave it out, or",
        ),
        (
            lambda s: s["desnets"]["upper"].update(alpha=[0.5, 0.5]),
            "my.yaml: desnets.upper.alpha: 2 values for 4 layers; give one number, or one for each layer",
        ),
        (
            lambda s: s["desnets"]["upper"].update(params="3k"),
            "my.yaml: desnets.upper: shape and params: give exactly one of shape, params and memory",
        ),
        (
            lambda s: s["desnets"].update(upper={"params": "10k", "memory": "20kB"}),
            "my.yaml: desnets.upper: params and memory: give exactly one of shape, params and memory",
        ),
        (
            lambda s: s["desnets"].update(planned={"params": "9M"}),
            "my.yaml: desnets.planned: 9,000,000 parameters lie outside the chain (large ",
        ),
        (
            lambda s: s["desnets"]["upper"].update(initialisers=["nest"]),
            "my.yaml: desnets.upper.initialisers.0: 'nest' is not in initialisers (nested, rand)",
        ),
        (
            lambda s: s["initialisers"].update(grown={"kind": "single", "method": "nested"}),
            "my.yaml: initialisers.grown.method: 'nested' is of linit; single has paper and lossless",
        ),
        (
            lambda s: s["initialisers"].update(cloned={"kind": "hypercloning"})
            or s["desnets"]["upper"]["shape"].update(ffn=50),
            "my.yaml: desnets.upper.shape: no member's widths fit a whole number of times, as hypercloning needs",
        ),
        (
            lambda s: s["initialisers"].update(grown={"kind": "single", "method": "lossless"})
            or s["desnets"]["upper"]["shape"].update(ffn=60),
            "my.yaml: desnets.upper.shape: ffn is 60, less than the 64 of its smaller neighbour medium, which cannot grow "
            "to that losslessly; leave out the lossless initialiser",
        ),
        (
            lambda s: s["initialisers"].update(exact={"kind": "linit", "method": "lossless"})
            or s["desnets"]["upper"]["shape"].update(ffn=60),
            "my.yaml: desnets.upper.shape.ffn: 60 is less than the 64 of its smaller neighbour medium",
        ),
        (
            lambda s: s["ancestors"]["llama"].update(select="rotate"),
            "my.yaml: ancestors.llama.select: 'rotate': gpt2 has LayerNorm",
        ),
        (
            lambda s: (
                s["ancestors"]["llama"].update(select="rank"),
                s.update(corpora={}, perplexity=[]),
            ),
            "my.yaml: stages.order.corpus: missing, and nothing in the study says it; corpora: empty",
        ),
        (
            lambda s: s["chain"]["large"]["shape"].update(kv_heads=1),
            "my.yaml: chain.large.shape: kv_heads is 1 of 3 heads, but gpt2 has no grouped queries",
        ),
        (
            lambda s: s["initialisers"]["nested"].update(alpha="search") or s.update(perplexity=[]),
            "my.yaml: initialisers: alpha 'search' needs a corpus under perplexity",
        ),
    ],
)  # fmt: skip
def test_bad_studies_are_refused_with_key_value_and_what_is_allowed(study, change, message):
    change(study)
    assert message in refused(study)


def test_every_problem_has_its_own_line(study):
    study["ancestors"]["llama"]["model"] = "lama"
    study["tasks"]["boolq"]["instructions"] = "bolq"
    assert len(refused(study).splitlines()) == 2


def test_neighbours(study):
    study["desnets"]["below"] = {"shape": {"layers": 1, "heads": 1, "hidden": 8}}
    study["desnets"]["equal"] = {"shape": {"layers": 3, "heads": 2, "hidden": 16}}
    loaded = load_study(study)
    assert loaded.neighbours("upper") == ("medium", "large")
    assert loaded.neighbours("lower") == ("small", "medium")
    assert loaded.neighbours("below") == (None, "small")
    assert loaded.neighbours("equal") == ("small", "medium")
    assert loaded.alpha("equal", "nested") == 0  # all of the larger, which it equals
    assert loaded.alpha("below", "nested") is None
    assert loaded.alpha("upper", "rand") is None


def test_a_desnets_alpha_overrides(study):
    study["desnets"]["upper"]["alpha"] = 0.25
    assert load_study(study).alpha("upper", "nested") == 0.25


def test_a_desnet_by_its_parameters_gets_a_shape_between_its_neighbours(study):
    study["desnets"]["planned"] = {"params": "35k"}
    study["desnets"]["small-enough"] = {"memory": "70kB", "precision": "bfloat16"}
    loaded = load_study(study)
    for name in ("planned", "small-enough"):
        shape = loaded.desnets[name].shape
        assert abs(loaded.parameters(shape) / 35_000 - 1) <= 0.01
        assert loaded.neighbours(name) == ("medium", "large")
        assert 3 <= shape.layers <= 4 and 16 <= shape.hidden <= 24
    assert load_study(loaded.model_dump(mode="json")) == loaded  # a resolved study is a study


def widened(study: dict, hidden: dict[str, int]) -> dict:
    """The study with members of these widths, one DesNet by its parameters, and no baseline models of other widths."""
    study["models"]["bridge"]["shape"] = {"layers": 4, "heads": 64, "hidden": 512}
    for layers, (name, width) in zip((4, 3, 2), hidden.items(), strict=True):
        study["chain"][name]["shape"] = {"layers": layers, "heads": width // 8, "hidden": width}
    study["desnets"] = {"planned": {"params": "4M"}}
    return study


WIDE = {"large": 512, "medium": 376, "small": 256}


def test_shapes_that_cannot_be_quantised_are_told_where_nothing_says_which_widths(study):
    loaded = load_study(widened(study, WIDE))
    assert (loaded.desnets["planned"].shape.hidden, loaded.desnets["planned"].shape.ffn) == (320, 1344)
    [line] = not_quantisable_shapes(loaded)
    assert line == (
        "chain.medium.shape: not quantisable (Q8_0, Q4_0): hidden 376, not in multiples of 32; "
        "architecture.align: 32 refuses such shapes, 1 allows them"
    )
    study["architecture"]["align"] = 1
    assert not list(not_quantisable_shapes(load_study(study)))


def test_shapes_of_models_for_trying_things_out_are_not_told(study):
    assert not list(not_quantisable_shapes(load_study(study)))


def test_an_alignment_refuses_other_shapes(study):
    widened(study, WIDE)["architecture"]["align"] = 64
    study["desnets"]["odd"] = {"shape": {"layers": 3, "heads": 40, "hidden": 320, "ffn": 1000}}
    study["chain"]["large"]["elastic"] = {"smallest": {"layers": 2, "heads": 40, "hidden": 320, "ffn": 1096}}
    with pytest.raises(ColpipeError) as refusal:
        load_study(study, "my.yaml")
    asked = "not in multiples of architecture.align 64; 1 there allows any width"
    assert str(refusal.value).splitlines() == [
        f"my.yaml: chain.medium.shape: hidden 376, ffn 1504: {asked}",
        f"my.yaml: desnets.odd.shape: ffn 1000: {asked}",
        f"my.yaml: chain.large.elastic.smallest: ffn 1096: {asked}",
    ]


@pytest.mark.parametrize(("align", "kept"), [(32, False), (64, False), (1, True), (None, True)])
def test_an_alignment_refuses_heads_whose_output_projection_reads_no_whole_blocks(study, align, kept):
    study["architecture"] |= {"family": "qwen3", "align": align}
    study["models"]["bridge"]["shape"] = {"layers": 3, "heads": 6, "hidden": 256, "ffn": 512, "head_dim": 24}
    shape = {"layers": 2, "heads": 5, "hidden": 256, "ffn": 512, "head_dim": 24}
    study |= {"chain": {"large": {"start": "inherit", "shape": shape}}, "desnets": {}}
    if kept:
        load_study(study)
    else:
        [line] = [line for line in refused(study).splitlines() if "chain" in line]
        assert line == (
            f"my.yaml: chain.large.shape: heads × head_dim 120: not in multiples of 32, which architecture.align {align} "
            "asks for; 1 allows any"
        )


def test_elastic_members_have_the_studys_alignment_and_no_other_job_has_it(study):
    study["chain"]["large"]["elastic"] = True
    study["chain"]["medium"]["elastic"] = {"align": 32}
    study["architecture"]["align"] = 1
    loaded = load_study(study)
    assert [loaded.elastic("llama", member).align for member in ("large", "medium")] == [1, 32]
    assert "align" not in loaded.architecture.model_dump()  # shapes are in their settings, and changing it changes none


def test_a_desnet_above_the_chain_may_be_cloned(study):
    study["initialisers"]["cloned"] = {"kind": "hypercloning"}
    shape = {"layers": 6, "heads": 6, "hidden": 48}
    study["desnets"]["above"] = {"shape": shape, "initialisers": ["cloned", "rand"]}
    loaded = load_study(study)
    assert loaded.neighbours("above") == ("large", None)
    assert loaded.hypercloning_source("above") == "large"
    assert loaded.initialisers_of("above") == ["cloned", "rand"]


def test_what_is_cloned_keeps_the_width_of_its_heads(study):
    study["desnets"]["above"] = {"shape": {"layers": 5, "heads": 6, "hidden": 48}, "initialisers": ["cloned"]}
    study["initialisers"]["cloned"] = {"kind": "hypercloning"}
    assert load_study(study).hypercloning_source("above") == "large"
    study["desnets"]["above"]["shape"]["heads"] = 3
    with pytest.raises(
        ColpipeError, match=r"^my.yaml: desnets.above.shape: no member's widths fit a whole number of times"
    ):
        load_study(study, "my.yaml")


@pytest.mark.parametrize("kind", ["linit", "single"])
def test_heads_that_cannot_be_added_losslessly_are_refused_before_anything_runs(study, kind):
    study["architecture"]["family"] = "olmo2"
    study["initialisers"] = {"exact": {"kind": kind, "method": "lossless"}}
    with pytest.raises(ColpipeError) as refusal:
        load_study(study, "my.yaml")
    assert str(refusal.value) == (
        "my.yaml: desnets.lower.shape.heads: 2, and olmo2 normalises queries and keys over all heads, the 1 of its "
        "smaller neighbour small, which cannot grow to that losslessly; leave out the lossless initialiser "
        "(desnets.<name>.initialisers)"
    )
    study["desnets"]["lower"]["initialisers"] = []
    assert load_study(study)


def test_a_model_that_is_expanded_has_heads_as_wide(study):
    study["architecture"]["family"] = "llama"
    study["initialisers"] = {"grown": {"kind": "single"}}
    study["desnets"]["upper"]["shape"]["head_dim"] = 10
    with pytest.raises(
        ColpipeError, match=r"desnets.upper.shape: head_dim is 10, but 8 in medium; heads are taken whole"
    ):
        load_study(study, "my.yaml")


def test_auto_alpha_with_the_papers_sizes(study):
    """0.94 to 0.57 with exact parameter counts (the paper's nominal sizes give 0.905 for DesNet-138M)."""
    gpt2 = {"large": (36, 20, 1280), "medium": (24, 16, 1024), "small": (12, 12, 768)}
    desnets = {"138M": (14, 12, 768), "220M": (18, 14, 896), "277M": (24, 14, 896), "380M": (26, 16, 1024),
               "537M": (30, 18, 1152)}  # fmt: skip

    def shape(sizes):
        return {"shape": dict(zip(("layers", "heads", "hidden"), sizes, strict=True))}

    study["architecture"] = {}
    study["models"]["bridge"] = shape(gpt2["large"])
    study["chain"] = {name: {"start": "inherit", **shape(sizes)} for name, sizes in gpt2.items()}
    study["desnets"] = {name: shape(sizes) for name, sizes in desnets.items()}
    loaded = load_study(study)
    alphas = [round(loaded.alpha(name, "nested"), 2) for name in desnets]
    assert alphas == [0.94, 0.59, 0.34, 0.94, 0.56]


@pytest.mark.parametrize(
    ("shape", "millions"),
    [
        ((12, 12, 768), 124.44),
        ((24, 16, 1024), 354.82),
        ((36, 20, 1280), 774.03),
        ((48, 25, 1600), 1557.61),
        ((14, 12, 768), 138.62),
        ((18, 14, 896), 219.57),
        ((24, 14, 896), 277.44),
        ((26, 16, 1024), 380.02),
        ((30, 18, 1152), 537.28),
        ((8, 8, 512), 51.48),
    ],
)
def test_parameter_counts_of_the_paper(shape, millions):
    layers, heads, hidden = shape
    count = Architecture().parameters(Shape(layers=layers, heads=heads, hidden=hidden))
    assert round(count / 1e6, 2) == millions


def test_token_counts():
    assert [parse_tokens(text) for text in ("78M", "1.5B", "300k", 7)] == [78_000_000, 1_500_000_000, 300_000, 7]
    assert [tokens_label(count) for count in (78_000_000, 10**10, 1_500, 0)] == ["78M", "10B", "1500", "0"]
