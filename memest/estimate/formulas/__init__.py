"""Closed forms: an estimate as expressions of the sizes its graph names, exact to the byte, and their printed forms.

sympy is imported in ``memest.estimate.formulas.symbolic`` alone.
"""
