# Exhibit: a table or figure of the paper, made from this study.
#   in:  the scores, or the training curves, that it shows
#   out: paper/<exhibit>/<exhibit>.csv, .md and, for figures, .svg and .png


rule exhibit:
    input:
        inputs_of("exhibit"),
    output:
        "<results>/paper/{exhibit}/manifest.json",
    log:
        "<logs>/paper/{exhibit}.log",
    wildcard_constraints:
        **PLAN.allowed("exhibit"),
    conda:
        ENVIRONMENT
    resources:
        **resources_of("exhibit"),
    params:
        **PLAN.params("exhibit"),
    shell:
        RUN
