# Pretrain: a model of a given shape from scratch, where no public checkpoint exists.
#   in:  a corpus, the tokenizer
#   out: pretrained/<start>/


rule pretrain:
    input:
        inputs_of("pretrain"),
    output:
        "<results>/pretrained/{start}/manifest.json",
    log:
        "<logs>/pretrain/{start}.log",
    priority: 10
    conda:
        ENVIRONMENT
    threads: threads_for(STUDY, "pretrain", CORES, HALF)
    resources:
        **resources_of("pretrain"),
    params:
        **PLAN.params("pretrain"),
    shell:
        LAUNCH
