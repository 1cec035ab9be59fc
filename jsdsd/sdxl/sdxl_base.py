"""SDXL base 1.0's sizes, written out from its public configuration files; no weights.

For the memory plan before a download, and for `make sdxl-full`, which runs a step of it with random weights.
Source: the config.json files of stabilityai/stable-diffusion-xl-base-1.0 (from memory, checked by the known numbers of
weights: 2,567,463,684 in the U-Net, 83,653,863 in the VAE).
"""

from __future__ import annotations

from typing import Any

UNET: dict[str, Any] = {
    "sample_size": 128,  # latents; pictures of 1024 pixels
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (320, 640, 1280),
    "layers_per_block": 2,
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),  # diffusers' name for the number of heads
    "cross_attention_dim": 2048,  # 768 + 1280, the two text encoders side by side
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,  # 1280 + 6 * 256
}
VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 1024,
    "scaling_factor": 0.13025,
    "force_upcast": True,
}
TEXT_WEIGHTS = (
    123_060_480 + 694_659_840
)  # CLIP ViT-L and OpenCLIP bigG with its projection, as transformers builds them
SCHEDULER: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
    "steps_offset": 1,
    "timestep_spacing": "leading",
}
