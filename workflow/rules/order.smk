# Order: the ancestor, or its bridge, rewritten so that what is important comes first; nothing is trained.
#   in:  the fine-tuned ancestor or its bridge, a few thousand tokens of a corpus
#   out: ordered/<ancestor>/   only for ancestors with select: rank or rotate


rule order:
    input:
        PLAN.manifests("order"),
    output:
        "<results>/ordered/{ancestor}/manifest.json",
    log:
        "<logs>/order/{ancestor}.log",
    priority: 10
    conda:
        ENVIRONMENT
    threads: HALF
    resources:
        **needs_of("order"),
    params:
        inputs=PLAN.flags("order"),
        contents=PLAN.contents("order"),
        settings=PLAN.settings("order"),
        seed=STUDY.seed,
        code=PLAN.code("order"),
        where=PLAN.where,
        devices=devices,
    shell:
        "python -m colpipe.launch order {params.devices} {params.inputs} --settings {params.settings:q}"
        " --seed {params.seed} {params.where} --log {log:q}"
