"use strict";
(() => {
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

  // ---- Themes ----
  const FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, "Noto Sans", "Liberation Sans", sans-serif';
  function themed(layout) {
    const line = colour("--line");
    const ink = colour("--ink");
    const base = {
      autosize: true,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: FONT, size: 13, color: ink },
      hoverlabel: { bgcolor: colour("--surface"), bordercolor: colour("--muted"), font: { family: FONT, color: ink, size: 13 }, align: "left" },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("--muted"), activecolor: colour("--accent") },
      hovermode: "closest",
    };
    const result = { ...base, ...layout };
    for (const key of Object.keys(layout)) {
      if (/^[xy]axis\d*$/.test(key)) {
        const title = { font: { size: 13, color: colour("--muted") }, ...layout[key].title };
        result[key] = { gridcolor: line, linecolor: line, automargin: true, ...layout[key], title };
      }
    }
    return result;
  }
  const preferred = matchMedia("(prefers-color-scheme: dark)");
  const stored = () => {
    try {
      return localStorage.getItem("tugofwar-theme");
    } catch {
      return null; // a page opened from a file may not remember
    }
  };
  function setTheme(dark) {
    document.documentElement.dataset.theme = dark ? "dark" : "light";
    one("#theme").setAttribute("aria-pressed", String(dark));
  }
  setTheme(stored() ? stored() === "dark" : preferred.matches);

  // ---- Pictures ----
  const NARROW = 620;
  // Paper is narrower than a screen: what a sheet of A4 or Letter leaves between its margins and those of a card.
  const PAPER = 600;
  let printing = false;
  const MODEBAR = ["select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d", "hoverClosest3d", "tableRotation", "resetCameraLastSave3d"];
  // Plotly offers to send a plot to its makers unless it is told not to.
  const ALONE = { showSendToCloud: false, showEditInChartStudio: false, showLink: false, plotlyServerURL: "", topojsonURL: "" };
  const CONFIG = { ...ALONE, displaylogo: false, responsive: false, typesetMath: false, modeBarButtonsToRemove: MODEBAR, showTips: false };
  class Picture {
    constructor(article) {
      this.article = article;
      this.content = json(one("script.content", article));
      this.plot = one(".plot", article);
      this.view = this.content.views[this.content.first];
      this.drawn = false;
      this.selects = [];
      this.makePickers();
      one("details.table", article).addEventListener("toggle", () => this.showTable());
      this.countRows();
    }
    // Choices of a picker are those that exist for what stands before it.
    choices(level) {
      const before = this.view.at.slice(0, level);
      const fitting = this.content.views.filter((view) => before.every((value, place) => view.at[place] === value));
      return [...new Set(fitting.map((view) => view.at[level]))];
    }
    makePickers() {
      const box = one(".pickers", this.article);
      this.content.pickers.forEach((label, level) => {
        if (new Set(this.content.views.map((view) => view.at[level])).size < 2) {
          this.selects.push(null);
          return;
        }
        const select = make("select");
        select.dataset.picker = label;
        select.addEventListener("change", () => this.choose(level, select.value));
        box.append(make("label", {}, label, select));
        this.selects.push(select);
      });
      this.fillPickers();
    }
    fillPickers() {
      this.selects.forEach((select, level) => {
        if (!select) return;
        const values = this.choices(level);
        const same = select.options.length === values.length && values.every((value, place) => select.options[place].value === value);
        if (!same) select.replaceChildren(...values.map((value) => make("option", { value, textContent: value })));
        select.value = this.view.at[level];
        select.disabled = values.length < 2;
      });
    }
    // Go to the view with a choice changed, keeping as many others as there are.
    choose(level, value) {
      const wanted = [...this.view.at];
      wanted[level] = value;
      const fitting = (view) => view.at.slice(0, level + 1).every((item, place) => item === wanted[place]);
      const kept = (view) => {
        let score = 0;
        view.at.forEach((item, place) => (score = score * 2 + (item === wanted[place] ? 1 : 0)));
        return score;
      };
      let candidates = this.content.views.filter(fitting);
      if (!candidates.length) candidates = this.content.views.filter((view) => view.at[level] === value);
      if (candidates.length) this.show(candidates.reduce((best, view) => (kept(view) > kept(best) ? view : best)));
    }
    show(view) {
      this.view = view;
      this.fillPickers();
      this.showText();
      this.countRows();
      if (this.drawn) this.draw();
      this.showTable();
    }
    chooseByLabel(label, value) {
      const level = this.content.pickers.indexOf(label);
      if (level >= 0 && this.view.at[level] !== value) this.choose(level, value);
    }
    showText() {
      const text = this.content.texts[this.view.text];
      one("h3", this.article).textContent = text.title;
      const finding = one(".finding", this.article);
      finding.textContent = text.finding ?? "";
      finding.hidden = !text.finding;
      one(".reading span", this.article).textContent = text.reading;
      one(".caption", this.article).textContent = text.caption;
      const warnings = [...text.warnings, ...this.content.notes];
      const list = one(".warnings", this.article);
      list.replaceChildren(...warnings.map((textContent) => make("li", { textContent })));
      list.hidden = !warnings.length;
    }
    get table() {
      return tables[this.view.table];
    }
    // The figure as plotly takes it, for the width and the theme of now.
    figure() {
      const raw = whole(this.content.figures[this.view.figure]);
      const room = this.article.clientWidth - parseFloat(getComputedStyle(this.article).paddingLeft) * 2;
      const available = printing ? Math.min(room, PAPER) : room;
      const narrow = available < NARROW ? raw.narrow ?? {} : {};
      const data = raw.data.map((trace, place) => merged(trace, narrow.data?.[place]));
      const layout = merged(raw.layout, narrow.layout);
      const width = Math.floor(Math.min(available, raw.widest ?? available));
      return {
        data: look(data, this.table, this.content.images),
        layout: { ...themed(look(layout, this.table, this.content.images)), width },
      };
    }
    draw() {
      this.drawn = true;
      const { data, layout } = this.figure();
      // A rotation or zoom survives a change of theme or width, not a change of view.
      layout.uirevision = this.view.at.join("\u0000") || "only";
      this.plot.style.width = `${layout.width}px`;
      return Plotly.react(this.plot, data, layout, CONFIG).catch((error) => {
        this.plot.replaceChildren(make("p", { className: "failed", textContent: `This browser cannot draw it (${error.message}); the numbers are in the table below.` }));
      });
    }
    countRows() {
      const [start, stop] = this.view.rows;
      one(".rows", this.article).textContent = `${(stop - start).toLocaleString("en")} rows`;
    }
    showTable() {
      const details = one("details.table", this.article);
      if (details.open) new TableBox(one(".inside", details), this);
    }
    // Everything in it that a search may ask for.
    words() {
      const texts = this.content.texts.flatMap((text) => [text.title, text.reading, text.caption, text.finding ?? "", ...text.warnings]);
      const places = [...new Set(this.content.views.map((view) => view.table))];
      const names = places.flatMap((place) => [...tables[place].columns, ...tables[place].names()]);
      const choices = this.content.views.flatMap((view) => view.at);
      return [...new Set([...texts, ...names, ...choices])].join("\n").toLowerCase();
    }
  }

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

  const pictures = all("[data-picture]").map((article) => new Picture(article));

  // ---- Drawn when they come near ----
  const near = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        const picture = pictures.find((item) => item.article === entry.target);
        if (entry.isIntersecting && !picture.drawn) picture.draw();
      }
    },
    { rootMargin: "500px 0px" },
  );
  pictures.forEach((picture) => near.observe(picture.article));
  const redraw = () => pictures.filter((picture) => picture.drawn).forEach((picture) => picture.draw());

  let width = innerWidth;
  let waiting = 0;
  addEventListener("resize", () => {
    if (innerWidth === width) return; // a phone's address bar that comes and goes
    width = innerWidth;
    clearTimeout(waiting);
    waiting = setTimeout(redraw, 150);
  });

  one("#theme").addEventListener("click", () => {
    const dark = document.documentElement.dataset.theme !== "dark";
    setTheme(dark);
    try {
      localStorage.setItem("tugofwar-theme", dark ? "dark" : "light");
    } catch {
      // a page opened from a file may not remember
    }
    redraw();
  });
  preferred.addEventListener("change", () => {
    if (stored()) return;
    setTheme(preferred.matches);
    redraw();
  });
  let before = null;
  addEventListener("beforeprint", () => {
    before = document.documentElement.dataset.theme;
    printing = true;
    setTheme(false);
    pictures.forEach((picture) => picture.draw());
  });
  addEventListener("afterprint", () => {
    printing = false;
    setTheme(before === "dark");
    redraw();
  });

  // ---- One picker for all pictures, where several have it ----
  for (const label of ["Run", "Level"]) {
    const having = pictures.filter((picture) => picture.selects[picture.content.pickers.indexOf(label)]);
    const level = (picture) => picture.content.pickers.indexOf(label);
    const values = [...new Set(having.flatMap((picture) => picture.content.views.map((view) => view.at[level(picture)])))];
    if (having.length < 2) continue;
    const select = make("select", {}, make("option", { value: "", textContent: "as chosen in each" }), ...values.map((value) => make("option", { value, textContent: value })));
    select.dataset.everywhere = label;
    select.addEventListener("change", () => {
      if (select.value) having.forEach((picture) => picture.chooseByLabel(label, select.value));
    });
    one("#everywhere").append(make("label", {}, label, select));
    one("#everywhere").hidden = false;
  }

  // ---- Search ----
  const search = one("#search");
  function searched() {
    return one("#search").value.trim();
  }
  const words = new Map(pictures.map((picture) => [picture, null]));
  function find() {
    const text = searched().toLowerCase();
    let shown = 0;
    for (const picture of pictures) {
      if (words.get(picture) === null) words.set(picture, picture.words());
      const hit = !text || words.get(picture).includes(text);
      picture.article.classList.toggle("filtered", !hit);
      one(`[data-entry="${CSS.escape(picture.content.name)}"]`)?.classList.toggle("filtered", !hit);
      shown += hit;
      picture.showTable();
    }
    let others = 0;
    for (const item of all("[data-search]")) {
      const hit = !text || item.textContent.toLowerCase().includes(text);
      item.classList.toggle("filtered", !hit);
      others += hit;
    }
    for (const run of all(".run")) {
      const name = one("h3", run).textContent.toLowerCase();
      const hit = !text || name.includes(text) || one("[data-search]:not(.filtered)", run);
      run.classList.toggle("filtered", !hit);
      for (const details of all("details", run)) {
        const some = one("[data-search]:not(.filtered)", details);
        details.classList.toggle("filtered", Boolean(text) && !some);
        details.open = Boolean(text) && Boolean(some);
      }
    }
    for (const section of all("main > section")) {
      const some = one(".picture:not(.filtered), .run:not(.filtered), .definitions > :not(.filtered)", section);
      section.classList.toggle("filtered", Boolean(text) && !some);
    }
    one("#found").textContent = text
      ? `${shown} of ${pictures.length} pictures, ${others} definitions and settings match “${searched()}”. Escape clears the search.`
      : "";
  }
  let typing = 0;
  search.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(find, 120);
  });
  search.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      search.value = "";
      find();
    }
  });
  addEventListener("keydown", (event) => {
    const writing = /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName);
    if (event.key === "/" && !writing) {
      event.preventDefault();
      search.focus();
    }
  });

  // ---- Contents ----
  if (innerWidth <= 1000) one("#contents").open = false;
  const links = new Map(all(".contents a").map((link) => [link.getAttribute("href").slice(1), link]));
  const reading = new IntersectionObserver(
    (entries) => {
      for (const entry of entries.filter((item) => item.isIntersecting)) {
        links.forEach((link) => link.removeAttribute("aria-current"));
        links.get(entry.target.id)?.setAttribute("aria-current", "true");
      }
    },
    { rootMargin: "-15% 0px -75% 0px" },
  );
  all("main > section, [data-picture]").filter((item) => links.has(item.id)).forEach((item) => reading.observe(item));
  for (const button of all(".more")) {
    button.addEventListener("click", () => {
      const open = button.parentElement.classList.toggle("all");
      button.setAttribute("aria-expanded", String(open));
      button.textContent = open ? "Show fewer" : button.dataset.all;
    });
    button.dataset.all = button.textContent;
  }
  // A link of a finding or a warning goes to the choices that it speaks of, too.
  for (const link of all("a[data-at]")) {
    const picture = pictures.find((item) => `#${item.article.id}` === link.getAttribute("href"));
    const at = link.dataset.at;
    link.addEventListener("click", () => picture.show(picture.content.views.find((view) => JSON.stringify(view.at) === JSON.stringify(JSON.parse(at)))));
  }
  document.documentElement.dataset.ready = "yes";
})();
