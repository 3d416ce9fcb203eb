"""The consortium's side: rounds, aggregation, checkpoints and the release."""
