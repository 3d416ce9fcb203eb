"""What things cost, measured side by side in one process: privacy, sampling, and what a model needs before it runs."""
