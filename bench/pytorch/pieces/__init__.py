"""Single pieces of the model, timed under the names that hearth-bench gives them."""
