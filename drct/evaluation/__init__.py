"""How good results are: metrics, validation, reports and their comparison."""
