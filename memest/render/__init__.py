"""Pictures of results: a Report in, a text out. One file a format, one function each; no arithmetic beyond formatting."""
