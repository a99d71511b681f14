"""A batch of experiments around their processes: plan, checks before the start, queue, hand-over.

Must not import torch, transformers, pandas or datasets anywhere below: the runner starts at once
and owns no GPU memory.
"""
