// Answers one line of JSON on standard input after the other: { name: array } by input, to the same by output. Numbers
// are 64-bit floats in base64. Called as: node in_node.js FOLDER PACKAGE, the latter being that of @tensorflow/tfjs.
"use strict";
const { createInterface } = require("node:readline");

console.log = console.info = console.warn = () => {}; // TensorFlow.js greets on standard output

const say = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);
const decoded = ({ shape, text, numbers }) => {
  if (text) return { shape, data: text };
  const bytes = Buffer.from(numbers, "base64");
  return { shape, data: Array.from(new Float64Array(Uint8Array.from(bytes).buffer)) };
};
const encoded = ({ shape, data }) =>
  typeof data[0] === "string"
    ? { shape, text: Array.from(data) }
    : { shape, numbers: Buffer.from(Float64Array.from(data).buffer).toString("base64") };
const each = (record, f) => Object.fromEntries(Object.entries(record).map(([name, value]) => [name, f(value)]));

(async () => {
  const [folder, tfjs] = process.argv.slice(2);
  let model;
  try {
    const tf = require(tfjs);
    await tf.setBackend("cpu");
    model = await require("./page/kerastoolkit.js").load(folder, { tf });
    say({ tfjs: tf.version.tfjs });
  } catch (error) {
    say({ error: String(error.message ?? error) });
    return;
  }
  for await (const line of createInterface({ input: process.stdin })) {
    try {
      say({ answers: each(await model.run(each(JSON.parse(line), decoded)), encoded) });
    } catch (error) {
      say({ error: String(error.message ?? error) });
    }
  }
})();
