# Order: the ancestor, or its bridge, rewritten so that what is important comes first; nothing is trained.
#   in:  the fine-tuned ancestor or its bridge, a few thousand tokens of a corpus
#   out: ordered/<ancestor>/   only for ancestors with select: rank or rotate


rule order:
    input:
        inputs_of("order"),
    output:
        "<results>/ordered/{ancestor}/manifest.json",
    log:
        "<logs>/order/{ancestor}.log",
    priority: 10
    conda:
        ENVIRONMENT
    threads: threads_for(STUDY, "order", CORES, HALF)
    resources:
        **resources_of("order"),
    params:
        **PLAN.params("order"),
    shell:
        LAUNCH
