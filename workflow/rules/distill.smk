# Distill: each member of the chain learns from the member before it (Eq. 1, §3.3).
#   in:  the teacher (member before, bridge, or fine-tuned ancestor), what the student starts from, the data
#   out: chain/<ancestor>/<member>/


rule distill:
    input:
        PLAN.manifests("distill"),
    output:
        "<results>/chain/{ancestor}/{member}/manifest.json",
    log:
        "<logs>/distill/{ancestor}/{member}.log",
    priority: 10
    conda:
        ENVIRONMENT
    threads: HALF
    params:
        inputs=PLAN.flags("distill"),
        contents=PLAN.contents("distill"),
        settings=PLAN.settings("distill"),
        seed=STUDY.seed,
        code=PLAN.code("distill"),
        where=PLAN.where,
    shell:
        "python -m colpipe.stages.distill {params.inputs} --settings {params.settings:q}"
        " --seed {params.seed} {params.where} --log {log:q}"
