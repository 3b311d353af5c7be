"""What other estimators say of a network: each one's rule, read in its source and rebuilt over the same facts, one file a tool.

A tool's figure is a sum of terms (``said``); ``explaining`` lays it beside ours and says the difference item by item, to the byte.
"""
