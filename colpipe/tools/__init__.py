"""What is run by hand, beside the pipeline: `python -m colpipe.tools.<tool>`."""
