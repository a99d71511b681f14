"""Checkpoints and networks: families, tokenizers, loading, adapters, saving; tools over them."""
