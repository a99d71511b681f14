"""Training: config to trainer arguments, the fit, tracking of its progress."""
