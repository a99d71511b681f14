"""Fine-tuning experiments in Korean dialogue summarisation. Importing this costs nothing."""

__version__ = "0.1.0"
