"""Pictures by matplotlib, PNG or SVG by suffix: the only place that touches it. A figure is drawn without its global state (no pyplot, no
user style), so the same data give the same file."""
