"""Published figures that the planner is held against: one module for each group of categories, and the cases."""
