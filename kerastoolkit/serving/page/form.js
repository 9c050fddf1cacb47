"use strict";
// A form for one row, made from what the server tells of its model. Text is set as text, never as HTML.
const element = (name, attributes = {}, ...children) => {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
};
const show = (id) => document.getElementById(id);
let token = "";
let readers = [];

async function ask(path, body) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const options = body === undefined ? { headers } : { method: "POST", headers: { ...headers, "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const answer = await fetch(path, options);
  if (answer.status === 401) {
    show("token").hidden = false;
    show("form").hidden = true;
  }
  const content = await answer.json();
  if (!answer.ok) throw new Error(content.error);
  return content;
}

function addField(form, name, note, control, read) {
  const id = `field-${readers.length}`;
  control.id = id;
  form.append(element("label", { for: id }, name, element("small", {}, note)), control);
  readers.push([name, read]);
}

function number(text, name, mayBeMissing) {
  if (text.trim() === "") {
    if (mayBeMissing) return null;
    throw new Error(`Give a number as ${name}.`);
  }
  if (!Number.isFinite(Number(text))) throw new Error(`${name} must be a number; got ${text}`);
  return Number(text);
}

const short = (value) => String(Number(value.toPrecision(6)));

function addColumn(form, input, example) {
  const gap = input.may_be_missing ? "empty where it is missing" : "";
  const isText = input.dtype === "string";
  if (input.kind === "category" && input.categories.length && input.categories.length <= 200) {
    const list = element("input", { list: `list-${readers.length}`, value: example ?? "", autocomplete: "off" });
    form.append(element("datalist", { id: `list-${readers.length}` }, ...input.categories.map((one) => element("option", { value: one }))));
    const some = input.categories.slice(0, 5).join(", ");
    const read = () => (isText ? (list.value === "" && input.may_be_missing ? null : list.value) : number(list.value, input.name, input.may_be_missing));
    addField(form, input.name, [some + (input.categories.length > 5 ? ", ..." : ""), gap].filter(Boolean).join("; "), list, read);
    return;
  }
  const shown = typeof example === "number" ? short(example) : (example ?? "");
  const control = element("input", { value: shown, inputmode: isText ? "text" : "decimal", autocomplete: "off" });
  const range = input.minimum === null || input.maximum === null ? "" : `${short(input.minimum)} to ${short(input.maximum)} when the model was exported`;
  const read = () => (isText ? (control.value === "" && input.may_be_missing ? null : control.value) : number(control.value, input.name, input.may_be_missing));
  addField(form, input.name, [range, gap].filter(Boolean).join("; "), control, read);
}

// The ends of the scale that the pixels of a model are on, of which its sample shows a part.
function scaleOf({ minimum, maximum }) {
  if (minimum === null || maximum === null) return [0, 255];
  return minimum < 0 ? [minimum, maximum] : [0, [1, 16, 255].find((top) => maximum <= top) ?? maximum];
}

function addImage(form, input) {
  const [height, width, channels] = input.shape;
  const [low, high] = scaleOf(input);
  const scaled = (value) => {
    const made = low + ((high - low) * value) / 255;
    return high === 255 || !input.dtype.startsWith("float") ? Math.round(made) : made;
  };
  const control = element("input", { type: "file", accept: "image/*" });
  const read = async () => {
    if (!control.files.length) throw new Error("Choose an image.");
    const bitmap = await createImageBitmap(control.files[0]);
    const canvas = element("canvas", { height: height ?? bitmap.height, width: width ?? bitmap.width });
    const context = canvas.getContext("2d");
    context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
    const grey = (at) => 0.299 * pixels[at] + 0.587 * pixels[at + 1] + 0.114 * pixels[at + 2];
    const colours = (at) => (channels === 1 ? [grey(at)] : Array.from(pixels.slice(at, at + (channels ?? 3)))).map(scaled);
    return Array.from({ length: canvas.height }, (_, row) => Array.from({ length: canvas.width }, (_, column) => colours(4 * (row * canvas.width + column))));
  };
  const size = height && width ? `made ${width} by ${height} pixels` : "an image file";
  addField(form, input.name, `${size}, from ${short(low)} to ${short(high)}`, control, read);
}

function addInput(form, input, example) {
  if (input.features.length) {
    input.features.forEach((name) => addColumn(form, { ...input, name, kind: "number", minimum: null, maximum: null }, example[name]));
  } else if (input.kind === "image") {
    addImage(form, input);
  } else if (input.kind === "number" || input.kind === "category") {
    addColumn(form, input, example[input.name]);
  } else {
    const isText = input.dtype === "string";
    const control = element("textarea", {});
    control.value = isText ? example[input.name] : JSON.stringify(example[input.name]);
    addField(form, input.name, isText ? "a text" : "numbers as JSON", control, () => (isText ? control.value : JSON.parse(control.value)));
  }
}

function addAnswer(section, name, value) {
  section.append(element("h2", {}, name));
  if (value === null || typeof value !== "object" || Array.isArray(value)) {
    section.append(element("p", {}, typeof value === "object" ? JSON.stringify(value) : String(value)));
    return;
  }
  const rows = Object.entries(value).sort((one, other) => Number(other[1]) - Number(one[1])).slice(0, 20);
  section.append(element("table", {}, ...rows.map(([label, p]) => {
    const bar = typeof p === "number" ? element("meter", { min: 0, max: 1, value: p }) : "";
    return element("tr", {}, element("td", {}, label), element("td", {}, typeof p === "number" ? p.toFixed(4) : String(p)), element("td", {}, bar));
  })));
}

async function predict(event) {
  event.preventDefault();
  show("error").textContent = "";
  try {
    const row = {};
    for (const [name, read] of readers) Object.defineProperty(row, name, { value: await read(), enumerable: true });
    const { predictions } = await ask("predict", { rows: [row] });
    show("answer").replaceChildren();
    for (const [name, value] of Object.entries(predictions[0])) addAnswer(show("answer"), name, value);
  } catch (error) {
    show("error").textContent = error.message;
  }
}

async function begin() {
  show("error").textContent = "";
  try {
    const spec = await ask("spec");
    document.title = spec.name;
    show("title").textContent = spec.name;
    show("about").textContent = `Task: ${spec.task}. Fill in one row; the values below are an example.`;
    const form = show("form");
    readers = [];
    form.replaceChildren();
    for (const input of spec.inputs) addInput(form, input, spec.example);
    form.append(element("button", {}, "Predict"));
    form.hidden = false;
    show("token").hidden = true;
  } catch (error) {
    show("error").textContent = error.message;
  }
}

show("form").addEventListener("submit", predict);
show("enter").addEventListener("click", () => {
  token = show("secret").value;
  begin();
});
begin();
