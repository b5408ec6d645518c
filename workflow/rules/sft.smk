# SFT: ancestors, and members that start from a model, learn the instructions (Appendix C.1).
#   in:  a starting model, instructions
#   out: sft/<start>/   shared by all ancestors and members that start from this model


rule sft:
    input:
        PLAN.manifests("sft"),
    output:
        "<results>/sft/{start}/manifest.json",
    log:
        "<logs>/sft/{start}.log",
    priority: 10
    conda:
        ENVIRONMENT
    threads: HALF
    resources:
        **needs_of("sft"),
    params:
        inputs=PLAN.flags("sft"),
        contents=PLAN.contents("sft"),
        settings=PLAN.settings("sft"),
        seed=STUDY.seed,
        code=PLAN.code("sft"),
        where=PLAN.where,
        devices=devices,
    shell:
        "python -m colpipe.launch sft {params.devices} {params.inputs} --settings {params.settings:q}"
        " --seed {params.seed} {params.where} --log {log:q}"
