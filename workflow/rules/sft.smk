# SFT: ancestors, and members that start from a model, learn the instructions (Appendix C.1).
#   in:  a starting model, instructions
#   out: sft/<start>/   shared by all ancestors and members that start from this model


rule sft:
    input:
        inputs_of("sft"),
    output:
        "<results>/sft/{start}/manifest.json",
    log:
        "<logs>/sft/{start}.log",
    priority: 10
    conda:
        ENVIRONMENT
    threads: threads_for(STUDY, "sft", CORES, HALF)
    resources:
        **resources_of("sft"),
    params:
        **PLAN.params("sft"),
    shell:
        LAUNCH
