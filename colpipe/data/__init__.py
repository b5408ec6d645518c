"""Sources, readers, prompts and prepared data."""
