"""What jobs cost: FLOPs, tokens and memory, from sizes alone (no torch here)."""
