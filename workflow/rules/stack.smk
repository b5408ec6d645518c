# Stack: small models in sequence, the baseline for one DesNet (FSLM, Table 12).
#   in:  a member of the chain, its ancestor or bridge, tasks
#   out: scores/stacks/<stack>/scores.json


rule stack:
    input:
        inputs_of("stack"),
    output:
        "<results>/scores/stacks/{stack}/manifest.json",
    log:
        "<logs>/stack/{stack}.log",
    conda:
        ENVIRONMENT
    resources:
        **resources_of("stack"),
    params:
        **PLAN.params("stack"),
    shell:
        LAUNCH
