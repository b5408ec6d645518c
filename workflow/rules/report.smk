# Report: the summary table and the page.
#   in:  every score, the curves of every recovery
#   out: report.html, summary.csv, summary.txt


rule report:
    input:
        PLAN.manifests("report"),
    output:
        page="<results>/report.html",
        summary="<results>/summary.csv",
        text="<results>/summary.txt",
    log:
        "<logs>/report.log",
    conda:
        ENVIRONMENT
    resources:
        **needs_of("report"),
    params:
        contents=PLAN.contents("report"),
        settings=PLAN.settings("report"),
        code=PLAN.code("report"),
        where=PLAN.where,
    shell:
        "python -m colpipe.stages.report --settings {params.settings:q}" " {params.where} --log {log:q}"
