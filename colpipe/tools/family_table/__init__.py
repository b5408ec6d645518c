"""A table guessed from tiny random models: what `colpipe family` prints."""
