"use strict";
// The OpenAPI document as a page, with requests to try. Text is set as text, never as HTML.
const element = (name, attributes = {}, ...children) => {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
};
const show = (id) => document.getElementById(id);
let token = "";
const headers = () => (token ? { Authorization: `Bearer ${token}` } : {});

function typeOf(schema) {
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(" or ");
  return schema.type === "array" ? `list of ${typeOf(schema.items ?? {})}` : (schema.type ?? "any");
}

function addColumns(row) {
  const properties = row.properties ?? (row.anyOf ?? []).map((part) => part.properties).find(Boolean) ?? {};
  const lines = Object.entries(properties).map(([name, one]) => element("tr", {}, element("td", {}, name), element("td", {}, typeOf(one)), element("td", {}, one.description ?? "")));
  show("columns").replaceChildren(element("h2", {}, "A row"), element("table", {}, element("tr", {}, element("th", {}, "name"), element("th", {}, "type"), element("th", {}, "")), ...lines));
}

function addPath(path, method, operation) {
  const section = element("section", {}, element("h2", { class: "path" }, `${method.toUpperCase()} ${path}`), element("p", {}, operation.summary ?? ""));
  const output = element("pre", { hidden: "" });
  const example = operation.requestBody?.content?.["application/json"]?.example;
  const body = method === "post" ? element("textarea", { "aria-label": `Body for ${path}` }) : null;
  if (body) {
    body.value = JSON.stringify(example ?? {}, null, 1);
    section.append(body);
  }
  const button = element("button", { type: "button" }, "Send");
  button.addEventListener("click", async () => {
    const options = body ? { method: "POST", headers: { ...headers(), "Content-Type": "application/json" }, body: body.value } : { headers: headers() };
    const answer = await fetch(path.slice(1), options);
    const text = await answer.text();
    output.hidden = false;
    try {
      output.textContent = `${answer.status}\n${JSON.stringify(JSON.parse(text), null, 1)}`;
    } catch {
      output.textContent = `${answer.status}\n${text}`;
    }
  });
  section.append(button, output);
  show("paths").append(section);
}

async function begin() {
  show("error").textContent = "";
  const answer = await fetch("openapi.json", { headers: headers() });
  const content = await answer.json();
  show("token").hidden = answer.status !== 401;
  if (!answer.ok) {
    show("error").textContent = content.error;
    return;
  }
  show("title").textContent = content.info.title;
  show("paths").replaceChildren();
  addColumns(content.components.schemas.Row ?? {});
  for (const [path, methods] of Object.entries(content.paths)) {
    for (const [method, operation] of Object.entries(methods)) addPath(path, method, operation);
  }
}

show("enter").addEventListener("click", () => {
  token = show("secret").value;
  begin();
});
begin();
