# Paper: tables and figures of the paper, made of this study.
#   in:  the scores or curves that one shows
#   out: paper/<exhibit>/<exhibit>.csv, .md and, for figures, .svg


rule paper:
    input:
        PLAN.manifests("paper"),
    output:
        "<results>/paper/{exhibit}/manifest.json",
    log:
        "<logs>/paper/{exhibit}.log",
    wildcard_constraints:
        exhibit=one_of(EXHIBITS),
    conda:
        ENVIRONMENT
    resources:
        **needs_of("paper"),
    params:
        inputs=PLAN.flags("paper"),
        contents=PLAN.contents("paper"),
        settings=PLAN.settings("paper"),
        seed=STUDY.seed,
        code=PLAN.code("paper"),
        where=PLAN.where,
    shell:
        "python -m colpipe.stages.paper {params.inputs} --settings {params.settings:q}"
        " --seed {params.seed} {params.where} --log {log:q}"
