"""Stock transformers models: loading, saving, and counting what goes through them."""
