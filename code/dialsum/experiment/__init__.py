"""One experiment, from config to record, in the order in which it happens."""
