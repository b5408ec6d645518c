# Distill: each member of the chain learns from the member before it (Eq. 1, §3.3).
#   in:  the teacher (member before, bridge, or fine-tuned ancestor), what the student starts from, the data
#   out: chain/<ancestor>/<member>/


rule distill:
    input:
        PLAN.manifests("distill"),
    output:
        "<results>/chain/{ancestor}/{member}/manifest.json",
    log:
        "<logs>/distill/{ancestor}/{member}.log",
    priority: 10
    conda:
        ENVIRONMENT
    threads: HALF
    resources:
        **needs_of("distill"),
    params:
        inputs=PLAN.flags("distill"),
        contents=PLAN.contents("distill"),
        settings=PLAN.settings("distill"),
        seed=STUDY.seed,
        code=PLAN.code("distill"),
        where=PLAN.where,
        devices=devices,
    shell:
        "python -m colpipe.launch distill {params.devices} {params.inputs} --settings {params.settings:q}"
        " --seed {params.seed} {params.where} --log {log:q}"


# A DesNet that is distilled on its own, the rival of the chain (Figure 5a).
#   in:  a teacher, which it starts as the subset of, the data
#   out: desnets/<ancestor>/<desnet>/<init>/0/


rule distill_desnet:
    input:
        PLAN.manifests("distill_desnet"),
    output:
        "<results>/desnets/{ancestor}/{desnet}/{init}/0/manifest.json",
    log:
        "<logs>/distill/{ancestor}/{desnet}/{init}.log",
    wildcard_constraints:
        init=PLAN.inits("distilled"),
    conda:
        ENVIRONMENT
    threads: HALF
    resources:
        **needs_of("distill_desnet"),
    params:
        inputs=PLAN.flags("distill_desnet"),
        contents=PLAN.contents("distill_desnet"),
        settings=PLAN.settings("distill_desnet"),
        seed=STUDY.seed,
        code=PLAN.code("distill"),
        where=PLAN.where,
        devices=devices,
    shell:
        "python -m colpipe.launch distill {params.devices} {params.inputs} --settings {params.settings:q}"
        " --seed {params.seed} {params.where} --log {log:q}"


# The teacher's signal, where a study keeps it (stages.distill.signal): computed once for all epochs and students.
#   in:  the teacher, the data
#   out: signals/<ancestor>/<teacher>/   `origin` is the ancestor or its bridge


rule teacher_signal:
    input:
        PLAN.manifests("teacher_signal"),
    output:
        "<results>/signals/{ancestor}/{teacher}/manifest.json",
    log:
        "<logs>/teacher_signal/{ancestor}/{teacher}.log",
    priority: 10
    conda:
        ENVIRONMENT
    threads: HALF
    resources:
        **needs_of("teacher_signal"),
    params:
        inputs=PLAN.flags("teacher_signal"),
        contents=PLAN.contents("teacher_signal"),
        settings=PLAN.settings("teacher_signal"),
        seed=STUDY.seed,
        code=PLAN.code("teacher_signal"),
        where=PLAN.where,
        devices=devices,
    shell:
        "python -m colpipe.launch teacher_signal {params.devices} {params.inputs} --settings {params.settings:q}"
        " --seed {params.seed} {params.where} --log {log:q}"
