"""From a trained generator to a synthetic cohort: conditions, volumes, BIDS folder, report."""
