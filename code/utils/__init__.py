"""The names that a notebook or a script imports: paths, device, past runs, dialogues.

Nothing is decided here; each module re-exports from dialsum, which never imports this package.
"""
