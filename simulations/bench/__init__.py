"""Measurements of cost: what a model needs before it runs, and how fast it samples beside others."""
