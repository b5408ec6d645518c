"""What jobs cost: operations, tokens and memory, from sizes alone (no torch here)."""
