// The same as kerastoolkit.js, for `import { load } from "./kerastoolkit.mjs"`.
import "./kerastoolkit.js";

export const { load } = globalThis.kerastoolkit;
export default globalThis.kerastoolkit;
