# %% [markdown]
# # 8. Inside the toybox
#
# The embedded model is a real text-to-image diffusion model with all of SDXL's parts: a VAE, two text encoders, a
# U-Net that hears the prompt in two ways, a noise schedule. It has a thousand times fewer weights and a world so
# small that everything about it is known: toys of known shape and colour, seen from known sides. So we can look at
# each part, train a bit of it here, and ask questions that nobody can answer for SDXL.
#
# ## What you will learn
#
# - how captioned pictures are made, and why words are left out of captions at random;
# - what tokens, prompt vectors and latents are in a model of this kind;
# - the training loop of a diffusion model, run for a minute from nothing;
# - why noise levels are weighed in training;
# - how to use the result as an ordinary diffusers pipeline.
#
# The full training is `make train`; its recipe and its failures are on the [model card](../docs/toybox.md).

# %%
import os

import matplotlib.pyplot as plt
import torch

import jsdsd
from jsdsd.scene.views import camera_corner
from jsdsd.sdxl.guidance import Guidance
from jsdsd.toybox.captions import parse
from jsdsd.toybox.dataset import joined, render_scene
from jsdsd.toybox.train import Prior

FAST = os.environ.get("JSDSD_FAST") == "1"  # fewer scenes and steps: a check in seconds
SEED = 0  # of scenes, noise and weights
SCENES = 8 if FAST else 48  # of 8 pictures each; the toybox saw thousands
BATCH = 8 if FAST else 32  # pictures per training step
STEPS = 24 if FAST else 120  # of training, here; the toybox took thousands
RATE = 2e-3  # AdamW's learning rate
LEVELS = (100, 300, 500, 700, 900)  # noise levels at which errors are compared
PROMPTS = ("a red mushroom, front view", "a blue car, right side view", "a yellow duck", "a green cactus")  # drawn last

# %% [markdown]
# ## Pictures, with captions that are true
#
# A scene has a toy or two and eight cameras; the light is always the same. Rays are walked through the toys' distance
# functions, so the pictures have no voxels. Colours are painted on when a picture is used, before a random plain
# background. The caption names kind, colour and view, and then words are left out at random, without looking at the
# picture. So the model learns "a red mushroom", "a mushroom", "something red" and the empty prompt from the same
# pictures. The empty prompt is what guidance compares with.
#
# **Claim.** Whatever is left out, what is said is true: parsed again, each shortened caption agrees with its
# picture's colours, kinds and view.

# %%
generator = torch.Generator().manual_seed(SEED)
known = joined([render_scene(index, SEED) for index in range(0, 7 * SCENES, 7)])
names = list(jsdsd.toybox.COLOURS)
sentences, numbers, colours = known.variants(1, SEED)  # one choice of colours and one caption for each picture
captions, colours = [sentences[i] for i in numbers[:, 0].tolist()], colours[:, 0]  # (N,) and (N, 2)
for label, painted, text in zip(known.labels, colours.tolist(), captions, strict=True):
    if text:
        said = parse(text)
        for (kind, colour), (true_kind, _), number in zip(said.toys, label.toys, painted, strict=False):
            assert kind in (None, true_kind) and colour in (None, names[number])
        assert said.view in (None, label.view) or (said.view == "side" and "side" in label.view)
print(f"{len(captions)} captions, {sum(not c for c in captions)} of them empty")
backgrounds = torch.rand(len(known), 3, generator=generator)
pictures = known.painted(torch.arange(len(known)), colours, backgrounds).movedim(1, -1) / 2 + 0.5  # (N, 96, 96, 3)

