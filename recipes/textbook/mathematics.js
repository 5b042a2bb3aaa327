// Small recurrent networks in plain JavaScript: forward, backward through time, update.
//
// In: weights as arrays of rows, inputs as arrays of vectors. Out: states, gradients, singular
// values. It is written to be read, and held to torch and NumPy by the tests; it knows no page. The
// trained network of the page is another file, speechrnn/export/web/speechrnn.js.
"use strict";

const mathematics = (() => {
  // --- vectors and matrices

  const dot = (u, v) => u.reduce((sum, value, i) => sum + value * v[i], 0);
  const product = (matrix, v) => matrix.map((row) => dot(row, v));
  const transposed = (matrix) => matrix[0].map((_, column) => matrix.map((row) => row[column]));
  const norm = (v) => Math.sqrt(dot(v, v));
  const zeros = (rows, columns) => Array.from({ length: rows }, () => Array(columns).fill(0));
  const scaled = (matrix, factor) => matrix.map((row) => row.map((value) => value * factor));

  /** Numbers from 0 to 1 by chance, the same for the same seed (a generator of Lehmer's). */
  function chance(seed) {
    let state = (seed * 69621 + 1) % 2147483647;
    return () => {
      state = (state * 48271) % 2147483647;
      return state / 2147483647;
    };
  }

  /** A matrix of normally distributed numbers. Source: Box and Muller 1958. */
  function normal(rows, columns, random) {
    const one = () => Math.sqrt(-2 * Math.log(random())) * Math.cos(2 * Math.PI * random());
    return zeros(rows, columns).map((row) => row.map(one));
  }

  /** A random square matrix whose rows have length 1 and stand at right angles to each other: each
   * row loses what it shares with the rows before it (Gram and Schmidt). */
  function orthogonal(size, random) {
    const rows = [];
    for (const row of normal(size, size, random)) {
      for (const before of rows) {
        const shared = dot(row, before);
        before.forEach((value, i) => (row[i] -= shared * value));
      }
      const length = norm(row);
      rows.push(row.map((value) => value / length));
    }
    return rows;
  }

  /** How far a matrix stretches along each of its own directions, largest first. Rotates pairs of
   * columns until all stand at right angles; then they are as long as the singular values.
   * Source: Hestenes, Inversion of matrices by biorthogonalization, 1958. */
  function singularValues(matrix) {
    const columns = transposed(matrix);
    for (let sweep = 0, turned = true; turned && sweep < 40; sweep++) {
      turned = false;
      for (let p = 0; p < columns.length; p++) {
        for (let q = p + 1; q < columns.length; q++) {
          const [u, v] = [columns[p], columns[q]];
          const [uu, vv, uv] = [dot(u, u), dot(v, v), dot(u, v)];
          if (Math.abs(uv) <= 1e-13 * Math.sqrt(uu * vv)) continue;
          turned = true;
          const zeta = (vv - uu) / (2 * uv);
          const tangent = (zeta < 0 ? -1 : 1) / (Math.abs(zeta) + Math.hypot(1, zeta));
          const cosine = 1 / Math.hypot(1, tangent);
          columns[p] = u.map((value, i) => cosine * (value - tangent * v[i]));
          columns[q] = u.map((value, i) => cosine * (tangent * value + v[i]));
        }
      }
    }
    return columns.map(norm).sort((a, b) => b - a);
  }

  // --- the recurrence

  /** What a unit does with its sum, and how steep that is where its answer is h. */
  const SQUASHES = {
    tanh: { of: Math.tanh, slope: (h) => 1 - h * h },
    identity: { of: (sum) => sum, slope: () => 1 },
    relu: { of: (sum) => Math.max(sum, 0), slope: (h) => (h > 0 ? 1 : 0) },
  };

  /** All states h[0] .. h[T-1] for the inputs x[0] .. x[T-1]; before the first, h is zero. */
  function forward({ W_ih, W_hh, b }, inputs, squash = "tanh") {
    let h = b.map(() => 0);
    return inputs.map((x) => {
      const [input, past] = [product(W_ih, x), product(W_hh, h)];
      h = b.map((bias, unit) => SQUASHES[squash].of(input[unit] + bias + past[unit]));
      return h;
    });
  }

  /** Back through time: from dLoss/dh of the last state to that of every state, and to the weights.
   * Source: Werbos, Backpropagation through time, 1990. */
  function backward({ W_ih, W_hh, b }, inputs, states, last, squash = "tanh") {
    const dh = Array(states.length);
    const gradient = {
      W_ih: zeros(b.length, W_ih[0].length),
      W_hh: zeros(b.length, b.length),
      b: Array(b.length).fill(0),
    };
    const back = transposed(W_hh);
    let from = last;
    for (let t = states.length - 1; t >= 0; t--) {
      dh[t] = from;
      const dsum = from.map((value, unit) => value * SQUASHES[squash].slope(states[t][unit]));
      dsum.forEach((value, unit) => {
        gradient.b[unit] += value;
        inputs[t].forEach((x, i) => (gradient.W_ih[unit][i] += value * x));
        if (t > 0) states[t - 1].forEach((h, i) => (gradient.W_hh[unit][i] += value * h));
      });
      from = product(back, dsum);
    }
    return { dh, gradient };
  }

  // --- a task: which number came first?

  const NOISE = 0.3; // how large the numbers are that do not matter

  /** A network that reads its last state: y = W_hy h[T] + b_y. */
  function network(units, random) {
    return {
      W_ih: scaled(normal(units, 1, random), 0.5),
      W_hh: orthogonal(units, random),
      b: Array(units).fill(0),
      W_hy: scaled(normal(1, units, random), 0.3)[0],
      b_y: 0,
    };
  }

  /** A sequence: its first number is +1 or -1, all others are small and by chance. */
  function example(length, random) {
    const first = random() < 0.5 ? 1 : -1;
    const others = Array.from({ length: length - 1 }, () => [NOISE * (2 * random() - 1)]);
    return { inputs: [[first], ...others], target: first };
  }

  /** Answer, error and gradients of one sequence. The answer y says +1 where it is above zero; the
   * error is log(1 + exp(-target y)), small where y is far on the right side. */
  function lesson(net, { inputs, target }) {
    const states = forward(net, inputs);
    const h = states[states.length - 1];
    const y = dot(net.W_hy, h) + net.b_y;
    const loss = Math.max(0, -target * y) + Math.log1p(Math.exp(-Math.abs(y)));
    const dy = -target / (1 + Math.exp(target * y));
    const { dh, gradient } = backward(net, inputs, states, net.W_hy.map((weight) => weight * dy));
    return { states, y, loss, dh, gradient: { ...gradient, W_hy: h.map((value) => value * dy), b_y: dy } };
  }

  /** `f` of the numbers that stand at the same place in two nestings of arrays. */
  const zip = (f, u, v) =>
    Array.isArray(u) ? u.map((value, i) => zip(f, value, v[i])) : f(u, v);

  /** Mean loss and gradient, and the share of right answers, over sequences. */
  function lessons(net, examples) {
    const each = examples.map((one) => lesson(net, one));
    const mean = (values) => values.reduce((sum, value) => sum + value) / each.length;
    const gradient = {};
    for (const name of Object.keys(net)) {
      gradient[name] = each
        .map((one) => one.gradient[name])
        .reduce((sum, part) => zip((a, b) => a + b, sum, part));
      gradient[name] = zip((a) => a / each.length, gradient[name], gradient[name]);
    }
    const right = each.map((one, i) => (one.y * examples[i].target > 0 ? 1 : 0));
    return { loss: mean(each.map((one) => one.loss)), right: mean(right), gradient };
  }

  /** The factor that makes a gradient no longer than `most`.
   * Source: Pascanu, Mikolov and Bengio, On the difficulty of training recurrent networks, 2013. */
  const clipping = (length, most) => Math.min(1, most / length);

  /** One step downhill: every weight moves against its gradient, which is clipped to length 1. */
  function updated(net, gradient, rate) {
    const length = norm(Object.values(gradient).flat(2));
    const step = rate * clipping(length, 1);
    const moved = {};
    for (const name of Object.keys(net)) {
      moved[name] = zip((weight, slope) => weight - step * slope, net[name], gradient[name]);
    }
    return moved;
  }

  return {
    SQUASHES, backward, chance, clipping, dot, example, forward, lesson, lessons, network, norm,
    normal, orthogonal, product, scaled, singularValues, transposed, updated, zeros,
  };
})();

if (typeof module !== "undefined") module.exports = mathematics; // under Node
