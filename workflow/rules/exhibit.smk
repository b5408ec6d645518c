# Exhibit: a table or figure of the paper, made of this study.
#   in:  the scores, or the training curves, that it shows
#   out: paper/<exhibit>/<exhibit>.csv, .md and, for figures, .svg and .png


rule exhibit:
    input:
        PLAN.manifests("exhibit"),
    output:
        "<results>/paper/{exhibit}/manifest.json",
    log:
        "<logs>/paper/{exhibit}.log",
    wildcard_constraints:
        exhibit=one_of(paper()),
    conda:
        ENVIRONMENT
    resources:
        **needs_of("exhibit"),
    params:
        inputs=PLAN.flags("exhibit"),
        contents=PLAN.contents("exhibit"),
        settings=PLAN.settings("exhibit"),
        seed=STUDY.seed,
        code=PLAN.code("exhibit"),
        where=PLAN.where,
    shell:
        "python -m colpipe.stages.exhibit {params.inputs} --settings {params.settings:q}"
        " --seed {params.seed} {params.where} --log {log:q}"
