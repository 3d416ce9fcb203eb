"""What both sides of the federation share: plan, data, models, training, metrics. Knows nothing of Flower, sites or servers."""
