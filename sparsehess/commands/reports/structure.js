// Turns a structure by the mouse and moves it by a mode, on a canvas: discs, lines and faces, the farthest first.
"use strict";
(() => {
  const source = document.getElementById("structure");
  const box = document.querySelector(".structure");
  const canvas = box.querySelector("canvas");
  const pen = canvas.getContext("2d");
  if (!pen) return; // the still pictures stay
  const told = JSON.parse(source.textContent);
  const read = (text, Kind) => new Kind(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
  const rest = read(told.positions, Float32Array), modes = read(told.modes, Int16Array);
  const faces = read(told.faces, Int32Array), edges = read(told.edges, Int32Array);
  const species = read(told.species, Uint8Array);
  const many = rest.length / 3, faceCount = faces.length / 4, edgeCount = edges.length / 2;
  const pick = (name) => box.querySelector(name);
  const mode = pick(".mode"), amplitude = pick(".amplitude"), pause = pick(".pause"), colored = pick(".colored");
  box.hidden = false;
  document.querySelector(".stills").style.display = "none"; // the style sheet shows them on paper

  let view = told.view.slice(), zoom = 1, phase = Math.PI / 2, before = 0, dirty = true;
  let playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;
  const x = new Float32Array(many), y = new Float32Array(many), z = new Float32Array(many);
  const level = new Uint8Array(many), last = told.ramp.length - 1;

  // Colours in six shades, from the side that is turned away to the one that faces us.
  const channels = (color) => [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
  const mix = (color, white, black) =>
    "rgb(" + channels(color).map((c) => Math.round((c + (255 - c) * white) * (1 - black))).join() + ")";
  const shades = told.ramp.map((color) => [0, 1, 2, 3, 4, 5].map((s) => mix(color, 0.12 * (s / 5), 0.42 * (1 - s / 5))));

  // A ball is drawn once for each colour and each of four depths, and copied then.
  const balls = new Map();
  function ball(color, far) {
    const key = color + far;
    if (!balls.has(key)) {
      const sprite = document.createElement("canvas");
      sprite.width = sprite.height = 48;
      const brush = sprite.getContext("2d"), light = brush.createRadialGradient(18, 16, 2, 24, 24, 23);
      const pale = 0.16 * far;
      light.addColorStop(0, mix(color, 0.55 + 0.45 * pale, 0));
      light.addColorStop(0.55, mix(color, pale, 0));
      light.addColorStop(1, mix(color, pale, 0.4 * (1 - pale)));
      brush.fillStyle = light;
      brush.beginPath();
      brush.arc(24, 24, 23, 0, 7);
      brush.fill();
      balls.set(key, sprite);
    }
    return balls.get(key);
  }

  function place() {
    const width = canvas.width, height = canvas.height, number = +mode.value, from = 3 * many * number;
    const scale = (zoom * Math.min(width, 1.25 * height)) / (1.1 * told.diameter);
    const swing = (Math.sin(phase) * told.diameter * amplitude.value) / 100 / 32767;
    let low = Infinity, high = -Infinity;
    for (let i = 0, at = 0; i < many; i++, at += 3) {
      const u = modes[from + at], v = modes[from + at + 1], w = modes[from + at + 2];
      const a = rest[at] + swing * u, b = rest[at + 1] + swing * v, c = rest[at + 2] + swing * w;
      x[i] = width / 2 + scale * (view[0] * a + view[1] * b + view[2] * c);
      y[i] = height / 2 - scale * (view[3] * a + view[4] * b + view[5] * c);
      const deep = (z[i] = view[6] * a + view[7] * b + view[8] * c);
      if (deep < low) low = deep;
      if (deep > high) high = deep;
      level[i] = Math.min(last, ((last + 1) * Math.sqrt(u * u + v * v + w * w)) / 32767);
    }
    return { scale, low, depth: high - low || 1 };
  }

  // Sorts by depth into buckets: `next` chains what is in one.
  const buckets = 400, heads = new Int32Array(buckets), next = new Int32Array(Math.max(faceCount, many + edgeCount));
  function sort(count, depthOf, low, depth) {
    heads.fill(-1);
    for (let i = 0; i < count; i++) {
      const slot = Math.max(0, Math.min(buckets - 1, (((depthOf(i) - low) / depth) * buckets) | 0));
      next[i] = heads[slot];
      heads[slot] = i;
    }
  }

  function drawFaces(at) {
    sort(faceCount, (i) => (z[faces[4 * i]] + z[faces[4 * i + 1]] + z[faces[4 * i + 2]] + z[faces[4 * i + 3]]) / 4, at.low, at.depth);
    const lines = faceCount <= 4000;
    pen.lineWidth = 0.7;
    pen.strokeStyle = "rgba(30,40,50,.55)";
    for (let slot = 0; slot < buckets; slot++) {
      for (let i = heads[slot]; i >= 0; i = next[i]) {
        const a = faces[4 * i], b = faces[4 * i + 1], c = faces[4 * i + 2], d = faces[4 * i + 3];
        // The part of the normal that points at us, of the triangle a, b, c.
        const p = x[b] - x[a], q = y[b] - y[a], r = (z[b] - z[a]) * at.scale;
        const s = x[c] - x[a], t = y[c] - y[a], u = (z[c] - z[a]) * at.scale;
        const n = p * t - q * s, size = Math.hypot(q * u - r * t, r * s - p * u, n) || 1;
        const tone = Math.max(level[a], level[b], level[c], level[d]);
        pen.fillStyle = shades[tone][Math.min(5, (6 * Math.abs(n)) / size) | 0];
        pen.beginPath();
        pen.moveTo(x[a], y[a]);
        pen.lineTo(x[b], y[b]);
        pen.lineTo(x[c], y[c]);
        pen.lineTo(x[d], y[d]);
        pen.closePath();
        pen.fill();
        if (lines) pen.stroke();
      }
    }
  }

  function drawNodes(at) {
    sort(many + edgeCount, (i) => (i < many ? z[i] : (z[edges[2 * (i - many)]] + z[edges[2 * (i - many) + 1]]) / 2), at.low, at.depth);
    const byKind = colored && colored.value === "kind";
    pen.lineWidth = Math.max(1, 0.22 * told.kinds[0].radius * at.scale);
    for (let slot = 0; slot < buckets; slot++) {
      const far = 3 - Math.min(3, (4 * slot) / buckets) | 0;
      let started = false;
      for (let i = heads[slot]; i >= 0; i = next[i]) {
        if (i < many) continue;
        if (!started) pen.beginPath();
        started = true;
        // From the skin of one ball to that of the other.
        const a = edges[2 * (i - many)], b = edges[2 * (i - many) + 1];
        const p = x[b] - x[a], q = y[b] - y[a], long = Math.hypot(p, q, (z[b] - z[a]) * at.scale) || 1;
        const s = (0.9 * told.kinds[species[a]].radius * at.scale) / long;
        const t = (0.9 * told.kinds[species[b]].radius * at.scale) / long;
        if (s + t >= 1) continue;
        pen.moveTo(x[a] + s * p, y[a] + s * q);
        pen.lineTo(x[b] - t * p, y[b] - t * q);
      }
      if (started) {
        pen.strokeStyle = mix("#5c6670", 0.2 * far, 0);
        pen.stroke();
      }
      for (let i = heads[slot]; i >= 0; i = next[i]) {
        if (i >= many) continue;
        const kind = told.kinds[species[i]], radius = Math.max(1.2, kind.radius * at.scale);
        pen.drawImage(ball(byKind ? kind.color : told.ramp[level[i]], far), x[i] - radius, y[i] - radius, 2 * radius, 2 * radius);
      }
    }
  }

  const ratio = Math.min(2, devicePixelRatio || 1); // finer on screens of many dots
  function drawAxes() {
    const bottom = canvas.height / ratio;
    pen.save();
    pen.scale(ratio, ratio);
    pen.font = "12px sans-serif";
    pen.lineWidth = 1.5;
    ["x", "y", "z"].forEach((name, k) => {
      const across = 34 + 24 * view[k], up = bottom - 34 - 24 * view[3 + k];
      pen.strokeStyle = pen.fillStyle = ["#a4262c", "#1a6e35", "#1f5fa8"][k];
      pen.beginPath();
      pen.moveTo(34, bottom - 34);
      pen.lineTo(across, up);
      pen.stroke();
      pen.fillText(name, across + 6 * view[k] - 3, up - 6 * view[3 + k] + 4);
    });
    pen.restore();
  }

  let frames = 0, spent = 0;
  function draw() {
    const began = performance.now();
    pen.fillStyle = "#fff";
    pen.fillRect(0, 0, canvas.width, canvas.height);
    const at = place();
    (faceCount ? drawFaces : drawNodes)(at);
    drawAxes();
    frames += 1;
    spent += performance.now() - began;
    canvas.dataset.frames = frames;
    canvas.dataset.ms = (spent / frames).toFixed(1);
  }

  function step(now) {
    if (playing) phase += (Math.min(now - before, 100) / 1000) * 2 * Math.PI * 0.5;
    before = now;
    if (playing || dirty) draw();
    dirty = false;
    requestAnimationFrame(step);
  }

  function turn(right, up) {
    const [a, b] = [right, up], c = Math.cos(a), s = Math.sin(a), d = Math.cos(b), t = Math.sin(b), old = view;
    const by = [c, 0, s, t * s, d, -t * c, -d * s, t, d * c];
    view = old.map((_, k) => [0, 1, 2].reduce((sum, j) => sum + by[3 * ((k / 3) | 0) + j] * old[3 * j + (k % 3)], 0));
    dirty = true;
  }

  function fit() {
    canvas.width = Math.max(320, Math.round(ratio * box.clientWidth));
    canvas.height = Math.round(canvas.width / 1.6);
    dirty = true;
  }

  let held = null;
  canvas.addEventListener("pointerdown", (event) => { held = [event.clientX, event.clientY]; canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointermove", (event) => {
    if (!held) return;
    turn((event.clientX - held[0]) / 150, (event.clientY - held[1]) / 150);
    held = [event.clientX, event.clientY];
  });
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => { held = null; });
  canvas.addEventListener("wheel", (event) => { zoom *= Math.exp(-event.deltaY / 600); dirty = true; event.preventDefault(); }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] }[event.key];
    if (way) { turn(...way); event.preventDefault(); }
  });
  const named = () => { pause.textContent = playing ? "pause" : "play"; };
  pause.addEventListener("click", () => { playing = !playing; named(); });
  for (const one of [mode, amplitude, colored]) if (one) one.addEventListener("input", () => { dirty = true; });
  addEventListener("resize", fit);
  named();
  fit();
  draw();
  requestAnimationFrame(step);
})();
