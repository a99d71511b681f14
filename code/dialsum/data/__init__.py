"""Everything that happens to text before a model sees it, from the CSV border to token ids.

Must not know models, training or scores. Import the modules; nothing is re-exported here.
"""
