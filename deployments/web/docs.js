// Shows /openapi.json: each operation with what it takes and answers, and a form to try it.

import { $, copy, element } from "./dom.js";
import { askForKey, storedKey } from "./key.js";
import { Schemas } from "./schema.js";
import { call, send, serviceUrl } from "./service.js";

const METHODS = ["get", "post", "put", "patch", "delete"];
const MOST_NUMBERS = 6;
const MOST_CHARACTERS = 20_000;

let schemas;

function operation(path, method, described) {
  const id = described.operationId;
  const summary = element(
    "summary",
    {},
    element("span", { class: `method ${method}`, text: method.toUpperCase() }),
    element("code", { text: path }),
    element("span", { class: "quiet", text: described.summary ?? "" }),
  );
  const made = element("details", { id, class: "operation" }, summary);
  made.addEventListener("toggle", () => {
    if (made.open && made.children.length === 1) {
      made.append(details(path, method, described));
      history.replaceState(null, "", `#${id}`);
    }
  });
  return made;
}

function details(path, method, described) {
  const parameters = described.parameters ?? [];
  const content = described.requestBody?.content ?? {};
  const body = content["application/json"]?.schema;
  const parts = [];
  if (described.description) parts.push(element("p", { text: described.description }));
  if (body) parts.push(heading("Body"), fields(schemas.resolve(body)));
  for (const name of body ? schemas.names(schemas.resolve(body)) : []) {
    const outline = schemas.outline({ $ref: `#/components/schemas/${name}` });
    parts.push(disclosure(name, outline, false));
  }
  const others = Object.keys(content).filter((type) => type !== "application/json");
  if (others.length) {
    const may = body ? "A body may also be" : "The body is";
    parts.push(element("p", { class: "quiet", text: `${may} ${others.join(", ")}.` }));
  }
  const own = parameters.filter((one) => !(body && one.in === "query"));
  if (own.length) parts.push(heading("Parameters"), parameterTable(own));
  else if (parameters.length) {
    const names = parameters.map((one) => one.name).join(", ");
    parts.push(element("p", { class: "quiet", text: `In the query string: ${names}.` }));
  }
  parts.push(heading("Try it"), form(path, method, body, own));
  parts.push(heading("Answers"), ...answers(described.responses ?? {}));
  return element("div", { class: "inside" }, ...parts);
}

function disclosure(title, text, open) {
  const summary = element("summary", {}, element("code", { text: title }));
  const shown = element("pre", { tabindex: "0", role: "group", "aria-label": title, text });
  return element("details", { open }, summary, shown);
}

const heading = (text) => element("h3", { text });

function table(heads, rows) {
  const head = element("tr", {}, ...heads.map((text) => element("th", { scope: "col", text })));
  const lines = rows.map(([first, ...cells]) =>
    element(
      "tr",
      {},
      element("th", { scope: "row" }, element("code", { text: first })),
      ...cells.map((cell) => element("td", {}, cell)),
    ),
  );
  const made = element("table", {}, element("thead", {}, head), element("tbody", {}, ...lines));
  return element("div", { class: "scroll described" }, made);
}

function row(name, schema, isRequired, description) {
  const fallback = schema.default ?? null;
  const said = [
    isRequired ? "Required." : "",
    description ?? "",
    fallback === null ? "" : `Default: ${JSON.stringify(fallback)}.`,
  ];
  return [name, element("code", { text: schemas.type(schema) }), said.filter(Boolean).join(" ")];
}

function fields(schema) {
  const required = new Set(schema.required);
  const names = Object.keys(schema.properties ?? {});
  names.sort((a, b) => required.has(b) - required.has(a));
  return table(
    ["Field", "Type", "Meaning"],
    names.map((name) => {
      const found = schema.properties[name];
      return row(name, found, required.has(name), found.description ?? schemas.resolve(found).description);
    }),
  );
}

function parameterTable(parameters) {
  return table(
    ["Parameter", "Type", "Meaning"],
    parameters.map((one) => row(one.name, one.schema ?? {}, one.required, one.description)),
  );
}

function answers(responses) {
  const isOutlined = ([status, answer]) => status.startsWith("2") && answer.content;
  const outlined = Object.entries(responses).filter(isOutlined);
  const listed = Object.entries(responses).filter((one) => !isOutlined(one)); // errors, or no body
  const outlines = outlined.flatMap(([status, answer]) =>
    Object.entries(answer.content).map(([type, { schema }]) =>
      disclosure(
        `${status} ${type}`,
        schema.description ?? schemas.outline(schema),
        type === "application/json",
      ),
    ),
  );
  const rows = listed.map(([status, answer]) => [status, answer.description]);
  return rows.length ? [...outlines, table(["Status", "Meaning"], rows)] : outlines;
}

