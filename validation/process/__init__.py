"""The resident set of processes that run torch on a CPU: measured, recorded, and held beside what is predicted."""