fig, axes = plt.subplots(2, 4, figsize=(11, 6))
for ax, i in zip(axes.flat, range(0, len(known), max(1, len(known) // 8)), strict=False):
    ax.imshow(pictures[i].clamp(0, 1).numpy())
    ax.set_title(f"“{captions[i]}”", fontsize=8)
    ax.axis("off")

# %% [markdown]
# ## A distribution that is known
#
# Since words are dropped without looking, "a mug" means: any colour, any side, in the proportions of the data. These
# are known. No other text-to-image model can be asked whether its samples have the *right* diversity.
#
# **Claim.** Painted 4,000 times, a toy has each of the eight colours 500 times, give or take chance (four standard
# deviations are 84), and `attributes` says so.

# %%
_, _, many = joined([render_scene(0, SEED, views=1)]).variants(4000, SEED)
counts = dict(zip(names, torch.bincount(many[0, :, 0], minlength=8).tolist(), strict=True))
truth = jsdsd.toybox.attributes("a mug")[0]["colour"]
print(counts)
assert all(abs(count - 4000 * truth[colour]) < 84 for colour, count in counts.items())

fig, ax = plt.subplots(figsize=(6, 2.6))
ax.bar(list(counts), list(counts.values()), color=[jsdsd.toybox.COLOURS[colour] for colour in counts], edgecolor="gray")
ax.set_title("4,000 paintings, by colour", fontsize=9)

# %% [markdown]
# ## Words become vectors
#
# The tokenizer knows the toybox's words, one token each, between a start and an end mark. Two small CLIP text
# encoders make of them one vector per token, which the U-Net's attention reads, and one vector per prompt, which is
# added to the noise level's embedding. SDXL does the same, with larger encoders.
#
# **Claim.** A caption of n words has n + 2 tokens, and captions that mean different things get different prompt
# vectors.

# %%
guidance = Guidance.load("toybox")
sentences = ["a red mushroom", "a red mug", "a blue mushroom", "a blue mug", "something red", "a mushroom"]
for text in sentences:
    tokens = guidance.pipe.tokenizer(text).input_ids
    assert len(tokens) == len(text.split()) + 2, text
vectors = guidance.encode_prompts(sentences).vectors  # (6, 64)
distance = torch.cdist(vectors, vectors)
assert (distance + 9 * torch.eye(len(sentences)) > 1e-3).all()

fig, ax = plt.subplots(figsize=(4.6, 3.8))
shown = ax.imshow(distance.numpy())
ax.set_xticks(range(len(sentences)), sentences, rotation=60, ha="right", fontsize=7)
ax.set_yticks(range(len(sentences)), sentences, fontsize=7)
fig.colorbar(shown, label="distance of the prompt vectors")

# %% [markdown]
# ### Exercise 1
#
# Read the picture: does the encoder put "a red mushroom" nearer to "a red mug" or to "a blue mushroom"? Does it have
# to keep colours and kinds apart in this vector?
#
# *Hint.* The U-Net sees the single tokens too.

# %%
# your turn

# %% [markdown]
# ## Pictures become latents
#
# The VAE was trained first, alone. Its code has a scale of its own; it is multiplied by `scaling_factor`, so that the
# schedule, made for data of size 1, fits. Forget this factor and everything runs, and comes out wrong.
#
# **Claim.** The scaled latents of the pictures have a standard deviation near 1 (between 0.6 and 1.5), and decode to
# the pictures within 0.1 in the mean.

# %%
latents = guidance.encode_images(pictures).detach()  # (N, 4, h, w)
few = torch.arange(0, len(pictures), len(pictures) // 4)[:4]  # of different scenes
back = guidance.decode_latents(latents[few])
small = torch.nn.functional.interpolate(pictures[few].movedim(-1, 1), back.shape[1], mode="area").movedim(1, -1)
error = float((back - small).abs().mean())
print(f"latents {tuple(latents.shape)}, std {latents.std():.2f}, scaling factor {guidance.vae.config.scaling_factor}")
print(f"mean error of decoded pictures {error:.3f}")
assert 0.6 < latents.std() < 1.5
assert error < 0.1

fig, axes = plt.subplots(2, 4, figsize=(9, 4.6))
for column, (before, after) in enumerate(zip(small, back, strict=True)):
    axes[0, column].imshow(before.numpy())
    axes[1, column].imshow(after.numpy())
    axes[0, column].set_title("picture", fontsize=8)
    axes[1, column].set_title("encoded and decoded", fontsize=8)
for ax in axes.flat:
    ax.axis("off")

# %% [markdown]
# ## A minute of training, from nothing
#
# The loop is short: take latents, noise them to random levels, predict the noise, square the error (Ho et al. 2020):
#
#     x_t  = alpha x0 + sigma eps
#     loss = |predict(x_t, t, caption) - eps|²
#
# A network that says "no noise" has a loss of 1.
#
# **Claim.** Within this short run the loss falls well below 1: by more than a fifth between the first and the last
# quarter.

# %%
prior = Prior(SEED)  # random weights: both text encoders and the U-Net
adam = torch.optim.AdamW(prior.parameters(), RATE)
schedule, losses = guidance.schedule, []
words, empty = prior.tokens(captions), torch.tensor([text == "" for text in captions])  # empty: SDXL's zero embedding
corners = camera_corner(*known.cameras.T)  # (N, 2): the exact camera, told in the place of SDXL's crop corner
for _ in range(STEPS):
    index = torch.randint(len(latents), (BATCH,), generator=generator)
    t = torch.randint(1000, (BATCH,), generator=generator)
    eps = torch.randn(latents[index].shape, generator=generator)
    x_t = schedule.add_noise(latents[index], eps, t)
    loss = (prior(x_t, t, words[index], empty[index], corners[index]) - eps).square().mean()
    adam.zero_grad()
    loss.backward()
    adam.step()
    losses.append(float(loss.detach()))
quarter = STEPS // 4
first, last = sum(losses[:quarter]) / quarter, sum(losses[-quarter:]) / quarter
print(f"loss {first:.2f} at first, {last:.2f} at last; {sum(p.numel() for p in prior.parameters()):,} weights")
assert last < 0.8 * first

fig, ax = plt.subplots(figsize=(5, 3))
ax.plot(losses, color="crimson")
ax.axhline(1, color="gray", linewidth=0.5)
ax.set(xlabel="step", ylabel="loss")

# %% [markdown]
# ## Noise levels are not equal
#
# At high t the picture is nearly all noise, and saying "the noise is x_t" is nearly right; at low t little noise is
# left to see. An error of the noise there is no error of the picture: min-SNR weighting (arXiv 2303.09556, not
# re-read) takes the low levels back,
#
#     weight = min(1, 5/SNR),      SNR = alpha²/sigma²
#
# **Claim.** The noise error falls with t, for the trained toybox and for our minute of training; and the toybox is
# better at every level than what a minute makes.

# %%
prior.eval()
eps = torch.randn(latents[:48].shape, generator=generator)
embeddings = guidance.encode_prompts(captions[:48]).seen_from(corners[:48])
errors = {"toybox": [], "a minute": []}
with torch.no_grad():
    for t in LEVELS:
        x_t = schedule.add_noise(latents[:48], eps, t)
        trained = guidance.predict_eps(x_t, t, embeddings, 1.0)
        ours = prior(x_t, torch.full((len(eps),), t), words[:48], empty[:48], corners[:48])
        errors["toybox"].append(float((trained - eps).square().mean()))
        errors["a minute"].append(float((ours - eps).square().mean()))
        print(f"t = {t}: toybox {errors['toybox'][-1]:.3f}, a minute {errors['a minute'][-1]:.3f}")
assert all(a < b for a, b in zip(errors["toybox"], errors["a minute"], strict=True))
assert all(values == sorted(values, reverse=True) for values in errors.values())

fig, (left, right) = plt.subplots(1, 2, figsize=(9, 3))
for name, values in errors.items():
    left.plot(LEVELS, values, "o-", label=name)
left.set(xlabel="t", ylabel="error of the noise")
left.legend()
snr = schedule.alphas_cumprod / (1 - schedule.alphas_cumprod)
right.plot((5 / snr).clamp(max=1), color="crimson")
right.set(xlabel="t", ylabel="min-SNR weight")

# %% [markdown]
# ### Exercise 2
#
# Train with the min-SNR weight for the same number of steps. At which levels is the result better, at which worse?
#
# *Hint.* `w = (5 / snr).clamp(max=1)[t]`; average the squared error over each picture first, then weigh.

# %%
# your turn

# %% [markdown]
# ## An ordinary pipeline
#
# The folder is in diffusers' layout, so that everything written for SDXL works with it.
#
# **Claim.** diffusers' own `StableDiffusionXLPipeline` draws from it, and the same seed draws the same pictures.


# %%
def draw(seed):
    return guidance.pipe(
        list(PROMPTS), num_inference_steps=4 if FAST else 25, guidance_scale=3.0, output_type="np",
        generator=torch.Generator().manual_seed(seed),
    ).images  # fmt: skip


guidance.pipe.set_progress_bar_config(disable=True)
drawn = draw(SEED)
assert type(guidance.pipe).__module__.startswith("diffusers.")
assert drawn.shape[0] == len(PROMPTS) and 0 <= drawn.min() <= drawn.max() <= 1
assert abs(drawn - draw(SEED)).max() < 1e-4

fig, axes = plt.subplots(1, len(PROMPTS), figsize=(10, 2.8))
for ax, image, text in zip(axes, drawn, PROMPTS, strict=True):
    ax.imshow(image)
    ax.set_title(text, fontsize=8)
    ax.axis("off")

# %% [markdown]
# ### Exercise 3
#
# Is "a mug" drawn in all eight colours equally often? Count, over 64 samples, with your eyes or with
# `benchmarks.evidence.judge`.
#
# *Hint.* Guidance sharpens: compare guidance_scale 1 and 7.5 with the true uniform distribution by
# `JensenShannon().discrete`.

# %%
# your turn

# %% [markdown]
# ## What was left out
#
# - **The VAE's training**: absolute and squared errors of the picture and of its edges, and a light pull to N(0, I).
# - **The toybox predicts v** = alpha eps - sigma x0, not the noise, and its weight of a level has a second factor,
#   sqrt(1 + 1/SNR): the [model card](../docs/toybox.md) says why.
# - **A moving average of the weights**, warm-up, a falling learning rate, checkpoints: `jsdsd/toybox/train.py`, all
#   of it readable.
# - **Thousands of steps.** The views are learned late; a minute teaches blobs of the right colour at best.
# - **Photographs.** SDXL's data are not known, and neither is its p(picture | prompt).
#
# Next: [9. The real SDXL on a GPU](09_the_real_sdxl_on_a_gpu.py).
