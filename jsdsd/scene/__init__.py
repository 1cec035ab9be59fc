"""WHAT is optimised and shown: voxels, cameras, renderer, assets, meshes.  Knows no diffusion model."""
