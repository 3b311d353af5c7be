"""What the families share of ATen: iterators, copies, reductions, products, views."""
