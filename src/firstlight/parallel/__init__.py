"""Techniques applied to a model from outside, in one visible order; the model knows none of them."""
