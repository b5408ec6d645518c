# Publish: a member or DesNet as a folder to use or upload as it is, with a model card.
#   in:  the model, its scores, all that it descends from
#   out: published/<path of the model>/   weights (linked), tokenizer, generation_config.json, README.md


rule publish:
    input:
        PLAN.manifests("publish"),
    output:
        "<results>/published/{model}/README.md",
    log:
        "<logs>/publish/{model}.log",
    wildcard_constraints:
        model=r"(chain|desnets)/.+",
    conda:
        ENVIRONMENT
    resources:
        **needs_of("publish"),
    params:
        inputs=PLAN.flags("publish"),
        contents=PLAN.contents("publish"),
        settings=PLAN.settings("publish"),
        seed=STUDY.seed,
        code=PLAN.code("publish"),
        where=PLAN.where,
    shell:
        "python -m colpipe.stages.publish {params.inputs} --settings {params.settings:q}"
        " --seed {params.seed} {params.where} --log {log:q}"
