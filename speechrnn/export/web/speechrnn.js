// From samples to words in plain JavaScript, under Node and in a page, with nothing else beside it.
//
// In: a model (`config` as in config.json, `arrays` by the names of model.safetensors, `thresholds`
// by word), and audio at 16 kHz in blocks of any size, full scale +-1. Out: what the network holds
// at each step, and the words with their times. It is the chain of network.py and detection.py,
// held to the same golden vectors; it knows no page, no microphone and no file.
//
//     const network = new speechrnn.Network(config, speechrnn.unpack(arrays));
//     const listener = new speechrnn.Listener(network, thresholds);
//     for (const block of blocks) console.log(listener.push(block).words);
//     console.log(listener.finish().words);
"use strict";

const speechrnn = (() => {
  const SAMPLE_RATE = 16000; // Hz
  const WINDOW_SECONDS = 1; // in which a word is looked for
  const HOLD_SECONDS = 0.42; // how long a word must stay at its threshold
  const WIDEST_SECONDS = 0.75; // how long the sound may last that decides when it is reported
  const BEHIND_SPEECH = 1; // by this share rise a threshold's log odds behind unknown speech
  const REFRACTORY_SECONDS = 0.0; // after a word, in which no other begins
  const TAIL_SECONDS = 0.6; // of silence after the last block, so that the last word is complete
  const PIECE_STEPS = 5; // a recording is filled up to whole pieces, as in recogniser.py
  const EDGES = [0.05, 0.95]; // a word lies between these shares of its window's weight
  const NOTHING = -1e4; // logits so low that their step has no weight: before the first step
  const NORM_EPSILON = 1e-5;

  // Python's: halves go to the even neighbour.
  const round = (x) => (Math.abs(x % 1) === 0.5 ? 2 * Math.round(x / 2) : Math.round(x));

  /** Float32Arrays by name. An array is packed as base64 of little-endian numbers: `float32`; or
   * `int8` (rows, columns) with a float32 `scale` for each row; or, where a matrix (rows, columns)
   * is nearly all zeros, `float32` with the `rows` of each column from `first` on, `count` of them.
   */
  function unpack(packed) {
    const arrays = {};
    for (const [name, { shape, int8, scale, float32, first, count }] of Object.entries(packed)) {
      const numbers = new Float32Array(shape.reduce((product, size) => product * size, 1));
      if (int8 !== undefined) {
        const weights = new Int8Array(bytes(int8));
        const scales = floats(scale);
        for (let i = 0; i < numbers.length; i++) {
          numbers[i] = weights[i] * scales[Math.floor(i / shape[1])];
        }
      } else if (first !== undefined) {
        const values = floats(float32);
        let next = 0;
        for (let column = 0; column < shape[1]; column++) {
          for (let row = first[column]; row < first[column] + count[column]; row++) {
            numbers[row * shape[1] + column] = values[next++];
          }
        }
      } else {
        numbers.set(floats(float32));
      }
      arrays[name] = numbers;
    }
    return arrays;
  }

  const bytes = (base64) => Uint8Array.from(atob(base64), (c) => c.charCodeAt(0)).buffer;

  function floats(base64) {
    const view = new DataView(bytes(base64));
    return Float32Array.from({ length: view.byteLength / 4 }, (_, i) => view.getFloat32(4 * i, true));
  }

  /** The lengths that follow from a configuration, in samples, steps and seconds. */
  function lengths(config) {
    const hop = round((config.hop_ms * SAMPLE_RATE) / 1000);
    const stepSeconds = (config.stack * config.hop_ms) / 1000;
    return {
      hop,
      window: round((config.window_ms * SAMPLE_RATE) / 1000),
      stepSamples: hop * config.stack,
      stepSeconds,
      windowSteps: round(WINDOW_SECONDS / stepSeconds),
      holdSteps: round(HOLD_SECONDS / stepSeconds),
      widestSteps: round(WIDEST_SECONDS / stepSeconds),
    };
  }

  /** Power |X[k]|^2 of real frames, k = 0 .. size / 2. Splits even sizes into halves (Cooley and
   * Tukey 1965); what is left of a size that is no power of two is summed up as it is defined. */
  class PowerSpectrum {
    constructor(size) {
      this.size = size;
      this.cos = Float64Array.from({ length: size }, (_, k) => Math.cos((2 * Math.PI * k) / size));
      this.sin = Float64Array.from({ length: size }, (_, k) => -Math.sin((2 * Math.PI * k) / size));
      this.re = new Float64Array(size);
      this.im = new Float64Array(size);
      this.odd = [new Float64Array(size), new Float64Array(size)];
      this.power = new Float64Array(Math.floor(size / 2) + 1);
    }

    of(frame) {
      this.transform(frame, 0, 1, this.size, 0);
      for (let k = 0; k < this.power.length; k++) {
        this.power[k] = this.re[k] * this.re[k] + this.im[k] * this.im[k];
      }
      return this.power;
    }

    /** Of `size` numbers of `x`, from `from` on, each `stride`-th, to re and im from `to` on. */
    transform(x, from, stride, size, to) {
      const { re, im, cos, sin } = this;
      if (size % 2) {
        for (let k = 0; k < size; k++) {
          let real = 0;
          let imaginary = 0;
          for (let n = 0; n < size; n++) {
            const angle = ((k * n) % size) * stride;
            real += x[from + n * stride] * cos[angle];
            imaginary += x[from + n * stride] * sin[angle];
          }
          re[to + k] = real;
          im[to + k] = imaginary;
        }
        return;
      }
      const half = size / 2;
      this.transform(x, from, 2 * stride, half, to);
      this.transform(x, from + stride, 2 * stride, half, to + half);
      for (let k = 0; k < half; k++) {
        const a = to + k;
        const b = a + half;
        const real = re[b] * cos[k * stride] - im[b] * sin[k * stride];
        const imaginary = re[b] * sin[k * stride] + im[b] * cos[k * stride];
        re[b] = re[a] - real;
        im[b] = im[a] - imaginary;
        re[a] += real;
        im[a] += imaginary;
      }
    }
  }

  /** A trained network. `config` as in config.json; `arrays` Float32Arrays by name. */
  class Network {
    constructor(config, arrays) {
      this.config = config;
      this.arrays = arrays;
      this.lengths = lengths(config);
      this.squash = config.activation === "tanh" ? Math.tanh : (x) => Math.max(x, 0);
      this.spectrum = new PowerSpectrum(config.fft_size);
      this.bands = bandsOf(arrays["mfcc.mel"], config.mel_bands);
    }

    /** Before the first sample: silence in the past, h = 0. */
    initialState() {
      const { layers, hidden_size: hidden } = this.config;
      return {
        audio: new Float32Array(this.lengths.window - this.lengths.hop),
        hidden: Array.from({ length: layers }, () => new Float64Array(hidden)),
      };
    }

    /** The steps that are complete with these samples; `state` moves on with them.
     *
     * Each step has its `samples`, `logMel` and `features` (an array for each of its frames),
     * `hidden` (h[t] of each layer) and `logits`. */
    step(samples, state) {
      const { hop, window, stepSamples } = this.lengths;
      const audio = new Float32Array(state.audio.length + samples.length);
      audio.set(state.audio);
      audio.set(samples, state.audio.length);
      const steps = [];
      let start = 0;
      for (; start + window - hop + stepSamples <= audio.length; start += stepSamples) {
        const logMel = [];
        const features = [];
        for (let frame = 0; frame < this.config.stack; frame++) {
          const from = start + frame * hop;
          logMel.push(this.logMel(audio.subarray(from, from + window)));
          features.push(this.cepstrum(logMel[frame]));
        }
        const joined = Float64Array.from(features.flatMap((frame) => [...frame]));
        const logits = this.recur(joined, state.hidden);
        steps.push({
          samples: audio.slice(start + window - hop, start + window - hop + stepSamples),
          logMel,
          features,
          hidden: state.hidden.map((h) => Float32Array.from(h)),
          logits,
        });
      }
      state.audio = audio.slice(start);
      return steps;
    }

    /** Logarithm of the power in each mel band (M), of a frame (window). */
    logMel(frame) {
      const { "mfcc.window": shape } = this.arrays;
      const windowed = new Float64Array(this.config.fft_size);
      for (let n = 0; n < frame.length; n++) windowed[n] = frame[n] * shape[n];
      const power = this.spectrum.of(windowed);
      return Float64Array.from(this.bands, ({ first, weights }) => {
        let sum = this.config.log_floor;
        for (let k = 0; k < weights.length; k++) sum += power[first + k] * weights[k];
        return Math.log(sum);
      });
    }

    /** Normalised mel-frequency cepstral coefficients (F). Source: Davis and Mermelstein 1980. */
    cepstrum(logMel) {
      const { "mfcc.dct": dct, "mfcc.mean": mean, "mfcc.std": std } = this.arrays;
      return Float64Array.from(mean, (average, f) => {
        let sum = -average;
        for (let m = 0; m < logMel.length; m++) sum += logMel[m] * dct[m * mean.length + f];
        return sum / std[f];
      });
    }

    /** Logits (C) of a step, from its features (stack * F); `hidden` moves on to h[t]. */
    recur(features, hidden) {
      let x = this.linear("input", features);
      for (let layer = 0; layer < this.config.layers; layer++) {
        const block = `blocks.${layer}`;
        const normed = this.norm(`${block}.recurrence_norm`, x);
        hidden[layer] = this.recurrence(`${block}.recurrence`, normed, hidden[layer]);
        x = add(x, hidden[layer]);
        x = add(x, this.feedForward(`${block}.feed_forward`, x));
      }
      return this.linear("head.1", this.norm("head.0", x));
    }

    /** h[t] = tanh(W_ih x[t] + b + W_hh h[t-1]) */
    recurrence(name, x, hidden) {
      const input = product(this.arrays[`${name}.weight_ih_l0`], x);
      const past = product(this.arrays[`${name}.weight_hh_l0`], hidden);
      const bias = this.arrays[`${name}.bias_ih_l0`];
      return input.map((sum, unit) => this.squash(sum + bias[unit] + past[unit]));
    }

    /** W_out (silu(W_gate n) * W_value n), n = norm(x). Source: Shazeer, arXiv 2002.05202. */
    feedForward(name, x) {
      const normed = this.norm(`${name}.norm`, x);
      const gate = this.linear(`${name}.gate`, normed);
      const value = this.linear(`${name}.value`, normed);
      for (let i = 0; i < gate.length; i++) gate[i] *= (value[i] * (1 + Math.tanh(gate[i] / 2))) / 2;
      return this.linear(`${name}.outward`, gate);
    }

    linear(name, x) {
      return add(product(this.arrays[`${name}.weight`], x), this.arrays[`${name}.bias`]);
    }

    /** Mean 0 and variance 1, then a weight and a bias. Source: Ba et al., arXiv 1607.06450. */
    norm(name, x) {
      const weight = this.arrays[`${name}.weight`];
      const bias = this.arrays[`${name}.bias`];
      let mean = 0;
      for (const value of x) mean += value / x.length;
      let variance = 0;
      for (const value of x) variance += ((value - mean) * (value - mean)) / x.length;
      const scale = 1 / Math.sqrt(variance + NORM_EPSILON);
      return x.map((value, i) => (value - mean) * scale * weight[i] + bias[i]);
    }
  }

  /** W x, W (out, in) row by row. Four sums at once: each alone waits for its last addition. */
  function product(weight, x) {
    const inputs = x.length;
    const out = new Float64Array(weight.length / inputs);
    for (let row = 0, at = 0; row < out.length; row++) {
      let a = 0;
      let b = 0;
      let c = 0;
      let d = 0;
      let i = 0;
      for (; i + 3 < inputs; i += 4, at += 4) {
        a += weight[at] * x[i];
        b += weight[at + 1] * x[i + 1];
        c += weight[at + 2] * x[i + 2];
        d += weight[at + 3] * x[i + 3];
      }
      for (; i < inputs; i++, at++) a += weight[at] * x[i];
      out[row] = a + b + (c + d);
    }
    return out;
  }

  const add = (x, y) => x.map((value, i) => value + y[i]);

  /** Of each column of the mel matrix (bins, bands) the part that is not zero. */
  function bandsOf(mel, count) {
    return Array.from({ length: count }, (_, band) => {
      const column = mel.filter((_, i) => i % count === band);
      const first = Math.max(0, column.findIndex((weight) => weight !== 0));
      const last = column.findLastIndex((weight) => weight !== 0);
      return { first, weights: column.slice(first, last + 1) };
    });
  }

  function softmax(logits) {
    const most = logits.reduce((a, b) => Math.max(a, b));
    const shares = Float64Array.from(logits, (logit) => Math.exp(logit - most));
    const sum = shares.reduce((a, b) => a + b);
    return shares.map((share) => share / sum);
  }

  // What can be answered; labels that begin with one of these stand for it together.
  const answer = (label) => ["_silence_", "_unknown_"].find((rest) => label.startsWith(rest)) ?? label;
  const answers = (config) => [...new Set(config.labels.map(answer))];

  /** Pools the last second at each step: a mean of the logits, in which the weight of a step is the
   * softmax over the steps of its mean logit. */
  class SlidingWindow {
    constructor(config) {
      const { windowSteps, stepSeconds } = lengths(config);
      this.seconds = stepSeconds;
      this.answers = answers(config);
      this.places = config.labels.map((label) => this.answers.indexOf(answer(label)));
      this.recent = Array.from({ length: windowSteps }, () =>
        new Float64Array(config.labels.length).fill(NOTHING),
      );
      this.step = 0;
    }

    /** With the logits (C) of the next step: `probabilities` (A) of the answers in the window
     * that ends with it, and the seconds between which lies the sound that decided. */
    push(logits) {
      this.recent.push(logits);
      this.recent.shift();
      const means = this.recent.map((step) => step.reduce((a, b) => a + b) / step.length);
      const weight = softmax(means);
      const pooled = logits.map((_, label) =>
        this.recent.reduce((sum, step, i) => sum + weight[i] * step[label], 0),
      );
      const first = ++this.step - this.recent.length; // step at which the window begins
      let passed = 0;
      let [start, end] = [first, first + 1];
      for (const share of weight) {
        passed += share;
        if (passed < EDGES[0]) start++;
        if (passed < EDGES[1]) end++;
      }
      const probabilities = new Float64Array(this.answers.length);
      softmax(pooled).forEach((share, label) => (probabilities[this.places[label]] += share));
      return {
        probabilities,
        start: Math.max(start, 0) * this.seconds,
        end: end * this.seconds,
      };
    }
  }

  /** Decides which words were spoken: those that stay at their threshold, which is higher behind
   * other speech, and are short. */
  class Trigger {
    constructor(config, thresholds) {
      const { holdSteps, widestSteps, stepSeconds, windowSteps } = lengths(config);
      this.unknown = answers(config).indexOf("_unknown_");
      this.before = new Array(windowSteps).fill(0); // share of unknown, in the last windows
      this.words = answers(config)
        .map((label, column) => {
          const odds = thresholds[label] / (1 - thresholds[label]);
          return { label, column, odds, stayed: 0 };
        })
        .filter(({ label }) => !label.startsWith("_"));
      this.hold = holdSteps;
      this.widest = widestSteps;
      this.seconds = stepSeconds;
      this.step = 0;
      this.last = null;
      this.free = 0; // s; what begins before belongs to the last word
    }

    /** The word that is sure with this step of `SlidingWindow`, or null. */
    push({ probabilities, start, end }) {
      this.step++;
      this.before.push(probabilities[this.unknown] ?? 0);
      const rise = BEHIND_SPEECH * this.before.shift();
      let best = null;
      for (const word of this.words) {
        const odds = word.odds > 1 ? word.odds ** (1 + rise) : word.odds;
        word.stayed = probabilities[word.column] >= odds / (1 + odds) ? word.stayed + 1 : 0;
        const better = !best || probabilities[word.column] > probabilities[best.column];
        if (word.stayed >= this.hold && better) best = word;
      }
      if (!best || round((end - start) / this.seconds) > this.widest) return null;
      if (start < this.free) {
        if (best === this.last) this.free = Math.max(this.free, end + REFRACTORY_SECONDS);
        return null;
      }
      this.last = best;
      this.free = end + REFRACTORY_SECONDS;
      const [label, score] = [best.label, probabilities[best.column]];
      return { start, end, label, score, reported: this.step * this.seconds };
    }
  }

  /** Finds words in one stream of audio; take a new one for the next recording. */
  class Listener {
    constructor(network, thresholds) {
      this.network = network;
      this.state = network.initialState();
      this.window = new SlidingWindow(network.config);
      this.trigger = new Trigger(network.config, thresholds);
      this.samples = 0;
    }

    /** How much audio was pushed, s. */
    get seconds() {
      return this.samples / SAMPLE_RATE;
    }

    /** The `steps` that are complete with this block, as `Network.step` and `SlidingWindow.push`
     * give them, and the `words` that are sure: start, end, label, score, reported. */
    push(block) {
      this.samples += block.length;
      return this.hear(block);
    }

    /** The same, now that the recording is over; no word lies after its end. */
    finish() {
      const end = this.seconds;
      const piece = PIECE_STEPS * this.network.lengths.stepSamples;
      const least = this.samples + round(TAIL_SECONDS * SAMPLE_RATE);
      const { steps, words } = this.hear(
        new Float32Array(Math.ceil(least / piece) * piece - this.samples),
      );
      const inside = (word) => ({
        ...word,
        end: Math.min(word.end, end),
        reported: Math.min(word.reported, end),
      });
      return { steps, words: words.filter(({ start }) => start < end).map(inside) };
    }

    hear(block) {
      const steps = this.network
        .step(block, this.state)
        .map((step) => ({ ...step, ...this.window.push(step.logits) }));
      return { steps, words: steps.map((step) => this.trigger.push(step)).filter(Boolean) };
    }
  }

  /** From another rate to 16 kHz, block by block, where a browser does not do it. A sinc of 32 zero
   * crossings to each side, cut off at 7.4 kHz (or below half the other rate), under Blackman's
   * window; its values are kept for each place that a sample of ours can have between two others. */
  class Resampler {
    constructor(rate) {
      const divisor = greatestCommonDivisor(rate, SAMPLE_RATE);
      this.phases = SAMPLE_RATE / divisor;
      this.stride = rate / divisor; // in phases, from one sample to the next
      const cutoff = 0.925 * Math.min(1, SAMPLE_RATE / rate); // of half the other rate
      this.reach = Math.ceil(32 / cutoff);
      this.kernels = Array.from({ length: this.phases }, (_, phase) => {
        const taps = Float64Array.from({ length: 2 * this.reach }, (_, tap) => {
          const x = tap - this.reach + 1 - phase / this.phases;
          const angle = (Math.PI * x) / this.reach;
          const blackman = 0.42 + 0.5 * Math.cos(angle) + 0.08 * Math.cos(2 * angle);
          const sinc = x ? Math.sin(Math.PI * cutoff * x) / (Math.PI * x) : cutoff;
          return Math.abs(x) < this.reach ? sinc * blackman : 0;
        });
        const sum = taps.reduce((a, b) => a + b);
        return taps.map((tap) => tap / sum);
      });
      this.past = new Float32Array(this.reach - 1);
      this.phase = 0; // of the next sample, from the first sample after the reach of `past`
    }

    push(samples) {
      const audio = new Float32Array(this.past.length + samples.length);
      audio.set(this.past);
      audio.set(samples, this.past.length);
      const out = [];
      let at = 0;
      for (;;) {
        at = Math.floor(this.phase / this.phases);
        if (at + 2 * this.reach > audio.length) break;
        const taps = this.kernels[this.phase % this.phases];
        let sum = 0;
        for (let tap = 0; tap < taps.length; tap++) sum += taps[tap] * audio[at + tap];
        out.push(sum);
        this.phase += this.stride;
      }
      const used = Math.min(at, audio.length);
      this.past = audio.slice(used);
      this.phase -= used * this.phases;
      return Float32Array.from(out);
    }
  }

  const greatestCommonDivisor = (a, b) => (b ? greatestCommonDivisor(b, a % b) : a);

  return {
    SAMPLE_RATE, Listener, Network, Resampler, SlidingWindow, Trigger, answers, lengths, softmax,
    unpack,
  };
})();

if (typeof module !== "undefined") module.exports = speechrnn; // under Node
