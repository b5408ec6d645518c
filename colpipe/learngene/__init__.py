"""Index maps and initialisers."""
