"""The answer to one question: what a step needs, and what it is made of."""
