// What the page shows and does: the microphone or a recording, through the network, to pictures and
// words. Nothing is kept but the last seconds and the last words, and those only while it is open.
"use strict";

(() => {
  const { SAMPLE_RATE, Listener, Network, Resampler, unpack } = speechrnn;
  const MOST_SECONDS = 6; // in the pictures, where the window is wide
  const MOST_WORDS = 100; // in the table
  const QUIET_DB = -70; // where the level begins
  const LOG_MEL = [-8, 5]; // from the palest to the strongest colour: a quiet room, a loud voice
  const WORD_SECONDS = 1.5; // for which a word stays bright
  const ELSE = "Recordings can be opened or dropped here all the same.";

  const element = (id) => document.getElementById(id);
  const model = JSON.parse(element("model").textContent);
  const { config, thresholds } = model;
  const network = new Network(config, unpack(model.arrays));
  const { stepSeconds, holdSteps } = network.lengths;
  const answers = speechrnn.answers(config);
  const words = answers.filter((label) => !label.startsWith("_"));
  const wide = matchMedia("(min-width: 62rem)");
  const dark = matchMedia("(prefers-color-scheme: dark)");

  let listener = new Listener(network, thresholds);
  let source = null; // what is heard: { stop() }, of a recording also { skip() }
  let turn = 0; // of the sources; one that is still opening when its turn is over is closed again
  let found = []; // the words
  let latest = null; // the last step
  let steps = 0;
  let spent = 0; // ms, in the network

  // --- pictures

  /** A picture that moves to the left: a column for each moment, a row for each number. */
  class Strip {
    /** `perStep` columns for each step; `colours` gives the names of CSS colours for 0 to 1. */
    constructor(canvas, rows, perStep, colours) {
      this.context = canvas.getContext("2d");
      this.canvas = canvas;
      this.canvas.height = rows;
      this.perStep = perStep;
      this.most = Math.ceil(MOST_SECONDS / stepSeconds) * perStep;
      this.colours = colours;
      this.clear();
    }

    clear() {
      this.columns = [];
      this.repaint();
    }

    /** Everything anew: the colours or the width have changed. */
    repaint() {
      this.table = shades(this.colours);
      this.canvas.width = Math.round(seconds() / stepSeconds) * this.perStep; // this clears it
      this.fresh = this.columns.length;
    }

    push(column) {
      this.columns.push(column);
      if (this.columns.length > this.most) this.columns.shift();
      this.fresh++;
    }

    draw() {
      const { width, height } = this.canvas;
      const fresh = Math.min(this.fresh, this.columns.length, width);
      this.fresh = 0;
      if (!fresh) return;
      this.context.globalCompositeOperation = "copy";
      this.context.drawImage(this.canvas, -fresh, 0);
      const image = this.context.createImageData(fresh, height);
      const pixels = new Uint32Array(image.data.buffer);
      this.columns.slice(-fresh).forEach((column, x) => {
        for (let y = 0; y < height; y++) {
          const share = Math.min(1, Math.max(0, column[y]));
          pixels[y * fresh + x] = this.table[Math.round(share * 255)];
        }
      });
      this.context.putImageData(image, width - fresh, 0);
    }
  }

  const seconds = () => (wide.matches ? MOST_SECONDS : 4);

  /** 256 pixels from the first of these CSS colours to the last, little-endian RGBA. */
  function shades(names) {
    const style = getComputedStyle(document.documentElement);
    const stops = names.map((name) => {
      const digits = style.getPropertyValue(`--${name}`).trim().slice(1);
      return [0, 2, 4].map((at) => parseInt(digits.slice(at, at + 2), 16));
    });
    return Uint32Array.from({ length: 256 }, (_, shade) => {
      const place = (shade / 255) * (stops.length - 1);
      const left = Math.min(Math.floor(place), stops.length - 2);
      const [r, g, b] = stops[left].map((from, i) =>
        Math.round(from + (place - left) * (stops[left + 1][i] - from)),
      );
      return (255 << 24) | (b << 16) | (g << 8) | r;
    });
  }

  const colour = (name) =>
    getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

  const level = new Strip(element("level"), 48, config.stack, ["quiet", "accent"]);
  const mel = new Strip(element("mel"), config.mel_bands, config.stack, ["quiet", "middle", "loud"]);
  const layers = Array.from({ length: config.layers }, (_, layer) => {
    const figure = document.createElement("figure");
    const caption = document.createElement("figcaption");
    const canvas = document.createElement("canvas");
    const small = document.createElement("span");
    small.className = "soft";
    small.textContent = `${config.hidden_size} units of h[t]`;
    caption.append(`Layer ${layer + 1} `, small);
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `h[t] of the ${config.hidden_size} units of layer ${layer + 1}`);
    if (config.hidden_size > 96) canvas.className = "smooth";
    figure.append(caption, canvas);
    element("layers").append(figure);
    return new Strip(canvas, config.hidden_size, 1, ["negative", "quiet", "positive"]);
  });
  const strips = [level, mel, ...layers];

  /** The units of each layer by their h after a second of hiss, so that a word breaks a calm slope:
   * in the order of the weights, which is by chance, it breaks stripes. */
  const order = (() => {
    const state = network.initialState();
    let chance = 1; // a generator of Lehmer's, as good as any here
    const hiss = Float32Array.from({ length: SAMPLE_RATE }, () => {
      chance = (chance * 48271) % 2147483647;
      return 0.004 * (chance / 2147483647 - 0.5);
    });
    network.step(hiss, state);
    return state.hidden.map((h) => Array.from(h.keys()).sort((a, b) => h[a] - h[b]));
  })();

  /** A bar around the middle, as high as the sound is loud. */
  function levelColumn(samples) {
    const power = samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length;
    const height = Math.max(0, 1 - (10 * Math.log10(power + 1e-12)) / QUIET_DB);
    const rows = level.canvas.height;
    return Float32Array.from({ length: rows }, (_, row) =>
      Math.min(1, Math.max(0, 0.5 + (height * rows) / 2 - Math.abs(row - (rows - 1) / 2))),
    );
  }

  function show(step) {
    const hop = network.lengths.hop;
    for (let frame = 0; frame < config.stack; frame++) {
      level.push(levelColumn(step.samples.subarray(frame * hop, (frame + 1) * hop)));
      const [quiet, loud] = LOG_MEL;
      mel.push(step.logMel[frame].map((power) => (power - quiet) / (loud - quiet)).reverse());
    }
    layers.forEach((strip, layer) => {
      const squash = config.activation === "tanh" ? (h) => h : Math.tanh;
      strip.push(order[layer].map((unit) => (1 + squash(step.hidden[layer][unit])) / 2));
    });
  }

  /** A canvas with a pixel for each of the screen's, to write on; its size in CSS pixels. */
  function paper(canvas) {
    const ratio = devicePixelRatio;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    context.font = `600 14px system-ui, sans-serif`;
    context.textBaseline = "middle";
    return { context, width, height, x: (time) => width * (1 + (time - heard()) / seconds()) };
  }

  const heard = () => steps * stepSeconds;

  function drawLane() {
    const { context, width, height, x } = paper(element("lane"));
    for (const word of found) {
      const [left, right] = [x(word.start), x(word.end)];
      if (right < -100 || left > width) continue;
      context.fillStyle = colour("found");
      context.beginPath();
      context.roundRect(left, 2, right - left, height - 4, 4);
      context.fill();
      context.fillStyle = colour("text");
      context.textAlign = "center";
      context.fillText(word.label, (left + right) / 2, height / 2 + 1);
    }
  }

  function drawAxis() {
    const { context, width, x } = paper(element("axis"));
    context.font = "13px system-ui, sans-serif";
    context.strokeStyle = colour("line");
    context.fillStyle = colour("soft");
    context.textAlign = "center";
    for (let time = Math.max(0, Math.ceil(heard() - seconds())); time <= heard(); time++) {
      const place = Math.round(x(time)) + 0.5;
      context.beginPath();
      context.moveTo(place, 0);
      context.lineTo(place, 5);
      context.stroke();
      const text = `${time} s`;
      const half = context.measureText(text).width / 2;
      context.fillText(text, Math.min(Math.max(place, half), width - half), 15);
    }
  }

  // --- words and probabilities

  const rows = [...words, ...answers.filter((label) => !words.includes(label))].map((label) => {
    const item = document.createElement("li");
    const parts = ["label", "bar", "share"].map((name) => {
      const part = document.createElement("span");
      part.className = name;
      return part;
    });
    const [name, bar, share] = parts;
    const names = { _silence_: "silence", _unknown_: "another" };
    name.textContent = names[label] ?? label;
    name.title = name.textContent;
    const fill = document.createElement("i");
    bar.append(fill);
    if (words.includes(label)) {
      const mark = document.createElement("b");
      mark.style.left = `${100 * thresholds[label]}%`;
      mark.title = `from ${thresholds[label].toFixed(2)} on it counts; behind other speech it must be higher`;
      bar.append(mark);
    } else {
      item.className = "other";
    }
    item.append(...parts);
    element("probabilities").append(item);
    return { item, fill, share, column: answers.indexOf(label), threshold: thresholds[label] };
  });

  function drawProbabilities() {
    for (const { item, fill, share, column, threshold } of rows) {
      const probability = latest ? latest.probabilities[column] : 0;
      fill.style.transform = `scaleX(${probability.toFixed(3)})`;
      share.textContent = latest ? `${Math.round(100 * probability)} %` : "";
      item.classList.toggle("sure", probability >= threshold);
    }
  }

  function add(word) {
    found.push(word);
    element("word").textContent = word.label;
    const row = element("words").insertRow(0);
    const { start, end, label, score } = word;
    for (const text of [start.toFixed(2), end.toFixed(2), label, `${Math.round(100 * score)} %`]) {
      row.insertCell().textContent = text;
    }
    if (found.length > MOST_WORDS) {
      found.shift();
      element("words").deleteRow(-1);
    }
    element("none").hidden = true;
  }

  // --- from samples to all of that

  let drawing = 0;

  function redraw() {
    drawing ||= requestAnimationFrame(() => {
      drawing = 0;
      strips.forEach((strip) => strip.draw());
      drawLane();
      drawAxis();
      drawProbabilities();
      const last = found.at(-1);
      const past = !last || heard() - last.reported > WORD_SECONDS;
      element("word").classList.toggle("past", past);
      const share = (100 * spent) / (1000 * heard());
      element("load").textContent = steps
        ? `The network takes ${(spent / steps).toFixed(2)} ms for each ${(1000 * stepSeconds).toFixed(0)} ms of sound: ${share.toFixed(1)} % of the time.`
        : "";
    });
  }

  function take(compute) {
    const began = performance.now();
    const heardNow = compute();
    spent += performance.now() - began;
    steps += heardNow.steps.length;
    heardNow.steps.forEach(show);
    heardNow.words.forEach(add);
    latest = heardNow.steps.at(-1) ?? latest;
    redraw();
  }

  const hear = (samples) => take(() => listener.push(samples));

  function forget() {
    listener = new Listener(network, thresholds);
    found = [];
    latest = null;
    steps = 0;
    spent = 0;
    strips.forEach((strip) => strip.clear());
    element("word").textContent = "";
    element("words").replaceChildren();
    element("none").hidden = false;
    redraw();
  }

  function say(text, kind = "") {
    element("status").textContent = text;
    element("status").className = kind;
  }

  /** Ends what is heard, and says why; `turn` moves on, so that what is still opening is closed. */
  function stop(text = "", kind = "") {
    turn++;
    source?.stop();
    source = null;
    element("start").textContent = "Start the microphone";
    element("open").textContent = "Open a recording";
    say(text, kind);
  }

  function began(what, text) {
    source = what;
    element("start").textContent = "Stop";
    element("open").textContent = what.skip ? "Skip to its end" : "Open a recording";
    say(text, "live");
  }

  function finish(text) {
    take(() => listener.finish());
    stop(text);
  }

  // --- the microphone

  class Refusal extends Error {}

  const REFUSALS = {
    NotAllowedError: "The microphone was refused: allow it beside the page's address, then start again.",
    NotFoundError: "No microphone was found: plug one in, then start again.",
    NotReadableError: "The microphone does not answer; another program may hold it.",
    AbortError: "The microphone could not be started.",
  };

  async function listen() {
    stop("The browser asks whether this page may use the microphone.");
    forget();
    const mine = turn;
    let stream = null;
    try {
      if (!navigator.mediaDevices) {
        throw new Refusal(
          "A browser gives the microphone only to pages from https or from this machine: type `speechrnn demo`.",
        );
      }
      if (!window.AudioWorkletNode) {
        throw new Refusal("This browser has no AudioWorklet, which the microphone needs here.");
      }
      stream = await navigator.mediaDevices.getUserMedia({
        audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false },
      });
      const context = await capture(stream);
      const microphone = {
        stop() {
          context.close();
          stream.getTracks().forEach((track) => track.stop());
        },
      };
      if (mine !== turn) return microphone.stop();
      stream.getTracks()[0].onended = () => stop("The microphone went away.", "wrong");
      began(microphone, "Listening. Say a word.");
    } catch (error) {
      stream?.getTracks().forEach((track) => track.stop());
      if (mine !== turn) return;
      const known = error instanceof Refusal ? error.message : REFUSALS[error.name];
      stop(`${known ?? `The microphone cannot be used: ${error.message}.`} ${ELSE}`, "wrong");
    }
  }

  /** The context through which a stream is heard: at 16 kHz, or, where the browser refuses to
   * bring a microphone to that (Firefox does), at its own rate and through `Resampler`. */
  async function capture(stream) {
    const script = new Blob([element("microphone-script").textContent], { type: "text/javascript" });
    const url = URL.createObjectURL(script);
    let context = new AudioContext({ sampleRate: SAMPLE_RATE });
    try {
      let input;
      try {
        input = context.createMediaStreamSource(stream);
      } catch {
        context.close();
        context = new AudioContext();
        input = context.createMediaStreamSource(stream);
      }
      const rate = context.sampleRate;
      const resampler = rate === SAMPLE_RATE ? null : new Resampler(rate);
      await context.audioWorklet.addModule(url);
      const node = new AudioWorkletNode(context, "microphone");
      const { state } = listener; // what comes after a stop must not reach the next listener
      node.port.onmessage = ({ data }) => {
        if (listener.state === state && source) hear(resampler ? resampler.push(data) : data);
      };
      input.connect(node).connect(context.destination); // silence, but without it nothing is computed
      await context.resume();
      return context;
    } catch (error) {
      context.close();
      throw error;
    } finally {
      URL.revokeObjectURL(url);
    }
  }

  // --- recordings

  async function play(file) {
    stop(`Reading ${file.name}.`);
    forget();
    const mine = turn;
    let buffer;
    try {
      const decoder = new OfflineAudioContext(1, 1, SAMPLE_RATE); // it also resamples
      buffer = await decoder.decodeAudioData(await file.arrayBuffer());
    } catch {
      const wrong = `${file.name}: not a recording that this browser can read. Most read wav, MP3, Ogg and FLAC.`;
      if (mine === turn) stop(wrong, "wrong");
      return;
    }
    if (mine !== turn) return;
    const samples = mixDown(buffer);
    const context = new AudioContext();
    const player = context.createBufferSource();
    player.buffer = buffer;
    player.connect(context.destination);
    player.start();
    const start = performance.now();
    let at = 0;
    let skipping = false;
    const timer = setInterval(() => {
      const played = ((performance.now() - start) * SAMPLE_RATE) / 1000;
      const most = at + 2 * SAMPLE_RATE; // so that the page answers meanwhile
      const to = Math.floor(Math.min(samples.length, most, skipping ? most : played));
      hear(samples.subarray(at, to));
      at = to;
      if (at === samples.length) {
        const length = `${(samples.length / SAMPLE_RATE).toFixed(1)} s`;
        finish(`${file.name} is over, after ${length}.`);
      }
    }, 1000 * stepSeconds);
    began(
      {
        stop() {
          clearInterval(timer);
          context.close();
        },
        skip() {
          skipping = true;
          player.stop();
        },
      },
      `Playing ${file.name}.`,
    );
  }

  function mixDown(buffer) {
    const channels = Array.from({ length: buffer.numberOfChannels }, (_, channel) =>
      buffer.getChannelData(channel),
    );
    return channels[0].map((_, i) =>
      channels.reduce((sum, channel) => sum + channel[i] / channels.length, 0),
    );
  }

  // --- buttons, files, the window

  element("start").addEventListener("click", () => (source ? stop("Stopped.") : listen()));
  element("open").addEventListener("click", () =>
    source?.skip ? source.skip() : element("file").click(),
  );
  element("file").addEventListener("change", ({ target }) => {
    if (target.files.length) play(target.files[0]);
    target.value = ""; // so that the same file can be opened again
  });
  for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      const leaves = kind === "drop" || (kind === "dragleave" && !event.relatedTarget);
      document.body.classList.toggle("dropping", !leaves);
      if (kind !== "drop") return;
      const [file] = event.dataTransfer.files;
      if (file) play(file);
      else stop("What was dropped is no file.", "wrong");
    });
  }
  const repaint = () => {
    strips.forEach((strip) => strip.repaint());
    redraw();
  };
  for (const query of [wide, dark]) query.addEventListener("change", repaint);
  window.addEventListener("resize", redraw);
  window.addEventListener("pagehide", () => {
    stop();
    forget();
  });

  const listed = `${words.slice(0, -1).join(", ")} or ${words.at(-1)}`;
  document.title = `speechrnn ${model.name}`;
  element("name").textContent = model.name;
  element("invitation").textContent =
    words.length > 12 ? `Say one of ${words.length} words.` : `Say ${listed}.`;
  element("facts").textContent =
    `A word counts when it has stayed beyond its mark for ${(holdSteps * stepSeconds).toFixed(2)} s ` +
    `and the sound that decides is short; behind other speech it must be surer. ` +
    `Every ${(1000 * stepSeconds).toFixed(0)} ms each layer computes h[t] = ${config.activation}(W_ih x[t] + b + W_hh h[t-1]), ` +
    `and h is all that it remembers; its units stand in the order of their h in a quiet room. ` +
    `${model.parameters.toLocaleString("en")} numbers in all; speechrnn ${model.version}.`;
  for (const id of ["start", "open"]) element(id).disabled = false;
  element("start").focus();
  say("Or drop a recording anywhere on this page.");
  redraw();
})();