function form(path, method, body, parameters) {
  const id = `${method}-${path}`;
  const inputs = parameters.map((one) => ({ ...one, input: element("input", { id: `${id}-${one.name}` }) }));
  const area = element("textarea", { id: `${id}-body`, rows: 8, spellcheck: "false", class: "mono" });
  if (body) area.value = JSON.stringify(schemas.example(body), null, 2);
  const button = element("button", { class: "primary", text: "Send" });
  const curl = element("button", { type: "button", class: "plain", text: "Copy curl", "data-copies": `${id}-curl` });
  const shown = element("code", { id: `${id}-curl` });
  const result = element("div", { class: "result", role: "status" });

  const target = () => {
    const url = new URL(
      inputs
        .filter((one) => one.in === "path")
        .reduce((done, one) => done.replace(`{${one.name}}`, one.input.value.split("/").map(encodeURIComponent).join("/")), path)
        .slice(1),
      `${serviceUrl}/`,
    );
    for (const one of inputs) if (one.in === "query" && one.input.value) url.searchParams.set(one.name, one.input.value);
    return url.href;
  };
  const command = () => {
    const parts = [`curl '${target()}'`];
    if (method !== "get") parts.push(`-X ${method.toUpperCase()}`);
    if (storedKey()) parts.push('-H "Authorization: Bearer $RAYLENS_API_KEY"');
    if (body) parts.push("-H 'Content-Type: application/json'", `-d '${area.value.replaceAll("'", "'\\''")}'`);
    return parts.join(" \\\n  ");
  };
  const redraw = () => (shown.textContent = command());
  const made = element(
    "form",
    { oninput: redraw },
    ...inputs.flatMap((one) => [element("label", { for: one.input.id, text: one.name }), one.input]),
    ...(body ? [element("label", { for: area.id, text: "Body" }), area] : []),
    element("pre", { tabindex: "0", role: "group", "aria-label": "As curl" }, shown),
    element("div", { class: "buttons" }, button, curl),
    result,
  );
  curl.addEventListener("click", () => copy(command(), curl));
  made.addEventListener("submit", async (event) => {
    event.preventDefault();
    const headers = body ? { "Content-Type": "application/json" } : {};
    button.disabled = true;
    try {
      const options = { method: method.toUpperCase(), headers, body: body ? area.value : undefined };
      result.replaceChildren(...(await answer(await send(target(), options))));
    } catch (error) {
      result.replaceChildren(element("p", { class: "wrong", text: error.message }));
    }
    button.disabled = false;
    redraw();
  });
  redraw();
  return made;
}

async function answer(response) {
  const text = await response.text();
  let shown = text;
  try {
    shown = pretty(JSON.parse(text));
  } catch {
    // not JSON, so it is shown as it is
  }
  if (shown.length > MOST_CHARACTERS) shown = `${shown.slice(0, MOST_CHARACTERS)} …`;
  const heads = ["x-request-id", "server-timing", "retry-after"]
    .filter((name) => response.headers.has(name))
    .map((name) => `${name}: ${response.headers.get(name)}`);
  const status = element("strong", { class: response.ok ? null : "wrong", text: `HTTP ${response.status}` });
  return [
    element("p", {}, status),
    element("p", { class: "quiet", text: heads.join(" · ") }),
    element("pre", { tabindex: "0", role: "group", "aria-label": "Answer", text: shown }),
  ];
}

/** JSON on several lines, but long rows of numbers on one, and shortened. */
function pretty(value) {
  const shorten = (_, part) => {
    if (!Array.isArray(part) || part.length <= MOST_NUMBERS || typeof part[0] !== "number") return part;
    return `[${part.slice(0, MOST_NUMBERS).join(", ")}, … ${part.length} numbers]`;
  };
  return JSON.stringify(value, shorten, 2).replace(/"(\[[-\d.e, ]+… \d+ numbers\])"/g, "$1");
}

function open() {
  const chosen = document.getElementById(location.hash.slice(1));
  if (chosen?.tagName !== "DETAILS") return;
  chosen.open = true;
  chosen.scrollIntoView();
}

async function begin() {
  let found;
  try {
    found = await (await call("openapi.json")).json();
  } catch (error) {
    $("about").textContent = error.message;
    return;
  }
  schemas = new Schemas(found);
  $("version").textContent = `version ${found.info.version}`;
  $("about").textContent = `${found.info.description} All of it is below ${serviceUrl}.`;
  const made = Object.entries(found.paths).flatMap(([path, operations]) =>
    METHODS.filter((method) => operations[method]).map((method) =>
      operation(path, method, operations[method]),
    ),
  );
  $("operations").replaceChildren(...made);
  open();
}

$("key").addEventListener("click", async () => {
  if ((await askForKey()) && !schemas) begin();
});
addEventListener("hashchange", open);
begin();
