# Bridge: an ancestor of another family or vocabulary teaches through its answers (Eq. 2, §3.2).
#   in:  the fine-tuned ancestor, instructions; a model of the chain's architecture
#   out: answers/<ancestor>/   prompts with the ancestor's answers
#        bridges/<ancestor>/   the bridge, first teacher of the chain


rule bridge_answers:
    input:
        PLAN.manifests("bridge_answers"),
    output:
        "<results>/answers/{ancestor}/manifest.json",
    log:
        "<logs>/bridge_answers/{ancestor}.log",
    priority: 10
    conda:
        ENVIRONMENT
    threads: HALF
    resources:
        **needs_of("bridge_answers"),
    params:
        inputs=PLAN.flags("bridge_answers"),
        contents=PLAN.contents("bridge_answers"),
        settings=PLAN.settings("bridge_answers"),
        seed=STUDY.seed,
        code=PLAN.code("bridge_answers"),
        where=PLAN.where,
        devices=devices,
    shell:
        "python -m colpipe.launch bridge_answers {params.devices} {params.inputs} --settings {params.settings:q}"
        " --seed {params.seed} {params.where} --log {log:q}"


rule bridge:
    input:
        PLAN.manifests("bridge"),
    output:
        "<results>/bridges/{ancestor}/manifest.json",
    log:
        "<logs>/bridge/{ancestor}.log",
    priority: 10
    conda:
        ENVIRONMENT
    threads: HALF
    resources:
        **needs_of("bridge"),
    params:
        inputs=PLAN.flags("bridge"),
        contents=PLAN.contents("bridge"),
        settings=PLAN.settings("bridge"),
        seed=STUDY.seed,
        code=PLAN.code("bridge"),
        where=PLAN.where,
        devices=devices,
    shell:
        "python -m colpipe.launch bridge {params.devices} {params.inputs} --settings {params.settings:q}"
        " --seed {params.seed} {params.where} --log {log:q}"
