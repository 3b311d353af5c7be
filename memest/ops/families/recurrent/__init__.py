"""Recurrent networks: their cells, and layers of them."""
