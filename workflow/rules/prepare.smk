# Prepare: the chain's tokenizer, corpora and instructions.
#   in:  staged data sets
#   out: tokenizer/             where the study trains its own
#        data/<corpus>/         train-00000.npy, …, validation-…, test-…: token ids end to end, in shards
#                               train-00000.ends.npy, …: where documents end in them; ….sizes.npy: bytes of their text
#        data/<instructions>/   train.jsonl, validation.jsonl, test.jsonl: instruction, input, output, choices


rule train_tokenizer:
    """The tokenizer, where the study trains its own."""
    input:
        inputs_of("train_tokenizer"),
    output:
        "<results>/tokenizer/manifest.json",
    log:
        "<logs>/train_tokenizer.log",
    conda:
        ENVIRONMENT
    resources:
        **resources_of("train_tokenizer"),
    params:
        **PLAN.params("train_tokenizer"),
    shell:
        RUN


rule prepare_corpus:
    input:
        inputs_of("prepare_corpus"),
    output:
        "<results>/data/{corpus}/manifest.json",
    log:
        "<logs>/prepare_corpus/{corpus}.log",
    wildcard_constraints:
        **PLAN.allowed("prepare_corpus"),
    conda:
        ENVIRONMENT
    threads: CORES
    resources:
        **resources_of("prepare_corpus"),
    params:
        **PLAN.params("prepare_corpus"),
    shell:
        RUN


rule mix_corpus:
    """A corpus of others, by weights."""
    input:
        inputs_of("mix_corpus"),
    output:
        "<results>/data/{corpus}/manifest.json",
    log:
        "<logs>/mix_corpus/{corpus}.log",
    wildcard_constraints:
        **PLAN.allowed("mix_corpus"),
    conda:
        ENVIRONMENT
    resources:
        **resources_of("mix_corpus"),
    params:
        **PLAN.params("mix_corpus"),
    shell:
        RUN


rule prepare_instructions:
    input:
        inputs_of("prepare_instructions"),
    output:
        "<results>/data/{instructions}/manifest.json",
    log:
        "<logs>/prepare_instructions/{instructions}.log",
    wildcard_constraints:
        **PLAN.allowed("prepare_instructions"),
    conda:
        ENVIRONMENT
    resources:
        **resources_of("prepare_instructions"),
    params:
        **PLAN.params("prepare_instructions"),
    shell:
        RUN
