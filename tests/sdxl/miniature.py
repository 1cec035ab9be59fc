"""SDXL in miniature (90,000 random weights): every peculiarity of SDXL base that the toybox does not have.

two text encoders of different widths, tokenizers that pad with different tokens        encoder 2's pooled vector
SDXL's own EulerDiscrete scheduler        a VAE of factor 8 with attention, scaling_factor 0.13025, force_upcast
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from jsdsd.toybox import model

WIDTHS = (32, 48)
WINDOW = 40  # tokens


def tokenizers() -> tuple[CLIPTokenizer, CLIPTokenizer]:
    vocab = dict(model.tokenizer().get_vocab())
    vocab["!"] = len(vocab)
    same: dict[str, Any] = {"vocab": vocab, "merges": [], "model_max_length": WINDOW, "unk_token": model.END}
    return CLIPTokenizer(**same, pad_token=model.END), CLIPTokenizer(**same, pad_token="!")


def text_config(width: int, tokens: CLIPTokenizer, act: str) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokens), hidden_size=width, intermediate_size=2 * width, projection_dim=width,
        num_hidden_layers=3, num_attention_heads=2, max_position_embeddings=WINDOW, hidden_act=act, pad_token_id=1,
        bos_token_id=0, eos_token_id=2,  # as SDXL's: 2 means that the pooled vector is at the highest token id
    )  # fmt: skip


def pipeline(
    prediction_type: str = "epsilon", force_zeros: bool = True, seed: int = 0, sample_size: int = 8
) -> StableDiffusionXLPipeline:
    one, two = tokenizers()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            sample_size=sample_size, block_out_channels=(16, 32), layers_per_block=2, norm_num_groups=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2), attention_head_dim=(1, 2), cross_attention_dim=sum(WIDTHS),
            use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=WIDTHS[1] + 6 * 8,
        )  # fmt: skip
        vae = AutoencoderKL(
            block_out_channels=(4, 8, 8, 8), down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=1, latent_channels=4, norm_num_groups=4,
            sample_size=64, scaling_factor=0.13025, force_upcast=True,
        )  # fmt: skip
        encoder = CLIPTextModel(text_config(WIDTHS[0], one, "quick_gelu"))
        encoder_2 = CLIPTextModelWithProjection(text_config(WIDTHS[1], two, "gelu"))
    for part in (encoder, encoder_2):
        for parameter in part.parameters():
            parameter.data *= 5  # prompts that differ visibly
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, timestep_spacing="leading",
        prediction_type=prediction_type,
    )  # fmt: skip
    return StableDiffusionXLPipeline(
        vae=vae, text_encoder=encoder, text_encoder_2=encoder_2, tokenizer=one, tokenizer_2=two, unet=unet,
        scheduler=scheduler, force_zeros_for_empty_prompt=force_zeros, add_watermarker=False,
    )  # fmt: skip


def stable_diffusion(prediction_type: str = "epsilon", seed: int = 0, sample_size: int = 8) -> StableDiffusionPipeline:
    """The same for Stable Diffusion 1 and 2: one text encoder, a U-Net that is told nothing besides its tokens."""
    large = pipeline(prediction_type, seed=seed, sample_size=sample_size)
    config = {k: v for k, v in large.unet.config.items() if not k.startswith(("_", "addition", "projection"))}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(**config | {"cross_attention_dim": WIDTHS[0]})
    return StableDiffusionPipeline(
        vae=large.vae, text_encoder=large.text_encoder, tokenizer=large.tokenizer, unet=unet, scheduler=large.scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def save_single_file(pipe: StableDiffusionXLPipeline, file: Path) -> None:
    """All weights in one file with the names of the original release, as sd_xl_base_1.0.safetensors has them."""
    out = {f"model.diffusion_model.{_unet(k, pipe)}": v for k, v in pipe.unet.state_dict().items()}
    out |= {f"first_stage_model.{_vae(k)}": _conv(k, v) for k, v in pipe.vae.state_dict().items()}
    first = {k.removeprefix("text_model."): v for k, v in pipe.text_encoder.state_dict().items()}
    out |= {f"conditioner.embedders.0.transformer.text_model.{k}": v for k, v in first.items()}
    out |= {f"conditioner.embedders.1.model.{k}": v for k, v in _open_clip(pipe.text_encoder_2.state_dict()).items()}
    save_file({k: v.contiguous() for k, v in out.items()}, file)


def _replaced(name: str, *pairs: tuple[str, str]) -> str:
    for old, new in pairs:
        name = name.replace(old, new)
    return name


RESNET = (
    ("norm1", "in_layers.0"), ("conv1", "in_layers.2"), ("norm2", "out_layers.0"), ("conv2", "out_layers.3"),
    ("time_emb_proj", "emb_layers.1"), ("conv_shortcut", "skip_connection"),
)  # fmt: skip


def _unet(name: str, pipe: StableDiffusionXLPipeline) -> str:
    parts = name.split(".")
    layers = pipe.unet.config.layers_per_block
    if parts[0] == "mid_block":
        index = 1 if parts[1] == "attentions" else 2 * int(parts[2])
        head, rest = f"middle_block.{index}", ".".join(parts[3:])
    elif parts[0] in ("down_blocks", "up_blocks"):
        block, kind, layer, rest = int(parts[1]), parts[2], int(parts[3]), ".".join(parts[4:])
        side = "input_blocks" if parts[0] == "down_blocks" else "output_blocks"
        if kind == "downsamplers":
            return f"{side}.{(block + 1) * (layers + 1)}.0.op.{parts[-1]}"
        if kind == "upsamplers":
            attention = "CrossAttn" in pipe.unet.config.up_block_types[block]
            return f"{side}.{block * (layers + 1) + layers}.{2 if attention else 1}.conv.{parts[-1]}"
        head = f"{side}.{block * (layers + 1) + layer + (side == 'input_blocks')}.{int(kind == 'attentions')}"
    else:
        return _replaced(
            name, ("time_embedding.linear_1", "time_embed.0"), ("time_embedding.linear_2", "time_embed.2"),
            ("add_embedding.linear_1", "label_emb.0.0"), ("add_embedding.linear_2", "label_emb.0.2"),
            ("conv_in", "input_blocks.0.0"), ("conv_norm_out", "out.0"), ("conv_out", "out.2"),
        )  # fmt: skip
    return f"{head}.{rest if 'attentions' in name else _replaced(rest, *RESNET)}"


def _vae(name: str) -> str:
    for i in range(4):
        name = name.replace(f"up_blocks.{i}.", f"up.{3 - i}.")
    return _replaced(
        name, ("down_blocks", "down"), ("mid_block.attentions.0", "mid.attn_1"), ("downsamplers.0", "downsample"),
        ("upsamplers.0", "upsample"), ("mid_block.resnets.0", "mid.block_1"), ("mid_block.resnets.1", "mid.block_2"),
        ("resnets", "block"), ("conv_shortcut", "nin_shortcut"), ("conv_norm_out", "norm_out"), ("group_norm", "norm"),
        ("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out"),
    )  # fmt: skip


def _conv(name: str, x: torch.Tensor) -> torch.Tensor:
    """The original's attention is made of 1 x 1 convolutions."""
    return x[:, :, None, None] if "attentions" in name and name.endswith("weight") and x.ndim == 2 else x


def _open_clip(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    out = {"text_projection": state["text_projection.weight"].T}
    for name, x in state.items():
        new = _replaced(
            name, ("text_model.encoder.layers", "transformer.resblocks"), ("layer_norm", "ln_"), ("self_attn", "attn"),
            ("fc1", "c_fc"), ("fc2", "c_proj"), ("text_model.final_ln_", "ln_final"),
            ("text_model.final_layer_norm", "ln_final"),
            ("text_model.embeddings.token_embedding.weight", "token_embedding.weight"),
            ("text_model.embeddings.position_embedding.weight", "positional_embedding"),
        )  # fmt: skip
        if "q_proj" in name:
            three = [state[name.replace("q_proj", f"{p}_proj")] for p in "qkv"]
            out[_replaced(new, ("q_proj.", "in_proj_"))] = torch.cat(three)
        elif not any(p in name for p in ("k_proj", "v_proj", "text_projection", "position_ids")):
            out[new] = x
    return out
