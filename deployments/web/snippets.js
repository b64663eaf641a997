// The code that does what the page has just done: with curl, raylens's client and OpenAI's.

const SHOWN = 8; // and the number of the others

const shell = (text) => `'${text.replaceAll("'", "'\\''")}'`;
const python = (text) => JSON.stringify(text); // a JSON string is one of Python, too

/** How curl's -F takes a file's name that may hold its own separators. */
function formFile(name) {
  const isPlain = /^[\w.@+-][\w.@+ -]*$/.test(name);
  const path = isPlain ? name : `"${name.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`;
  return shell(`file=@${path}`);
}

function left(items) {
  const more = items.length - SHOWN;
  return more > 0 ? `  # and ${more} more` : "";
}

function curl(items, { url, model, hasKey }) {
  const files = items.filter((item) => item.file);
  const others = items.filter((item) => !item.file);
  const key = hasKey ? ' \\\n  -H "Authorization: Bearer $RAYLENS_API_KEY"' : "";
  const parts = [];
  if (files.length) {
    const fields = files.slice(0, SHOWN).map((item) => ` \\\n  -F ${formFile(item.name)}`);
    const options = ` \\\n  -F on_error=report -F ${shell(`model=${model}`)}`;
    parts.push(`curl ${url}/v1/embeddings${key}${options}${fields.join("")}${left(files)}`);
  }
  if (others.length) {
    const input = others.slice(0, SHOWN).map((item) => item.input);
    const body = shell(JSON.stringify({ model, on_error: "report", input }));
    parts.push(
      `curl ${url}/v1/embeddings${key} \\\n  -H 'Content-Type: application/json' \\\n  -d ${body}${left(others)}`,
    );
  }
  return parts.join("\n\n");
}

function list(lines, items) {
  const more = items.length - SHOWN;
  const shown = lines.map((line) => `    ${line},\n`).join("");
  return `[\n${shown}${more > 0 ? `    # and ${more} more\n` : ""}]`;
}

function raylens(items, { url, model }) {
  const lines = items.slice(0, SHOWN).map((item) => {
    if (item.file) return `Path(${python(item.name)})`;
    return item.url ? python(item.url) : `{"text": ${python(item.text)}}`;
  });
  const imports = items.slice(0, SHOWN).some((item) => item.file) ? "from pathlib import Path\n\n" : "";
  return `${imports}import raylens

client = raylens.Client(${python(url)})  # its key comes from RAYLENS_API_KEY
items = ${list(lines, items)}
vectors = client.embed(items, model=${python(model)}, errors="return")
`;
}

function openai(items, { url, model, hasKey }) {
  const lines = items.slice(0, SHOWN).map((item) => {
    if (item.file) return `data_uri(${python(item.name)})`;
    return python(item.url ?? item.text);
  });
  const hasFiles = items.slice(0, SHOWN).some((item) => item.file);
  const standard = [hasFiles && "import base64", hasKey && "import os", hasFiles && "from pathlib import Path"];
  const imports = standard.filter(Boolean).map((line) => `${line}\n`).join("");
  const encode = hasFiles
    ? `
def data_uri(path):
    return "data:image/jpeg;base64," + base64.b64encode(Path(path).read_bytes()).decode()

`
    : "";
  const key = hasKey ? 'os.environ["RAYLENS_API_KEY"]' : '"none"';
  return `${imports}${imports && "\n"}from openai import OpenAI
${encode}
client = OpenAI(base_url=${python(`${url}/v1`)}, api_key=${key})
items = ${list(lines, items)}
answer = client.embeddings.create(model=${python(model)}, input=items, extra_body={"on_error": "report"})
vectors = [row.embedding for row in answer.data]
`;
}

export const SNIPPETS = { curl, raylens, openai };
