"""Whole consortia on one machine: recipes, runs through Flower or in one process, comparisons."""
