"""The embedded prior: SDXL's parts and folder layout, a thousand times smaller.  Everything here is untrained."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from ..sdxl.manifest import write_manifest
from .captions import WORDS

TOKENS = 16  # longest caption is 13 words and signs, with both end tokens
TEXT_WIDTH = 64  # of each encoder; the U-Net attends to both, 128 numbers a token
START, END = "<|startoftext|>", "<|endoftext|>"


def tokenizer() -> CLIPTokenizer:
    """A CLIP tokenizer that knows the toybox's words, one token each: pairs are merged until every word is whole.

    The same numbers every time: letters are given first, since the trainer would number their forms at a word's end
    as they come out of a hash table, and the networks learn numbers, not words.
    """
    letters = "abcdefghijklmnopqrstuvwxyz,"
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=END))
    bpe.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    bpe.decoder = decoders.BPEDecoder(suffix="</w>")
    trainer = trainers.BpeTrainer(
        vocab_size=10_000,
        min_frequency=1,
        special_tokens=[START, END, *letters, *(f"{letter}</w>" for letter in letters)],
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    bpe.train_from_iterator([*WORDS, *letters], trainer)
    state = json.loads(bpe.to_str())["model"]
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in state["merges"]]
    return CLIPTokenizer(vocab=state["vocab"], merges=merges, model_max_length=TOKENS, unk_token=END, pad_token=END)


def text_config(vocabulary: int, end: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=TEXT_WIDTH,
        intermediate_size=4 * TEXT_WIDTH,
        projection_dim=TEXT_WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=TOKENS,
        hidden_act="gelu",
        bos_token_id=end - 1,
        eos_token_id=end,
        pad_token_id=end,
    )


def vae() -> AutoencoderKL:
    """96 x 96 pictures to 24 x 24 x 4 latents: a factor of 4 where SDXL has 8, since the pictures are small."""
    return AutoencoderKL(
        block_out_channels=(16, 32, 32),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=96,
        mid_block_add_attention=False,
        force_upcast=False,
    )


def unet() -> UNet2DConditionModel:
    """v-prediction on 24 x 24 x 4 latents; attention to the prompt's tokens at 12 x 12 and 6 x 6, prompt vector and
    six numbers (sizes, and the camera in the crop corner's place) in the time embedding, as in SDXL; it scales and
    shifts every block, where SDXL's only shifts."""
    return UNet2DConditionModel(
        sample_size=24,
        block_out_channels=(32, 80, 160),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=1,
        attention_head_dim=(2, 4, 4),
        norm_num_groups=8,
        resnet_time_scale_shift="scale_shift",
        cross_attention_dim=2 * TEXT_WIDTH,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=TEXT_WIDTH + 6 * 8,
    )


def scheduler() -> DDIMScheduler:
    """SDXL's own noise, 1000 steps, scaled linear; what is predicted is v, whose error counts at every noise level."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="leading",
        prediction_type="v_prediction",
    )


def pipeline(seed: int = 0) -> StableDiffusionXLPipeline:
    """All parts with random weights that depend on `seed` alone."""
    torch.manual_seed(seed)
    tokens = tokenizer()
    config = text_config(len(tokens), tokens.convert_tokens_to_ids(END))
    return StableDiffusionXLPipeline(
        vae=vae(),
        text_encoder=CLIPTextModel(config),
        text_encoder_2=CLIPTextModelWithProjection(config),
        tokenizer=tokens,
        tokenizer_2=tokens,
        unet=unet(),
        scheduler=scheduler(),
        add_watermarker=False,
    )


def save(pipe: StableDiffusionXLPipeline, folder: Path) -> None:
    """The pipeline as fp16 safetensors in SDXL's layout (the parts in memory keep their precision)."""
    pipe.save_pretrained(folder, safe_serialization=True)
    for path in folder.rglob("*.safetensors"):
        half = {name: x.half().contiguous() if x.is_floating_point() else x for name, x in load_file(path).items()}
        save_file(half, path, metadata={"format": "pt"})
    facts = {"words": WORDS, "camera": "crop", "guidance_scale": 3.0, "resolution": 48, "render_sizes": [48, 96]}
    (folder / "toybox.json").write_text(json.dumps(facts) + "\n")
    write_manifest(folder)
