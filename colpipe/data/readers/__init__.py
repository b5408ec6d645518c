"""One module per data set, in its published schema; `colpipe.data.records` says what they yield."""
