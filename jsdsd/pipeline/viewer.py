"""A mesh as one HTML page that works offline: WebGL 2 by hand, no library, nothing to download."""

from __future__ import annotations

import base64
import html
import string
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import trimesh


def viewer_html(mesh: trimesh.Trimesh, title: str, picture: bytes) -> str:
    """The page: drag to turn, wheel or pinch to zoom, double click to start again.

    mesh: Y up, facing +Z, inside [-1, 1]^3, with vertex colours.  title: plain text, shown above the object.
    picture: a PNG that stands in where a browser has no WebGL 2.
    It opens on the view of azimuth 0 and elevation 15 and turns slowly until it is touched, except where the reader has
    asked for less motion or the address ends in `#still`.
    """
    positions = np.round(mesh.vertices * 32767).astype("<i2")  # 16 bits: 3e-5 scene units, far below a pixel
    return string.Template(_PAGE).substitute(
        title=html.escape(title),
        positions=_base64(positions),
        colours=_base64(mesh.visual.vertex_colors[:, :3].astype("u1")),
        faces=_base64(mesh.faces.astype("<u4")),
        picture=base64.b64encode(picture).decode(),
    )


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()


# The camera is that of `jsdsd.orbit`: distance 4, field of view 30 degrees, so the page and the renders agree.
_PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
  html, body { margin: 0; height: 100%; background: #fff; font: 15px system-ui, sans-serif; color: #444 }
  canvas { position: fixed; width: 100%; height: 100%; touch-action: none; cursor: grab }
  p { position: fixed; left: 0; right: 0; margin: 12px; text-align: center; pointer-events: none }
  p + p { bottom: 0; font-size: 12px; color: #777 }
  img { display: none; margin: 15vh auto }
</style>
<canvas tabindex="0" aria-label="$title, in 3D"></canvas>
<p>$title</p>
<p id="hint">drag to turn &middot; wheel or pinch to zoom &middot; double click to start again</p>
<img alt="$title" src="data:image/png;base64,$picture">
<script>
"use strict";
const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0)).buffer;
const positions = new Int16Array(bytes("$positions"));
const colours = new Uint8Array(bytes("$colours"));
const faces = new Uint32Array(bytes("$faces"));

const canvas = document.querySelector("canvas");
const gl = canvas.getContext("webgl2", {antialias: true});
if (!gl) {
  canvas.remove();
  document.querySelector("img").style.display = "block";
  document.querySelector("#hint").textContent = "This browser has no WebGL 2, so this is a picture.";
  throw new Error("no WebGL 2");
}

// Turn the object instead of the camera: about Y by the azimuth, then about X by the elevation.
const vertexShader = `#version 300 es
  in vec3 position;
  in vec3 colour;
  uniform vec2 angle;     // azimuth, elevation in radians
  uniform float distance; // from the centre, scene units
  uniform vec2 scale;     // focal length over half the height, corrected for the window's shape
  out vec3 shade;
  void main() {
    vec2 c = cos(angle), s = sin(angle);
    float x = position.x * c.x - position.z * s.x, z = position.x * s.x + position.z * c.x;
    float y = position.y * c.y - z * s.y, depth = distance - position.y * s.y - z * c.y;
    const float near = 0.05, far = 20.0;
    gl_Position = vec4(vec2(x, y) * scale, ((far + near) * depth - 2.0 * far * near) / (far - near), depth);
    shade = colour;
  }`;
const fragmentShader = `#version 300 es
  precision mediump float;
  in vec3 shade;
  out vec4 pixel;
  void main() { pixel = vec4(shade, 1.0); } // the light is in the colours already`;

const program = gl.createProgram();
for (const [type, source] of [[gl.VERTEX_SHADER, vertexShader], [gl.FRAGMENT_SHADER, fragmentShader]]) {
  const shader = gl.createShader(type);
  gl.shaderSource(shader, source);
  gl.compileShader(shader);
  gl.attachShader(program, shader);
}
gl.linkProgram(program);
if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program));
gl.useProgram(program);
for (const [name, data, type] of [["position", positions, gl.SHORT], ["colour", colours, gl.UNSIGNED_BYTE]]) {
  const place = gl.getAttribLocation(program, name);
  gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
  gl.bufferData(gl.ARRAY_BUFFER, data, gl.STATIC_DRAW);
  gl.enableVertexAttribArray(place);
  gl.vertexAttribPointer(place, 3, type, true, 0, 0);
}
gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, faces, gl.STATIC_DRAW);
gl.enable(gl.DEPTH_TEST);
gl.clearColor(1, 1, 1, 1);
const place = name => gl.getUniformLocation(program, name);

const start = {azimuth: 0, elevation: Math.PI / 12, distance: 4};
const view = {...start};
function draw() {
  const width = canvas.clientWidth, height = canvas.clientHeight, side = Math.min(width, height);
  const dots = window.devicePixelRatio || 1;
  canvas.width = width * dots;
  canvas.height = height * dots;
  gl.viewport(0, 0, canvas.width, canvas.height);
  gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
  const focal = 1 / Math.tan(Math.PI / 12); // half of 30 degrees
  gl.uniform2f(place("angle"), view.azimuth, view.elevation);
  gl.uniform1f(place("distance"), view.distance);
  gl.uniform2f(place("scale"), focal * side / width, focal * side / height);
  gl.drawElements(gl.TRIANGLES, faces.length, gl.UNSIGNED_INT, 0);
}
function change(azimuth, elevation, zoom) {
  view.azimuth += azimuth;
  view.elevation = Math.max(-1.5, Math.min(1.5, view.elevation + elevation));
  view.distance = Math.max(1.5, Math.min(12, view.distance * zoom));
  requestAnimationFrame(draw);
}

let turning = location.hash !== "#still" && !matchMedia("(prefers-reduced-motion: reduce)").matches;
let last = 0;
function turn(now) {
  if (!turning) return;
  change((now - (last || now)) * 5e-4, 0, 1); // one round in 12.6 s
  last = now;
  requestAnimationFrame(turn);
}
const fingers = new Map();
const gap = () => { const [a, b] = [...fingers.values()]; return Math.hypot(a.x - b.x, a.y - b.y); };
canvas.onpointerdown = e => {
  turning = false;
  canvas.setPointerCapture(e.pointerId);
  fingers.set(e.pointerId, {x: e.clientX, y: e.clientY});
};
canvas.onpointermove = e => {
  const from = fingers.get(e.pointerId);
  if (!from) return;
  const before = fingers.size === 2 ? gap() : 0;
  fingers.set(e.pointerId, {x: e.clientX, y: e.clientY});
  if (fingers.size === 1) change((from.x - e.clientX) * 0.01, (e.clientY - from.y) * 0.01, 1);
  if (fingers.size === 2) change(0, 0, before / Math.max(gap(), 1));
};
canvas.onpointerup = canvas.onpointercancel = e => fingers.delete(e.pointerId);
canvas.onwheel = e => { e.preventDefault(); change(0, 0, Math.exp(e.deltaY * 1e-3)); };
canvas.ondblclick = () => { Object.assign(view, start); draw(); };
canvas.onkeydown = e => {
  const step = {ArrowLeft: [0.1, 0], ArrowRight: [-0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1]}[e.key];
  if (step) { turning = false; e.preventDefault(); change(...step, 1); }
};
window.onresize = draw;
draw();
requestAnimationFrame(turn);
</script>
</html>
"""
