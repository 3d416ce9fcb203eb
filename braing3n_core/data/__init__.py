"""From a hospital's files to tensors on the plan's grid, and phantoms written as an ordinary BIDS folder."""
