/* Runs a model that kerastoolkit.export.tfjs wrote: raw rows in, labels and probabilities out.
 *
 * In a page, after the script of TensorFlow.js:
 *
 *     <script src="kerastoolkit.js"></script>
 *     const model = await kerastoolkit.load("folder/");
 *     await model.predict([{age: 31, city: "Oslo"}]);       // [ "yes" ]
 *     await model.predictProba([{age: 31, city: "Oslo"}]);  // [ [ 0.12, 0.88 ] ], in the order of model.classes
 *
 * As an ES module: import { load } from "./kerastoolkit.mjs".
 * In Node: require("./kerastoolkit.js").load(folder, { tf }), where tf is require("@tensorflow/tfjs").
 *
 * What stands before and behind the network is in kerastoolkit.json, operation by operation. Each is computed here in
 * double precision and rounded to the type of its result, as NumPy rounds it. A value is { shape, data }, rows first;
 * a missing number is NaN, a missing text "".
 */
(() => {
  "use strict";

  // -- operations --------------------------------------------------------------------------------------------------

  const product = (sizes) => sizes.reduce((a, b) => a * b, 1);
  const last = (x) => (x.shape.length > 1 ? x.shape[x.shape.length - 1] : 1);
  const same = (x, f) => ({ shape: x.shape, data: Array.from(x.data, f) });
  const at = (values, i, size) => values.data[values.data.length === 1 ? 0 : i % size];
  const isMissing = (v) => v === "" || v !== v;

  // For every row of the last axis: from its numbers to one number, or to a row.
  const reduced = (x, f) => ({ shape: x.shape.slice(0, -1), data: lines(x).map(f) });
  const replaced = (x, f) => ({ shape: x.shape, data: lines(x).flatMap(f) });
  const lines = (x) => {
    const size = last(x);
    const data = Array.from(x.data);
    return Array.from({ length: size ? data.length / size : 0 }, (_, row) => data.slice(row * size, (row + 1) * size));
  };
  const behind = (x, size, f) => ({ shape: [...x.shape.slice(0, -1), size], data: lines(x).flatMap(f) });

  const ROUND = {
    float32: Math.fround,
    float64: (v) => v,
    bool: (v) => (v ? 1 : 0),
    string: (v) => v,
  };
  const rounding = (dtype) => ROUND[dtype] || Math.trunc;

  const FUNCTIONS = {
    abs: Math.abs, exp: Math.exp, expm1: Math.expm1, log: Math.log, log1p: Math.log1p, negative: (v) => -v,
    reciprocal: (v) => 1 / v, sigmoid: (v) => 1 / (1 + Math.exp(-v)), sign: Math.sign, sqrt: Math.sqrt,
    square: (v) => v * v, tanh: Math.tanh,
  };

  // Two or more letters, digits or underscores; and adjacent words joined by a blank, shorter ones first.
  function terms(text, [least, most], lowercase) {
    const words = (lowercase ? text.toLowerCase() : text).match(/[\p{L}\p{N}_]{2,}/gu) || [];
    const found = [];
    for (let n = least; n <= Math.min(most, words.length); n++)
      for (let i = 0; i + n <= words.length; i++) found.push(words.slice(i, i + n).join(" "));
    return found;
  }

  function interpolated(v, x, y) {
    if (v !== v) return v;
    if (v <= x[0]) return y[0];
    const end = x.length - 1;
    if (v >= x[end]) return y[end];
    let place = 0;
    while (x[place + 1] <= v) place += 1;
    return ((y[place + 1] - y[place]) / (x[place + 1] - x[place])) * (v - x[place]) + y[place];
  }

  function yeoJohnson(v, power) {
    if (v >= 0) return power === 0 ? Math.log1p(v) : ((v + 1) ** power - 1) / power;
    return power === 2 ? -Math.log1p(-v) : -((1 - v) ** (2 - power) - 1) / (2 - power);
  }

  function argMax(row) {
    let best = 0;
    for (let i = 1; i < row.length && row[best] === row[best]; i++) if (!(row[i] <= row[best])) best = i;
    return best;
  }

  // How much each old pixel counts for each new one along an axis: a triangle that grows as an image shrinks. Every
  // step is rounded as TensorFlow rounds it: the centers of pixels of large images depend on that.
  function triangles(size, wanted) {
    const f = Math.fround;
    const factor = f(1 / f(wanted / size));
    const narrowing = f(1 / Math.max(factor, 1));
    return Array.from({ length: wanted }, (_, i) => {
      const center = f((i + 0.5) * factor);
      const weight = (j) => f(1 - f(Math.abs(f(j + 0.5 - center)) * narrowing));
      const weights = Array.from({ length: size }, (_, j) => Math.max(0, weight(j)));
      const sum = f(weights.reduce((a, b) => a + b, 0));
      return weights.map((w, j) => [j, f(w / sum)]).filter((pair) => pair[1] > 0);
    });
  }

  function resized({ shape: [n, height, width, channels], data }, newHeight, newWidth) {
    const rows = triangles(height, newHeight);
    const columns = triangles(width, newWidth);
    const made = new Float64Array(n * newHeight * newWidth * channels);
    const narrow = new Float64Array(height * newWidth * channels);
    for (let image = 0; image < n; image++) {
      narrow.fill(0);
      for (let y = 0; y < height; y++)
        for (let x = 0; x < newWidth; x++)
          for (const [from, weight] of columns[x])
            for (let c = 0; c < channels; c++)
              narrow[(y * newWidth + x) * channels + c] +=
                weight * data[((image * height + y) * width + from) * channels + c];
      for (let y = 0; y < newHeight; y++)
        for (const [from, weight] of rows[y])
          for (let i = 0; i < newWidth * channels; i++)
            made[(image * newHeight + y) * newWidth * channels + i] += weight * narrow[from * newWidth * channels + i];
    }
    return { shape: [n, newHeight, newWidth, channels], data: made };
  }

  // Each gets its fields, its inputs, and how numbers of its output are rounded.
  const OPERATIONS = {
    Above: ({ threshold }, [x]) => same(x, (v) => (v > threshold ? 1 : 0)),
    Add: (_, xs, r) => same(xs[0], (v, i) => xs.slice(1).reduce((sum, x) => r(sum + x.data[i]), v)),
    Affine: ({ scale, offset }, [x], r) =>
      same(x, (v, i) => r(v * r(at(scale, i, last(x)))) + r(at(offset, i, last(x)))),
    ArgMax: (_, [x]) => reduced(x, argMax),
    Bin: ({ edges, right }, [x]) =>
      same(x, (v, i) => edges[i % last(x)].data.filter((edge) => !(right ? v <= edge : v < edge)).length),
    Cast: (_, [x], r) => same(x, r),
    CategoryIndex: ({ categories, first, unseen, missing }, [x]) => {
      const index = new Map(categories.map((category, i) => [category, first + i]));
      return same(x, (v) => (isMissing(v) ? missing : index.has(v) ? index.get(v) : unseen));
    },
    Clip: ({ low, high }, [x], r) =>
      same(x, (v, i) => Math.min(Math.max(v, r(at(low, i, last(x)))), r(at(high, i, last(x))))),
    Concatenate: (_, xs) => {
      const parts = xs.map(lines);
      const n = product(xs[0].shape.slice(0, -1));
      const data = Array.from({ length: n }, (_, row) => parts.flatMap((part) => part[row] || [])).flat();
      return { shape: [...xs[0].shape.slice(0, -1), xs.reduce((sum, x) => sum + last(x), 0)], data };
    },
    CumulativeMin: (_, [x]) =>
      replaced(x, (row) => {
        let smallest = Infinity;
        return row.map((v) => (smallest = Math.min(smallest, v)));
      }),
    FillMissing: ({ values }, [x], r) => same(x, (v, i) => (isMissing(v) ? r(at(values, i, last(x))) : v)),
    Function: ({ name }, [x]) => same(x, FUNCTIONS[name]),
    Interpolate: ({ x: knots, y: heights }, [x]) =>
      same(x, (v, i) => interpolated(v, knots[i % last(x)].data, heights[i % last(x)].data)),
    IsMissing: (_, [x]) => same(x, (v) => (isMissing(v) ? 1 : 0)),
    Lookup: ({ table }, [x]) => {
      const [n, ...shape] = table.shape;
      const size = product(shape);
      const rows = Array.from(x.data, (i) => (i < 0 ? i + n : i));
      if (rows.some((i) => !(i >= 0 && i < n))) throw new Error("An index is outside of its table.");
      return { shape: [...x.shape, ...shape], data: rows.flatMap((i) => table.data.slice(i * size, (i + 1) * size)) };
    },
    MatMul: ({ matrix, bias }, [x], r) => {
      const [, size] = matrix.shape;
      const weights = matrix.data.map(r);
      return behind(x, size, (row) =>
        Array.from({ length: size }, (_, j) =>
          r(row.reduce((sum, v, i) => sum + v * weights[i * size + j], 0)) + r(bias.data[j])));
    },
    Multiply: (_, [x, y]) => {
      const step = x.data.length === y.data.length ? 1 : last(x);
      return same(x, (v, i) => v * y.data[Math.floor(i / step)]);
    },
    Normalize: ({ norm }, [x], r) =>
      replaced(x, (row) => {
        const absolute = row.map(Math.abs);
        const sum = (values) => values.reduce((a, b) => a + b, 0);
        const norms = { l1: sum, max: (all) => Math.max(...all), l2: (all) => Math.sqrt(sum(all.map((v) => v * v))) };
        const length = r(norms[norm](absolute));
        return row.map((v) => v / (length === 0 ? 1 : length));
      }),
    Polynomial: ({ powers }, [x]) => {
      const [size, features] = powers.shape;
      return behind(x, size, (row) =>
        Array.from({ length: size }, (_, j) => row.reduce((p, v, i) => p * v ** powers.data[j * features + i], 1)));
    },
    RepeatChannels: ({ n }, [x]) => behind(x, n * last(x), (row) => row.flatMap((v) => Array(n).fill(v))),
    Reshape: ({ shape }, [x]) => ({ shape: [x.shape[0], ...shape], data: x.data }),
    ResizeImages: ({ height, width }, [x]) => resized(x, height, width),
    Softmax: (_, [x], r) =>
      replaced(x, (row) => {
        const top = Math.max(...row);
        const powers = row.map((v) => r(Math.exp(r(v - top))));
        const sum = powers.reduce((a, b) => a + b, 0);
        return powers.map((v) => v / sum);
      }),
    Standardize: ({ mean, scale }, [x], r) =>
      same(x, (v, i) => r(v - r(at(mean, i, last(x)))) / r(at(scale, i, last(x)))),
    Sum: (_, [x]) => reduced(x, (row) => row.reduce((a, b) => a + b, 0)),
    Take: ({ places }, [x]) => behind(x, places.length, (row) => places.map((place) => row[place])),
    TokenIds: ({ words: known, max_length, ngram_range }, [x]) => {
      const index = new Map(known.map((word, i) => [word, i + 2]));
      const rows = Array.from(x.data, (text) => {
        const ids = terms(text, ngram_range, true).slice(0, max_length).map((term) => index.get(term) ?? 1);
        return [...(ids.length ? ids : [1]), ...Array(max_length).fill(0)].slice(0, max_length);
      });
      return { shape: [x.shape[0], max_length], data: rows.flat() };
    },
    WordCounts: ({ words: known, ngram_range, lowercase }, [x]) => {
      const index = new Map(known.map((word, i) => [word, i]));
      const data = new Float64Array(x.data.length * known.length);
      Array.from(x.data).forEach((text, row) => {
        for (const term of terms(text, ngram_range, lowercase))
          if (index.has(term)) data[row * known.length + index.get(term)] += 1;
      });
      return { shape: [x.shape[0], known.length], data };
    },
    YeoJohnson: ({ lambdas }, [x], r) => same(x, (v, i) => yeoJohnson(v, r(at(lambdas, i, last(x))))),
  };

  // -- layers that TensorFlow.js lacks ------------------------------------------------------------------------------

  const known = new WeakSet();

  function register(tf) {
    if (known.has(tf)) return;
    known.add(tf);
    const one = (inputs) => (Array.isArray(inputs) ? inputs[0] : inputs);
    const functions = { // TensorFlow.js turns hard_sigmoid in a file into hardSigmoid
      exponential: (x) => tf.exp(x),
      hardSigmoid: (x) => tf.clipByValue(tf.add(tf.div(x, 6), 0.5), 0, 1),
      hardSilu: (x) => tf.mul(x, tf.clipByValue(tf.add(tf.div(x, 6), 0.5), 0, 1)),
      hardTanh: (x) => tf.clipByValue(x, -1, 1),
      leakyRelu: (x) => tf.leakyRelu(x, 0.2),
      logSigmoid: (x) => tf.neg(tf.softplus(tf.neg(x))),
      logSoftmax: (x) => tf.logSoftmax(x),
    };

    class KerasToolkitFunction extends tf.layers.Layer {
      static className = "KerasToolkitFunction";
      constructor(config) {
        super(config);
        this.function = config.function;
        this.supportsMasking = true;
      }
      call(inputs) {
        return tf.tidy(() => functions[this.function](one(inputs)));
      }
      getConfig() {
        return { ...super.getConfig(), function: this.function };
      }
    }

    // The mean over the steps of a series, of those steps alone where the second input is not a certain value.
    class KerasToolkitMaskedMean extends tf.layers.Layer {
      static className = "KerasToolkitMaskedMean";
      constructor(config) {
        super(config);
        this.value = config.value;
        this.ofVectors = config.ofVectors ?? config.of_vectors;
        this.supportsMasking = true;
      }
      computeOutputShape([[batch, , channels]]) {
        return [batch, channels];
      }
      computeMask() {
        return null;
      }
      call([x, source]) {
        return tf.tidy(() => {
          const differs = tf.notEqual(source, tf.scalar(this.value, source.dtype));
          const read = tf.expandDims(tf.cast(this.ofVectors ? tf.any(differs, -1) : differs, "float32"), -1);
          return tf.div(tf.sum(tf.mul(x, read), 1), tf.sum(read, 1));
        });
      }
      getConfig() {
        return { ...super.getConfig(), value: this.value, ofVectors: this.ofVectors };
      }
    }
    // A GRU with reset_after=True, as Keras has it unless told otherwise: its gates are in the order update, reset, new,
    // and the reset gate acts on what the recurrent kernel has made of the state.
    class KerasToolkitGRU extends tf.layers.Layer {
      static className = "KerasToolkitGRU";
      constructor(config) {
        super(config);
        const names = ["units", "useBias", "returnSequences", "goBackwards", "activation", "recurrentActivation"];
        for (const name of names) this[name] = config[name];
        const activation = (name) => {
          const layer = tf.layers.activation({ activation: name });
          return (x) => layer.call([x], {});
        };
        [this.toNew, this.toGate] = [activation(this.activation), activation(this.recurrentActivation)];
        this.supportsMasking = true;
      }
      build(shape) {
        const add = (name, sizes) => this.addWeight(name, sizes, "float32", tf.initializers.zeros());
        this.kernel = add("kernel", [shape[shape.length - 1], 3 * this.units]);
        this.recurrentKernel = add("recurrent_kernel", [this.units, 3 * this.units]);
        this.bias = this.useBias ? add("bias", [2, 3 * this.units]) : null;
        this.built = true;
      }
      computeOutputShape([batch, steps]) {
        return this.returnSequences ? [batch, steps, this.units] : [batch, this.units];
      }
      computeMask(inputs, mask) {
        return this.returnSequences ? one(mask) : null;
      }
      call(inputs, { mask } = {}) {
        return tf.tidy(() => {
          const inOrder = (x) => tf.unstack(this.goBackwards ? tf.reverse(x, 1) : x, 1);
          const x = one(inputs);
          const reads = one(mask) ? inOrder(tf.expandDims(tf.cast(one(mask), "float32"), -1)) : null;
          const biases = this.bias ? tf.unstack(this.bias.read()) : [0, 0];
          let state = tf.zeros([x.shape[0], this.units]);
          const states = inOrder(x).map((step, place) => {
            const [xz, xr, xn] = tf.split(tf.add(tf.matMul(step, this.kernel.read()), biases[0]), 3, 1);
            const [hz, hr, hn] = tf.split(tf.add(tf.matMul(state, this.recurrentKernel.read()), biases[1]), 3, 1);
            const update = this.toGate(tf.add(xz, hz));
            const fresh = this.toNew(tf.add(xn, tf.mul(this.toGate(tf.add(xr, hr)), hn)));
            const next = tf.add(tf.mul(update, state), tf.mul(tf.sub(1, update), fresh));
            state = reads ? tf.add(tf.mul(next, reads[place]), tf.mul(state, tf.sub(1, reads[place]))) : next;
            return state;
          });
          return this.returnSequences ? tf.stack(states, 1) : state;
        });
      }
      getConfig() {
        const { units, useBias, returnSequences, goBackwards, activation, recurrentActivation } = this;
        const own = { units, useBias, returnSequences, goBackwards, activation, recurrentActivation };
        return { ...super.getConfig(), ...own };
      }
    }
    tf.serialization.registerClass(KerasToolkitFunction);
    tf.serialization.registerClass(KerasToolkitGRU);
    tf.serialization.registerClass(KerasToolkitMaskedMean);
  }

  // -- rows ---------------------------------------------------------------------------------------------------------

  const LARGEST = 3.4028234663852886e38;
  const RANGES = { uint8: [0, 255], int32: [-(2 ** 31), 2 ** 31 - 1] };
  const isColumn = (input) => input.kind === "number" || input.kind === "category";
  const shown = (value) => JSON.stringify(value) ?? String(value);

  function cell(input, value, row) {
    const what = `Row ${row} has ${shown(value)} as ${shown(input.name)}`;
    if (value === undefined) throw new Error(`Row ${row} has no ${shown(input.name)}. Give null where there is none.`);
    const isText = input.dtype === "string";
    if (value === null || value !== value || (isText && value === "" && input.kind === "category")) {
      if (!input.may_be_missing) throw new Error(`${what}, which may not be missing.`);
      return isText ? "" : NaN;
    }
    if (isText) {
      if (typeof value !== "string") throw new Error(`${what}, which must be text.`);
      return value;
    }
    if (typeof value === "boolean") return value ? 1 : 0;
    if (typeof value !== "number") throw new Error(`${what}, which must be a number.`);
    if (!(Math.abs(value) <= LARGEST)) throw new Error(`${what}, which must be a finite number of float32.`);
    const [low, high] = RANGES[input.dtype] ?? [-LARGEST, LARGEST];
    if (value < low || value > high) throw new Error(`${what}, which must be a number from ${low} to ${high}.`);
    return rounding(input.dtype)(value);
  }

  // What a canvas, a picture or a frame of a video shows, as ImageData; anything else as it is.
  function drawn(value) {
    const kinds = ["HTMLCanvasElement", "HTMLImageElement", "HTMLVideoElement", "ImageBitmap", "OffscreenCanvas"];
    if (!kinds.some((kind) => globalThis[kind] && value instanceof globalThis[kind])) return value;
    const width = value.naturalWidth || value.videoWidth || value.width;
    const height = value.naturalHeight || value.videoHeight || value.height;
    const pen = Object.assign(document.createElement("canvas"), { width, height }).getContext("2d");
    pen.drawImage(value, 0, 0, width, height);
    return pen.getImageData(0, 0, width, height);
  }

  // The numbers of a row of an array or image, and its shape: of nested arrays, of { data, width, height } as ImageData
  // has them, or of what is drawn.
  function block(input, given, row) {
    const value = input.kind === "image" ? drawn(given) : given;
    if (input.kind === "image" && value && value.data && value.width && value.height) return pixels(input, value);
    const shape = [];
    for (let part = value; Array.isArray(part) || ArrayBuffer.isView(part); part = part[0]) shape.push(part.length);
    const data = shape.length > 1 ? value.flat(shape.length - 1) : Array.from(value ?? []);
    const fits = shape.length === input.shape.length && shape.every((size, i) => [null, size].includes(input.shape[i]));
    if (!fits || data.length !== product(shape))
      throw new Error(`Row ${row} of ${shown(input.name)} must have the shape [${input.shape}]; got [${shape}].`);
    return { shape, data: data.map((v) => cell(input, Array.isArray(v) ? shown(v) : v, row)) };
  }

  // Pixels as a canvas has them, red, green, blue and opacity: laid over white, grey if the model takes grey, and of
  // the size that the model takes.
  function pixels(input, { data, width, height }) {
    const [wantedHeight, wantedWidth, channels] = input.shape;
    const made = new Float64Array(width * height * channels);
    for (let i = 0; i < width * height; i++) {
      const opacity = data[4 * i + 3] / 255;
      const [red, green, blue] = [0, 1, 2].map((c) => data[4 * i + c] * opacity + 255 * (1 - opacity));
      if (channels === 1) made[i] = (299 * red + 587 * green + 114 * blue) / 1000;
      else made.set([red, green, blue], i * channels);
    }
    const image = { shape: [1, height, width, channels], data: made };
    const fitting = resized(image, wantedHeight ?? height, wantedWidth ?? width);
    const whole = input.dtype.includes("int");
    return {
      shape: fitting.shape.slice(1),
      data: Array.from(fitting.data, (v) => (whole ? Math.round(v) : Math.fround(v))),
    };
  }

  // -- the model ----------------------------------------------------------------------------------------------------

  class Model {
    constructor(tf, content, networks) {
      this.tf = tf;
      this.spec = content.spec;
      this._graph = content.graph;
      for (const node of this._graph.nodes) node.fields = withNumbers(node.fields);
      this._check = content.check;
      this._networks = networks;
    }

    /** Names of the columns of a row; null where a row is no table. */
    get columns() {
      const [first] = this.spec.inputs;
      if (this.spec.inputs.every(isColumn)) return this.spec.inputs.map((input) => input.name);
      return this.spec.inputs.length === 1 && first.features.length ? first.features : null;
    }

    /** Labels in the order of the probabilities; null where there are none, or several targets. */
    get classes() {
      const found = this.spec.outputs.filter((output) => output.kind === "probabilities");
      return found.length === 1 ? found[0].classes : null;
    }

    /** Labels or numbers, one for each row: an array, or arrays by the names of the targets. */
    async predict(rows) {
      return this._answers(rows, (output) => output.kind !== "probabilities");
    }

    /** Probabilities, an array for each row in the order of `classes`; by target where there are several. */
    async predictProba(rows) {
      if (!this.spec.outputs.some((output) => output.kind === "probabilities"))
        throw new Error("The model has no probabilities.");
      return this._answers(rows, (output) => output.kind === "probabilities");
    }

    /** All outputs by name, an answer for each row. */
    async answers(rows) {
      const made = await Promise.all(this._groups(rows).map((arrays) => this.run(arrays)));
      return Object.fromEntries(
        this.spec.outputs.map((output) => [output.name, made.flatMap((one) => unpacked(output, one[output.name]))]));
    }

    async _answers(rows, isWanted) {
      const wanted = this.spec.outputs.filter(isWanted);
      const made = await this.answers(rows);
      if (wanted.length === 1) return made[wanted[0].name];
      return Object.fromEntries(wanted.map((output) => [output.target ?? output.name, made[output.name]]));
    }

    // Rows as arrays by input. Rows whose images or series differ in size are computed one by one.
    _groups(rows) {
      if (!Array.isArray(rows)) throw new Error("`rows` must be an array, one item for each row.");
      const inputs = this.spec.inputs;
      const byName = inputs.length > 1 || isColumn(inputs[0]);
      const named = (row) => (byName ? row : { [inputs[0].name]: row });
      const parts = rows.map((row, i) => inputs.map((input) => this._part(input, named(row), i)));
      const varies = inputs.some((input, i) => new Set(parts.map((part) => String(part[i].shape))).size > 1);
      const groups = varies ? parts.map((part) => [part]) : parts.length ? [parts] : [];
      return groups.map((group) =>
        Object.fromEntries(
          inputs.map((input, i) => [
            input.name,
            { shape: [group.length, ...group[0][i].shape], data: group.flatMap((part) => part[i].data) },
          ])));
    }

    _part(input, row, i) {
      if (row === null || typeof row !== "object")
        throw new Error(`Row ${i} must be an object with the inputs by name.`);
      const columns = this.columns;
      let value = row[input.name];
      if (input.kind === "array" && columns && value && typeof value === "object" && !("length" in value)) {
        unknownRefused(value, columns, i);
        value = columns.map((name) => cell({ ...input, name }, value[name], i));
      } else if (isColumn(input) && columns) unknownRefused(row, columns, i);
      if (isColumn(input) || input.kind === "text") return { shape: [], data: [cell(input, value, i)] };
      return block(input, value, i);
    }

    /** Answers by output for arrays by input, { shape, data } each, rows first; a missing number is NaN, text "". */
    async run(arrays) {
      const values = new Map(Object.entries(arrays));
      for (const { operation, fields, inputs, outputs } of this._graph.nodes) {
        const given = inputs.map((name) => values.get(name));
        if (operation === "Network") {
          const made = await this._network(fields, given, outputs);
          outputs.forEach((output, i) => values.set(output.name, made[i]));
        } else {
          const round = rounding(outputs[0].dtype);
          const made = OPERATIONS[operation](fields, given, round);
          values.set(outputs[0].name, same(made, round));
        }
      }
      const named = Object.entries(this._graph.outputs).map(([name, value]) => [name, values.get(value)]);
      return Object.fromEntries(named);
    }

    async _network({ path, dtypes }, given, outputs) {
      const n = given[0].shape[0];
      if (n === 0) return outputs.map((output) => ({ shape: [0, ...output.shape], data: [] }));
      const tensors = this.tf.tidy(() => {
        const inputs = given.map((x, i) => this.tf.tensor(Float32Array.from(x.data), x.shape, dtypes[i]));
        return [this._networks.get(path).predict(inputs.length > 1 ? inputs : inputs[0])].flat();
      });
      const made = await Promise.all(tensors.map(async (one) => ({ shape: one.shape, data: await one.data() })));
      tensors.forEach((one) => one.dispose());
      return made;
    }

    /** Compares the answers to a few made-up rows with those that the model gave where it was trained. */
    async check() {
      const { rows, answers, tolerance } = this._check;
      const made = await this.run(Object.fromEntries(Object.entries(rows).map(([name, one]) => [name, unplain(one)])));
      let difference = 0;
      let ok = true;
      for (const output of this.spec.outputs) {
        const wanted = unplain(answers[output.name]).data;
        const have = made[output.name].data;
        if (output.kind === "label" || output.kind === "labels") {
          ok &&= wanted.every((v, i) => v === have[i]);
          continue;
        }
        const size = output.kind === "probabilities" ? 1 : Math.max(...wanted.map(Math.abs), 1e-30);
        wanted.forEach((v, i) => {
          const apart = v === have[i] || (v !== v && have[i] !== have[i]) ? 0 : Math.abs(v - have[i]) / size;
          difference = Math.max(difference, apart === apart ? apart : Infinity);
        });
      }
      const n = Object.values(rows)[0].shape[0];
      return { ok: ok && difference <= tolerance, difference, n };
    }

    /** Frees what the network holds on the device. */
    dispose() {
      this._networks.forEach((network) => network.dispose());
    }
  }

  function unknownRefused(row, columns, i) {
    const unknown = Object.keys(row).find((name) => !columns.includes(name));
    if (unknown !== undefined)
      throw new Error(`Row ${i} has a column ${shown(unknown)}, which the model does not know.`);
  }

  function unpacked(output, { shape: [n, ...shape], data }) {
    const as = output.dtype === "bool" ? (v) => v === 1 : (v) => v;
    const nested = (start, sizes) => {
      if (!sizes.length) return as(data[start]);
      const step = product(sizes.slice(1));
      return Array.from({ length: sizes[0] }, (_, i) => nested(start + i * step, sizes.slice(1)));
    };
    return nested(0, [n, ...shape]);
  }

  // An array from JSON, where "NaN", "Infinity" and "-Infinity" stand for numbers.
  const unplain = ({ dtype, shape, data }) => ({ shape, data: dtype === "string" ? data : data.map(Number) });

  function withNumbers(value) {
    if (Array.isArray(value)) return value.map(withNumbers);
    if (value === null || typeof value !== "object") return value;
    if (value.data && value.dtype) return unplain(value);
    return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, withNumbers(one)]));
  }

  // -- files --------------------------------------------------------------------------------------------------------

  async function reader(folder) {
    if (typeof document === "undefined" && typeof process !== "undefined") {
      const files = await import("node:fs/promises");
      const { join } = await import("node:path");
      return async (name) => new Uint8Array(await files.readFile(join(folder, name)));
    }
    const base = new URL(folder.endsWith("/") ? folder : `${folder}/`, globalThis.location?.href);
    return async (name) => {
      const answer = await fetch(new URL(name, base));
      if (!answer.ok) throw new Error(`${name} cannot be loaded from ${base}: ${answer.status} ${answer.statusText}`);
      return new Uint8Array(await answer.arrayBuffer());
    };
  }

  async function network(tf, read, path) {
    const { modelTopology, format, weightsManifest } = JSON.parse(new TextDecoder().decode(await read(path)));
    const parts = await Promise.all(weightsManifest.flatMap((group) => group.paths).map(read));
    const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
    parts.reduce((place, part) => (bytes.set(part, place), place + part.length), 0);
    const weightSpecs = weightsManifest.flatMap((group) => group.weights);
    return tf.loadLayersModel({ load: async () => ({ modelTopology, format, weightSpecs, weightData: bytes.buffer }) });
  }

  /** Loads a folder that kerastoolkit.export.tfjs wrote: its address in a page, its path in Node. */
  async function load(folder = "./", { tf = globalThis.tf } = {}) {
    if (!tf && typeof require === "function") tf = require("@tensorflow/tfjs");
    if (!tf) throw new Error("TensorFlow.js is not loaded. Put its script first, or call load(folder, { tf }).");
    const read = await reader(folder);
    const content = JSON.parse(new TextDecoder().decode(await read("kerastoolkit.json")));
    if (content.format !== 1) throw new Error("The folder was exported by a newer version of kerastoolkit.");
    register(tf);
    await tf.ready();
    const paths = content.graph.nodes.filter((node) => node.operation === "Network").map((node) => node.fields.path);
    const networks = await Promise.all(paths.map((path) => network(tf, read, path)));
    return new Model(tf, content, new Map(paths.map((path, i) => [path, networks[i]])));
  }

  globalThis.kerastoolkit = { load, terms };
  if (typeof module === "object" && module.exports) module.exports = globalThis.kerastoolkit;
})();
