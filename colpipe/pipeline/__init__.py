"""A study as a graph of jobs: the rule table, and what Snakemake is told of it."""
