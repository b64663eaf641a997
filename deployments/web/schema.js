// What an OpenAPI document says of its types: in a word, as an outline, and as an example.

const DEEPEST = 5;
const SHORT = 60; // characters of an object that fits on one line

/** Reads the schemas of one document. */
export class Schemas {
  constructor(document) {
    this.document = document;
  }

  /** The schema itself, behind any reference. */
  resolve(schema = {}) {
    while (schema.$ref) {
      const parts = schema.$ref.replace("#/", "").split("/");
      schema = parts.reduce((found, part) => found[part], this.document);
    }
    return schema;
  }

  /** Such as `string`, `"a" | "b"` or `Item[]`. */
  type(schema = {}) {
    if (schema.$ref) return schema.$ref.split("/").pop();
    if ("const" in schema) return JSON.stringify(schema.const);
    if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
    const choices = schema.anyOf ?? schema.oneOf;
    if (choices) return this.choices(choices).map((one) => this.type(one)).join(" | ");
    if (schema.type === "array") {
      const of = this.type(schema.items);
      return of.includes(" | ") ? `(${of})[]` : `${of}[]`;
    }
    return [schema.type ?? "any"].flat().join(" | ");
  }

  choices(schemas) {
    return schemas.filter((one) => one.type !== "null");
  }

  /** Looks like JSON, with types for values. */
  outline(schema, indent = "", depth = 0) {
    const found = this.resolve(schema);
    const choices = this.choices(found.anyOf ?? found.oneOf ?? []);
    if (choices.some((one) => this.resolve(one).properties)) {
      return choices.map((one) => this.outline(one, indent, depth)).join(`\n${indent}| `);
    }
    if (found.type === "array" && depth < DEEPEST) {
      return `[${this.outline(found.items, indent, depth + 1)}, …]`;
    }
    if (!found.properties || depth >= DEEPEST) return this.type(schema);
    const inner = `${indent}  `;
    const required = new Set(found.required);
    const lines = Object.entries(found.properties).map(([name, value]) => {
      const mark = required.has(name) ? "" : "?";
      return `"${name}"${mark}: ${this.outline(value, inner, depth + 1)}`;
    });
    const line = `{${lines.join(", ")}}`;
    if (line.length < SHORT && !line.includes("\n")) return line;
    return `{\n${lines.map((one) => inner + one).join(",\n")}\n${indent}}`;
  }

  /** The names of the schemas that this one refers to. */
  names(schema) {
    const refs = JSON.stringify(schema).matchAll(/"#\/components\/schemas\/(\w+)"/g);
    return [...new Set([...refs].map(([, name]) => name))];
  }

  /** A value with what is required. */
  example(schema) {
    const found = this.resolve(schema);
    if (found.examples) return found.examples[0];
    if ("const" in found) return found.const;
    if (found.enum) return found.enum[0];
    if (found.type === "object" || found.properties) {
      const names = found.required ?? found.oneOf?.[0].required ?? [];
      return Object.fromEntries(names.map((name) => [name, this.example(found.properties[name])]));
    }
    const choices = found.anyOf ?? found.oneOf;
    if (choices) return this.example(this.choices(choices)[0]);
    if (found.type === "array") return [this.example(found.items)];
    return { string: "string", integer: 1, number: 1, boolean: true }[found.type] ?? null;
  }
}
