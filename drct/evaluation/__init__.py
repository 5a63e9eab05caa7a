"""Measuring results: metrics, validation, reports of test runs and their comparison."""
