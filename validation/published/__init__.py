"""Training runs that others measured on GPUs and published, rebuilt and predicted."""
