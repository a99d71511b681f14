"""The configuration of an experiment: schema, files, checks. `load` is the door.

Must not know what a config is used for. Import the modules; nothing is re-exported here.
"""
