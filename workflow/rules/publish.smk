# Publish: a member or DesNet as a folder to use or upload as it is, with a model card.
#   in:  the model, its scores, all that it descends from
#   out: published/<path of the model>/   weights (linked), tokenizer, generation_config.json, README.md


rule publish:
    input:
        inputs_of("publish"),
    output:
        "<results>/published/{model}/README.md",
    log:
        "<logs>/publish/{model}.log",
    wildcard_constraints:
        model=r"(chain|desnets)/.+",
    conda:
        ENVIRONMENT
    resources:
        **resources_of("publish"),
    params:
        **PLAN.params("publish"),
    shell:
        RUN
