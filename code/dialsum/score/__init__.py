"""From predictions and references to scores that carry their recipe. `api` is the door.

Must not know models, training or where files lie. Imports no torch; numpy and the tokenisers load
when first used.
"""
