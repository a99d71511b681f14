"""Networks: families, loading, quantisation, adapters, tiny models, generation."""
