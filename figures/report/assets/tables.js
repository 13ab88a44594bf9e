// Tables of the page, and the references of figures into them. One function scope with the scripts after it.
const one = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const json = (element) => JSON.parse(element.textContent);
const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};

// ---- Tables: columns, each a list, or distinct values with a code per row (-1: none), or code and length of runs ----
class Table {
  constructor(raw) {
    this.columns = raw.columns;
    this.length = raw.length;
    this.raw = raw.values;
  }
  column(name) {
    const place = this.columns.indexOf(name);
    const values = this.raw[place];
    if (Array.isArray(values)) return values;
    const value = (code) => (code < 0 ? null : values.distinct[code]);
    if (values.codes) return (this.raw[place] = values.codes.map(value));
    const column = new Array(this.length);
    for (let at = 0, row = 0; at < values.runs.length; row += values.runs[at + 1], at += 2) {
      column.fill(value(values.runs[at]), row, row + values.runs[at + 1]);
    }
    return (this.raw[place] = column);
  }
  isNumber(name) {
    const first = this.column(name).find((value) => value !== null);
    return typeof first === "number";
  }
  names() {
    return this.columns.filter((name) => !this.isNumber(name)).flatMap((name) => [...new Set(this.column(name))]);
  }
}
const tables = json(one("#tables")).map((raw) => new Table(raw));
const parts = json(one("#parts"));

// ---- References of a figure, looked up in its table and in the colours of the page ----
// Labels of plotly interpret tags and entities; names are to be shown as they are.
const plain = (value) =>
  typeof value === "string" ? value.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;") : value;
// Parts that figures have in common are put in their place before anything else.
function whole(part) {
  if (Array.isArray(part)) return part.map(whole);
  if (part === null || typeof part !== "object") return part;
  if ("$part" in part) return whole(parts[part.$part]);
  return Object.fromEntries(Object.entries(part).map(([key, value]) => [key, whole(value)]));
}
const inRows = (values, width) => {
  if (!width) return values;
  const rows = [];
  for (let start = 0; start < values.length; start += width) rows.push(values.slice(start, start + width));
  return rows;
};
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
// Colours of tasks, datasets and experts are fixed; those too dark for a dark page are mixed with white.
const channels = (text) => [1, 3, 5].map((start) => parseInt(text.slice(start, start + 2), 16));
const luminance = (rgb) =>
  rgb.map((value) => value / 255).map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)).reduce((sum, value, place) => sum + value * [0.2126, 0.7152, 0.0722][place], 0);
function legible(text) {
  if (document.documentElement.dataset.theme !== "dark") return text;
  const behind = luminance(channels(colour("--surface"))) + 0.05;
  let rgb = channels(text);
  while ((luminance(rgb) + 0.05) / behind < LEAST_CONTRAST) rgb = rgb.map((value) => Math.ceil(value + (255 - value) * 0.08));
  return `#${rgb.map((value) => value.toString(16).padStart(2, "0")).join("")}`;
}
const LEAST_CONTRAST = 4;
// The key that a part stands under says whether a text is a colour: a dataset may be called "#332288".
function look(part, table, images, key = "") {
  if (typeof part === "string") {
    if (key === "ticktext") return part.replace(/(<span style="color:)(#[0-9a-f]{6})/i, (_, before, fixed) => before + legible(fixed));
    if (!/color/i.test(key)) return part;
    if (part.startsWith("var(--")) return colour(part.slice(4, -1));
    return /^#[0-9a-f]{6}$/i.test(part) ? legible(part) : part;
  }
  if (Array.isArray(part)) return part.map((item) => look(item, table, images, key));
  if (part === null || typeof part !== "object") return part;
  if ("$column" in part) {
    const values = table.column(part.$column);
    if (Array.isArray(part.rows)) return values.slice(part.rows[0], part.rows[1]);
    return part.rows.at.map((row) => (row === null ? null : values[row]));
  }
  if ("$grid" in part) return inRows(look(part.$grid, table, images), part.width);
  if ("$zip" in part) {
    const columns = part.$zip.map((item) => look(item, table, images));
    return inRows(columns[0].map((_, row) => columns.map((column) => plain(column[row]))), part.width);
  }
  if ("$ends" in part) {
    const [low, high] = part.$ends.map((item) => look(item, table, images));
    return low.flatMap((value, row) => [value, high[row], null]);
  }
  if ("$image" in part) return images[part.$image];
  return Object.fromEntries(Object.entries(part).map(([name, value]) => [name, look(value, table, images, name)]));
}
function merged(base, patch) {
  if (patch === undefined) return base;
  if (base === null || patch === null || typeof base !== "object" || typeof patch !== "object" || Array.isArray(patch)) return patch;
  const result = { ...base };
  for (const [key, value] of Object.entries(patch)) result[key] = key in base ? merged(base[key], value) : value;
  return result;
}
