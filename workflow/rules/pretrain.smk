# Pretrain: a model of a given shape from scratch, where no public checkpoint exists.
#   in:  a corpus, the tokenizer
#   out: pretrained/<start>/


rule pretrain:
    input:
        PLAN.manifests("pretrain"),
    output:
        "<results>/pretrained/{start}/manifest.json",
    log:
        "<logs>/pretrain/{start}.log",
    priority: 10
    conda:
        ENVIRONMENT
    threads: HALF
    resources:
        **needs_of("pretrain"),
    params:
        inputs=PLAN.flags("pretrain"),
        contents=PLAN.contents("pretrain"),
        settings=PLAN.settings("pretrain"),
        seed=STUDY.seed,
        code=PLAN.code("pretrain"),
        where=PLAN.where,
        devices=devices,
    shell:
        "python -m colpipe.launch pretrain {params.devices} {params.inputs} --settings {params.settings:q}"
        " --seed {params.seed} {params.where} --log {log:q}"
