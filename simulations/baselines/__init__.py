"""What a hospital could use in our place, trained here on the same phantoms: MONAI's latent diffusion, PCA, the mean volume."""
