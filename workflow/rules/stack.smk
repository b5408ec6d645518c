# Stack: small models in sequence, the rival of one DesNet (FSLM, Table 12).
#   in:  a member of the chain, its ancestor or bridge, tasks
#   out: scores/stacks/<stack>/scores.json


rule stack:
    input:
        PLAN.manifests("stack"),
    output:
        "<results>/scores/stacks/{stack}/manifest.json",
    log:
        "<logs>/stack/{stack}.log",
    conda:
        ENVIRONMENT
    resources:
        **needs_of("stack"),
    params:
        inputs=PLAN.flags("stack"),
        contents=PLAN.contents("stack"),
        settings=PLAN.settings("stack"),
        seed=STUDY.seed,
        code=PLAN.code("stack"),
        where=PLAN.where,
        devices=devices,
    shell:
        "python -m colpipe.launch stack {params.devices} {params.inputs} --settings {params.settings:q}"
        " --seed {params.seed} {params.where} --log {log:q}"
