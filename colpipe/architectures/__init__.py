"""Model families as tables of named axes, and what follows from a table alone: counts, FLOPs, memory."""
