"""Generation, scores and perplexity."""
