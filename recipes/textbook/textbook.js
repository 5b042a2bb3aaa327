// The figures of the page. One figure is one function: it finds its controls and its picture in the
// page, draws, draws again when something is moved, and gives `data()`, what it shows, to the tests.
// What is computed by hand stands in mathematics.js; the trained network is speechrnn.js.
"use strict";

const textbook = (() => {
  const { SAMPLE_RATE, Network, Resampler, SlidingWindow, softmax, unpack } = speechrnn;
  const m = mathematics;

  const element = (id) => document.getElementById(id);
  const read = (id) => JSON.parse(element(id).textContent);
  const measured = read("measurements");

  // --- what the figures share

  /** An element of HTML with these children. */
  function html(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  /** An element of SVG. */
  function svg(name, attributes = {}, ...children) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  /** A picture of this size in the place of what `place` held; `label` says what it shows. */
  function picture(place, width, height, label, ...children) {
    const size = { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label };
    place.replaceChildren(svg("svg", size, ...children));
  }

  const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)} %`;
  const counted = (n, one, many = `${one}s`) => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
  const named = (label) => ({ _silence_: "silence", _unknown_: "another word" })[label] ?? label;
  const fixed = (value, digits = 2) => value.toFixed(digits).replace("-", "−");

  /** A number of any size in a few characters: 0.25, or 3.1 × 10⁻⁹. */
  function short(value) {
    if (value === 0) return "0";
    const power = Math.floor(Math.log10(Math.abs(value)));
    if (power >= -3 && power < 4) return String(Number(value.toPrecision(2)));
    const first = (value / 10 ** power).toFixed(1);
    return first === "1.0" ? tenTo(power) : `${first} × ${tenTo(power)}`;
  }

  const RAISED = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };
  const tenTo = (power) => `10${[...String(power)].map((digit) => RAISED[digit]).join("")}`;

  /** Lines and marks over two axes, with a legend below.
   *
   * An axis has `from`, `to`, `title`, `ticks` ([value, text] pairs) and may be `log`. A line has
   * `points` ([x, y] pairs), a `name` and a `kind`, which is its colour. A mark has `x`, `y`,
   * `name`, `kind`, and may be `chosen`. `at` is an x with a vertical line. */
  function plot(place, { label, x, y, lines = [], marks = [], at = null, height = 260 }) {
    const width = Math.max(280, place.clientWidth || 600);
    const edge = { left: 58, right: 12, top: 10, bottom: 44 };
    const along = (axis, value) =>
      axis.log
        ? Math.log(value / axis.from) / Math.log(axis.to / axis.from)
        : (value - axis.from) / (axis.to - axis.from);
    const inside = (share) => Math.min(1, Math.max(0, share));
    const px = (value) => edge.left + inside(along(x, value)) * (width - edge.left - edge.right);
    const py = (value) => height - edge.bottom - inside(along(y, value)) * (height - edge.top - edge.bottom);
    const [bottom, right] = [height - edge.bottom, width - edge.right];
    const parts = [];
    for (const [value, text] of y.ticks) {
      parts.push(svg("line", { class: "grid", x1: edge.left, x2: right, y1: py(value), y2: py(value) }));
      parts.push(svg("text", { x: edge.left - 6, y: py(value) + 4, "text-anchor": "end" }, text));
    }
    for (const [value, text] of x.ticks) {
      parts.push(svg("line", { class: "grid", x1: px(value), x2: px(value), y1: edge.top, y2: bottom + 4 }));
      parts.push(svg("text", { x: px(value), y: bottom + 18, "text-anchor": "middle" }, text));
    }
    parts.push(svg("text", { class: "title", x: (edge.left + right) / 2, y: height - 6, "text-anchor": "middle" }, x.title));
    const middle = (edge.top + bottom) / 2;
    const turn = `rotate(-90 12 ${middle})`;
    parts.push(svg("text", { class: "title", x: 12, y: middle, "text-anchor": "middle", transform: turn }, y.title));
    if (at !== null) {
      parts.push(svg("line", { class: "at", x1: px(at), x2: px(at), y1: edge.top, y2: bottom }));
    }
    for (const line of lines) {
      const points = line.points.map(([u, v]) => `${px(u).toFixed(1)},${py(v).toFixed(1)}`);
      parts.push(svg("polyline", { class: `line ${line.kind}`, points: points.join(" ") }));
    }
    for (const mark of marks) {
      const shape = { class: `mark ${mark.kind}${mark.chosen ? " chosen" : ""}`, cx: px(mark.x), cy: py(mark.y) };
      parts.push(svg("circle", { ...shape, r: mark.chosen ? 8 : 5 }, svg("title", {}, mark.name ?? "")));
      if (!mark.written) continue;
      const left = px(mark.x) > width * 0.7;
      const spot = { class: "written", x: px(mark.x) + (left ? -11 : 11), y: py(mark.y) + 4 };
      parts.push(svg("text", { ...spot, "text-anchor": left ? "end" : "start" }, mark.name));
    }
    picture(place, width, height, label, ...parts);
    const legend = html("ul", { class: "legend" });
    for (const { name, kind } of lines.filter((line) => line.name)) {
      legend.append(html("li", {}, sample(kind), name));
    }
    if (legend.children.length) place.append(legend);
  }

  /** Powers of ten as ticks, about every `most`-th part of the axis. */
  function powers(from, to, most = 6) {
    const [low, high] = [Math.ceil(Math.log10(from) - 1e-9), Math.floor(Math.log10(to) + 1e-9)];
    const stride = Math.max(1, Math.ceil((high - low) / most));
    const ticks = [];
    for (let power = high; power >= low; power -= stride) {
      ticks.push([10 ** power, short(10 ** power)]);
    }
    return ticks;
  }

  /** A piece of a line, for legends. */
  const sample = (kind) =>
    svg("svg", { class: "sample", viewBox: "0 0 28 10", "aria-hidden": "true" },
      svg("line", { class: `line ${kind}`, x1: 1, x2: 27, y1: 5, y2: 5 }));

  /** Rows of a name, a bar and a value; `share` is how long the bar is, 0 to 1. With `line` a
   * piece of the line of that kind stands before the name. */
  function bars(place, rows) {
    place.replaceChildren(
      ...rows.map(({ name, share, text, kind = "", chosen = false, line = false }) => {
        const fill = html("i", { class: kind });
        fill.style.transform = `scaleX(${Math.min(1, Math.max(0, share)).toFixed(4)})`;
        const label = html("span", { class: "name" }, ...(line ? [sample(kind)] : []), name);
        const value = html("span", { class: "value" }, text);
        return html("li", chosen ? { class: "chosen" } : {}, label, html("span", { class: "bar" }, fill), value);
      }),
    );
  }

  let palette = null; // red, green and blue of the three colours of a value, of this screen

  function readPalette() {
    const style = getComputedStyle(document.documentElement);
    palette = Object.fromEntries(["negative", "quiet", "positive"].map((name) => {
      const digits = style.getPropertyValue(`--${name}`).trim().slice(1);
      return [name, [0, 2, 4].map((at) => parseInt(digits.slice(at, at + 2), 16))];
    }));
  }

  /** A colour from `negative` over `quiet` to `positive`, for a value from -1 to 1. */
  function colour(value) {
    const to = value < 0 ? palette.negative : palette.positive;
    const share = Math.min(1, Math.abs(value));
    return palette.quiet.map((part, i) => Math.round(part + share * (to[i] - part)));
  }

  const rgb = (value) => `rgb(${colour(value).join(" ")})`;

  /** Calls `draw` when one of these controls is moved, and gives their values as numbers. */
  function controls(ids, draw) {
    for (const id of ids) element(id).addEventListener("input", () => draw());
    return () => ids.map((id) => {
      const { type, value, checked } = element(id);
      return type === "checkbox" ? checked : type === "range" ? Number(value) : value;
    });
  }

  /** What a slider stands at, for eyes and for screen readers. */
  function tell(id, text) {
    element(`${id}-value`).textContent = text;
    element(id).setAttribute("aria-valuetext", text);
  }

  const redraws = []; // of the figures, for another width or other colours

  // --- a network that remembers

  function remembers() {
    const MOST_SECONDS = 3; // at the microphone
    const model = read("model");
    const { config } = model;
    const network = new Network(config, unpack(model.arrays));
    const { stepSamples, stepSeconds } = network.lengths;
    const recordings = read("recordings").map(({ word, int16 }) => ({ word, samples: samplesOf(int16) }));

    let samples = recordings[0].samples;
    let whole = null; // what the network makes of them without a cover
    let heard = null; // and with it
    let order = null; // of the units of each layer: by h at the end, so that the eye finds lines
    let source = null; // that plays, or the microphone: { stop() }
    let waiting = 0; // for the next moment to draw in

    /** States and probabilities of every step from the step `cover` on. */
    function hear(cover) {
      const window = new SlidingWindow(config);
      const steps = network.step(samples.subarray(cover * stepSamples), network.initialState());
      return steps.map((step) => ({ ...step, ...window.push(step.logits) }));
    }

    const count = () => Math.floor(samples.length / stepSamples);
    const answerOf = (step) => {
      const shares = [...step.probabilities];
      const best = shares.indexOf(Math.max(...shares));
      return { label: config.labels[best], share: shares[best] };
    };

    const canvases = Array.from({ length: config.layers }, (_, layer) => {
      const canvas = html("canvas", { role: "img", "aria-label": `h[t] of layer ${layer + 1}` });
      element("layers").append(html("p", { class: "small" }, `h[t] of layer ${layer + 1}`), canvas);
      return canvas;
    });

    /** A column for each step: what is still to come is pale, what is covered is empty. */
    function drawLayer(canvas, layer, cover, present) {
      const units = config.hidden_size;
      canvas.width = count();
      canvas.height = units;
      const context = canvas.getContext("2d");
      const image = context.createImageData(canvas.width, units);
      heard.forEach((step, i) => {
        const alpha = cover + i < present ? 255 : 70;
        order[layer].forEach((unit, row) => {
          const pixel = 4 * (row * canvas.width + cover + i);
          image.data.set([...shade(step.hidden[layer][unit]), alpha], pixel);
        });
      });
      context.putImageData(image, 0, 0);
    }

    let shades = [];
    const shade = (h) => shades[Math.round(127 * (1 + Math.max(-1, Math.min(1, h))))];

    function drawWave() {
      const width = 600;
      const points = [];
      for (let x = 0; x < width; x++) {
        const from = Math.floor((x * samples.length) / width);
        const part = samples.subarray(from, from + Math.max(1, Math.floor(samples.length / width)));
        points.push(`M${x} ${(30 - 28 * part.reduce((a, b) => Math.max(a, b))).toFixed(1)}V${(30.5 - 28 * part.reduce((a, b) => Math.min(a, b))).toFixed(1)}`);
      }
      picture(element("wave"), width, 60, "The sound: how the air moves", svg("path", { class: "wave", d: points.join("") }));
      element("wave").firstChild.setAttribute("preserveAspectRatio", "none");
    }

    /** Show a recording, and what the network makes of it. */
    function take(newSamples, steps = null) {
      samples = newSamples;
      whole = steps ?? hear(0);
      const last = whole[whole.length - 1].hidden;
      order = last.map((h) => [...h.keys()].sort((a, b) => h[b] - h[a]));
      rewind();
      element("present").value = count();
      draw();
    }

    /** The sliders for what `samples` hold, nothing covered, nothing heard yet. */
    function rewind() {
      for (const id of ["present", "cover"]) {
        element(id).max = count();
        element(id).value = 0;
      }
      drawWave();
    }

    const values = controls(["present", "cover"], () => {
      if (source) stop();
      draw();
    });
    let covered = -1; // what `heard` was computed for
    let owner = null;

    function draw() {
      const [present, cover] = values();
      if (covered !== cover || owner !== samples) heard = cover ? hear(cover) : whole;
      [covered, owner] = [cover, samples];
      shades = Array.from({ length: 255 }, (_, i) => colour((i - 127) / 127));
      canvases.forEach((canvas, layer) => drawLayer(canvas, layer, cover, present));
      const place = (steps) => `${(100 * steps) / count()}%`;
      element("now-line").style.left = place(present);
      element("cover-box").style.width = place(cover);
      tell("present", `${(present * stepSeconds).toFixed(2)} s`);
      tell("cover", cover ? `the first ${(cover * stepSeconds).toFixed(2)} s` : "nothing");
      const step = heard[present - cover - 1];
      const shares = step ? step.probabilities : config.labels.map(() => 0);
      bars(element("answers"), config.labels.map((label, i) => ({
        name: named(label), share: shares[i], text: step ? percent(shares[i], 0) : "",
        chosen: step && answerOf(step).label === label,
      })));
      const [now, last] = [step && answerOf(step), whole[whole.length - 1]];
      element("answer").textContent = now ? `Answer so far: ${named(now.label)}` : "Nothing was heard yet.";
      element("compared").textContent = cover
        ? `The whole recording, without the cover, gives: ${named(answerOf(last).label)}.`
        : "Nothing is covered.";
      canvases.forEach((canvas, layer) => canvas.setAttribute("aria-label",
        `h[t] of the ${config.hidden_size} units of layer ${layer + 1}, over ${counted(count(), "step")}`));
    }

    function stop() {
      const ended = source;
      source = null;
      ended?.stop();
      element("play").textContent = "Play";
      element("microphone").textContent = "Use the microphone";
    }

    /** The sound, and the present that moves with it. */
    function play() {
      if (source) return stop();
      const [, cover] = values();
      const part = samples.subarray(cover * stepSamples);
      const context = new AudioContext();
      const player = context.createBufferSource();
      player.buffer = context.createBuffer(1, Math.max(1, part.length), SAMPLE_RATE);
      player.buffer.copyToChannel(part, 0);
      player.connect(context.destination);
      player.start();
      const began = performance.now();
      const timer = setInterval(() => {
        const steps = Math.floor((performance.now() - began) / 1000 / stepSeconds);
        element("present").value = Math.min(count(), cover + steps);
        draw();
        if (cover + steps >= count()) stop();
      }, 1000 * stepSeconds);
      source = { stop() { clearInterval(timer); context.close(); } };
      element("play").textContent = "Stop";
    }

    /** The step at which a word is most probable. */
    function surest(steps) {
      const most = steps.map(({ probabilities }) =>
        Math.max(...probabilities.filter((_, i) => !config.labels[i].startsWith("_"))));
      return most.indexOf(Math.max(...most));
    }

    /** Some seconds of the microphone, drawn as they come; then they can be dragged too. */
    async function listen() {
      if (source) return stop();
      const say = (text) => (element("said").textContent = text);
      let stream = null;
      try {
        stream = await navigator.mediaDevices.getUserMedia({
          audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false },
        });
        const { context, blocks } = await capture(stream);
        const [state, window] = [network.initialState(), new SlidingWindow(config)];
        let filled = 0;
        samples = new Float32Array(MOST_SECONDS * SAMPLE_RATE);
        whole = [];
        rewind();
        draw();
        source = {
          stop() {
            context.close();
            stream.getTracks().forEach((track) => track.stop());
            cancelAnimationFrame(waiting);
            if (!whole.length) return take(recordings[choice.value].samples);
            take(samples.slice(0, filled), whole);
            element("present").value = surest(whole) + 1;
            draw();
            say("This is your recording, where its answer is surest. Drag the present, or cover the beginning.");
          },
        };
        element("microphone").textContent = "Stop";
        say("Listening. Say yes, no, stop or go.");
        blocks((block) => {
          const part = block.subarray(0, samples.length - filled);
          samples.set(part, filled);
          filled += part.length;
          whole.push(...network.step(part, state).map((step) => ({ ...step, ...window.push(step.logits) })));
          cancelAnimationFrame(waiting);
          waiting = requestAnimationFrame(() => {
            element("present").value = whole.length;
            drawWave();
            draw();
          });
          if (filled === samples.length) stop();
        });
      } catch (error) {
        stream?.getTracks().forEach((track) => track.stop());
        say(`The microphone cannot be used (${error.message || error.name}). The recordings can.`);
      }
    }

    /** What a microphone gives, at 16 kHz: `blocks(f)` calls f with each block. */
    async function capture(stream) {
      const script = element("microphone-script").textContent;
      const context = new AudioContext();
      const rate = context.sampleRate;
      const resampler = rate === SAMPLE_RATE ? null : new Resampler(rate);
      // No `blob:`: a page that was opened as a file may not load it.
      await context.audioWorklet.addModule(`data:text/javascript,${encodeURIComponent(script)}`);
      const node = new AudioWorkletNode(context, "microphone");
      context.createMediaStreamSource(stream).connect(node).connect(context.destination);
      return {
        context,
        blocks: (take) => (node.port.onmessage = ({ data }) => take(resampler ? resampler.push(data) : data)),
      };
    }

    const choice = element("recording");
    recordings.forEach(({ word }, i) => choice.append(html("option", { value: i }, word)));
    choice.addEventListener("input", () => {
      stop();
      take(recordings[choice.value].samples);
    });
    element("play").addEventListener("click", play);
    element("microphone").addEventListener("click", listen);
    const drag = (event) => {
      if (!event.buttons) return;
      const { left, width } = element("strips").getBoundingClientRect();
      stop();
      element("present").value = Math.round(((event.clientX - left) / width) * count());
      draw();
    };
    for (const kind of ["pointerdown", "pointermove"]) element("strips").addEventListener(kind, drag);
    redraws.push(draw);
    take(samples);

    return {
      network,
      data: () => ({
        samples: [...samples], first: covered, present: values()[0],
        hidden: heard.map((step) => step.hidden.map((h) => [...h])),
        probabilities: heard.map((step) => [...step.probabilities]),
        answer: element("answer").textContent,
      }),
    };
  }

  /** Little-endian 16-bit samples in base64 as numbers, full scale +-1. */
  function samplesOf(base64) {
    const view = new DataView(Uint8Array.from(atob(base64), (c) => c.charCodeAt(0)).buffer);
    return Float32Array.from({ length: view.byteLength / 2 }, (_, i) => view.getInt16(2 * i, true) / 32768);
  }

  // --- one equation

  function equation() {
    const START = {
      W_ih: [[0.9], [-0.6], [0.3]],
      W_hh: [[0.6, -0.4, 0.2], [0.5, 0.3, -0.5], [-0.2, 0.8, 0.4]],
      b: [0.1, 0, -0.1],
      x: [1, 0, 0, 0.5, 0],
    };
    const TITLES = { W_ih: "W_ih", W_hh: "W_hh", b: "b", x: "x[1] to x[5]" };
    let numbers = structuredClone(START);
    let states = []; // h at each step
    let changed = []; // whether each number of h is another one than before the last change

    const columnOf = (name) => name === "b" || name === "x";

    /** A table of inputs for a matrix, or for a list of numbers. */
    function matrix(name) {
      const values = columnOf(name) ? numbers[name].map((value) => [value]) : numbers[name];
      const lying = name === "x" ? [numbers.x] : values;
      const table = html("table", { class: "matrix" }, html("caption", {}, TITLES[name]));
      lying.forEach((row, i) => {
        const line = table.insertRow();
        row.forEach((value, j) => {
          const which = name === "x" ? `x[${j + 1}]` : name === "b" ? `b, row ${i + 1}` : `${name}, row ${i + 1}, column ${j + 1}`;
          const input = html("input", { type: "number", step: 0.1, value, "aria-label": which, id: `${name}-${i + 1}-${j + 1}` });
          input.addEventListener("input", () => {
            const typed = Number(input.value);
            if (!input.value || !Number.isFinite(typed)) return;
            if (name === "x") numbers.x[j] = typed;
            else if (name === "b") numbers.b[i] = typed;
            else numbers[name][i][j] = typed;
            compute(which);
          });
          line.insertCell().append(input);
        });
      });
      return table;
    }

    function show() {
      element("weights").replaceChildren(...Object.keys(TITLES).map(matrix));
      states = [];
      compute("");
    }

    function drawUnrolled() {
      const width = Math.max(320, element("unrolled").clientWidth || 600);
      const column = width / 5;
      const parts = [svg("defs", {}, svg("marker", { id: "tip", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto" }, svg("path", { class: "tip", d: "M0 0L8 4L0 8z" })))];
      states.forEach((h, t) => {
        const x = column * (t + 0.5);
        const box = Math.min(64, column - 22);
        if (t < 4) parts.push(svg("line", { class: "arrow", x1: x + box / 2 + 1, x2: x + column - box / 2 - 2, y1: 68, y2: 68, "marker-end": "url(#tip)" }));
        parts.push(svg("line", { class: "arrow", x1: x, x2: x, y1: 154, y2: 132, "marker-end": "url(#tip)" }));
        if (column > 100) parts.push(svg("text", { x: x + 8, y: 149 }, "W_ih"));
        if (t < 4 && column > 100) parts.push(svg("text", { x: x + column / 2, y: 60, "text-anchor": "middle" }, "W_hh"));
        h.forEach((value, unit) => {
          const y = 12 + 39 * unit;
          const cell = { x: x - box / 2, y, width: box, height: 35, rx: 6, fill: rgb(0.45 * value), class: changed[t][unit] ? "cell changed" : "cell" };
          parts.push(svg("rect", cell));
          parts.push(svg("text", { class: "strong", x, y: y + 22, "text-anchor": "middle" }, fixed(value)));
        });
        parts.push(svg("text", { class: "strong", x, y: 170, "text-anchor": "middle" }, fixed(numbers.x[t], 1)));
        parts.push(svg("text", { x, y: 190, "text-anchor": "middle" }, `step ${t + 1}`));
      });
      const told = states.map((h, t) => `step ${t + 1}: ${h.map((value) => fixed(value)).join(", ")}`);
      picture(element("unrolled"), width, 200, `The three numbers of h at each step. ${told.join("; ")}.`, ...parts);
    }

    /** A line for each unit at each step, with every product in it. */
    function drawProducts() {
      const body = element("products");
      body.replaceChildren();
      states.forEach((h, t) => {
        const past = t ? states[t - 1] : h.map(() => 0);
        const head = html("th", { colspan: 7, scope: "colgroup" }, `Step ${t + 1}: x = ${fixed(numbers.x[t], 1)}, h before = (${past.map((value) => fixed(value)).join(", ")})`);
        body.append(html("tr", { class: "step" }, head));
        h.forEach((value, unit) => {
          const factors = [[numbers.W_ih[unit][0], numbers.x[t]], ...past.map((before, i) => [numbers.W_hh[unit][i], before])];
          const products = factors.map(([weight, number]) => html("td", {}, html("small", {}, `${fixed(weight, 1)} · ${fixed(number)}`), fixed(weight * number)));
          const sum = factors.reduce((total, [weight, number]) => total + weight * number, numbers.b[unit]);
          products.splice(1, 0, html("td", {}, fixed(numbers.b[unit])));
          const result = html("td", changed[t][unit] ? { class: "changed" } : {}, fixed(value));
          body.append(html("tr", {}, ...products, html("td", {}, fixed(sum)), result));
        });
      });
    }

    function draw() {
      drawUnrolled();
      drawProducts();
    }

    /** Everything anew, and what is not as it was; `which` number was changed, if one was. */
    function compute(which) {
      const before = states;
      states = m.forward(numbers, numbers.x.map((x) => [x]));
      changed = states.map((h, t) => h.map((value, unit) => which !== "" && value !== before[t][unit]));
      const steps = changed.filter((row) => row.some(Boolean)).length;
      element("changed").textContent = which ? `You changed ${which}: h changed at ${steps} of ${counted(states.length, "step")}.` : "";
      draw();
    }

    element("equation-again").addEventListener("click", () => {
      numbers = structuredClone(START);
      show();
    });
    redraws.push(draw);
    show();
    return { data: () => ({ ...structuredClone(numbers), states: structuredClone(states) }) };
  }

  // --- training

  function training() {
    const UNITS = 6;
    const BATCH = 8; // sequences for one update
    const RATE = 0.3;
    const MOST = 300; // updates, then `Run` stops
    const AT_ONCE = 3; // updates between two pictures
    let random, net, losses, right, updates, batch, lesson, moment, running, before;

    function again() {
      random = m.chance(5); // with these numbers a longer row is learned later, as it mostly is
      net = m.network(UNITS, random);
      [losses, right, updates, running] = [[], 0, 0, false];
      fresh();
      draw();
    }

    const length = () => Number(element("length").value);

    /** Fresh sequences; the first of them is the one that is shown. */
    function fresh() {
      batch = Array.from({ length: BATCH }, () => m.example(length(), random));
      lesson = m.lesson(net, batch[0]);
      moment = { phase: "forward", t: 0 };
    }

    function update() {
      const { loss, right: share, gradient } = m.lessons(net, batch);
      before = net.W_hh;
      net = m.updated(net, gradient, RATE);
      losses.push(loss);
      right = share;
      updates++;
    }

    /** To the next moment of the lesson: a step forward, the error, a step back, or the update. */
    function next() {
      const { phase, t } = moment;
      if (phase === "updated") fresh();
      else if (phase === "forward") moment = t + 1 < length() ? { phase, t: t + 1 } : { phase: "error", t };
      else if (phase === "error") moment = { phase: "backward", t };
      else if (phase === "backward" && t > 0) moment = { phase, t: t - 1 };
      else {
        update();
        moment = { phase: "updated", t: length() - 1 };
      }
      draw();
    }

    function whole() {
      if (moment.phase === "updated") fresh();
      update();
      moment = { phase: "updated", t: length() - 1 };
    }

    function run() {
      if (!running) return draw();
      for (let i = 0; i < AT_ONCE && updates < MOST; i++) whole();
      running = updates < MOST;
      draw();
      requestAnimationFrame(run);
    }

    function drawLesson() {
      const width = Math.max(300, element("lesson").clientWidth || 600);
      const [steps, left, answer] = [length(), 62, 74];
      const column = (width - left - answer) / steps;
      const size = 15;
      const { phase, t: now } = moment;
      const known = (t) => phase !== "forward" || t <= now;
      const back = (t) => phase === "updated" || (phase === "backward" && t >= now);
      const norms = lesson.dh.map(m.norm);
      const most = Math.max(...norms);
      const parts = [];
      for (const [y, text] of [[24, "input x"], [40 + UNITS * size / 2 + 4, "state h"], [58 + UNITS * size + 24, "gradient"]]) {
        parts.push(svg("text", { x: 0, y }, text));
      }
      for (let t = 0; t < steps; t++) {
        const x = left + t * column;
        const wide = column - Math.min(4, column / 5);
        const value = batch[0].inputs[t][0];
        parts.push(svg("rect", { class: "cell", x, y: 10, width: wide, height: 20, rx: 3, fill: rgb(value) }));
        lesson.states[t].forEach((h, unit) => {
          const cell = { class: "cell", x, y: 40 + unit * size, width: wide, height: size - 1, fill: known(t) ? rgb(h) : "none" };
          parts.push(svg("rect", cell));
        });
        const tall = back(t) ? Math.max(1, 44 * (norms[t] / most)) : 0;
        parts.push(svg("rect", { class: "gradient", x, y: 98 + UNITS * size - tall, width: wide, height: tall }));
        if (t === now && phase !== "updated") {
          parts.push(svg("rect", { class: "now", x: x - 2, y: 5, width: wide + 4, height: 97 + UNITS * size, rx: 4 }));
        }
      }
      const [says, truth] = [lesson.y > 0 ? "+1" : "−1", batch[0].target > 0 ? "+1" : "−1"];
      const lines = phase === "forward" ? [] : [`says ${says}`, `truth ${truth}`];
      lines.forEach((text, i) => parts.push(svg("text", { class: "strong", x: width - answer + 8, y: 70 + 18 * i }, text)));
      const told = {
        forward: `Step ${now + 1}: the next state is computed.`,
        error: `The output is ${fixed(lesson.y)}, so the network says ${says}. The truth is ${truth}. The loss is ${fixed(lesson.loss, 3)}.`,
        backward: `The gradient has come back to step ${now + 1}: length ${short(norms[now])}.`,
        updated: `Update ${updates} is done: ${BATCH} rows were tried, and every weight has moved a little.`,
      }[phase];
      picture(element("lesson"), width, 104 + UNITS * size, `A row of ${steps} numbers, the states and the gradients. ${told}`, ...parts);
      element("told").textContent = told;
      const place = {
        forward: now === 0 ? 0 : 1, error: 2, backward: now === steps - 1 ? 4 : 5, updated: 6,
      }[phase];
      [...element("lesson-steps").children].forEach((item, i) =>
        item.classList.toggle("current", i === place || (phase === "error" && i === 3)));
    }

    function drawWeights() {
      const size = 22;
      const parts = net.W_hh.flatMap((row, i) => row.map((weight, j) =>
        svg("rect", { class: "cell", x: j * size, y: i * size, width: size - 2, height: size - 2, fill: rgb(weight) })));
      picture(element("weights-now"), UNITS * size, UNITS * size, `W_hh after ${counted(updates, "update")}`, ...parts);
    }

    function drawLoss() {
      plot(element("loss"), {
        label: losses.length ? `The loss after ${counted(updates, "update")} is ${short(losses[losses.length - 1])}.` : "No update yet: the loss curve is empty.",
        x: { from: 0, to: MOST, title: "update", ticks: [0, 100, 200, 300].map((n) => [n, String(n)]) },
        y: { from: 0.001, to: 2, log: true, title: "loss", ticks: powers(0.001, 2) },
        lines: losses.length ? [{ points: losses.map((loss, i) => [i + 1, loss]), kind: "one" }] : [],
        height: 220,
      });
    }

    function draw() {
      tell("length", counted(length(), "number"));
      drawLesson();
      drawWeights();
      drawLoss();
      element("run").textContent = running ? "Pause" : "Run";
      element("learned").textContent = losses.length
        ? `${counted(updates, "update")}. Loss ${short(losses[losses.length - 1])}. Right answers in the last ${BATCH} rows: ${percent(right, 0)}.`
        : "Nothing was learned yet.";
    }

    element("next").addEventListener("click", next);
    element("update").addEventListener("click", () => { whole(); draw(); });
    element("run").addEventListener("click", () => {
      running = !running && updates < MOST;
      run();
    });
    element("training-again").addEventListener("click", again);
    element("length").addEventListener("input", again);
    redraws.push(draw);
    again();
    return { data: () => ({ net: structuredClone(net), batch, losses: [...losses], right, updates, lesson, moment, running }) };
  }

  // --- gradients that vanish and explode

  function gradients() {
    const [UNITS, STEPS] = [16, 50];
    const [LOWEST, HIGHEST] = [1e-16, 1e16]; // what lies outside is not drawn
    const random = m.chance(7);
    const bell = m.normal(UNITS, UNITS, random);
    const right = m.orthogonal(UNITS, random);
    const inputs = m.normal(STEPS, 1, random);
    const W_ih = m.scaled(m.normal(UNITS, 1, random), 0.3);
    const last = m.scaled(m.normal(1, UNITS, random), 1)[0];
    const wanted = last.map((value) => value / m.norm(last)); // dLoss/dh of the last step: length 1
    const stretch = m.singularValues(bell)[0];
    let shown = null;

    const values = controls(["largest", "squash", "orthogonal", "clip"], () => draw());

    function draw() {
      const [largest, squash, orthogonal, clip] = values();
      const W_hh = orthogonal ? m.scaled(right, largest) : m.scaled(bell, largest / stretch);
      const weights = { W_ih, W_hh, b: Array(UNITS).fill(0) };
      const states = m.forward(weights, inputs, squash);
      const { dh, gradient } = m.backward(weights, inputs, states, wanted, squash);
      const length = m.norm(Object.values(gradient).flat(2));
      const factor = clip ? m.clipping(length, 1) : 1;
      const norms = dh.map((one) => factor * m.norm(one));
      const singular = m.singularValues(W_hh);
      shown = { W_ih, W_hh, inputs, wanted, norms, singular, length, factor };
      tell("largest", largest.toFixed(2));
      const ratio = norms[0] / norms[STEPS - 1];
      const fate = ratio < 1e-3 ? "It vanishes." : ratio > 1e3 ? "It explodes." : "It survives.";
      const told = `From the last step to the first, the gradient is multiplied by ${short(ratio)}. ${fate}`;
      plot(element("flow"), {
        label: `The length of dLoss/dh[t] at each of ${STEPS} steps. ${told}`,
        x: { from: 1, to: STEPS, title: "step t", ticks: [1, 10, 20, 30, 40, 50].map((t) => [t, String(t)]) },
        y: { from: LOWEST, to: HIGHEST, log: true, title: "length of dLoss/dh[t]", ticks: powers(LOWEST, HIGHEST) },
        lines: [{ points: norms.map((norm, t) => [t + 1, norm]).filter(([, norm]) => norm >= LOWEST && norm <= HIGHEST), kind: "one" }],
      });
      plot(element("stretches"), {
        label: `The ${UNITS} singular values of W_hh, from ${short(singular[0])} to ${short(singular[UNITS - 1])}`,
        x: { from: 1, to: UNITS, title: "singular values, largest first", ticks: [1, 8, 16].map((n) => [n, String(n)]) },
        y: { from: 0, to: 3, title: "stretch", ticks: [0, 1, 2, 3].map((n) => [n, String(n)]) },
        lines: [{ points: [[1, 1], [UNITS, 1]], kind: "rule" }],
        marks: singular.map((value, i) => ({ x: i + 1, y: value, kind: "two" })),
      });
      element("fate").textContent = told;
      element("clipped").textContent = clip
        ? `The gradient of all weights together was ${short(length)} long; it was multiplied by ${short(factor)}.`
        : `The gradient of all weights together is ${short(length)} long.`;
    }

    redraws.push(draw);
    draw();
    return { data: () => structuredClone(shown) };
  }

  function flows() {
    const runs = { plain: measured.trained.plain, recipe: measured.trained.recipe };
    const kinds = ["one", "two", "three", "four"];
    const all = Object.values(runs).flatMap((run) => run.history.flatMap((one) => one.gradient.flat()));
    const low = 10 ** Math.floor(Math.log10(Math.max(1e-14, Math.min(...all.filter((norm) => norm > 0)))));
    const high = 10 ** Math.ceil(Math.log10(Math.max(...all)));
    const stretches = Object.values(runs).flatMap((run) => run.history.flatMap((one) => one.singular_values.flat()));
    const top = Math.ceil(Math.max(...stretches));
    element("moment").max = runs.plain.history.length - 1;
    const values = controls(["moment"], () => draw());

    function draw() {
      const [moment] = values();
      tell("moment", counted(runs.plain.history[moment].step, "update"));
      for (const [name, run] of Object.entries(runs)) {
        const now = run.history[moment];
        const steps = now.gradient[0].length;
        const seconds = steps * run.seconds_per_step;
        const title = (layer) => (run.layers > 1 ? `layer ${layer + 1}` : "");
        const ends = now.gradient.map((norms, layer) => `${title(layer)} ${short(norms[0])} at the first step, ${short(norms[steps - 1])} at the last`);
        plot(element(`${name}-flow`), {
          label: `Measured length of dLoss/dh[t]: ${ends.join("; ")}`,
          x: { from: 0, to: seconds, title: "t in the clip, s", ticks: [0, 0.5, 1].filter((t) => t <= seconds + 0.05).map((t) => [t, String(t)]) },
          y: { from: low, to: high, log: true, title: "length of dLoss/dh[t]", ticks: powers(low, high) },
          lines: now.gradient.map((norms, layer) => ({
            points: norms.map((norm, t) => [(t + 1) * run.seconds_per_step, Math.max(norm, low)]), kind: kinds[layer], name: title(layer),
          })),
          height: 230,
        });
        plot(element(`${name}-stretches`), {
          label: `Measured singular values of W_hh: ${now.singular_values.map((s, layer) => `${title(layer)} from ${short(s[0])} to ${short(s[s.length - 1])}`).join("; ")}`,
          x: { from: 1, to: run.units, title: "singular values, largest first", ticks: [1, run.units].map((n) => [n, String(n)]) },
          y: { from: 0, to: top, title: "stretch", ticks: Array.from({ length: top + 1 }, (_, n) => [n, String(n)]) },
          lines: [{ points: [[1, 1], [run.units, 1]], kind: "rule" }, ...now.singular_values.map((s, layer) => ({ points: s.map((value, i) => [i + 1, value]), kind: kinds[layer] }))],
          height: 190,
        });
      }
    }

    redraws.push(draw);
    draw();
    return { data: () => Object.fromEntries(Object.entries(runs).map(([name, run]) => [name, run.history[values()[0]]])) };
  }

  // --- long sequences

  function distance() {
    const { trained, shipped } = measured;
    const seconds = trained.plain.distance.seconds;
    const curves = [
      { name: "the textbook’s network: its last state", kind: "two", of: trained.plain.distance.last },
      { name: "our recipe, trained equally long: the surest second", kind: "three", of: trained.recipe.distance.window },
      { name: `our shipped model ${shipped.model}: the surest second`, kind: "one", of: shipped.distance.window },
      { name: `the same ${shipped.model}, but only its last step`, kind: "four", of: shipped.distance.last },
    ];
    element("seconds").max = seconds.length - 1;
    const values = controls(["seconds"], () => draw());

    function draw() {
      const [chosen] = values();
      tell("seconds", `${seconds[chosen]} s`);
      plot(element("distances"), {
        label: `Accuracy when the word ended ${seconds[chosen]} s ago. ${curves.map(({ name, of }) => `${name}: ${percent(of[chosen])}`).join("; ")}`,
        x: { from: 0, to: seconds[seconds.length - 1], title: "background after the word, s", ticks: [0, 1, 2, 3].map((n) => [n, String(n)]) },
        y: { from: 0, to: 1, title: "right answers", ticks: [0, 0.25, 0.5, 0.75, 1].map((share) => [share, percent(share, 0)]) },
        lines: curves.map(({ kind, of }) => ({ kind, points: of.map((share, i) => [seconds[i], share]) })),
        at: seconds[chosen],
      });
      bars(element("distance-now"), curves.map(({ name, kind, of }) => ({ name, kind, line: true, share: of[chosen], text: percent(of[chosen]) })));
    }

    redraws.push(draw);
    draw();
    return { data: () => ({ seconds: seconds[values()[0]], shares: curves.map(({ of }) => of[values()[0]]) }) };
  }

  function shares() {
    const { recipe, textbook: plain, parts } = measured.ablation;
    parts.forEach(({ name }, i) => element("part").append(html("option", { value: i }, name)));
    const values = controls(["part"], () => draw());

    function draw() {
      const chosen = parts[Number(values()[0])];
      bars(element("parts"), [
        { name: "the whole recipe", share: recipe.accuracy, text: percent(recipe.accuracy), kind: "one" },
        ...parts.map((part) => ({ name: `without ${part.name}`, share: part.accuracy, text: percent(part.accuracy), kind: "three", chosen: part === chosen })),
        { name: "the textbook’s network", share: plain.accuracy, text: percent(plain.accuracy), kind: "two" },
      ]);
      const lost = 100 * (recipe.accuracy - chosen.accuracy);
      element("part-is").textContent = chosen.told;
      element("part-told").textContent = `Without it: ${percent(chosen.accuracy)} in place of ${percent(recipe.accuracy)}. That is ${Math.abs(lost).toFixed(1)} points ${lost > 0 ? "less" : "more"}.`;
    }

    redraws.push(draw);
    draw();
    return { data: () => ({ chosen: parts[Number(values()[0])].row, lost: recipe.accuracy - parts[Number(values()[0])].accuracy }) };
  }

  // --- slow?

  function speed() {
    const { cpu, cuda } = measured.speed;
    const unique = (name) => [...new Set(cpu.cases.map((one) => one[name]))];
    const [batches, lengths] = [unique("batch"), unique("steps")];
    element("batch").max = batches.length - 1;
    element("steps").max = lengths.length - 1;
    const values = controls(["batch", "steps"], () => draw());
    const each = (one, way) => (1e6 * one[way]) / (one.batch * one.steps); // µs for a step of a clip
    const all = cpu.cases.flatMap((one) => [each(one, "steps_seconds"), each(one, "product_seconds")]);
    const [low, high] = [10 ** Math.floor(Math.log10(Math.min(...all))), 10 ** Math.ceil(Math.log10(Math.max(...all)))];
    const WAYS = { steps_seconds: "step after step", product_seconds: "the same multiplications as one product" };

    function chosen(device = cpu) {
      const [batch, steps] = values();
      return device.cases.find((one) => one.batch === batches[batch] && one.steps === lengths[steps]);
    }

    function draw() {
      const one = chosen();
      tell("batch", counted(one.batch, "clip"));
      tell("steps", counted(one.steps, "step"));
      plot(element("speeds"), {
        label: `Microseconds for one step of one clip. With ${counted(one.batch, "clip")} of ${counted(one.steps, "step")}: ${Object.entries(WAYS).map(([way, name]) => `${name} ${short(each(one, way))}`).join("; ")}`,
        x: { from: batches[0], to: batches[batches.length - 1], log: true, title: "clips at once", ticks: batches.map((n) => [n, String(n)]) },
        y: { from: low, to: high, log: true, title: "µs for a step of a clip", ticks: powers(low, high) },
        lines: Object.entries(WAYS).map(([way, name], i) => ({
          name, kind: ["two", "one"][i], points: cpu.cases.filter((other) => other.steps === one.steps).map((other) => [other.batch, each(other, way)]),
        })),
        at: one.batch,
      });
      const ratio = one.steps_seconds / one.product_seconds;
      element("waiting").textContent = `${counted(one.batch, "clip")} of ${counted(one.steps, "step")}, on this project’s CPU: step after step takes ${(1000 * one.steps_seconds).toPrecision(2)} ms, one product ${(1000 * one.product_seconds).toPrecision(2)} ms. Waiting costs a factor of ${ratio.toFixed(1)}.`;
      const gpu = cuda && chosen(cuda);
      element("gpu").textContent = gpu
        ? `On a GPU: ${(1000 * gpu.steps_seconds).toPrecision(2)} ms and ${(1000 * gpu.product_seconds).toPrecision(2)} ms, a factor of ${(gpu.steps_seconds / gpu.product_seconds).toFixed(1)}.`
        : "On a GPU: not measured yet.";
    }

    /** A second of hiss through the network of the page, in this browser. */
    function here() {
      const { network } = figures.remembers;
      const random = m.chance(1);
      const hiss = Float32Array.from({ length: SAMPLE_RATE }, () => 0.1 * (random() - 0.5));
      let [taken, steps] = [Infinity, 0];
      for (let turn = 0; turn < 5; turn++) { // the fastest: what else the computer does is no matter
        const began = performance.now();
        steps = network.step(hiss, network.initialState()).length;
        taken = Math.min(taken, performance.now() - began);
      }
      const each = 1000 * network.lengths.stepSeconds;
      element("here-told").textContent = `In your browser: ${(taken / steps).toFixed(2)} ms for a step that brings ${each.toFixed(0)} ms of sound. It listens ${(1000 / taken).toFixed(0)} times as fast as you speak.`;
    }

    element("here").addEventListener("click", here);
    redraws.push(draw);
    draw();
    return { data: () => ({ ...chosen(), ratio: chosen().steps_seconds / chosen().product_seconds }) };
  }

  // --- what it is worth

  function worth() {
    const { systems } = measured;
    const kinds = { "vanilla recurrence, ours": "one", "vanilla recurrence": "five", "gated recurrence": "two", convolution: "three", attention: "four" };
    const sizes = systems.map(({ parameters }) => parameters).sort((a, b) => a - b);
    const [least, most] = [5000, 1e7];
    systems.forEach(({ system, kind }, i) => element("system").append(html("option", { value: i }, `${system} (${kind})`)));
    element("system").value = systems.findLastIndex(({ kind }) => kind.endsWith("ours"));
    element("size").max = sizes.length - 1;
    element("size").value = sizes.length - 1;
    const values = controls(["size", "system"], () => draw());

    function draw() {
      const [size, system] = values();
      const limit = sizes[size];
      tell("size", counted(limit, "parameter"));
      const small = systems.filter(({ parameters }) => parameters <= limit);
      const chosen = systems[Number(system)];
      const best = Object.keys(kinds).map((kind) => small.filter((one) => one.kind === kind).sort((a, b) => b.accuracy - a.accuracy)[0]).filter(Boolean);
      plot(element("systems"), {
        label: `Accuracy against parameters of ${counted(small.length, "network")}. Best of each kind up to ${counted(limit, "parameter")}: ${best.map((one) => `${one.kind}: ${one.system}, ${one.accuracy.toFixed(1)} %`).join("; ")}`,
        x: { from: least, to: most, log: true, title: "parameters", ticks: [[1e4, "10,000"], [1e5, "100,000"], [1e6, "1 million"]] },
        // Each step up halves the errors, so that networks of high accuracy lie apart.
        y: { from: 30, to: 1, log: true, title: "accuracy", ticks: [[25, "75 %"], [10, "90 %"], [5, "95 %"], [2, "98 %"], [1, "99 %"]] },
        marks: systems.map((one) => ({
          x: one.parameters, y: 100 - one.accuracy, name: one.system, kind: kinds[one.kind] + (small.includes(one) ? "" : " pale"), chosen: one === chosen, written: one === chosen,
        })),
        at: limit,
        height: 320,
      });
      const legend = html("ul", { class: "legend" });
      for (const [kind, name] of Object.entries(kinds)) {
        legend.append(html("li", {}, svg("svg", { width: 14, height: 14, "aria-hidden": "true" }, svg("circle", { class: `mark ${name}`, cx: 7, cy: 7, r: 5 })), kind));
      }
      element("systems").append(legend);
      bars(element("best"), best.map((one) => ({ name: `${one.kind}: ${one.system}`, share: one.accuracy / 100, text: `${one.accuracy.toFixed(1)} %`, kind: kinds[one.kind], chosen: one === chosen })));
      const alarms = chosen.talk === null ? "False alarms in an hour of talk: not known." : `False alarms in an hour of talk: ${chosen.talk}.`;
      element("chosen").textContent = `${chosen.system}: ${counted(chosen.parameters, "parameter")}, ${chosen.accuracy.toFixed(1)} % on ${chosen.test}. ${alarms} Source: ${chosen.source}.`;
      return best;
    }

    redraws.push(draw);
    draw();
    return { data: () => ({ limit: sizes[values()[0]], best: draw().map(({ system }) => system), chosen: systems[Number(values()[1])].system }) };
  }

  const figures = {};
  readPalette();
  for (const figure of [remembers, equation, training, gradients, flows, distance, shares, speed, worth]) {
    figures[figure.name] = figure();
  }
  let waiting = 0;
  const again = () => {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(() => redraws.forEach((draw) => draw()));
  };
  addEventListener("resize", again);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    readPalette();
    again();
  });
  return { figures };
})();
