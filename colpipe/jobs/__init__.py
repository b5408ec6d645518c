"""One run of one stage: command line, devices, state, the account of what it uses, the finished artifact."""
