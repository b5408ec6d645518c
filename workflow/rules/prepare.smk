# Prepare: the chain's tokenizer, corpora and instructions.
#   in:  staged data sets
#   out: tokenizer/             where the study trains its own
#        data/<corpus>/         train-00000.npy, …, validation-…, test-…: token ids end to end, in shards
#                               train-00000.ends.npy, …: where documents end in them
#        data/<instructions>/   train.jsonl, validation.jsonl, test.jsonl: instruction, input, output, choices


rule train_tokenizer:
    """The tokenizer, where the study trains its own."""
    input:
        PLAN.manifests("train_tokenizer"),
    output:
        "<results>/tokenizer/manifest.json",
    log:
        "<logs>/train_tokenizer.log",
    conda:
        ENVIRONMENT
    resources:
        **needs_of("train_tokenizer"),
    params:
        inputs=PLAN.flags("train_tokenizer"),
        contents=PLAN.contents("train_tokenizer"),
        settings=PLAN.settings("train_tokenizer"),
        seed=STUDY.seed,
        code=PLAN.reading_code("train_tokenizer"),
        where=PLAN.where,
    shell:
        "python -m colpipe.stages.train_tokenizer {params.inputs} --settings {params.settings:q}"
        " --seed {params.seed} {params.where} --log {log:q}"


rule prepare_corpus:
    input:
        PLAN.manifests("prepare_corpus"),
    output:
        "<results>/data/{corpus}/manifest.json",
    log:
        "<logs>/prepare_corpus/{corpus}.log",
    wildcard_constraints:
        corpus=one_of(STUDY.corpora),
    conda:
        ENVIRONMENT
    threads: CORES
    resources:
        **needs_of("prepare_corpus"),
    params:
        inputs=PLAN.flags("prepare_corpus"),
        contents=PLAN.contents("prepare_corpus"),
        settings=PLAN.settings("prepare_corpus"),
        seed=STUDY.seed,
        code=PLAN.reading_code("prepare_corpus"),
        where=PLAN.where,
    shell:
        "python -m colpipe.stages.prepare_corpus {params.inputs} --settings {params.settings:q}"
        " --seed {params.seed} {params.where} --log {log:q}"


rule prepare_instructions:
    input:
        PLAN.manifests("prepare_instructions"),
    output:
        "<results>/data/{instructions}/manifest.json",
    log:
        "<logs>/prepare_instructions/{instructions}.log",
    wildcard_constraints:
        instructions=one_of(STUDY.instructions),
    conda:
        ENVIRONMENT
    resources:
        **needs_of("prepare_instructions"),
    params:
        inputs=PLAN.flags("prepare_instructions"),
        contents=PLAN.contents("prepare_instructions"),
        settings=PLAN.settings("prepare_instructions"),
        seed=STUDY.seed,
        code=PLAN.reading_code("prepare_instructions"),
        where=PLAN.where,
    shell:
        "python -m colpipe.stages.prepare_instructions {params.inputs} --settings {params.settings:q}"
        " --seed {params.seed} {params.where} --log {log:q}"
