// ---- The table below a picture ----
const SHOWN = 200;
const written = (value, whole) => {
  if (value === null) return "undefined";
  if (typeof value !== "number") return String(value);
  if (whole || Number.isInteger(value)) return String(value).replace("-", "−");
  return String(Number(value.toPrecision(5))).replace("-", "−");
};
class TableBox {
  constructor(box, picture) {
    this.box = box;
    this.picture = picture;
    this.table = picture.table;
    const [start, stop] = picture.view.rows;
    this.rows = Array.from({ length: stop - start }, (_, number) => start + number);
    this.sorted = null;
    this.every = false;
    this.filter = make("input", { type: "search", placeholder: "Filter rows", value: searched() });
    this.filter.setAttribute("aria-label", "Filter rows");
    this.filter.addEventListener("input", () => this.fill());
    this.digits = make("input", { type: "checkbox" });
    this.digits.addEventListener("change", () => this.fill());
    const download = make("button", { type: "button", textContent: "Download CSV" });
    download.addEventListener("click", () => this.download());
    this.count = make("span", { className: "quiet" });
    this.count.setAttribute("aria-live", "polite");
    this.head = make("tr");
    this.body = make("tbody");
    for (const name of this.table.columns) {
      const button = make("button", { type: "button", textContent: name.replaceAll("_", " "), title: "Sort" });
      button.addEventListener("click", () => this.sort(name));
      const cell = make("th", { scope: "col" }, button);
      cell.dataset.column = name;
      this.head.append(cell);
    }
    const scroll = make("div", { className: "scroll", tabIndex: 0 }, make("table", {}, make("thead", {}, this.head), this.body));
    scroll.setAttribute("role", "region");
    scroll.setAttribute("aria-label", `Table of ${one("h3", picture.article).textContent}`);
    const tools = make("div", { className: "tools" }, this.filter, make("label", {}, this.digits, "all digits"), download, this.count);
    box.replaceChildren(tools, scroll);
    this.fill();
  }
  matching() {
    const words = this.filter.value.trim().toLowerCase();
    if (!words) return this.rows;
    const columns = this.table.columns.map((name) => this.table.column(name));
    const found = this.rows.filter((row) => columns.some((column) => written(column[row], false).toLowerCase().includes(words)));
    // A search of the page that this table knows nothing of leaves it whole.
    return found.length || words !== searched().toLowerCase() ? found : this.rows;
  }
  sort(name) {
    const up = this.sorted?.name === name ? !this.sorted.up : true;
    this.sorted = { name, up };
    const values = this.table.column(name);
    const order = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a ?? "").localeCompare(String(b ?? ""), "en", { numeric: true }));
    this.rows = [...this.rows].sort((a, b) => (up ? 1 : -1) * order(values[a], values[b]));
    for (const cell of this.head.children) {
      if (cell.dataset.column === name) cell.setAttribute("aria-sort", up ? "ascending" : "descending");
      else cell.removeAttribute("aria-sort");
    }
    this.fill();
  }
  fill() {
    const rows = this.matching();
    const shown = this.every ? rows : rows.slice(0, SHOWN);
    const columns = this.table.columns.map((name) => this.table.column(name));
    this.body.replaceChildren(
      ...shown.map((row) =>
        make("tr", {}, ...columns.map((column) => {
          const value = column[row];
          const number = typeof value === "number";
          return make("td", { textContent: written(value, this.digits.checked), className: number ? "number" : "", title: number ? String(value) : "" });
        })),
      ),
    );
    this.count.textContent = `${rows.length.toLocaleString("en")} of ${this.rows.length.toLocaleString("en")} rows`;
    if (shown.length < rows.length) {
      const more = make("button", { type: "button", textContent: `Show all ${rows.length.toLocaleString("en")}` });
      more.addEventListener("click", () => {
        this.every = true;
        this.fill();
      });
      this.body.append(make("tr", {}, make("td", { colSpan: columns.length }, more)));
    }
  }
  download() {
    const quoted = (value) => (value === null ? "" : /[",\r\n]/.test(String(value)) ? `"${String(value).replaceAll('"', '""')}"` : String(value));
    const columns = this.table.columns.map((name) => this.table.column(name));
    const lines = [this.table.columns, ...this.matching().map((row) => columns.map((column) => column[row]))];
    const blob = new Blob([lines.map((line) => line.map(quoted).join(",") + "\n").join("")], { type: "text/csv" });
    const link = make("a", { href: URL.createObjectURL(blob), download: `${this.picture.content.name}.csv` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }
}
