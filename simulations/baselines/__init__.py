"""What a hospital could use in our place: MONAI's latent diffusion trained on the same phantoms, PCA, the mean volume."""
