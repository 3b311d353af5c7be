"""Allocators, replayed: what a stream of requests makes a machine set aside. They know bytes and no operator."""
