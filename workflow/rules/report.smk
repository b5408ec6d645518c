# Report: the summary table and the page.
#   in:  every score, the curves of every recovery; tables and figures of the paper that are there
#   out: report.html, summary.csv, cost.csv, summary.txt


rule report:
    """The page, the summary and its table."""
    input:
        inputs_of("report"),
    output:
        page=report(
            "<results>/report.html",
            caption="../report/page.rst",
            category="Study",
            labels={"file": "page", "shows": "everything"},
        ),
        summary=report(
            "<results>/summary.csv",
            caption="../report/summary.rst",
            category="Study",
            labels={"file": "summary.csv", "shows": "every score"},
        ),
        cost=report(
            "<results>/cost.csv",
            caption="../report/cost.rst",
            category="Study",
            labels={"file": "cost.csv", "shows": "what it was estimated to cost, and what it cost"},
        ),
        text=report(
            "<results>/summary.txt",
            caption="../report/text.rst",
            category="Study",
            labels={"file": "summary.txt", "shows": "main scores"},
        ),
    log:
        "<logs>/report.log",
    conda:
        ENVIRONMENT
    resources:
        **resources_of("report"),
    params:
        **PLAN.params("report", inputs=False),
    shell:
        RUN
