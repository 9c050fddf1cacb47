// The page of an exported model: a form made from what the model takes, and its answers as bars.
(() => {
  "use strict";

  // The version that exports are tested with. A copy beside this page comes first: then nothing is loaded from others.
  const TFJS = {
    own: "tf.es2017.min.js",
    cdn: "https://cdn.jsdelivr.net/npm/@tensorflow/tfjs@4.22.0/dist/tf.es2017.min.js",
    integrity: "sha384-ODzrY1mCTIRZRerZfDIqCoTQafA1St1OwLVc9SsTefnkCF1MeIaVSZ88wuK/NKfH",
  };
  const MOST_BARS = 12;
  const MOST_FIELDS = 200;

  const by = (id) => document.getElementById(id);
  const status = by("status");

  function make(tag, properties = {}, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  }

  function script(src, integrity) {
    return new Promise((resolve, reject) => {
      const failed = () => reject(new Error(`${src} cannot be loaded.${integrity ? " Without the internet, put tf.es2017.min.js of the package @tensorflow/tfjs beside this page." : ""}`));
      const made = make("script", { src, onload: resolve, onerror: failed });
      if (integrity) Object.assign(made, { integrity, crossOrigin: "anonymous" });
      document.head.append(made);
    });
  }

  function say(text, kind = "") {
    status.textContent = text;
    status.className = kind;
  }

  // -- fields: each is an element, and a function that reads it -----------------------------------------------------

  let counter = 0;

  // An input that users never named is called by what it is.
  const nameOf = ({ name, kind }) => (name === "X" ? ({ image: "Image", array: "Numbers" }[kind] ?? name) : name);

  function labelled(name, control, hint, wide = false) {
    control.id = `field-${counter++}`;
    const label = make("label", { htmlFor: control.id, textContent: name });
    const box = make("div", { className: wide ? "wide" : "" }, label, control);
    if (hint) {
      const small = make("small", { id: `${control.id}-hint`, textContent: hint });
      control.setAttribute("aria-describedby", small.id);
      box.append(small);
    }
    return box;
  }

  const short = (v) => String(Number(Number(v).toPrecision(4)));

  function numberField(input) {
    const { name } = input;
    const example = typeof input.example === "number" ? short(input.example) : input.may_be_missing ? "" : "0";
    const placeholder = input.may_be_missing ? "missing" : "";
    const control = make("input", { type: "number", step: "any", value: example, placeholder });
    const read = () => {
      if (control.value.trim() !== "") return Number(control.value);
      if (control.validity.badInput) throw new Error(`“${name}” must be a number.`);
      if (input.may_be_missing) return null;
      throw new Error(`“${name}” is empty.`);
    };
    return { box: labelled(name, control), read };
  }

  function categoryField(input) {
    const values = [...input.categories, ...(input.may_be_missing ? [null] : [])];
    const options = values.map((value, i) => [i, value === null ? "(missing)" : String(value)]);
    const control = make("select", {}, ...options.map(([value, textContent]) => make("option", { value, textContent })));
    control.value = Math.max(values.indexOf(input.example), 0);
    return { box: labelled(input.name, control), read: () => values[control.value] };
  }

  function textField(input) {
    const control = make("textarea", { placeholder: "Write a text" });
    return { box: labelled(input.name, control, "", true), read: () => control.value };
  }

  function arrayField(input) {
    if (input.features.length > 0 && input.features.length <= MOST_FIELDS) {
      const fields = input.features.map((name, i) =>
        numberField({ ...input, name, example: Array.isArray(input.example) ? input.example[i] : null }));
      return { boxes: fields.map((field) => field.box), read: () => fields.map((field) => field.read()) };
    }
    const shape = input.shape.map((size) => size ?? "any number").join(" × ");
    const zeros = input.shape.reduceRight((inner, size) => Array(size ?? 8).fill(inner), 0);
    const control = make("textarea", { value: JSON.stringify(zeros), spellcheck: false });
    const read = () => {
      try {
        return JSON.parse(control.value);
      } catch {
        throw new Error(`“${input.name}” must be a list of numbers such as [1, 2.5].`);
      }
    };
    return { box: labelled(nameOf(input), control, `numbers in brackets: ${shape}`, true), read };
  }

  function imageField(input, changed) {
    const [height, width, channels] = input.shape;
    const scale = input.maximum > 0 ? input.maximum / 255 : 1; // images from 0 to 1, or to 16, as far as is known
    const file = make("input", { type: "file", accept: "image/*" });
    const canvas = make("canvas", { width: width ?? 224, height: height ?? 224, className: "drawn" });
    canvas.setAttribute("aria-label", "Image");
    const pen = canvas.getContext("2d", { willReadFrequently: true });
    const fit = () => (canvas.style.width = `${Math.max(canvas.width, Math.min(280, canvas.width * 40))}px`);
    // White on black, as the handwritten digits are that small grey images usually are; else a white sheet.
    const clear = () => {
      pen.fillStyle = channels === 1 ? "black" : "white";
      pen.fillRect(0, 0, canvas.width, canvas.height);
      fit();
    };
    const draw = (event) => {
      if (!event.buttons) return;
      const box = canvas.getBoundingClientRect();
      const place = [event.offsetX, event.offsetY].map((v) => (v * canvas.width) / box.width);
      pen.fillStyle = channels === 1 ? "white" : "black";
      pen.beginPath();
      pen.arc(...place, Math.max(canvas.width / 18, 0.7), 0, 7);
      pen.fill();
      changed();
    };
    canvas.addEventListener("pointerdown", draw);
    canvas.addEventListener("pointermove", draw);
    file.addEventListener("change", async () => {
      if (!file.files.length) return;
      const image = await createImageBitmap(file.files[0]);
      [canvas.width, canvas.height] = [image.width, image.height];
      pen.drawImage(image, 0, 0);
      fit();
      changed();
    });
    const clearing = make("button", { type: "button", className: "second", textContent: "Clear" });
    clearing.addEventListener("click", () => {
      [canvas.width, canvas.height] = [width ?? 224, height ?? 224];
      file.value = "";
      clear();
      changed();
    });
    clear();
    const size = width ? `resized to ${width} × ${height} pixels` : "of any size";
    const box = labelled(nameOf(input), file, `a file, ${size}; or draw below`, true);
    box.append(canvas, clearing);
    const read = () => {
      const { data, width: w, height: h } = pen.getImageData(0, 0, canvas.width, canvas.height);
      return { width: w, height: h, data: Float64Array.from(data, (v, i) => (i % 4 === 3 ? v : v * scale)) };
    };
    return { box, read };
  }

  const FIELDS = { number: numberField, category: categoryField, text: textField, array: arrayField, image: imageField };

  // -- answers ------------------------------------------------------------------------------------------------------

  const TITLES = { label: "Most probable", labels: "Probable labels", number: "Prediction" };
  const percent = (p) => `${(100 * p).toFixed(1)} %`;

  function bars(pairs) {
    const most = Math.max(...pairs.map(([, p]) => p));
    const kept = pairs.length > MOST_BARS ? [...pairs].sort((a, b) => b[1] - a[1]).slice(0, MOST_BARS) : pairs;
    const items = kept.map(([name, p]) => {
      const bar = make("div", { className: "bar" });
      bar.style.width = `${100 * Math.min(Math.max(p, 0), 1)}%`;
      const track = make("div", { className: "track", ariaHidden: "true" }, bar);
      const words = make("span", { textContent: String(name) });
      const value = make("span", { className: "value", textContent: percent(p) });
      return make("li", { className: p === most ? "first" : "" }, words, value, track);
    });
    return make("ul", {}, ...items);
  }

  const shown = (value) =>
    typeof value === "number" && !Number.isInteger(value) ? String(Number(value.toPrecision(6))) : String(value);

  function target(outputs, answers) {
    const probabilities = outputs.find((output) => output.kind === "probabilities");
    const main = outputs.find((output) => output.kind !== "probabilities") ?? probabilities;
    const value = answers[main.name];
    let words = [value].flat(Infinity).map(shown).join(", ");
    if (main.kind === "labels") words = main.classes.filter((_, i) => value[i]).map(String).join(", ") || "none";
    if (words.length > 300) words = `${words.slice(0, 300)} …`;
    const title = make("h2", { textContent: main.target ?? TITLES[main.kind] ?? main.name });
    const made = make("div", { className: "target" }, title, make("p", { className: "answer", textContent: words }));
    if (probabilities) made.append(bars(probabilities.classes.map((name, i) => [name, answers[probabilities.name][i]])));
    return made;
  }

  // -- the page -----------------------------------------------------------------------------------------------------

  function build(model) {
    const { spec } = model;
    let waiting;
    const changed = () => {
      clearTimeout(waiting);
      waiting = setTimeout(predict, 60);
    };
    const fields = spec.inputs.map((input) => {
      const isList = input.kind === "category" && input.categories.length > 0;
      return (isList ? categoryField : input.kind === "category" ? plainField : FIELDS[input.kind])(input, changed);
    });
    for (const field of fields) by("fields").append(...(field.boxes ?? [field.box]));

    const targets = new Map();
    for (const output of spec.outputs) {
      const key = output.target ?? (output.kind === "raw" ? output.name : "");
      targets.set(key, [...(targets.get(key) ?? []), output]);
    }

    async function predict() {
      try {
        const row = Object.fromEntries(spec.inputs.map((input, i) => [input.name, fields[i].read()]));
        const [only] = spec.inputs;
        const isPlain = spec.inputs.length === 1 && !["number", "category"].includes(only.kind);
        const answers = await model.answers([isPlain ? row[only.name] : row]);
        const first = Object.fromEntries(Object.entries(answers).map(([name, values]) => [name, values[0]]));
        by("answers").replaceChildren(...[...targets.values()].map((outputs) => target(outputs, first)));
      } catch (error) {
        by("answers").replaceChildren(make("p", { className: "bad", textContent: error.message }));
      }
      document.body.dataset.answers = String(Number(document.body.dataset.answers ?? 0) + 1);
    }

    by("form").addEventListener("submit", (event) => {
      event.preventDefault();
      predict();
    });
    by("form").addEventListener("input", changed);
    by("form").hidden = by("answers").hidden = false;
    return predict();
  }

  function plainField(input) {
    if (input.dtype !== "string") return numberField(input);
    const control = make("input", { type: "text", value: input.example ?? "" });
    return { box: labelled(input.name, control), read: () => (control.value === "" ? null : control.value) };
  }

  function title({ name, task }) {
    const words = name.replace(/([a-z])([A-Z])/g, "$1 $2");
    document.title = by("title").textContent = words;
    by("task").textContent = task === "unknown" ? "" : task;
  }

  async function start() {
    if (location.protocol === "file:")
      throw new Error(
        "Browsers load no models from files. Serve this folder, for example by “python -m http.server”, and open " +
          "http://localhost:8000/.");
    await script(TFJS.own).catch(() => script(TFJS.cdn, TFJS.integrity));
    await tf.ready();
    // Small networks are faster without a graphics card, and exact to the last digits.
    const { spec } = await (await fetch("kerastoolkit.json")).json();
    if (spec.inputs.every((input) => input.kind !== "image")) await tf.setBackend("cpu");
    const model = await kerastoolkit.load("./");
    title(model.spec);
    const { ok, difference, n } = await model.check();
    document.body.dataset.difference = difference;
    const apart = difference.toExponential(1);
    if (ok) say(`✓ Answers as trained: ${n} made-up rows, at most ${apart} apart.`, "good");
    else {
      const warning = "Warning: this browser computes other answers than the model that was trained";
      say(`${warning} (${apart} apart). Do not rely on them.`, "bad");
    }
    const versions = Object.entries(model.spec.versions).map(([name, version]) => `${name} ${version}`);
    const runs = `TensorFlow.js ${tf.version.tfjs} (${tf.getBackend()})`;
    by("versions").textContent = `${runs}. Exported by ${versions.join(", ")}.`;
    await build(model);
  }

  start().catch((error) => say(error.message, "bad")).finally(() => (document.body.dataset.done = "yes"));
})();
