"""`python -m tests.gpu`: what colpipe computes on an accelerator, against float64 on the CPU, and how fast it is there."""
