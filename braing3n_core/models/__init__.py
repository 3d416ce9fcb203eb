"""The networks: masked autoencoder, latent decoder and diffusion transformer, each a page of shapes."""
