"""T3Bench: meshes where its scripts look, standing as its cameras stand, in colours that its renderer shows.

The paths, the shell command and the camera are those of run_eval_quality.py, run_caption.py and render/meshrender.py.
"""

from __future__ import annotations

import glob
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from jsdsd import Asset, VoxelGrid, jobs

X = torch.linspace(-1, 1, 24)
Z, Y = X[:, None, None].expand(24, 24, 24), X[:, None].expand(24, 24, 24)


def ball(steps: int = 1) -> Asset:
    """Red below, green above, and blue comes in on the right of who looks at its front."""
    colour = torch.stack([(Z < 0).float(), (Z >= 0).float(), (X > 0).float().expand(24, 24, 24)])
    density = 30.0 * ((X**2 + Y**2 + Z**2) < 0.4)
    return Asset(VoxelGrid.from_fields(density, colour), "a ball", {}, [{}] * steps)


def found(prompt: str) -> str:
    """The argument that the mesh renderer is given, from the folder that T3Bench's scripts are started in."""
    pattern = f'outputs_mesh_t3/mine_single/{prompt.replace(" ", "_")}*/save/it*-export/model.obj'
    path = (glob.glob(pattern) or ["outputs_mesh_t3/FALSE_PATH"])[-1].replace("'", "\\'")
    return subprocess.run(f"printf %s {path}", shell=True, capture_output=True, text=True).stdout


def test_a_mesh_is_found_and_one_of_a_shorter_run_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for prompt in ("A cactus, it's pink", "An explorer\u2019s map, 1:100!", "100% ~new #1 cat-food = @home."):
        folder = jobs.t3bench_folder(Path(), "mine", "single", prompt, 3)
        for steps in (2, 5):
            jobs.save_t3bench(ball(steps), folder)
        assert list(folder.glob("save/*/*")) == [folder / "save/it5-export/model.obj"]
        assert found(prompt) == str(folder / "save/it5-export/model.obj")


@pytest.mark.parametrize("sign", jobs.T3BENCH_CANNOT)
def test_a_prompt_is_refused_where_the_scripts_would_miss_its_mesh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sign: str
) -> None:
    monkeypatch.chdir(tmp_path)
    prompt = "a [b] a" if sign in "[]" else f"a {sign}b a"
    with pytest.raises(ValueError, match="T3Bench's scripts hand a prompt to glob and to a shell"):
        jobs.t3bench_folder(Path(), "mine", "single", prompt, 0)
    if sign not in "/?*":  # no file's name, or matches other names besides its own
        mesh = Path(f"outputs_mesh_t3/mine_single/{prompt.replace(' ', '_')}@0/save/it1-export/model.obj")
        mesh.parent.mkdir(parents=True)
        mesh.touch()
        assert found(prompt) != str(mesh)


def test_the_mesh_stands_upright_in_a_world_with_z_up_and_keeps_its_colours(tmp_path: Path) -> None:
    jobs.save_t3bench(ball(), tmp_path)
    mesh = trimesh.load(tmp_path / "save/it1-export/model.obj")
    assert isinstance(mesh, trimesh.Trimesh) and mesh.visual.kind == "vertex"  # what pyrender draws without a texture
    colours = mesh.visual.vertex_colors[:, :3]
    x, y, z = mesh.vertices.T
    for part, expected in (((z > 0.2) & (x > 0.2), [0, 255, 255]), ((z < -0.2) & (x < -0.2), [255, 0, 0])):
        assert part.any() and np.abs(colours[part] - np.array(expected)).max() < 15
    usual = ball().mesh()  # Y up, facing +Z: this one faces -Y
    assert np.abs(np.stack([x, z, -y], 1) - usual.vertices).max() < 1e-6
    assert mesh.is_watertight and mesh.volume == pytest.approx(usual.volume, rel=1e-4)


PYRENDER = """
import sys
try:
    import numpy as np, pyrender, trimesh
    renderer = pyrender.OffscreenRenderer(64, 64)
except Exception as reason:
    sys.exit(f"no pyrender: {reason}")
mesh = trimesh.load(sys.argv[1])
mesh.vertices -= mesh.vertices.mean(axis=0)
mesh.vertices /= np.abs(mesh.vertices).max()
mesh = pyrender.Mesh.from_trimesh(mesh, smooth=False)
mesh.primitives[0].material.baseColorFactor = [1.0, 1.0, 1.0, 1.0]
scene = pyrender.Scene(ambient_light=[1.0, 1.0, 1.0], bg_color=[0, 0, 0])
scene.add(mesh, pose=np.eye(4))
v = np.array([0.0, -2.2, 0.0])  # in front of the object; Z is up
r = np.cross([0, 0, 1], -v) / 2.2
pose = np.eye(4)
pose[:3] = np.stack([-r, np.cross(-v, r) / 2.2, v / 2.2, v], axis=1)
scene.add(pyrender.PerspectiveCamera(yfov=np.pi / 3), pose=pose)
picture = renderer.render(scene, flags=pyrender.RenderFlags.FLAT)[0]
print(*picture[24, 24], *picture[24, 40], *picture[40, 24], *picture[40, 40], *picture[0, 0])
"""


def test_its_renderer_shows_the_mesh_as_we_do(tmp_path: Path) -> None:
    """OBJ -> trimesh -> pyrender, offscreen: above left, above right, below left, below right, background."""
    jobs.save_t3bench(ball(), tmp_path)
    command = [sys.executable, "-c", PYRENDER, str(tmp_path / "save/it1-export/model.obj")]
    environment = {"PYOPENGL_PLATFORM": "egl", **os.environ, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    if "no pyrender" in done.stderr:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr
    seen = torch.tensor([int(v) for v in done.stdout.split()]).view(5, 3)
    expected = torch.tensor([[0, 255, 0], [0, 255, 255], [255, 0, 0], [255, 0, 255], [0, 0, 0]])
    assert (seen - expected).abs().max() < 30
    ours = ball().render(0.0, 0.0, size=64)  # the same from the front, by the library's own renderer
    corners = torch.as_tensor(np.stack([ours[i, j] for i in (27, 36) for j in (27, 36)]))
    assert (255 * corners - expected[:4]).abs().max() < 30
