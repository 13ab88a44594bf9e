// A picture with its pickers, drawn by plotly in the page's theme.
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
