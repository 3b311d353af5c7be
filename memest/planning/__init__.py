"""Planning: many estimates at once, the largest that fits, two side by side."""
